"""The data dictionary is made from the schemas, and the page in docs/ is the one that they make."""

import re
from pathlib import Path

from pipeline import __version__
from pipeline.dictionary import dictionary
from pipeline.outcomes import FailureKind, Verdict
from pipeline.rules import RULE_IDS
from pipeline.tables import REPLIES, TABLES

ROOT = Path(__file__).parents[1]


def test_page_is_current() -> None:
    """`make docs` was run after the last change of a column."""
    assert (ROOT / "docs/tables.md").read_text("utf-8") == dictionary()


def test_every_column_and_value_is_named() -> None:
    page = dictionary()
    columns = {column.name for table in (*TABLES, REPLIES) for column in table.columns}

    for name in columns | set(FailureKind) | set(Verdict) | set(RULE_IDS):
        assert f"`{name}`" in page


def test_one_version() -> None:
    """The version stands in two places; they agree."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")

    assert re.findall(r'^version = "(.*)"$', text, re.MULTILINE) == [__version__]
