"""The laboratory: what made the shipped weights, and what measures. It imports the product, which never imports it.

- `teachers` and `build_face_model` make the files under `utils/weights` and `utils/assets`.
- `bench` measures speed, memory and accuracy against other code; `kills` kills runs and looks at what they leave.
- `flow_images` scores the flow images that the field shares (`shared_files`, `shared_image`), with `crop_match`;
  `audit` (with `htnet`) measures the price of a leak on them, `robustness` what is lost on clips seen otherwise.
- `other_face_model` compares the learners on people of another face model.
- `tables` is the one form of all these results, `figures` draws them, `readme` writes them into README.md and
  RESULTS.md.

NOTES.md lists what was tried and dropped.
"""
