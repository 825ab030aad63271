"""Tables in Markdown: the one place that writes them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from utils.config import PROFILES
from utils.evaluate.rows import SCRATCH


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


def scores_with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Variants of `ablation.csv` with macro-UF1 and its paired difference to SCRATCH, as texts."""
    differences = [
        "" if row["variant"] == SCRATCH else _signed([row[f"difference{end}"] for end in ("", "_low", "_high")])
        for _, row in table.iterrows()
    ]
    columns = {
        "variant": table["variant"],
        "macro-UF1 [95%]": [_span(row) for _, row in table.iterrows()],
        "difference to ours, from scratch [95%]": differences,
    }
    return pd.DataFrame(columns)


def _span(row: Mapping[str, float]) -> str:
    return f"{row['macro_uf1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _signed(span: Iterable[float]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*span)


def run_command(target: str, run: str, record: Mapping[str, Any]) -> str:
    """The make command whose run has the record's parameters, so that nobody has to remember them."""
    parameters = record["parameters"]
    usual = PROFILES[parameters["profile"]].record
    changed = [f"{name}={value}" for name, value in parameters.items() if name != "jobs" and value != usual.get(name)]
    words = [f"make {target}", f"PROFILE={parameters['profile']}"]
    words += [f'SET="{" ".join(changed)}"'] if changed else []
    face_model = record.get("data", {}).get("face_model")
    words += [f"FACE_MODEL=.../{face_model}"] if face_model else []
    own = f"{parameters['profile']}-{face_model}" if face_model else parameters["profile"]
    return " ".join(words + ([f"RUN={run}"] if run != own else []))


def short_commit(commit: str) -> str:
    """Seven digits of a commit, and whether files were changed since."""
    name, dirty, _ = commit.partition("-dirty")
    return name[:7] + (" with changes that it lacks" if dirty else "")
