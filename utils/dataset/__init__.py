"""Reads everything that lies on disk, and writes sequences.

- Files of one frame: `images`, `geometry` (checks of every mesh), `mesh_parts` (shared by the mesh formats),
  `wavefront`, `gltf`, `meshes` (any of the formats), `clip_file` (the compact `clip.npz`), `videos`.
- A sequence: `sequence` (its interface), `numbering` (the order of its frames), `readers` (one class per form),
  `writers`.
- A data root: `cells` and `sheets` (the texts of a table), `layout` and its `presets`, `labels`, `folders`, `databases`
  (other databases than the challenge), `tables` (the checked root), `boxes` (crops that the user gives).
"""
