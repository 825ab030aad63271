"""03 and 04: scores on held-out people.

Read `protocol` (folds, held-out predictions), `scores` (with intervals), `held_out` (what 03 scores and 05 submits),
`rows` (names in the results table), `baselines`, `ablation` and its inputs (`other_inputs`, `paper`). `measure`
compares flow and apex with the truth, `explain` shows why a network decided, `conformal` lets an answer abstain.
"""
