"""01: from meshes, composites and pictures of one camera to cropped views.

Read `camera`, `renderer`, `crops`, `faces`, `axes` (which way a mesh looks), `pictures`, then `views`.
"""
