"""Training of the weights under `utils/weights`, on synthetic faces alone.

Flow network: read `flow_clips`, `flow_lessons`, `flow_degradation`, `train_flow`.
Classifiers: read `motion_fields`, `flow_noise`, `frontal`, `classifier`.
"""
