"""Ours against what one would otherwise write, in one run.

Read `setting` and `cluster`, then `flow`, `photographs`, `real_clips`, `real_skin` and `lesson_figure`, `render`,
`stages`, `training`; `__main__` runs them. `kills` stands alone: it kills runs, and looks at what they leave.
"""
