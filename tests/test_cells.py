"""CSV records that any reader takes apart again and no spreadsheet runs."""

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cells import csv_line, inert, on_one_line, visible


@pytest.mark.parametrize("start", [*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_formula_is_made_inert(start: str) -> None:
    assert inert(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("cell", ["", "a=1", "1-1", "'=1", " =1", "a@b", "ä"])
def test_what_is_no_formula_stays_as_it_is(cell: str) -> None:
    assert inert(cell) == cell


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2),
    st.sampled_from(",;\t"),
)
def test_a_record_is_read_again(cells: list[str], delimiter: str) -> None:
    lines = StringIO(csv_line(cells, delimiter), newline="")
    rows = list(csv.reader(lines, delimiter=delimiter, strict=True))

    assert rows == [[inert(cell) for cell in cells]]


@given(st.text())
def test_what_is_put_on_one_line_can_be_printed(text: str) -> None:
    assert on_one_line(text).isprintable()


@given(st.text())
def test_what_is_made_visible_can_be_printed_and_keeps_its_spaces(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(f"  {text}  ").count(" ") == text.count(" ") + 4
