"""The input: kept as it was read, whatever wraps it, and laid into the journal."""

import gzip
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline import intake
from pipeline.checkpoints import CheckpointRef
from pipeline.errors import AuditError, InputMissing, InputUnusable, OutputsUnwritable
from pipeline.intake import KeptInput, keep_input, load_input
from pipeline.journal import Journal
from tests.doubles import answered

G, C = "5f" * 12, "5e" * 12
HEADER = b"project_id,cluster_name,checkpoint_id,team\n"
LINE = f"{G},orders,{C},red\n".encode()
TEXT = HEADER + LINE


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "a.journal") as opened:
        yield opened


def keep(data: bytes, work: Path, name: str = "input.csv") -> KeptInput:
    path = work.parent / name
    path.write_bytes(data)
    return keep_input(str(path), work)


def text_of(kept: KeptInput) -> bytes:
    return gzip.decompress(kept.path.read_bytes())


# --- keeping ------------------------------------------------------------------------------------

#: The same bytes every time, as parameters of tests have to be.
packed = partial(gzip.compress, mtime=0)
LONG = HEADER + LINE * 40_000  # more than one chunk
WRAPPINGS = {
    "plain": (TEXT, TEXT),
    "byte order mark": (b"\xef\xbb\xbf" + TEXT, b"\xef\xbb\xbf" + TEXT),
    "long": (LONG, LONG),
    "empty": (b"", b""),
    "gzip": (packed(TEXT), TEXT),
    "gzip, long": (packed(LONG), LONG),
    "gzip, several members": (packed(HEADER) + packed(LINE), TEXT),
    "gzip, an empty member": (packed(b"") + packed(TEXT), TEXT),
    "gzip, stored": (packed(LONG, 0), LONG),
}


