"""Reads a table as texts, strictly: what could be meant in two ways is a `DataError` with the line.

A comma-separated file, or a sheet of a workbook. The file is in UTF-8, with or without a byte order mark; its lines end
in any of the three usual ways; its cells may stand in double quotes.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.dataset.sheets import AS_XLSX, WORKBOOK_SUFFIXES, sheet_rows
from utils.errors import DataError, read_bytes, reason

MAX_TABLE = 2**24  # bytes: 100,000 clips
MAX_COLUMNS = 1000
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MARKS = {  # longest first, since one begins like another
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"PK\x03\x04": "a zip archive or a workbook",
}
AS_CSV = "save it as CSV, comma-separated, in UTF-8"
UNQUOTE = "close its quotes, or drop them"


def read_cells(path: Path, skip_rows: int = 0, sheet: str = "") -> pd.DataFrame:
    """All cells as texts without spaces around them, columns by their names, rows by their line in the file.

    skip_rows: lines before that of the names; sheet: of a workbook, by default its first. Left out are lines without
    any text, and columns without a name and any text (spreadsheets write both). Raises DataError for another encoding
    or separator, quotes that do not close, lines of other lengths than the first.
    """
    workbook = path.suffix.lower() in WORKBOOK_SUFFIXES
    if path.suffix.lower() == ".xls":
        raise DataError.at(path, "it is a workbook of an old kind", AS_XLSX)
    rows = sheet_rows(path, sheet) if workbook else _rows(path, _text(path, read_bytes(path, "the table", MAX_TABLE)))
    rows = ((line, row) for line, row in rows if line > skip_rows)
    line, names = next(rows, (1, []))
    _check_header(path, names)
    body = {}
    for line, row in rows:
        if workbook and len(row) < len(names):  # a row of a sheet ends with its last text
            row = row + [""] * (len(names) - len(row))
        if len(row) > len(names) and not any(row[len(names) :]):
            row = row[: len(names)]
        if len(row) != len(names):
            fault = f"it has {len(row)} cells, and the first line {len(names)} columns"
            raise DataError.at(f"{path}, line {line}", fault, "give one cell per column")
        body[line] = row
    table = pd.DataFrame(list(body.values()), index=list(body), columns=names, dtype=str)
    return table.loc[
        :, [bool(name) or (column != "").any() for name, column in zip(names, table.T.to_numpy(), strict=True)]
    ]


def _text(path: Path, content: bytes) -> str:
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


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not blank, with its number, as cells without spaces around them; cells end in their line."""
    last, lines = 0, csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        try:
            row = next(lines, None)
        except csv.Error as error:
            fault = f"the table cannot be read ({error})"
            raise DataError.at(f"{path}, line {last + 1}", fault, UNQUOTE) from error
        if row is None:
            return
        if lines.line_num > last + 1 or any("\n" in cell or "\r" in cell for cell in row):
            raise DataError.at(f"{path}, line {last + 1}", "a cell goes on in the next line", UNQUOTE)
        last, row = lines.line_num, [cell.strip() for cell in row]
        if any(row):
            yield last, row


def _check_header(path: Path, names: list[str]) -> None:
    if not names:
        raise DataError.at(path, "the table is empty", "give a line of column names, and one row per clip")
    if len(names) > MAX_COLUMNS:
        raise DataError.at(path, f"it has {len(names)} columns, more than {MAX_COLUMNS}", AS_CSV)
    if len(names) == 1:
        for separator, words in OTHER_SEPARATORS.items():
            if separator in names[0]:
                raise DataError.at(path, f"its columns are separated by {words} ({separator!r})", AS_CSV)
