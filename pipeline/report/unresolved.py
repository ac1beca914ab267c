"""`unresolved.csv`: what could not be determined, as an input of its own.

It begins with the input's columns, so the same command audits it; the columns it adds are not taken
for labels when it is read again.
"""

from collections.abc import Callable, Iterable
from typing import TextIO

import msgspec

from pipeline.cells import csv_line, on_one_line
from pipeline.judgements import Outcome
from pipeline.outcomes import Verdict
from pipeline.triples import UNRESOLVED_COLUMNS, Header


def unresolved_writer(file: TextIO, header: Header) -> Callable[[Iterable[Outcome]], None]:
    """Write the header row; gives a function that adds the inconclusive among some outcomes."""
    id_columns = header.columns.values()
    names = [
        name.lstrip(_IGNORED) if index in id_columns else name
        for index, name in enumerate(header.names)
        if name not in UNRESOLVED_COLUMNS
    ]
    file.write(csv_line((*names, *UNRESOLVED_COLUMNS), header.delimiter))

    def write(outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.verdict is Verdict.INCONCLUSIVE:
                file.write(csv_line(_cells(outcome, header), header.delimiter))

    return write


#: An id's column is found whether or not its name begins so; a quote before it would hide it.
_IGNORED = "-_ \t"


def _cells(outcome: Outcome, header: Header) -> list[str]:
    labels = msgspec.json.decode(outcome.labels, type=dict[str, str])
    by_index = {index: labels.get(name, "") for index, name in header.labels}
    by_index |= {index: getattr(outcome, name) for name, index in header.columns.items()}
    return [
        *(by_index[index] for index in range(len(header.names)) if index in by_index),
        outcome.failure_kind or "",
        str(outcome.http_status or ""),
        on_one_line(outcome.error_code or ""),
        on_one_line(outcome.error_detail or ""),
    ]