@pytest.mark.parametrize(("data", "text"), WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_the_text_is_kept_with_its_own_digest(data: bytes, text: bytes, work: Path) -> None:
    """The digest is that of the text, whether or not it came compressed."""
    kept = keep(data, work)

    assert text_of(kept) == text
    assert kept.sha256 == hashlib.sha256(text).hexdigest()
    assert kept.source == str(work.parent / "input.csv")
    assert kept.path.parent == work


def test_the_copy_tells_nothing_of_when_it_was_made(work: Path) -> None:
    assert keep(TEXT, work).path.read_bytes()[4:8] == bytes(4)


def test_the_name_says_nothing_about_compression(work: Path) -> None:
    assert text_of(keep(TEXT, work, "input.csv.gz")) == TEXT


class Pipe:
    """Standard input that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BufferedReader(Trickle(data))


class Trickle(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(3, len(buffer), len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


@pytest.mark.parametrize("data", [TEXT, packed(TEXT)])
def test_standard_input_is_kept_like_a_file(
    data: bytes, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    kept = keep_input("-", work)

    assert (text_of(kept), kept.source) == (TEXT, "standard input")


# --- what cannot be kept ------------------------------------------------------------------------


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


WRONG_SUM = bytes(4)  # instead of the text's
UNUSABLE = {
    "workbook": (workbook(), "workbook or a zip archive"),
    "UTF-16": (TEXT.decode().encode("utf-16"), "UTF-16"),
    "UTF-16, big end first": (b"\xfe\xff" + TEXT.decode().encode("utf-16-be"), "UTF-16"),
    "cut gzip": (packed(LONG)[:-20], "cut off"),
    "gzip without its end": (packed(TEXT)[:-1], "cut off"),
    "gzip cut in a second member": (
        packed(TEXT) + packed(LINE)[:12],
        "cut off",
    ),
    "gzip's first two bytes": (b"\x1f\x8b", "cut off"),
    "damaged gzip": (
        packed(TEXT)[:-8] + WRONG_SUM + packed(TEXT)[-4:],
        "damaged",
    ),
    "no gzip behind gzip": (packed(TEXT) + b"rest", "damaged"),
}


@pytest.mark.parametrize(("data", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_is_no_csv_is_unusable(data: bytes, words: str, work: Path) -> None:
    with pytest.raises(InputUnusable, match=words) as caught:
        keep(data, work)

    assert caught.value.hint


def test_a_bomb_is_unpacked_a_piece_at_a_time() -> None:
    """A megabyte of gzip may hold a gigabyte: no piece is larger than what is read at once."""
    sizes = [len(piece) for piece in intake._decompressed([packed(bytes(10_000_000))])]

    assert sum(sizes) == 10_000_000
    assert max(sizes) <= intake._CHUNK


def test_what_is_not_there_is_missing(work: Path) -> None:
    with pytest.raises(InputMissing, match="No such file"):
        keep_input(str(work / "nothing.csv"), work)


def test_a_folder_is_no_input(work: Path) -> None:
    with pytest.raises(InputMissing, match="directory"):
        keep_input(str(work), work)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_missing(work: Path) -> None:
    path = work / "secret.csv"
    path.write_bytes(TEXT)
    path.chmod(0)

    with pytest.raises(InputMissing, match="Permission denied"):
        keep_input(str(path), work)


def test_closed_standard_input_is_missing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(InputMissing, match="closed"):
        keep_input("-", work)


class Broken(Trickle):
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        raise OSError(5, "Input/output error")


def test_an_input_that_breaks_is_not_blamed_on_the_outputs(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipe(b"")
    pipe.buffer = io.BufferedReader(Broken(b""))
    monkeypatch.setattr(sys, "stdin", pipe)

    with pytest.raises(InputMissing, match="standard input cannot be read: Input/output error"):
        keep_input("-", work)


def test_a_copy_that_cannot_be_written_is_the_outputs_fault(tmp_path: Path) -> None:
    path = tmp_path / "input.csv"
    path.write_bytes(TEXT)

    with pytest.raises(OutputsUnwritable, match=r"input\.csv\.gz cannot be written"):
        keep_input(str(path), tmp_path / "nowhere")


# --- loading ------------------------------------------------------------------------------------


def load(data: bytes, work: Path, journal: Journal, *, strict: bool = False) -> None:
    load_input(keep(data, work), journal, strict=strict)


def test_every_line_is_in_the_journal(work: Path, journal: Journal) -> None:
    other = f"{'0' * 24},orders,{C},\n".encode()
    load(TEXT + b"bad\n\n" + LINE + other, work, journal)
    tally = journal.tally()

    assert (tally.triples, tally.duplicates, tally.bad_lines) == (2, 1, 1)
    assert journal.fact("line_count") == "4"
    assert [row.ref.group_id for row in answered(journal)] == ["0" * 24, G]


def test_of_a_triple_given_twice_the_first_line_counts(work: Path, journal: Journal) -> None:
    again = f"{G.upper()}, orders ,{C},blue\n".encode()
    load(TEXT + again, work, journal)
    (row,) = answered(journal)

    assert (row.ref, row.line) == (CheckpointRef(G, "orders", C), 2)
    assert row.labels == '{"team": "red"}'


def test_the_header_is_kept_for_who_writes_the_columns_again(work: Path, journal: Journal) -> None:
    load(TEXT.replace(b",", b";"), work, journal)
    header = journal.header()

    assert header.names == ("project_id", "cluster_name", "checkpoint_id", "team")
    assert (header.delimiter, header.labels) == (";", ((3, "team"),))
    assert header.columns == {"group_id": 0, "cluster_name": 1, "checkpoint_id": 2}


NO_TRIPLES = {
    "empty": (b"", "empty"),
    "header only": (HEADER, "there is only a header"),
    "header and blank lines": (HEADER + b"\n,,,\n \n", "there is only a header"),
    "no header": (LINE, "a triple, not a header"),
    "bad lines only": (HEADER + b"x\ny\n", "none of 2 lines names one: line 2, column"),
}


@pytest.mark.parametrize(("data", "words"), NO_TRIPLES.values(), ids=NO_TRIPLES.keys())
def test_an_input_that_names_nothing_is_unusable(
    data: bytes, words: str, work: Path, journal: Journal
) -> None:
    with pytest.raises(InputUnusable, match=words):
        load(data, work, journal)


@pytest.mark.parametrize("data", [data for data, _ in NO_TRIPLES.values()], ids=NO_TRIPLES.keys())
def test_so_it_is_when_strict(data: bytes, work: Path, journal: Journal) -> None:
    with pytest.raises(InputUnusable):
        load(data, work, journal, strict=True)


def test_a_bad_line_does_not_matter_unless_strict(work: Path, journal: Journal) -> None:
    load(TEXT + b"bad\n", work, journal)

    assert journal.tally().triples == 1


def test_strict_stops_at_a_bad_line_and_names_it(work: Path, journal: Journal) -> None:
    with pytest.raises(InputUnusable, match=r"1 of 2 lines name no checkpoint: line 3, column"):
        load(TEXT + b"bad\n", work, journal, strict=True)


def test_strict_has_nothing_against_good_lines(work: Path, journal: Journal) -> None:
    load(TEXT + LINE, work, journal, strict=True)

    assert journal.tally().duplicates == 1


def test_only_the_first_bad_lines_are_told(work: Path, journal: Journal) -> None:
    with pytest.raises(AuditError) as caught:
        load(HEADER + b"x\n" * 1000, work, journal)

    assert "line 11," in str(caught.value)
    assert "line 12," not in str(caught.value)
