"""03: the network.

Read `samples` (its input), `network`, `settings`, `augment`, `fit`, `ensemble` (trained networks and their files),
`decision` (thresholds), `estimator` (the interface of all that learns), `shipped` (weights taught by synthetic
motion), `units_first` (emotions by way of action units), `stacking` (several learners averaged).
"""
