"""01: from meshes and composites to two cropped views.

Read `camera`, `renderer`, then `views`.
"""
