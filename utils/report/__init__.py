"""What a person reads.

Read `plots` (with `mesh_picture`), `film`, `record`, `submission`; `data_card` describes the data, `readme` fills the
tables of the documents, which `markdown` writes.
"""
