"""03 and 04: scores on held-out people.

Read `protocol` (folds, held-out predictions), `scores` (with intervals), `held_out` (what 03 scores and 05 submits),
`rows` (names in the results table), `baselines`, `ablation` with `other_inputs`. `measure` holds flow and apex against
the truth, `explain` says why a network decided, `conformal` lets an answer abstain.
"""
