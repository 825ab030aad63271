"""What lies on disk, and every reader of it.

- Files of one frame: `images`, `geometry` (what a mesh must be), `mesh_parts` (what the mesh formats share),
  `wavefront`, `gltf`, `meshes` (any of them), `clip_file` (the compact `clip.npz`), `videos`.
- A sequence: `sequence` (its interface), `numbering` (the order of its frames), `readers` (each form), `writers`.
- A data root: `cells` and `sheets` (the texts of a table), `layout` with `presets`, `labels`, `folders`, `databases`
  (other databases than the challenge), `tables` (the checked root), `boxes` (crops that the user gives).
"""
