"""`unresolved.csv`: what could not be determined, as an input of its own.

It begins with the input's columns, so the same command audits it; the columns it adds are not taken
for labels when it is read again.
"""

from collections.abc import Callable, Iterable
from typing import TextIO

import msgspec

from pipeline.findings import Outcome
from pipeline.outcomes import Verdict
from pipeline.triples import UNRESOLVED_COLUMNS, Header

#: A cell that begins with one of these is a formula to a spreadsheet; the last four are the wide
#: forms of the first.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def inert(cell: str) -> str:
    """Keep a spreadsheet from running a cell: a leading quote makes it text."""
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


def unresolved_writer(file: TextIO, header: Header) -> Callable[[Iterable[Outcome]], None]:
    """Write the header row; gives a function that adds the inconclusive among some outcomes."""
    id_columns = header.columns.values()
    names = [
        name.lstrip(_IGNORED) if index in id_columns else name
        for index, name in enumerate(header.names)
        if name not in UNRESOLVED_COLUMNS
    ]
    file.write(_line((*names, *UNRESOLVED_COLUMNS), header.delimiter))

    def write(outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.verdict is Verdict.INCONCLUSIVE:
                file.write(_line(_cells(outcome, header), header.delimiter))

    return write


#: An id's column is found whether or not its name begins so; a quote before it would hide it.
_IGNORED = "-_ \t"


def _line(cells: Iterable[str], delimiter: str) -> str:
    return delimiter.join(_quoted(inert(cell), delimiter) for cell in cells) + "\n"


def _quoted(cell: str, delimiter: str) -> str:
    """Quote where CSV needs it. The csv module of some Pythons leaves a bare CR as it is."""
    if any(character in cell for character in (delimiter, '"', "\r", "\n")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _cells(outcome: Outcome, header: Header) -> list[str]:
    labels = msgspec.json.decode(outcome.labels, type=dict[str, str])
    by_index = {index: labels.get(name, "") for index, name in header.labels}
    by_index |= {index: getattr(outcome, name) for name, index in header.columns.items()}
    return [
        *(by_index[index] for index in range(len(header.names)) if index in by_index),
        outcome.failure_kind or "",
        str(outcome.http_status or ""),
        _on_one_line(outcome.error_code or ""),
        _on_one_line(outcome.error_detail or ""),
    ]


def _on_one_line(text: str) -> str:
    """A record of too many lines would not be read again; control characters steer terminals."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
