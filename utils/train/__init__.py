"""03: the network.

Read `samples` (its input), `network`, `settings`, `augment`, `fit`, `ensemble` (trained networks and their files),
`decision` (thresholds), `estimator` (the interface of every model), `shipped` (weights that synthetic motion taught),
`units_first` (emotions from action units), `stacking` (the weighted average of several learners).
"""
