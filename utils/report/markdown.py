"""Tables in Markdown: the one place that writes them."""

import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """The table without its index, a line per row; values as `str` shows them."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [table.columns, *table.to_numpy()]]
    return "\n".join([lines[0], "|" + "---|" * table.shape[1], *lines[1:]])


def cell(value: object) -> str:
    """A number with three significant digits, nothing for what is missing."""
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
