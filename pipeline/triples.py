"""CSV lines → triples, and every line that holds none.

The reader streams and stops for nothing below the header: a bad line is a value with its number,
its columns, their values and the rule each one breaks. A record is one line, or several where a
quoted field holds line breaks. A quote that is opened and never closed spoils its own line only:
it must not swallow the lines after it.

`lines = triples + duplicates + bad lines` holds for what is counted here: blank lines and the
header are not lines, and which triples are duplicates is known only to who keeps them all.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from itertools import chain

import msgspec

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable

_OBJECT_ID = re.compile(r"[a-f0-9]{24}")
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

#: Attribute of a triple → the names its column may have, without case, `_`, `-` and blanks.
COLUMN_NAMES = {
    "group_id": ("groupid", "projectid"),
    "cluster_name": ("clustername", "cluster"),
    "checkpoint_id": ("checkpointid",),
}

#: Columns that `unresolved.csv` adds to the input's own: never labels when it is read again.
UNRESOLVED_COLUMNS = (
    "unresolved_reason",
    "unresolved_http_status",
    "unresolved_error_code",
    "unresolved_detail",
)

_DELIMITERS = ",;\t"
_MAX_RECORD_LINES = 100
_MAX_LINE_BYTES = 1 << 20
_SHOWN_CHARS = 80


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a line: the column (as the file calls it), its value, the rule."""

    column: str
    value: str
    rule: str


class BadLine(msgspec.Struct, frozen=True):
    """A line that names no checkpoint, with everything that is wrong with it."""

    line: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "; ".join(
            f"line {self.line}, column {fault.column}: {fault.value!r}; wanted: {fault.rule}"
            for fault in self.faults
        )


class Triple(msgspec.Struct, frozen=True):
    """A line that names a checkpoint. `labels` are its other columns, as they were."""

    line: int
    ref: CheckpointRef
    labels: dict[str, str]


class Header(msgspec.Struct, frozen=True):
    """The header row: the delimiter, where the three ids stand, and the names of the labels.

    `names` are all columns as the file has them.
    """

    delimiter: str
    names: tuple[str, ...]
    columns: Mapping[str, int]
    labels: tuple[tuple[int, str], ...]


class TripleReader:
    """Reads one CSV. `header` is there at once; iterate for the lines.

    Raises `InputUnusable` when there is no header with the three columns.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Read the header. `lines` are physical lines with their ends, as a file gives them."""
        self._lines = _Numbered(lines)
        self.header = _read_header(self._lines)

    def __iter__(self) -> Iterator[Triple | BadLine]:
        for number, record in _records(self._lines, self.header.delimiter):
            if isinstance(record, Fault):
                yield BadLine(number, (record,))
            elif any(map(str.strip, record)):
                yield _read_record(number, record, self.header)


class _Numbered:
    """Physical lines with their numbers; lines that were taken can be put back."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = enumerate(lines, start=1)
        self._back: deque[tuple[int, bytes]] = deque()

    def take(self) -> tuple[int, bytes] | None:
        """Give the next line; None at the end."""
        return self._back.popleft() if self._back else next(self._lines, None)

    def put_back(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Let `lines` be taken again, in their order."""
        self._back.extendleft(reversed(lines))


def _decode(number: int, line: bytes) -> str | Fault:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if len(line) > _MAX_LINE_BYTES:
        return Fault("(whole line)", _shown(repr(line[:40])), f"at most {_MAX_LINE_BYTES} bytes")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        value = repr(line[max(0, error.start - 10) : error.start + 10])
        return Fault("(whole line)", value, "UTF-8 text")


def _records(lines: _Numbered, delimiter: str) -> Iterator[tuple[int, list[str] | Fault]]:
    """Split lines into records of fields; a record that cannot be split is a fault."""
    while (taken := lines.take()) is not None:
        number, raw = taken
        text = _decode(number, raw)
        if isinstance(text, Fault):
            yield number, text
        elif '"' not in text:
            yield number, text.rstrip("\r\n").split(delimiter)
        else:
            yield number, _quoted_record(text, lines, delimiter)


def _quoted_record(text: str, lines: _Numbered, delimiter: str) -> list[str] | Fault:
    """Read a record with quotes, taking further lines while a quote is open."""
    first = text
    further: list[tuple[int, bytes]] = []
    while (fields := _split_quoted(text, delimiter)) is None:
        taken = lines.take() if len(further) < _MAX_RECORD_LINES else None
        if taken is None:
            lines.put_back(further)
            return Fault("(whole line)", _shown(first), "a quote that opens is closed")
        further.append(taken)
        number, raw = taken
        more = _decode(number, raw)
        if isinstance(more, Fault):
            lines.put_back(further)
            return Fault("(whole line)", _shown(first), "a quote that opens is closed")
        text += more
    return fields


