"""The input: read once, kept as it was read, and laid into the journal.

A copy is kept, compressed, before a line of it is understood: it becomes evidence, and it makes
standard input readable a second time. Its digest is that of the CSV's text, whether or not the
input came compressed: `sha256sum FILE`, or `gzip -dc FILE.gz | sha256sum`.
"""

import gzip
import hashlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

import msgspec

from pipeline.errors import InputMissing, InputUnusable, OutputsUnwritable
from pipeline.journal import Journal
from pipeline.triples import BadLine, Triple, TripleReader

#: What the input, and what `discover` wrote, are called among the evidence.
INPUT_FILE, DISCOVERED_FILE = "input.csv.gz", "discovered.csv.gz"

_CHUNK = 1 << 20
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_SHOWN_BAD_LINES = 10


class KeptInput(msgspec.Struct, frozen=True):
    """The input as kept: `path` is gzip, `sha256` of the text in it, `source` what it is called."""

    path: Path
    sha256: str
    source: str


def keep_input(source: str, work: Path, name: str = INPUT_FILE) -> KeptInput:
    """Copy the input into `work`, under that name; `-` is standard input.

    Raises `InputMissing`, `InputUnusable` or `OutputsUnwritable`.
    """
    kept = work / name
    digest = hashlib.sha256()
    called = "standard input" if source == "-" else printable(source)
    with _open(source) as file:
        chunks = _text(_chunks(file, called))
        try:
            with kept.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as copy:
                for chunk in chunks:
                    digest.update(chunk)
                    copy.write(chunk)
        except OSError as error:
            raise OutputsUnwritable(f"{kept} cannot be written: {error.strerror}") from error
    return KeptInput(kept, digest.hexdigest(), called)


def changed_at(source: str) -> datetime | None:
    """When the input was last changed; None where that is not known, as of standard input."""
    path = Path(source)
    if source == "-" or not path.is_file():
        return None
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def printable(path: str) -> str:
    """Give a file's name as text, its bytes that are no UTF-8 as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _open(source: str) -> IO[bytes]:
    if source == "-":
        if sys.stdin is None:  # its descriptor was closed before we began
            raise InputMissing("standard input is closed")
        return sys.stdin.buffer
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise InputMissing(f"{printable(source)} cannot be opened: {error.strerror}") from error


def _chunks(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Read to the end; what fails here is the input, not the copy of it."""
    try:
        while chunk := file.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise InputMissing(f"the input {name} cannot be read: {error.strerror}") from error


def _text(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the CSV's bytes a chunk at a time, decompressed where they are compressed."""
    first = next(chunks, b"")
    if first.startswith(_ZIP):
        raise InputUnusable("the input is a workbook or a zip archive, not text")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputUnusable("the input is UTF-16", hint="save it as CSV in UTF-8")
    chunks = chain([first], chunks)
    yield from _decompressed(chunks) if first.startswith(_GZIP) else chunks


def _decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Undo gzip, also of several members in a row; a cut file is an error, not an end."""
    member = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
                yield member.decompress(rest, _CHUNK)
                rest = member.unconsumed_tail or member.unused_data
    except zlib.error as error:
        raise InputUnusable(f"the compressed input is damaged: {error}") from error
    if not member.eof:
        raise InputUnusable("the compressed input is cut off", hint="copy it again, whole")


def check_header(kept: KeptInput) -> None:
    """Raise `InputUnusable` where a file has no header with the columns of a triple."""
    with gzip.open(kept.path, "rb") as file:
        TripleReader(cast("IO[bytes]", file))


def load_input(kept: KeptInput, journal: Journal, *, strict: bool) -> None:
    """Lay every line of the input into the journal, with the header among its facts.

    Raises `InputUnusable` when no line names a checkpoint; with `strict`, when any line does not.
    """
    with gzip.open(kept.path, "rb") as file:
        reader = TripleReader(cast("IO[bytes]", file))
        lines = _Counted(reader)
        journal.load_input(lines)
    header = msgspec.json.encode(reader.header).decode()
    tally = journal.tally()
    if strict and tally.bad_lines:
        raise InputUnusable(
            f"{tally.bad_lines} of {lines.count} lines name no checkpoint: {_first_bad(journal)}",
            hint="mend them, or leave --strict out: the other lines are audited then",
        )
    if not tally.triples:
        found = f"none of {lines.count} lines names one: {_first_bad(journal)}"
        raise InputUnusable(
            f"the input names no checkpoint: {found if lines.count else 'there is only a header'}"
        )
    journal.set_facts(header=header, line_count=str(lines.count))


def _first_bad(journal: Journal) -> str:
    return "; ".join(map(str, islice(journal.bad_lines(), _SHOWN_BAD_LINES)))


class _Counted:
    """Counts lines as they pass, apart from everybody else who counts them."""

    def __init__(self, lines: Iterable[Triple | BadLine]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[Triple | BadLine]:
        for line in self._lines:
            self.count += 1
            yield line
