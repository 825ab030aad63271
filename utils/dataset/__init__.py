"""What lies on disk, and every reader of it.

Read `files` (one file), `sequences` (one Id), `tables` (the data root), `samples` (the network's input).
"""
