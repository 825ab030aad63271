"""Stage 02: the flow between two frames, the apex of a clip, and the input of the network.

Read `methods` (all flow methods by name), `classical`, `faceflow` with `faceflow_net`, then `apex` and `features`.
`truth` computes the exact flow of a mesh, `strain` the optical strain of a flow.
"""
