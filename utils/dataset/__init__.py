"""What lies on disk, and every reader of it.

Read `reading` (the boundary: bounded reads, and what every fault becomes), `images`, `geometry` (what a mesh must be),
`clips`, `mesh_parts` (what the formats of meshes share), `wavefront` and `gltf` (two formats), `meshes` (any of them),
`videos`, `numbering` (whose turn a file is), `sequence` (what all forms of one Id share) and `sequences` (each form),
`cells` and `sheets` (a table's texts), `layout` with `presets`, `labels`, `folders`, `listed` and `tables` (the data
root), `samples` (the network's input).
"""
