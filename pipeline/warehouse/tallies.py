"""What is counted of a table, in its files and in a warehouse, to see that no row was lost.

Of each column the values that are not null are counted. Besides, of texts the characters are
summed up, of numbers the values, of booleans those that are true; of floating-point numbers and of
times the least and the greatest are looked at too. A row that is missing or there twice changes the
counts, and values that are in another column's place or cut short change its sums.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.columns import Column
from pipeline.tables import Table

#: Sums of 64-bit numbers go round at this in Arrow.
_ROUND = 2**64

#: How far apart two sums of the same floating-point numbers may be, by the order of adding.
_RELATIVE = 1e-9

_SQL = {
    "string": "SUM(LENGTH({name}))",
    "bool": "SUM(CASE WHEN {name} THEN 1 WHEN NOT {name} THEN 0 END)",
    "int32": "SUM({name})",
    "int64": "SUM({name})",
    "float64": "SUM({name}), MIN({name}), MAX({name})",
    "date32": "{least}, {greatest}",
    "timestamp": "{least}, {greatest}",
}

#: Seconds of a day, and microseconds of a second.
_DAY_S, _SECOND_US = 86_400, 1_000_000

Figures = list[tuple[str, Any]]


def statement(table: Table, source: str, microseconds: str) -> str:
    """Give the question that `answered` reads the answer of.

    `source` is a table's name, or that and a condition. `microseconds` says how the warehouse gives
    a time `{}` in whole microseconds since 1970: as a binary fraction of seconds it would not be
    exact, some centuries from now.
    """
    columns = (f"COUNT({each.name}), {_sql(each, microseconds)}" for each in table.columns)
    return f"SELECT {', '.join(('COUNT(*)', *columns))} FROM {source}"


def _sql(column: Column, microseconds: str) -> str:
    return _SQL[column.type].format(
        name=column.name,
        least=microseconds.format(f"MIN({column.name})"),
        greatest=microseconds.format(f"MAX({column.name})"),
    )


def answered(table: Table, row: Sequence[Any]) -> Figures:
    """Read the row that answers `statement`."""
    return [
        (name, _told(kind, value)) for (name, kind), value in zip(_names(table), row, strict=True)
    ]


def _names(table: Table) -> Iterator[tuple[str, str]]:
    """What the figures are called, and how each is told."""
    yield "rows", "count"
    for column in table.columns:
        yield f"{column.name}: not null", "count"
        for sort in _SORTS[column.type]:
            yield f"{column.name}: {sort}", column.type


_SORTS = {
    "string": ("characters",),
    "bool": ("true",),
    "int32": ("sum",),
    "int64": ("sum",),
    "float64": ("sum", "least", "greatest"),
    "date32": ("least", "greatest"),
    "timestamp": ("least", "greatest"),
}


def _told(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind in {"date32", "timestamp"}:
        return int(value)
    return float(value) if kind == "float64" else int(value) % _ROUND


def counted(table: Table, batches: Iterable[pa.RecordBatch]) -> Figures:
    """Count in the table's own rows what the warehouse is asked for."""
    every = [_of_batch(table, batch) for batch in batches if batch.num_rows]
    names = list(_names(table))
    columns = zip(*every, strict=True) if every else [()] * len(names)
    return [
        (name, _together(name, kind, [value for value in column if value is not None]))
        for (name, kind), column in zip(names, columns, strict=True)
    ]


def _together(name: str, kind: str, values: Sequence[Any]) -> Any:
    if kind == "count":
        return sum(values)
    if not values:
        return None
    if name.endswith(": least"):
        return min(values)
    if name.endswith(": greatest"):
        return max(values)
    return math.fsum(values) if kind == "float64" else sum(values) % _ROUND


def _of_batch(table: Table, batch: pa.RecordBatch) -> list[Any]:
    found: list[Any] = [batch.num_rows]
    for column in table.columns:
        array = batch.column(column.name)
        found += [len(array) - array.null_count, *_of_array(column.type, array)]
    return found


def _of_array(kind: str, array: pa.Array) -> list[Any]:
    match kind:
        case "string":
            return [pc.sum(pc.utf8_length(array)).as_py()]
        case "date32":
            scale = _DAY_S * _SECOND_US
            return [_scaled(end, scale) for end in _ends(array.cast(pa.int32()))]
        case "timestamp":
            return _ends(array.cast(pa.int64()))
        case "float64":
            return [pc.sum(array).as_py(), *_ends(array)]
        case _:
            return [pc.sum(array).as_py()]


def _ends(array: pa.Array) -> list[Any]:
    ends = pc.min_max(array).as_py()
    return [ends["min"], ends["max"]]


def _scaled(value: int | None, scale: int) -> int | None:
    return None if value is None else value * scale


def differences(wanted: Figures, found: Figures, where: str) -> list[str]:
    """Say in what the two differ, with both figures; `where` is what was found."""
    return [
        f"{name} {_shown(one)} in the files, {_shown(other)} {where}"
        for (name, one), (_, other) in zip(wanted, found, strict=True)
        if not _is_same(one, other)
    ]


def _is_same(one: float | None, other: float | None) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_RELATIVE) or (
            math.isnan(one) and math.isnan(other)
        )
    return one == other


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:,}"
