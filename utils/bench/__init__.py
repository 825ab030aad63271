"""Ours against what one would otherwise write, in one run.

Read `setting`, then `flow`, `render`, `stages`, `training`; `__main__` runs them.
"""
