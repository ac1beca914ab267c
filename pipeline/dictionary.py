"""The data dictionary, made from the schemas: every column, and every enumeration.

`python -m pipeline.dictionary > docs/tables.md` renews the page.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from pipeline.checkpoints import Anomaly
from pipeline.outcomes import Verdict
from pipeline.policy import Severity, default_policy
from pipeline.report.advice import ADVICE
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES
from pipeline.tables import REPLIES, RUN_COLUMNS, SCHEMA_VERSION, TABLES, Table

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
    pages = [_INTRODUCTION, *map(_table, (*TABLES, REPLIES)), _enumerations()]
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
        (f"`{rule_id}`", terms[rule_id].severity, (rule.__doc__ or "").partition("\n")[0])
        for rule_id, rule in {**CHECKPOINT_RULES, **CLUSTER_RULES}.items()
    )
    kinds = ((f"`{kind}`", meaning, advice) for kind, (meaning, advice) in ADVICE.items())
    return "\n".join(
        [
            "## Values\n",
            *_lists(),
            f"### rule_id\n\n{_grid(('rule', 'severity by default', 'reads, and why'), rules)}",
            f"### failure_kind\n\n{_grid(('kind', 'meaning', 'what to do'), kinds)}",
        ]
    )


def _lists() -> Iterator[str]:
    listed: dict[str, type[StrEnum]] = {
        "verdict": Verdict,
        "severity": Severity,
        "anomalies": Anomaly,
    }
    for name, values in listed.items():
        yield f"### {name}\n\n{', '.join(f'`{value}`' for value in values)}\n"


if __name__ == "__main__":
    sys.stdout.write(dictionary())
