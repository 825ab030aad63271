"""03: the network on held-out subjects.

Read `network`, `settings`, `augment`, `fit`, `fitted`; `decision` (thresholds), `protocol` (folds),
`stacking` (how several learners are averaged), `scores`, `baselines`.
"""
