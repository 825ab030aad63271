"""Stage 01: cropped views from meshes, from composites of two cameras, and from the pictures of one camera.

Read `view_set` (the result), `camera`, `renderer`, `crops`, `faces`, `axes` (which way a mesh looks), `pictures`, then
`views`.
"""
