"""Figures, a module for each notebook: `render`, `flow`, `train`, `ablation`, `submit`; `predict` is for one clip.

`common` holds the colours and `save_figure`.
"""
