"""Pages made from what the code declares: every column and enumeration, and every rule.

`python -m pipeline.dictionary tables > docs/tables.md` renews the one, `rules` the other.
"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from pipeline.checkpoints import Anomaly
from pipeline.outcomes import Verdict
from pipeline.policy import Severity, default_policy
from pipeline.report.advice import ADVICE
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES, RULES, RULES_VERSION
from pipeline.rules.rule import Rule
from pipeline.tables import FAILING, LOADS, REPLIES, RUN_COLUMNS, SCHEMA_VERSION, TABLES, Table

_INTRODUCTION = f"""\
# Tables

Schema version {SCHEMA_VERSION}. Made from the schemas by `make docs`; the Parquet files carry the
same meanings in their field metadata.

Every table has one file a run, with zero rows if need be, under `<table>/dt=<audit date>/`. Times
are UTC with microseconds. Rows are sorted by project, cluster and checkpoint. Order and types of
the columns are fixed for a schema version; the path key is `dt`, the column `audit_date`. The slice
that a later run replaces in a warehouse is (`audit_name`, `audit_date`).

Checkpoints join with parts, outcomes and findings on
(`run_id`, `group_id`, `cluster_name`, `checkpoint_id`), with clusters on the first three of these,
and with evidence on (`run_id`, `reply_id`).
"""


def dictionary() -> str:
    """Give the whole page as Markdown."""
    pages = [_INTRODUCTION, *map(_table, (*TABLES, REPLIES, FAILING, LOADS)), _enumerations()]
    return "\n".join(pages)


def _table(table: Table) -> str:
    columns = [column for column in table.columns if column not in RUN_COLUMNS or table is REPLIES]
    named = "" if table is REPLIES else "Begins with `run_id`, `audit_name`, `audit_date`.\n\n"
    rows = (
        (
            f"`{column.name}`",
            column.type,
            "yes" if column.nullable else "no",
            column.meaning,
            column.source,
        )
        for column in columns
    )
    head = ("column", "type", "null", "meaning", "of the API")
    meaning = table.meaning[0].upper() + table.meaning[1:]
    return f"## {table.name}\n\n{meaning}.\n\n{named}{_grid(head, rows)}"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _enumerations() -> str:
    terms = default_policy().rules
    rules = (
        (f"`{rule_id}`", rule.scope, terms[rule_id].severity, rule.title)
        for rule_id, rule in RULES.items()
    )
    kinds = ((f"`{kind}`", meaning, advice) for kind, (meaning, advice) in ADVICE.items())
    return "\n".join(
        [
            "## Values\n",
            *_lists(),
            f"### rule_id\n\nMore of them in [rules.md](rules.md).\n\n{_grid(_RULE_HEAD, rules)}",
            f"### failure_kind\n\n{_grid(('kind', 'meaning', 'what to do'), kinds)}",
        ]
    )


_RULE_HEAD = ("rule", "scope", "severity by default", "objects where")


def _lists() -> Iterator[str]:
    listed: dict[str, type[StrEnum]] = {
        "verdict": Verdict,
        "severity": Severity,
        "anomalies": Anomaly,
    }
    for name, values in listed.items():
        yield f"### {name}\n\n{', '.join(f'`{value}`' for value in values)}\n"


# --- the rules ----------------------------------------------------------------------------------

_RULES_INTRODUCTION = f"""\
# Rules

Rules version {RULES_VERSION}. Made from the rules and the default policy by `make docs`.

A rule says what is true of a checkpoint or a cluster as it was listed; the policy says what that is
worth: its severity, whether it leads to FAIL, which controls it bears on (none is ever *satisfied*
by it), and the thresholds it compares with. Exactly at a threshold is within it. A rule whose
threshold is not set judges nothing, and neither does one that cannot know: what is inconclusive may
be restorable.

What no rule can see is whether a restore was tested: the API does not show it.
"""


def rules_page() -> str:
    """Give the page of the rules as Markdown."""
    return "\n".join(
        [
            _RULES_INTRODUCTION,
            f"## Rules over a checkpoint\n\n{_rules(CHECKPOINT_RULES)}",
            f"## Rules over a cluster\n\n{_rules(CLUSTER_RULES)}",
            "## Why\n",
            *(f"### {rule.rule_id}\n\n{_reasons(rule)}\n" for rule in RULES.values()),
        ]
    )


def _rules(rules: Iterable[Rule[Any]]) -> str:
    head = ("rule", "objects where", "reads", "compares with", "by default", "controls", "source")
    return _grid(head, map(_rule_cells, rules))


def _rule_cells(rule: Rule[Any]) -> tuple[str, ...]:
    terms = default_policy().rules[rule.rule_id]
    return (
        f"[`{rule.rule_id}`](#{rule.rule_id})",
        rule.title,
        ", ".join(f"`{one}`" for one in rule.reads),
        ", ".join(f"`{one}`" for one in rule.thresholds),
        f"{terms.severity}, {'FAIL' if terms.fails else 'a finding only'}",
        "; ".join(terms.controls),
        rule.source,
    )


def _reasons(rule: Rule[Any]) -> str:
    return inspect.cleandoc(rule.judge.__doc__ or "")


PAGES = {"tables": dictionary, "rules": rules_page}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
