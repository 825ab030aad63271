"""03: the network on held-out subjects.

Read `network`, `settings`, `augment`, `fit`, `fitted`; `decision` (thresholds), `protocol` (folds), `scores`,
`baselines`; `stacking` (how several learners are averaged) and `conformal` (answers that may abstain).
"""
