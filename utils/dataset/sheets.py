"""Reads a sheet of an Excel workbook (.xlsx) as rows of texts, as `cells` reads the lines of a CSV file.

A workbook is a zip archive of XML files. Its unpacked size is bounded before it is parsed, and links to other files are
not followed. Formulas are not computed: their saved values are read.
"""

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path

from utils.errors import DataError, check_regular, reading

WORKBOOK_SUFFIXES = (".xlsx", ".xlsm")
MAX_WORKBOOK, MAX_UNPACKED, MAX_MEMBERS = 2**26, 2**26, 2000  # bytes of the file, unpacked bytes, files in the archive
MAX_ROWS, MAX_WIDTH, MAX_CELLS = 200_000, 1000, 20_000_000
AS_XLSX = "save it as an Excel workbook (.xlsx) again, or as CSV"


def sheet_rows(path: Path, sheet: str = "") -> Iterator[tuple[int, list[str]]]:
    """Each row that has text: its number, and its cells as texts without surrounding spaces.

    sheet: name of the sheet, by default the first one. Whole numbers come without a fraction, dates as YYYY-MM-DD.
    Raises DataError for a file that is no workbook, has a password, is absurdly large, or has no such sheet.
    """
    with reading(path, "the workbook", AS_XLSX):
        check_regular(path, MAX_WORKBOOK)
        with path.open("rb") as handle:
            if handle.read(4) == b"\xd0\xcf\x11\xe0":
                raise DataError.at(path, "it is an old workbook (.xls), or one with a password", AS_XLSX)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED:
            raise DataError.at(path, f"it unpacks to more than {MAX_UNPACKED} bytes", "keep the table alone in it")
        rows = list(_rows(path, sheet))
    yield from rows


def _rows(path: Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        names = [page.title for page in book.worksheets]
        if not names or (sheet and sheet not in names):
            raise DataError.at(path, f"it has no sheet {sheet!r}", f"name one of {', '.join(names) or 'its own'}")
        page = book[sheet or names[0]]
        page.reset_dimensions()  # the size that the file declares may be wrong
        n_cells = 0
        for number, row in enumerate(page.iter_rows(values_only=True), 1):
            n_cells += len(row) + 1
            if number > MAX_ROWS or n_cells > MAX_CELLS:
                raise DataError.at(path, f"it has more than {MAX_ROWS} rows", "keep the rows of the clips alone")
            texts = [_text(value) for value in row]
            while texts and not texts[-1]:
                texts.pop()
            if len(texts) > MAX_WIDTH:
                raise DataError.at(path, f"row {number} has {len(texts)} cells", "keep the columns of the table alone")
            if texts:
                yield number, texts
    finally:
        book.close()


def _text(value: object) -> str:
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    return "" if value is None else " ".join(str(value).split())
