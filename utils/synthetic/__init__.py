"""Synthetic 4D faces.

Read `performance`, `photography`, then `data_root` (the challenge, which `__main__` makes) and `flow_clips` (clips with
exact flow).
"""
