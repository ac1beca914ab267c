"""dbt's sources file, from the contract: what each table and column is, tests and freshness.

The tests are dbt's own, with `arguments` as dbt-core 1.10.5 and later have them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.columns import SCHEMA_VERSION, Column
from pipeline.tables import CHECKPOINTS, CLUSTERS, FINDINGS, LOADS, OUTCOMES, PARTS, RUNS, Table

#: What models call it in `source(…)`, whatever the schema is named.
SOURCE = "checkpoint_audit"

_CLUSTER = ("run_id", "group_id", "cluster_name")
_CHECKPOINT = (*_CLUSTER, "checkpoint_id")

#: What no two rows of a table share. Only texts: what a cast to one is called differs by
#: warehouse, and dbt's own word for it is not expanded in an argument (tried with 1.11), so that a
#: part's place in its checkpoint, or a slice with its date, cannot be told here.
_KEYS = {
    CHECKPOINTS: _CHECKPOINT,
    OUTCOMES: _CHECKPOINT,
    CLUSTERS: _CLUSTER,
    RUNS: ("run_id",),
}

#: Where a table's rows have their row in another. A finding on a cluster has a null in its key, and
#: so no row among the outcomes.
_REFERENCES = {
    CHECKPOINTS: ((_CHECKPOINT, OUTCOMES),),
    PARTS: ((_CHECKPOINT, CHECKPOINTS),),
    OUTCOMES: ((_CLUSTER, CLUSTERS),),
    CLUSTERS: ((("run_id",), RUNS),),
    FINDINGS: ((_CLUSTER, CLUSTERS), (_CHECKPOINT, OUTCOMES)),
}

_HEAD = f"""\
# dbt sources for the tables of checkpoint-audit, schema version {SCHEMA_VERSION}.
# For dbt-core 1.10.5 or later.
# Made by `checkpoint-audit schema --dbt`: make it anew after an upgrade rather than change it.
"""

#: A night, and some hours for it to end; two nights.
_FRESHNESS = {
    "warn_after": {"count": 26, "period": "hour"},
    "error_after": {"count": 50, "period": "hour"},
}


def sources(schema: str) -> str:
    """Give the file, YAML, for tables that are in `schema`."""
    tables = [_table(table) for table in (CHECKPOINTS, PARTS, OUTCOMES, CLUSTERS, FINDINGS, RUNS)]
    source = {
        "name": SOURCE,
        "schema": schema,
        "description": "Audits of MongoDB Atlas legacy backup checkpoints, a slice for each "
        "(audit_name, audit_date).",
        "tables": [*tables, _loads()],
    }
    lines = _lines({"version": 2, "sources": [source]})
    return _HEAD + "".join(f"{line}\n" for line in lines)


def _loads() -> dict[str, Any]:
    config = {"loaded_at_field": "loaded_at", "freshness": _FRESHNESS}
    table = _table(LOADS)
    return {"name": table.pop("name"), "config": config, **table}


def _table(table: Table) -> dict[str, Any]:
    tests = [*_unique(table), *_references(table)]
    return {
        "name": table.name,
        "description": _sentence(table.meaning),
        **({"data_tests": tests} if tests else {}),
        "columns": [_column(column) for column in table.columns],
    }


def _unique(table: Table) -> Iterator[dict[str, Any]]:
    if table in _KEYS:
        yield _test("unique", column_name=_key(_KEYS[table]))


def _references(table: Table) -> Iterator[dict[str, Any]]:
    for names, to in _REFERENCES.get(table, ()):
        key = _key(names)
        yield _test(
            "relationships", column_name=key, to=f"source('{SOURCE}', '{to.name}')", field=key
        )


def _key(names: Sequence[str]) -> str:
    return " || '/' || ".join(names)


def _column(column: Column) -> dict[str, Any]:
    tests: list[Any] = [] if column.nullable else ["not_null"]
    values = column.values
    if values is not None and not (values.is_open or values.separator):
        quote = {} if column.type == "string" else {"quote": False}
        tests.append(_test("accepted_values", values=list(values.meanings), **quote))
    return {
        "name": column.name,
        "description": _description(column),
        **({"data_tests": tests} if tests else {}),
    }


def _test(kind: str, **arguments: Any) -> dict[str, Any]:
    return {kind: {"arguments": arguments}}


def _description(column: Column) -> str:
    told = [_sentence(column.meaning)]
    if column.unit:
        told.append(f"Unit: {column.unit}.")
    if column.null:
        told.append(f"Null: {column.null}.")
    if column.source:
        told.append(f"Of the API: {column.source}.")
    return " ".join(told)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# --- YAML ---------------------------------------------------------------------------------------


def _lines(value: Any) -> Iterator[str]:
    """Give a value's lines; texts are JSON's, which YAML reads as they are."""
    match value:
        case Mapping():
            for key, of in value.items():
                yield from _labelled(f"{key}:", of)
        case list():
            for each in value:
                first, *rest = _lines(each)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
        case _:
            yield json.dumps(value, ensure_ascii=False)


def _labelled(label: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        yield label
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{label} {json.dumps(value, ensure_ascii=False)}"
