"""The figures of the notebooks: `render` (01), `flow` (02), `train` (03), `ablation` (04) and `submit` (05).

`predict` draws the answer to one clip, `mesh` the mesh of a frame. `common` has the colours and names that all figures
share, and `save_figure`.
"""
