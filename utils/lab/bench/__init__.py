"""Ours against what one would otherwise write, in one run: `make bench`.

Read `setting` and `cluster`, then `flow`, `photographs`, `real_skin`, `render`, `stages`, `training`;
`__main__` runs them.
"""
