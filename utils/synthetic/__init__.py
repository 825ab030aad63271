"""The face model, and the synthetic 4D faces made from it.

Read `face_model` (geometry, people), `action_units`, `expressions` (how a face moves), `skin`; then `performance` (what
a person of a clip does), `photography`, `data_root` (the challenge), `truth` (what really happened in it). A face model
of the user's own: `blend_shapes`, laid upon ours by `registration`.
"""