def _split_quoted(text: str, delimiter: str) -> list[str] | Fault | None:
    """Fields of one record; None while a quote is still open; a fault where quoting is broken."""
    try:
        rows = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
        return Fault("(whole line)", _shown(text), f"quotes as CSV has them ({error})")
    if len(rows) > 1:
        return Fault("(whole line)", _shown(text), "no line break outside quotes")
    return rows[0] if rows else []


def _shown(value: str) -> str:
    value = value.strip("\r\n")
    return value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"


# --- the header ---------------------------------------------------------------------------------


def _read_header(lines: _Numbered) -> Header:
    text = _first_line(lines)
    for delimiter in _DELIMITERS:
        names = _split_quoted(text, delimiter)
        if isinstance(names, list) and _finds_all(names):
            return _header(delimiter, tuple(name.strip() for name in names))
    raise _no_header(text)


def _first_line(lines: _Numbered) -> str:
    while (taken := lines.take()) is not None:
        number, raw = taken
        text = _decode(number, raw)
        if isinstance(text, Fault):
            raise InputUnusable(
                f"line {number} of the input is not {text.rule}: {text.value}",
                hint="save the file as CSV in UTF-8",
            )
        if text.strip():
            return text
    raise InputUnusable("the input is empty: it holds not even a header")


def _plain(name: str) -> str:
    return re.sub(r"[_\-\s]", "", name).casefold()


def _finds_all(names: Sequence[str]) -> bool:
    plain = {_plain(name) for name in names}
    return all(plain.intersection(wanted) for wanted in COLUMN_NAMES.values())


def _no_header(text: str) -> InputUnusable:
    if len(re.findall(r"(?<![A-Fa-f0-9])[A-Fa-f0-9]{24}(?![A-Fa-f0-9])", text)) >= 2:  # noqa: PLR2004
        found = f"the first line is a triple, not a header: {_shown(text)!r}"
    else:
        found = f"the first line is {_shown(text)!r}"
    return InputUnusable(
        f"the input needs a header with project_id, cluster_name and checkpoint_id; {found}",
        hint="put the line project_id,cluster_name,checkpoint_id first",
    )


def _header(delimiter: str, names: tuple[str, ...]) -> Header:
    columns: dict[str, int] = {}
    labels: list[tuple[int, str]] = []
    for index, name in enumerate(names):
        attribute = _attribute(name)
        if attribute in columns:
            first = names[columns[attribute]]
            raise InputUnusable(
                f"the header has two columns for {attribute}: {first!r} and {name!r}",
                hint="remove or rename one of them",
            )
        if attribute:
            columns[attribute] = index
        elif name not in UNRESOLVED_COLUMNS:
            labels.append((index, _unique(name or f"column {index + 1}", labels)))
    return Header(delimiter, names, columns, tuple(labels))


def _attribute(name: str) -> str:
    plain = _plain(name)
    return next((attr for attr, known in COLUMN_NAMES.items() if plain in known), "")


def _unique(name: str, labels: Sequence[tuple[int, str]]) -> str:
    taken = {label for _, label in labels}
    candidates = chain([name], (f"{name} ({n})" for n in range(2, len(labels) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


# --- one record ---------------------------------------------------------------------------------


def _read_record(line: int, record: Sequence[str], header: Header) -> Triple | BadLine:
    values = {
        attribute: record[index].strip() if index < len(record) else ""
        for attribute, index in header.columns.items()
    }
    group_id, checkpoint_id = values["group_id"].lower(), values["checkpoint_id"].lower()
    cluster_name = values["cluster_name"]
    if (
        _OBJECT_ID.fullmatch(group_id)
        and _OBJECT_ID.fullmatch(checkpoint_id)
        and _CLUSTER_NAME.fullmatch(cluster_name)
        and not _overhang(record, header)
    ):
        labels = {name: record[i] for i, name in header.labels if i < len(record)}
        return Triple(line, CheckpointRef(group_id, cluster_name, checkpoint_id), labels)
    return BadLine(line, tuple(_faults(record, header, values)))


def _overhang(record: Sequence[str], header: Header) -> list[str]:
    """Fields beyond the header's; empty ones are what a spreadsheet leaves and do not count."""
    return [field for field in record[len(header.names) :] if field.strip()]


def _faults(record: Sequence[str], header: Header, values: Mapping[str, str]) -> Iterator[Fault]:
    for attribute, index in sorted(header.columns.items(), key=lambda item: item[1]):
        value, name = values[attribute], header.names[index]
        if index >= len(record):
            yield Fault(name, "", "the line has this column")
        elif attribute == "cluster_name" and not _CLUSTER_NAME.fullmatch(value):
            yield Fault(
                name, _shown(value), "letters, digits, '-' and '_', a letter or digit first"
            )
        elif attribute != "cluster_name" and not _OBJECT_ID.fullmatch(value.lower()):
            yield Fault(name, _shown(value), "24 hexadecimal digits")
    if overhang := _overhang(record, header):
        rule = f"no more than the header's {len(header.names)} fields"
        yield Fault("(beyond the header)", _shown(overhang[0]), rule)
