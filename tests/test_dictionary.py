"""The data dictionary is made from the schemas, and the page in docs/ is the one that they make."""

import re
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.dictionary import PAGES, dictionary, rules_page
from pipeline.outcomes import FailureKind, Verdict
from pipeline.rules import RULES
from pipeline.tables import REPLIES, TABLES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    """`make docs` was run after the last change of a column, a rule, or what the policy says."""
    assert (ROOT / f"docs/{name}.md").read_text("utf-8") == PAGES[name]()


@pytest.mark.parametrize("rule_id", RULES)
def test_every_rule_tells_its_fields_controls_and_source(rule_id: str) -> None:
    """One line of the table each, with every cell but thresholds filled, and reasons below."""
    page = rules_page()
    (line,) = [one for one in page.splitlines() if one.startswith(f"| [`{rule_id}`]")]
    _, _, title, reads, thresholds, worth, controls, source, _ = line.split("|")

    assert all(cell.strip() for cell in (title, reads, worth, controls, source))
    assert all(f"`{one}`" in thresholds for one in RULES[rule_id].thresholds)
    assert len(page.partition(f"### {rule_id}\n\n")[2].partition("\n\n")[0]) > len(rule_id)


def test_every_column_and_value_is_named() -> None:
    page = dictionary()
    columns = {column.name for table in (*TABLES, REPLIES) for column in table.columns}

    for name in columns | set(FailureKind) | set(Verdict) | set(RULES):
        assert f"`{name}`" in page


def test_one_version() -> None:
    """The version stands in two places; they agree."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")

    assert re.findall(r'^version = "(.*)"$', text, re.MULTILINE) == [__version__]
