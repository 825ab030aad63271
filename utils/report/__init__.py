"""What a person reads.

Read `plots` (with `mesh_picture`), `film`, `record`, `submission`; `data_card` describes the data; `page` is
what a run ends in, with `wrong_clips` and `embedded` pictures; `readme` fills the tables of the documents, which
`markdown` writes; `reproduce` repeats a run from its record; `viewer` is for a person's own hands.
"""
