"""What makes the weights that ship.

The flow network: `flow_clips`, `flow_lessons`, `flow_degradation`, `train_flow`; `lesson_figure` shows its lessons.
The classifiers: `motion_fields`, `flow_noise`, `frontal`, then `classifier`.
"""
