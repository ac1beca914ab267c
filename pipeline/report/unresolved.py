"""`unresolved.csv`: what could not be determined, as an input of its own.

It begins with the input's columns, so the same command audits it; the columns it adds are not taken
for labels when it is read again.
"""

import csv
from collections.abc import Callable, Iterable
from typing import TextIO

import msgspec

from pipeline.findings import Outcome
from pipeline.outcomes import Verdict
from pipeline.triples import UNRESOLVED_COLUMNS, Header

#: A cell that begins with one of these is a formula to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def inert(cell: str) -> str:
    """Keep a spreadsheet from running a cell: a leading quote makes it text."""
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


def unresolved_writer(file: TextIO, header: Header) -> Callable[[Iterable[Outcome]], None]:
    """Write the header row; gives a function that adds the inconclusive among some outcomes."""
    names = [name for name in header.names if name not in UNRESOLVED_COLUMNS]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*map(inert, names), *UNRESOLVED_COLUMNS])

    def write(outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.verdict is Verdict.INCONCLUSIVE:
                writer.writerow([inert(cell) for cell in _cells(outcome, header)])

    return write


def _cells(outcome: Outcome, header: Header) -> list[str]:
    labels = msgspec.json.decode(outcome.labels, type=dict[str, str])
    by_index = {index: labels.get(name, "") for index, name in header.labels}
    by_index |= {index: getattr(outcome, name) for name, index in header.columns.items()}
    return [
        *(by_index[index] for index in range(len(header.names)) if index in by_index),
        outcome.failure_kind or "",
        str(outcome.http_status or ""),
        outcome.error_code or "",
        outcome.error_detail or "",
    ]
