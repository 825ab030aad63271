"""02: from two frames to flow, from flow to the apex and the features.

Read `methods` (the registry), `classical`, `faceflow` with `faceflow_net`, then `apex`, `features`; `truth` is the
exact flow of a mesh, `strain` the optical strain of a flow.
"""
