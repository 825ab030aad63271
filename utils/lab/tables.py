"""The one form of the laboratory's results: a tidy table, which is printed, stored, and laid out for the documents.

A row is one measured value. Some columns say what was measured (network, frames, measure, ...); `value` is the result,
`low` and `high` are the bounds of its 95% interval, `n` is the number of clips or repetitions behind it. `unit` is
"difference" where a score is compared with another one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.artefacts import atomic_path, plain, read_artefact
from utils.evaluate.scores import Interval
from utils.report.record import run_record
from utils.report.tables import cell, markdown_table, signed

SPAN = ["value", "low", "high"]


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table. An `Interval` named `value` fills the columns `value`, `low` and `high`; one with another name,
    such as `lead`, fills `lead`, `lead_low` and `lead_high`."""
    return pd.DataFrame([dict(_cells(row)) for row in rows])


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Interval):
            prefix = "" if name == "value" else f"{name}_"
            yield from ((name, value.value), (f"{prefix}low", value.low), (f"{prefix}high", value.high))
        else:
            yield name, value


def interval_texts(table: pd.DataFrame) -> list[str]:
    """Each value with its interval, such as "0.787 [0.703, 0.876]"; a difference has a sign."""
    return [
        signed(span) if unit == "difference" else str(Interval(*span))
        for *span, unit in table[[*SPAN, "unit"]].to_numpy()
    ]


def wide(table: pd.DataFrame, texts: Iterable[str], index: str | list[str], columns: str) -> pd.DataFrame:
    """A tidy table laid out with a line for each value of `index` and a column for each value of `columns`, in the
    order of the table. texts: what stands for each row."""
    table = table.assign(text=texts).pivot_table("text", index, columns, aggfunc="first", sort=False, fill_value="")
    return table.reset_index().rename_axis(columns=None)


def as_markdown(table: pd.DataFrame) -> str:
    """A table in Markdown: numbers have three significant digits; empty columns and the section are left out."""
    if table.empty:
        return "(nothing was measured here)"
    table = table.drop(columns="section", errors="ignore").dropna(axis=1, how="all")
    return markdown_table(table.map(cell).rename(columns=lambda name: name.replace("_", " ")))


def publish(table: pd.DataFrame, across: str, parameters: Mapping[str, Any], path: str | None) -> None:
    """Print a table of scores with a column for each value of `across`. If a path is given, store the table there with
    the record of the run; the path "-" prints that file instead of the table."""
    if path != "-":
        index = [name for name in table if name not in (*SPAN, "unit", across)]
        print(as_markdown(wide(table, interval_texts(table), index, across)))
    if path:
        store(table, run_record(parameters, parameters.get("seed", 0), {}), path)


def store(table: pd.DataFrame, record: Mapping[str, Any], path: str | Path) -> None:
    """Write the record of a run as JSON, with the table as its `rows`; the path "-" is the standard output."""
    text = json.dumps(plain({**record, "rows": table.to_dict("records")}), indent=1, allow_nan=False) + "\n"
    if path == "-":
        print(text, end="")
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table that `store` wrote, and the record of its run."""
    record = read_artefact(path)
    return pd.DataFrame(record.pop("rows")), record
