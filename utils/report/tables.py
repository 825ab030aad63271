"""Tables in Markdown, and the texts in them: numbers, intervals, commands, commits."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from utils.config import PROFILES
from utils.evaluate.rows import SCRATCH


def markdown_table(table: pd.DataFrame) -> str:
    """A table without its index; values as `str` shows them."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [table.columns, *table.to_numpy()]]
    return "\n".join([lines[0], "|" + "---|" * table.shape[1], *lines[1:]])


def cell(value: object) -> str:
    """A float with three significant digits, "" if it is missing; any other value as `str` shows it."""
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def scores_with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The variants of `ablation.csv` with macro-UF1 and its paired difference to SCRATCH, as texts."""
    rows = [row for _, row in table.iterrows()]
    columns = {
        "variant": table["variant"],
        "macro-UF1 [95%]": [score_span(row) for row in rows],
        f"difference to {SCRATCH} [95%]": [
            "" if row["variant"] == SCRATCH else signed(row[f"difference{end}"] for end in ("", "_low", "_high"))
            for row in rows
        ],
    }
    return pd.DataFrame(columns)


def score_span(row: Mapping[str, float]) -> str:
    return f"{row['macro_uf1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def signed(span: Iterable[float]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*span)


def run_command(target: str, run: str, record: Mapping[str, Any]) -> str:
    """The make command that runs a target with the parameters of a record."""
    parameters = record["parameters"]
    profile, face_model = parameters["profile"], record.get("data", {}).get("face_model")
    defaults = PROFILES[profile].record
    changed = [
        f"{name}={value}" for name, value in parameters.items() if name != "jobs" and value != defaults.get(name)
    ]
    words = [f"make {target}", f"PROFILE={profile}"]
    words += [f'SET="{" ".join(changed)}"'] if changed else []
    words += [f"FACE_MODEL=.../{face_model}"] if face_model else []
    words += [f"RUN={run}"] if run != (f"{profile}-{face_model}" if face_model else profile) else []
    return " ".join(words)


def short_commit(commit: str) -> str:
    """Seven digits of a commit, and whether files had changed since it."""
    name, dirty, _ = commit.partition("-dirty")
    return name[:7] + (" with changes that it lacks" if dirty else "")
