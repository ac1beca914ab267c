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


def is_object_id(text: str) -> bool:
    """Whether a project or checkpoint can have this id; it is written in lower case."""
    return _OBJECT_ID.fullmatch(text) is not None


def is_cluster_name(text: str) -> bool:
    """Whether a cluster can have this name."""
    return _CLUSTER_NAME.fullmatch(text) is not None


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
        for number, record in _records(self._lines, self.header):
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


def _records(lines: _Numbered, header: Header) -> Iterator[tuple[int, list[str] | Fault]]:
    """Split lines into records of fields; a record that cannot be split is a fault."""
    while (taken := lines.take()) is not None:
        number, raw = taken
        text = _decode(number, raw)
        if isinstance(text, Fault):
            yield number, text
        elif '"' in text or "\r" in text.rstrip("\r\n"):
            yield number, _quoted_record(text, lines, header)
        else:
            yield number, text.rstrip("\r\n").split(header.delimiter)


def _quoted_record(first: str, lines: _Numbered, header: Header) -> list[str] | Fault:
    """Read a record with quotes, taking further lines while a quote is open.

    They are given back when they do not make the record whole.
    """
    further: list[tuple[int, bytes]] = []
    text, fields = first, _split_quoted(first, header.delimiter)
    most = 0 if _hides_ids(first, header) else _MAX_RECORD_LINES
    while fields is None and len(further) < most and (taken := lines.take()):
        further.append(taken)
        more = _decode(*taken)
        if isinstance(more, Fault) or _begins_anew(more, header):
            break
        text += more
        fields = _split_quoted(text, header.delimiter)
    if isinstance(fields, list):
        return fields
    lines.put_back(further)
    if isinstance(fields, Fault) and not further:
        return fields
    return Fault("(whole line)", _shown(first), "a quote that opens is closed")


# Two stray quotes in different lines look like one long field. They must not hide the checkpoints
# between them, so a quoted field has no line that names one in the columns for it.


def _hides_ids(text: str, header: Header) -> bool:
    """Whether the quote that a line leaves open stands before the line's own ids."""
    before, _, inside = text.replace('""', "").rpartition('"')
    fields = [""] * before.count(header.delimiter) + inside.split(header.delimiter)
    return _ref(fields, header) is not None


def _begins_anew(text: str, header: Header) -> bool:
    """Whether a line that an open quote would swallow names a checkpoint itself.

    Only what stands before the line's own closing quote counts.
    """
    inside = text.replace('""', "").partition('"')[0]
    return _ref(inside.split(header.delimiter), header) is not None


def _split_quoted(text: str, delimiter: str) -> list[str] | Fault | None:
    """Fields of one record; None while a quote is still open; a fault where quoting is broken."""
    lines = StringIO(text.rstrip("\r\n"), newline="")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
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
    ids = re.findall(r"(?<![A-Fa-f0-9])[A-Fa-f0-9]{24}(?![A-Fa-f0-9])", text.strip().split("\r")[0])
    if len(ids) >= 2:  # noqa: PLR2004 - a project's and a checkpoint's
        found = f"the first line is a triple, not a header: {_shown(text)!r}"
    elif "\r" in text.strip():
        found = "its lines end with CR alone, so that all of it is one line"
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
    ref = _ref(record, header)
    if ref is None or _overhang(record, header):
        return BadLine(line, tuple(_faults(record, header)))
    labels = {name: record[i] for i, name in header.labels if i < len(record)}
    return Triple(line, ref, labels)


def _ref(record: Sequence[str], header: Header) -> CheckpointRef | None:
    """The triple that stands in the columns for it; None where one of its ids is none."""
    values = _values(record, header)
    group_id, checkpoint_id = values["group_id"].lower(), values["checkpoint_id"].lower()
    cluster_name = values["cluster_name"]
    is_valid = (
        is_object_id(group_id) and is_object_id(checkpoint_id) and is_cluster_name(cluster_name)
    )
    return CheckpointRef(group_id, cluster_name, checkpoint_id) if is_valid else None


def _values(record: Sequence[str], header: Header) -> dict[str, str]:
    """The fields that should hold the ids, by attribute; empty where the line ends before."""
    return {
        attribute: record[index].strip() if index < len(record) else ""
        for attribute, index in header.columns.items()
    }


def _overhang(record: Sequence[str], header: Header) -> list[str]:
    """Fields beyond the header's; empty ones are what a spreadsheet leaves and do not count."""
    return [field for field in record[len(header.names) :] if field.strip()]


def _faults(record: Sequence[str], header: Header) -> Iterator[Fault]:
    values = _values(record, header)
    for attribute, index in sorted(header.columns.items(), key=lambda item: item[1]):
        value, name = values[attribute], header.names[index]
        if index >= len(record):
            yield Fault(name, "", "the line has this column")
        elif attribute == "cluster_name" and not is_cluster_name(value):
            yield Fault(
                name, _shown(value), "letters, digits, '-' and '_', a letter or digit first"
            )
        elif attribute != "cluster_name" and not is_object_id(value.lower()):
            yield Fault(name, _shown(value), "24 hexadecimal digits")
    if overhang := _overhang(record, header):
        rule = f"no more than the header's {len(header.names)} fields"
        yield Fault("(beyond the header)", _shown(overhang[0]), rule)
