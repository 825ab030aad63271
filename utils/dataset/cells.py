"""Reads a table as texts: a CSV file, or a sheet of a workbook. Ambiguous content is a `DataError` that names the line.

A CSV file is in UTF-8, with or without a byte order mark. Its lines end with LF, CR LF or CR, and its cells may be
quoted.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.dataset.sheets import WORKBOOK_SUFFIXES, sheet_rows
from utils.errors import DataError, read_bytes, reason

MAX_TABLE = 2**24  # bytes: 100,000 clips
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MARKS = {  # first bytes of other formats
    codecs.BOM_UTF16_LE: "UTF-16 or UTF-32",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"PK\x03\x04": "a zip archive or a workbook",
}
AS_CSV = "save it as CSV, comma-separated, in UTF-8"
FIX_QUOTES = "close its quotes, or remove them"


def read_cells(path: Path, skip_rows: int = 0, sheet: str = "") -> pd.DataFrame:
    """All cells as texts without surrounding spaces; the index is the number of each row's line in the file.

    skip_rows: number of lines above the column names; sheet: name of a workbook's sheet, by default its first one.
    Lines without text are left out, and so are columns without a name and text: spreadsheets write both.
    Raises DataError for another encoding or separator, for quotes that do not close, and for a line that has more or
    fewer cells than there are column names.
    """
    is_workbook = path.suffix.lower() in (*WORKBOOK_SUFFIXES, ".xls")
    rows = sheet_rows(path, sheet) if is_workbook else _csv_rows(path)
    rows = ((line, row) for line, row in rows if line > skip_rows)
    _, names = next(rows, (0, []))
    if not names:
        raise DataError.at(path, "the table is empty", "give a line of column names, and one row per clip")
    for separator, words in OTHER_SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise DataError.at(path, f"its columns are separated by {words} ({separator!r})", AS_CSV)
    body = {}
    for line, row in rows:
        if is_workbook:  # a row of a sheet ends with its last text
            row = row + [""] * (len(names) - len(row))
        if not any(row[len(names) :]):
            row = row[: len(names)]
        if len(row) != len(names):
            fault = f"it has {len(row)} cells, and the first line has {len(names)} columns"
            raise DataError.at(f"{path}, line {line}", fault, "give one cell per column")
        body[line] = row
    table = pd.DataFrame(list(body.values()), index=list(body), columns=names, dtype=str)
    return table.loc[:, [bool(name) or any(column) for name, column in zip(names, table.T.to_numpy(), strict=True)]]


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each line that has text: its number, and its cells without surrounding spaces."""
    lines = csv.reader(io.StringIO(_csv_text(path), newline=""), skipinitialspace=True, strict=True)
    number = 0
    while True:
        try:
            row = next(lines, None)
        except csv.Error as error:
            fault = f"the table cannot be read ({error})"
            raise DataError.at(f"{path}, line {number + 1}", fault, FIX_QUOTES) from error
        if row is None:
            return
        if lines.line_num > number + 1 or any("\n" in cell or "\r" in cell for cell in row):
            raise DataError.at(f"{path}, line {number + 1}", "a cell continues in the next line", FIX_QUOTES)
        number, row = lines.line_num, [cell.strip() for cell in row]
        if any(row):
            yield number, row


def _csv_text(path: Path) -> str:
    content = read_bytes(path, "the table", MAX_TABLE)
    for mark, kind in MARKS.items():
        if content.startswith(mark):
            raise DataError.at(path, f"the table cannot be read (it is {kind})", AS_CSV)
    if b"\0" in content:
        fault = f"the table cannot be read (a NUL byte at {content.index(0)}: damage, or another encoding)"
        raise DataError.at(path, fault, AS_CSV)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError.at(path, f"the table cannot be read ({reason(error)})", AS_CSV) from error
