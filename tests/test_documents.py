"""TOML files that people write: values by key, every fault at once, and the line of each key."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents import Document, Wrong, day_of, flag_of, key_lines, nearest, shown, text_of


def faults(document: Document) -> list[str]:
    return [str(fault) for fault in document.in_order]


# --- values and faults --------------------------------------------------------------------------


def test_a_value_is_taken_by_its_key_and_a_default_where_there_is_none() -> None:
    document = Document('name = " night "\n')

    assert document.root.take("name", text_of, "-") == "night"
    assert document.root.take("other", text_of, "-") == "-"
    assert document.faults == []


def test_all_that_is_wrong_is_told_in_the_order_of_lines() -> None:
    """The reading goes on after a fault, with the default in the value's place."""
    document = Document("on = 1\n\nname = 2\nextra = 3\n")
    root = document.root

    assert root.take("name", text_of, "-") == "-"
    assert root.take("on", flag_of, default=True)
    root.need("day", day_of, None)
    root.close()
    assert faults(document) == [
        "day: missing",
        "on (line 1): found 1, wanted true or false",
        "name (line 3): found 2, wanted some text",
        "extra (line 4): there is no such key; known are name, on, day",
    ]


def test_every_wrong_value_of_a_list_is_a_fault() -> None:
    document = Document('names = ["a", 1, "b", ""]\nnone = []\nother = "a"\n')
    root = document.root

    assert root.take_all("names", text_of, ()) == ("a", "b")
    assert root.take_all("none", text_of, (), least=1) == ()
    assert root.take_all("none", text_of, ("x",)) == ()
    assert root.take_all("other", text_of, ("x",)) == ("x",)
    assert root.take_all("absent", text_of, ("x",), least=1) == ("x",)
    assert faults(document) == [
        "names (line 1): found 1, wanted some text",
        'names (line 1): found "", wanted some text',
        "none (line 2): found an empty list, wanted at least 1, or no such key",
        'other (line 3): found "a", wanted a list',
    ]


def test_tables_are_named_by_their_place_and_by_what_they_are_about() -> None:
    document = Document('[[lists]]\nid = "one"\n\n[[lists]]\nid = 2\n[single]\nx = 1\n')
    first, second = document.root.tables("lists")
    second.about = "list two"
    first.need("name", text_of, "")
    second.need("id", text_of, "")
    document.root.table("single").close()

    assert faults(document) == [
        "lists[1].name (line 1): missing",
        "lists[2].id (list two, line 5): found 2, wanted some text",
        "single.x (line 7): there is no such key; known are ",
    ]


def test_something_else_in_a_tables_place() -> None:
    document = Document("one = 1\nmany = [1]\nmore = 2\n")

    assert document.root.table("one").values == {}
    assert document.root.tables("many") == document.root.tables("more") == []
    assert faults(document) == [
        "one (line 1): found 1, wanted a table",
        "many (line 2): found 1, wanted a table",
        "more (line 3): found 2, wanted a list of tables, each under its own [[…]]",
    ]


def test_a_name_that_was_meant_is_offered_and_else_all_there_are() -> None:
    assert nearest("expire", ["expires", "reason"]) == "did you mean expires?"
    assert nearest("zzz", ["expires", "reason"]) == "known are expires, reason"


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("true", "true"),
        ("1.5", "1.5"),
        ('"x\\n"', '"x\\n"'),
        ("2027-03-31", "2027-03-31"),
        ("07:30:00", "07:30:00"),
        ("[1]", "a list"),
        ("[]", "an empty list"),
        ("{a = 1}", "a table"),
        (f'"{"x" * 100}"', f'"{"x" * 59}…'),
    ],
)
def test_a_value_as_a_fault_shows_it(toml: str, text: str) -> None:
    assert shown(tomllib.loads(f"x = {toml}")["x"]) == text


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    assert Document("\ufeffname = 1\n").root.values == {"name": 1}


def test_a_wrong_value_says_what_was_found_and_wanted() -> None:
    assert str(Wrong(3, "some text")) == "found 3, wanted some text"


# --- lines --------------------------------------------------------------------------------------

TEXT = '''\
# a comment with a [header] in it
name = "a"
dotted.key = 1
text = """
[not.a.header]
name = "b"
"""
ids = [
  "1",  # with a ]
  "2",
]
inline = [{a = 1}, {b = 2}]

[rules.no-parts]
severity = "low"

[[clusters]]  # the first
owner = "x"
[[clusters]]
"quoted" = {deep = 1}
'''

LINES = {
    "name": 2,
    "dotted": 3,
    "dotted.key": 3,
    "text": 4,
    "ids": 8,
    "inline": 12,
    "inline[1]": 12,
    "inline[1].a": 12,
    "inline[2]": 12,
    "inline[2].b": 12,
    "rules.no-parts": 14,
    "rules.no-parts.severity": 15,
    "clusters[1]": 17,
    "clusters[1].owner": 18,
    "clusters[2]": 19,
    "clusters[2].quoted": 20,
    "clusters[2].quoted.deep": 20,
}


@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("", "\r\n"), ("\ufeff", "\n")])
def test_the_line_on_which_a_key_is_set(start: str, end: str) -> None:
    assert key_lines(start + TEXT.replace("\n", end)) == LINES


VALUES = st.sampled_from(["1", '"]"', '"""\n[x]\nk = 1\n"""', "[\n1,\n# ]\n2]", "'''\n]'''"])
KEYS = st.lists(st.tuples(st.sampled_from("abcdef"), VALUES), unique_by=lambda pair: pair[0])
TABLES = st.lists(st.tuples(st.booleans(), KEYS), max_size=5)


@given(TABLES)
def test_every_key_of_a_document_has_its_line(tables: Any) -> None:
    """Whatever its values look like, and however many lines they take."""
    text, wanted = "", {}
    for number, (is_spaced, keys) in enumerate(tables, start=1):
        text += "\n# [x]\n" * is_spaced
        wanted[f"t[{number}]"] = text.count("\n") + 1
        text += "[[t]]\n"
        for key, value in keys:
            wanted[f"t[{number}].{key}"] = text.count("\n") + 1
            text += f"{key} = {value}\n"

    assert key_lines(text) == wanted
