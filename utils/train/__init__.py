"""03: the network on held-out subjects.

Read `network`, `settings`, `augment`, `fit`, `fitted`; `decision` (thresholds), `protocol` (folds), `scores`,
`baselines`; `blend` (an average of several ways of training) and `conformal` (answers that may abstain).
"""
