"""The face model.

Read `model` (geometry, people, units), `expressions` (how it moves) with `unit_names`, `skin`; `build_asset` makes
the file that `model` reads. Then face models that a user brings: `blend_shapes`, laid upon ours by `registration`.
"""
