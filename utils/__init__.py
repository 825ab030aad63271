"""Dual-view optical flow for 4D micro-expressions: the code behind the notebooks.

Ground: `paths`, `config`, `artefacts` with `code_hash`, `progress`, `parallel`. Then, in the order of the imports, each
folder using those before it: `dataset`, `face`, `render`, `train`, `flow`, `report`, `pipeline` (stages 01 and 02 over
all clips), `synthetic`, `pretrain`, `experiments`, `check` (a look at a data root), `predict` (one clip), `bench`.
"""
