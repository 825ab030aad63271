"""What a person reads.

`figures` (a module for each notebook, with `mesh_picture`), `film`, `viewer` (in JupyterLab), `tables`, `record`,
`submission`, `data_card` (describes the data); `page` is what a run ends in, with `wrong_clips` and `embedded`
pictures; `reproduce` repeats a run from its record.
"""
