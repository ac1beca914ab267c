"""Pages made from what the code declares: every column and enumeration, and every rule.

`python -m pipeline.dictionary tables > docs/tables.md` renews the one, `rules` the other.
"""

import inspect
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.columns import (
    ENUMERATIONS,
    FAILURE_KIND,
    RULE_ID,
    RUN_COLUMNS,
    SCHEMA_VERSION,
    Column,
    Values,
)
from pipeline.policy import default_policy
from pipeline.report.advice import ADVICE
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES, RULES, RULES_VERSION
from pipeline.rules.rule import Rule
from pipeline.tables import FAILING, LOADS, REPLIES, TABLES, Table

_INTRODUCTION = f"""\
# Tables

Schema version {SCHEMA_VERSION}. Made from the schemas by `make docs`; the Parquet files carry the
same meanings in their field metadata.

Where no unit is named, there is none. *Null* says what a null means, or that there never is one; an
empty text is a value. *Of the API* names the attribute of Atlas's answer that the value is from;
without one it is this program's own.

Every table has one file a run, with zero rows if need be, under `<table>/dt=<audit date>/`. Times
are UTC with microseconds. Rows are sorted by project, cluster and checkpoint. Order and types of
the columns are fixed for a schema version; the path key is `dt`, the column `audit_date`. The slice
that a later run replaces in a warehouse is (`audit_name`, `audit_date`).

Checkpoints join with parts, outcomes and findings on
(`run_id`, `group_id`, `cluster_name`, `checkpoint_id`), with clusters on the first three of these,
and with evidence on (`run_id`, `reply_id`). How they get into a warehouse is told in
[warehouse.md](warehouse.md).
"""


def dictionary() -> str:
    """Give the whole page as Markdown."""
    pages = [_INTRODUCTION, *map(_table, (*TABLES, REPLIES, FAILING, LOADS)), _enumerations()]
    return "\n".join(pages)


def _table(table: Table) -> str:
    columns = [column for column in table.columns if column not in RUN_COLUMNS or table is REPLIES]
    named = "" if table is REPLIES else "Begins with `run_id`, `audit_name`, `audit_date`.\n\n"
    rows = map(_column_cells, columns)
    head = ("column", "type", "unit", "null", "of the API", "meaning")
    meaning = table.meaning[0].upper() + table.meaning[1:]
    return f"## {table.name}\n\n{meaning}.\n\n{named}{_grid(head, rows)}"


def _column_cells(column: Column) -> tuple[str, ...]:
    told = column.meaning
    if column.values is not None:
        told += f" ([values](#{column.values.name}))"
    null = column.null if column.nullable else "never"
    return (f"`{column.name}`", column.type, column.unit, null, column.source, told)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _enumerations() -> str:
    return "\n".join([_VALUES, *map(_values, ENUMERATIONS)])


_VALUES = """\
## Values

A later version of the program may add values, which is no new schema version: expect some that are
not here.
"""


def _values(values: Values) -> str:
    if values is RULE_ID:
        told = f"More of them in [rules.md](rules.md).\n\n{_rule_values()}"
    elif values is FAILURE_KIND:
        kinds = ((f"`{kind}`", meaning, advice) for kind, (meaning, advice) in ADVICE.items())
        told = _grid(("kind", "meaning", "what to do"), kinds)
    elif any(values.meanings.values()):
        told = _grid(("value", "meaning"), ((f"`{v}`", m) for v, m in values.meanings.items()))
    else:
        told = f"{', '.join(f'`{value}`' for value in values.meanings)}\n"
    return f"### {values.name}\n\n{_note(values)}{told}"


def _note(values: Values) -> str:
    notes = []
    if values.separator:
        notes.append("Several in one cell are parted by a comma.")
    if values.is_open:
        notes.append("Others come as they are: these are the ones that are known.")
    return " ".join(notes) + "\n\n" if notes else ""


def _rule_values() -> str:
    terms = default_policy().rules
    rules = (
        (f"`{rule_id}`", rule.scope, terms[rule_id].severity, rule.title)
        for rule_id, rule in RULES.items()
    )
    return _grid(("rule", "scope", "severity by default", "objects where"), rules)


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
