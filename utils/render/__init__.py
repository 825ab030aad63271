"""01: from meshes, composites and pictures of one camera to cropped views.

Read `camera`, `renderer`, `crops`, `pictures`, then `views`.
"""
