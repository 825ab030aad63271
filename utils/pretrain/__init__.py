"""What makes the weights that ship.

Flow network: `flow_lessons`, `flow_degradation`, `train_flow`. Classifiers: `motion_fields`, `flow_noise`, `frontal`,
then `classifier`.
"""
