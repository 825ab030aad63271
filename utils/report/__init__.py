"""What a person reads: figures, tables, films, and the page of a run.

`figures` has a module for each notebook. `film` writes films, `tables` writes
Markdown, `viewer` shows clips in JupyterLab, and `data_card` describes a data root. `submission` writes the
submission file and scores it, `record` writes run.json, and `reproduce` repeats a run from it. `page` writes the page
at the end of a run; `wrong_clips` and `embedded` prepare its pictures.
"""
