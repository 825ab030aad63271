"""Facts about reading a CSV file: the forms that are read, and the refusals with line and remedy."""

import codecs

import pytest

from utils.dataset.cells import read_cells
from utils.errors import DataError

PLAIN = "Id,subject,Note\n007, s1 ,é\n008,s2,\n"


@pytest.fixture
def read(tmp_path):
    def written(content):
        (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return read_cells(tmp_path / "t.csv")

    return written


def cells(table):
    return [table.columns.tolist(), *table.to_numpy().tolist()]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        "\n" + PLAIN.replace("\n", "\n\n"),
        codecs.BOM_UTF8 + PLAIN.encode(),
        PLAIN.replace("007, s1 ", '"007", "s1"'),
        PLAIN.replace("\n", ",,\n"),
        PLAIN + ",,\n,,\n",
        PLAIN.replace("008,s2,\n", "008,s2,,\n"),
    ],
)
def test_all_usual_forms_of_a_csv_file_give_the_same_cells(read, content):
    assert cells(read(content)) == [["Id", "subject", "Note"], ["007", "s1", "é"], ["008", "s2", ""]]


def test_the_index_of_a_row_is_its_line(read):
    assert read("a,b\n\n1,2\n,\n3,4\n").index.tolist() == [3, 5]
    assert read("a,b\n").empty


def test_a_comma_a_quote_and_na_within_a_cell_are_text(read):
    assert cells(read('a,b\n"1,5","say ""no"""\nNA,nan\n')) == [["a", "b"], ["1,5", 'say "no"'], ["NA", "nan"]]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (PLAIN.encode("utf-16"), "t.csv: the table cannot be read .it is UTF-16"),
        (PLAIN.encode("utf-32"), "it is UTF-16 or UTF-32"),
        (PLAIN.encode("utf-16-le"), "a NUL byte at 1"),
        (PLAIN.encode("latin-1"), "0xe9"),
        (b"PK\x03\x04 a workbook", "workbook"),
        (PLAIN.replace("s2", "s\0"), "a NUL byte"),
        (PLAIN.replace(",", ";"), "separated by semicolons"),
        (PLAIN.replace(",", "\t"), "separated by tabs"),
        (PLAIN.replace(",", "|"), "separated by vertical bars"),
        ("", "the table is empty"),
        ("\n , \n\n", "the table is empty"),
        (PLAIN.replace("008", '"008'), "t.csv, line 3: the table cannot be read"),
        (PLAIN.replace("007", '"007').replace("s2", 's2"'), "t.csv, line 2: "),
        ('a,b\n"1\n2",3\n', "t.csv, line 2: a cell continues in the next line"),
        (PLAIN.replace("007", '"0"07'), "t.csv, line 2: the table cannot be read"),
        (PLAIN + "009,s3\n", "t.csv, line 4: it has 2 cells, and the first line has 3 columns"),
        (PLAIN + "009,s3,,x\n", "t.csv, line 4: it has 4 cells"),
        ("a,b\n" + "x" * 200_000 + ",1\n", "line 2: the table cannot be read .field larger"),
    ],
)
def test_an_ambiguous_or_damaged_file_is_refused(read, content, fault):
    with pytest.raises(DataError, match=f"{fault}.*Remedy: "):
        read(content)


def test_a_large_file_is_refused(read, monkeypatch):
    monkeypatch.setattr("utils.dataset.cells.MAX_TABLE", 10)
    with pytest.raises(DataError, match="t.csv: the table cannot be read .it has 3[0-9] bytes, more than 10"):
        read(PLAIN.replace("é", "e"))
