"""What lies on disk, and every reader of it.

Read `reading` (the boundary: bounded reads, and what every fault becomes), `images`, `geometry` (what a mesh must be),
`clips`, `mesh_parts` (what the formats of meshes share), `wavefront` and `gltf` (two formats), `meshes` (any of them),
`sequences` (one Id), `cells` (a CSV file) and `tables` (the data root), `samples` (the network's input).
"""
