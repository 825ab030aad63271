"""03: the network on held-out subjects.

Read `network`, `settings`, `augment`, `fit`, `fitted`; `decision` (thresholds), `protocol` (folds), `scores`,
`baselines`, `htnet`; `stacking` (how several learners are averaged), `crop_match` (the crop that a taught network
knows), `units_first` (emotions by way of action units) and `conformal` (answers that may abstain).
"""
