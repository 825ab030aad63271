"""What 03 to 05 run on finished features, and the same protocol on real flow images.

Read `held_out`, `ablation`, `other_inputs`, `other_world`; `measure` holds against the truth, `explain` says why,
`flow_images` scores real clips, and writes any, in the files of `shared_files`; `audit` prices a leak on them, and
`robustness` says what is lost where clips are seen otherwise.
"""
