"""01: from meshes, composites and pictures of one camera to cropped views.

Read `view_set` (what comes out), `camera`, `renderer`, `crops`, `faces`, `axes` (which way a mesh looks), `pictures`,
then `views`.
"""
