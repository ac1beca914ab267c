"""A TOML file that people write: read key by key, and all that is wrong with it told at once.

Every value is taken by its key with a reader, a function that gives what the value means or raises
`Wrong`. What is wrong is kept with the key, and the line where that key is set; `Document.in_order`
has all of it at the end.
"""

import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

#: Characters of a value that a fault quotes.
_SHOWN = 60


class Wrong(ValueError):
    """A value that is not what its key wants."""

    def __init__(self, found: object, wanted: str) -> None:
        super().__init__(f"found {shown(found)}, wanted {wanted}")


class Fault(NamedTuple):
    """One thing wrong with a document.

    `key` is its path, tables of a list counted from 1; `line` counts from 1 too, and is None where
    the document has no such line; `about` names what the key belongs to.
    """

    key: str
    line: int | None
    text: str
    about: str = ""

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line else ""
        place = ", ".join(filter(None, (self.about, line)))
        return f"{self.key} ({place}): {self.text}" if place else f"{self.key}: {self.text}"


class Document:
    """A TOML document.

    Raises `tomllib.TOMLDecodeError`, which names line and column, for what is not TOML.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.faults: list[Fault] = []
        self.root = Table(self, "", tomllib.loads(text.removeprefix(_MARK)))

    @property
    def in_order(self) -> list[Fault]:
        """All faults, in the order of their lines."""
        return sorted(self.faults, key=lambda fault: fault.line or 0)

    @cached_property
    def lines(self) -> dict[str, int]:
        """Path of every key → the line on which it is set first."""
        return key_lines(self._text)

    def line_of(self, path: str) -> int | None:
        """Give the line of a key, or of the table that it is missing from."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


#: The byte order mark, which some editors begin a file with.
_MARK = "\ufeff"


class Table:
    """One table of a document. `about` is what faults call it beside its path."""

    def __init__(self, document: Document, path: str, values: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.values = values
        self.about = ""
        self._asked: dict[str, None] = {}

    def fault(self, key: str, text: str) -> None:
        """Keep that something is wrong with one of its keys; with itself, where `key` is empty."""
        path = _joined(self.path, key)
        fault = Fault(path, self.document.line_of(path), text, self.about)
        self.document.faults.append(fault)

    def take(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """Read the value of `key`; `default` where there is none, or a wrong one."""
        self._asked[key] = None
        read_ones = self._read(key, read, self.values[key]) if key in self.values else []
        return read_ones[0] if read_ones else default

    def take_all(
        self, key: str, read: Callable[[Any], T], default: tuple[T, ...], *, least: int = 0
    ) -> tuple[T, ...]:
        """Read a list of values; `default` where there is none. `least`: so many must be in it."""
        every: list[Any] | None = self.take(key, _list, None)
        if every is None:
            return default
        if len(every) < least:
            self.fault(key, f"found {shown(every)}, wanted at least {least}, or no such key")
        return tuple(value for one in every for value in self._read(key, read, one))

    def _read(self, key: str, read: Callable[[Any], T], value: object) -> list[T]:
        """Give what a value means, or nothing where that is a fault."""
        try:
            return [read(value)]
        except Wrong as wrong:
            self.fault(key, str(wrong))
        return []

    def need(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """Read a value that must be there; `default` stands in for it once that is a fault."""
        if key not in self.values:
            self.fault(key, "missing")
        return self.take(key, read, default)

    def table(self, key: str) -> "Table":
        """Give the table under `key`; an empty one where there is none, or something else."""
        path = _joined(self.path, key)
        return Table(self.document, path, self.take(key, _table, {}))

    def tables(self, key: str) -> "list[Table]":
        """Give the list of tables under `key`; empty where there is none, or something else."""
        every: list[dict[str, Any]] = self.take(key, _tables, [])
        return [Table(self.document, f"{key}[{n}]", one) for n, one in enumerate(every, start=1)]

    def close(self) -> None:
        """Keep every key that was not asked for as a fault."""
        for key in self.values:
            if key not in self._asked:
                self.fault(key, f"there is no such key; {nearest(key, self._asked)}")


def _table(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise Wrong(value, "a table")


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Wrong(value, "a list")


def _tables(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [_table(one) for one in value]
    raise Wrong(value, "a list of tables, each under its own [[…]]")


def _joined(prefix: str, key: str) -> str:
    return ".".join(filter(None, (prefix, key)))


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which name was meant, or which there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def shown(value: object) -> str:
    """Write a value about as TOML does; tables and lists by their kind only."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


# --- values: each reader gives what a value means, or raises `Wrong` -----------------------------


def text_of(value: object) -> str:
    """Read text that says something; blanks around it are left out."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise Wrong(value, "some text")


def flag_of(value: object) -> bool:
    """Read a boolean."""
    if isinstance(value, bool):
        return value
    raise Wrong(value, "true or false")


def share_of(value: object) -> float:
    """Read a number from 0 to 1."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise Wrong(value, "a share from 0 to 1, as 0.2")


def day_of(value: object) -> date:
    """Read a date; one with a time is of another class, and none."""
    if type(value) is date:
        return value
    raise Wrong(value, "a date without quotes, as 2027-03-31")


# --- lines --------------------------------------------------------------------------------------


def key_lines(text: str) -> dict[str, int]:
    """Give the path of every key of a TOML text, and the line on which it is set first.

    tomllib does not tell lines. But a header, and a key with its value, are TOML by themselves, so
    that parsing statement by statement finds where each begins.
    """
    lines: dict[str, int] = {}
    counts: Counter[str] = Counter()
    prefix = ""
    for line, statement in _statements(text.removeprefix(_MARK)):
        paths = list(_paths(tomllib.loads(statement)))
        if statement.lstrip().startswith("["):
            prefix = _header(paths, counts, is_list=statement.lstrip().startswith("[["))
            paths = [""]
        for path in paths:
            lines.setdefault(_joined(prefix, path), line)
    return lines


def _header(paths: list[str], counts: Counter[str], *, is_list: bool) -> str:
    """Give the path of the table that a header begins."""
    if not is_list:
        return paths[-1]
    path = paths[-1].removesuffix("[1]")
    counts[path] += 1
    return f"{path}[{counts[path]}]"


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Give every statement of a valid TOML text with the number of its first line."""
    begun, held = 1, ""
    for line, added in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        begun = begun if held else line
        held += added + "\n"
        # Only these end what goes on over several lines; to try the others would only cost time.
        if (begun == line or any(end in added for end in _ENDS)) and _is_whole(held):
            yield begun, held
            held = ""


_ENDS = ("]", '"""', "'''")


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _paths(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Give the paths of all keys, an outer one before those in it."""
    for key, value in table.items():
        path = _joined(prefix, key)
        yield path
        if isinstance(value, dict):
            yield from _paths(value, path)
        elif isinstance(value, list):
            yield from _paths_of_tables(value, path)


def _paths_of_tables(values: list[Any], prefix: str) -> Iterator[str]:
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict):
            yield f"{prefix}[{number}]"
            yield from _paths(value, f"{prefix}[{number}]")
