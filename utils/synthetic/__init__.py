"""The face model, and the synthetic 4D faces made from it.

Read `face_model` (geometry and people), `action_units`, `expressions` (how a face moves) and `skin` first; then
`performance` (what the person of a clip does), `photography`, `data_root` (the challenge) and `truth` (what truly
happens in its clips). `blend_shapes` reads a user's own face model, and `registration` aligns it with ours.
"""
