"""Dual-view optical flow for 4D micro-expression recognition: what the notebooks call.

Imports go one way. The ground, on which all may stand: `paths`, `errors`, `config`, `code_hash`, `artefacts`,
`progress`, `parallel`. Then, each importing only what stands before it: `dataset` (what lies on disk), `render` (two
views), `flow` (flow, apex, features), `train` (the network), `synthetic` (the face model and the data made from it),
`pipeline` (stages 01 and 02), `evaluate` (scores on held-out people), `provenance`, `report` (what a person reads).
The commands: `make_data`, `check`, `predict`, `run`. The laboratory, `lab`, made the shipped weights and measures all
of this; nothing else imports it.
"""
