"""A published run's folder, read again as what its tables were derived from.

The input, the outcomes and the replies of a run lie in its own folder, whose digests are checked
before anything is believed. Outcomes and replies are both sorted by the triples' keys, the replies
to what was asked for no triple (pages of lists among them) first: they are read side by side, a
few rows at a time. Of the outcomes is taken what no reply says: which reply counts, how often was
asked, and why there is no reply. All the rest is read from the replies.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.journal import PAGES_AT_HAND, Answered, Batch, StoredReply, in_key_order
from pipeline.listing import read_page
from pipeline.outcomes import UNTOLD_KINDS, Failure, FailureKind
from pipeline.policy import Policy, read_policy, read_policy_over
from pipeline.published import AS_IT_WAS, FIRST_VERSION, PublishedRun
from pipeline.rules import RULES_VERSION
from pipeline.tables import OUTCOMES, REPLIES, Table
from pipeline.triples import BadLine, Header, TripleReader

#: What is in memory at a time: rows, and fewer where these are larger together, in bytes. A reply
#: may have megabytes.
ROWS_AT_ONCE, BYTES_AT_ONCE = 500, 8 * 1024 * 1024

#: Row groups with pages that are kept at hand: pages of one cluster arrive close to one another.
_GROUPS_AT_HAND = 2


#: The policy of a run as it was read, and the default which that was laid over, if it was not one.
POLICY_FILE, BASE_POLICY_FILE = "evidence/policy.toml", "evidence/default-policy.toml"


def policy_of(run: PublishedRun) -> Policy:
    """Read the policy that a run was judged by, over the default of its day.

    One of another version of the rules is laid over the default of today, which knows today's
    rules. Raises `InputUnusable`, and `PolicyWrong` for one that is not understood any more.
    """
    text, source = _text_of(run, POLICY_FILE), f"the policy of {run.run_id}"
    if run.manifest.rules_version != RULES_VERSION:
        return read_policy(text, source)
    base = _text_of(run, BASE_POLICY_FILE) if run.digest_of(BASE_POLICY_FILE) else ""
    return read_policy_over(text, base, source)


def _text_of(run: PublishedRun, name: str) -> str:
    path = run.file(name)
    with reading(path):
        return path.read_bytes().decode("utf-8")


class Told(NamedTuple):
    """What a run's outcomes tell of one triple, and no reply does; the fields are columns."""

    group_id: str
    cluster_name: str
    checkpoint_id: str
    verdict: str
    failure_kind: str | None
    error_detail: str | None
    attempts: int
    fetched_by: str
    input_line: int
    labels: str
    reply_id: int | None

    @property
    def ref(self) -> CheckpointRef:
        """The triple."""
        return CheckpointRef(*self[:3])


class Evidence:
    """What a published run was derived from; see `derive.Collected`.

    Reading raises `InputUnusable` for a file that is not as it was published, or whose rows do not
    belong together.
    """

    def __init__(self, run: PublishedRun, only: CheckpointRef | None = None) -> None:
        """With `only`, there is that triple, and the replies to requests for it."""
        self.run = run
        self._only = only
        self._files: dict[str, list[Path]] = {}
        self._page = lru_cache(maxsize=PAGES_AT_HAND)(self._read_page)
        self._group = lru_cache(maxsize=_GROUPS_AT_HAND)(_read_group)

    def header(self) -> Header:
        """Give the header of the input."""
        with self._input() as reader:
            return reader.header

    def bad_lines(self) -> Iterator[BadLine]:
        """Give the bad lines in the input's order."""
        with self._input() as reader:
            yield from (line for line in reader if isinstance(line, BadLine))

    def told(self) -> Iterator[Told]:
        """Give what the outcomes tell, in key order."""
        return map(Told._make, self.rows("outcomes", Told._fields))

    def replies(self) -> Iterator[StoredReply]:
        """Give every reply: those of no triple first, as they arrived, then by key.

        Of a run by the first version, whose file has them as they arrived, all are in memory.
        """
        found = map(self._whole, self.rows("evidence", StoredReply._fields))
        has_arrivals = self.run.manifest.tool_version == FIRST_VERSION
        return iter(sorted(found, key=in_key_order)) if has_arrivals else found

    def replies_of_no_triple(self) -> Iterator[StoredReply]:
        """Give, in the order of arrival, the replies to what was not asked for one triple."""
        for stored in self.replies():
            if stored.group_id is not None:
                return
            yield stored

    def reply_count(self) -> int:
        """Count all replies."""
        return sum(pq.ParquetFile(path).metadata.num_rows for path in self.files("evidence"))

    def batches(self) -> Iterator[Batch]:
        """Give every triple in key order, with its answer and all replies, some at a time."""
        replies = _InStep(each for each in self.replies() if each.group_id is not None)
        batch, size = Batch([], []), 0
        for told in self.told():
            own = replies.of(told.ref)
            batch.answered.append(self._answered(told, own))
            batch.replies.extend(own)
            size += sum([len(each.body) for each in own])
            if len(batch.answered) == ROWS_AT_ONCE or size > BYTES_AT_ONCE:
                yield batch
                batch, size = Batch([], []), 0
        if batch.answered:
            yield batch
        if replies.ahead is not None:
            raise self._wrong(f"reply {replies.ahead.reply_id} answers no triple of its outcomes")

    def item_of(self, ref: CheckpointRef, reply_id: int) -> int:
        """Give the place of a triple in a page of its list.

        Of an id that a page shows twice the first one counts.
        """
        _, places = self._page(reply_id)
        if ref.checkpoint_id not in places:
            raise self._wrong(f"{ref} is not in reply {reply_id}")
        return places[ref.checkpoint_id]

    def files(self, folder: str) -> list[Path]:
        """Give the Parquet files of a folder; digests are checked the first time."""
        if folder not in self._files:
            found = [path for path in self.run.files(folder) if path.suffix == ".parquet"]
            self._files[folder] = found
        return self._files[folder]

    def rows(self, folder: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        """Read some columns of a run's files, row by row; times as microseconds since 1970."""
        table = REPLIES if folder == "evidence" else OUTCOMES
        for path in self.files(folder):
            for batch in batches_of(path, columns):
                _check_types(path, table, batch)
                yield from _rows(_about(self._only, batch), columns)

    @contextmanager
    def _input(self) -> Iterator[TripleReader]:
        path = self.run.file("evidence/input.csv.gz")
        with reading(path), gzip.open(path, "rb") as file:
            yield TripleReader(cast("Iterator[bytes]", file))

    def _whole(self, row: tuple[Any, ...]) -> StoredReply:
        stored = StoredReply._make(row)
        if hashlib.sha256(stored.body).hexdigest() != stored.body_sha256:
            raise self._wrong(f"the body of reply {stored.reply_id} has not the SHA-256 beside it")
        try:
            _TEXTS.decode(stored.headers)
            stored.reply()
        except (ValueError, OverflowError) as error:
            raise self._wrong(f"reply {stored.reply_id} is none: {error}") from error
        return stored

    def _answered(self, told: Told, own: Sequence[StoredReply]) -> Answered:
        if not _is_texts(told.labels):
            raise self._wrong(f"the labels of {told.ref} are no object of texts")
        reply, item, failure = None, None, None
        if told.reply_id is None:
            failure = Failure(self._kind(told), detail=told.error_detail or "")
        elif told.fetched_by == "list":
            reply, item = self._page(told.reply_id)[0], self.item_of(told.ref, told.reply_id)
        else:
            reply = next((each for each in own if each.reply_id == told.reply_id), None)
            if reply is None:
                raise self._wrong(f"reply {told.reply_id}, which should answer {told.ref}, is not")
        return Answered(
            told.ref,
            told.input_line,
            told.labels,
            reply,
            item,
            failure,
            told.attempts,
            told.fetched_by,
        )

    def _kind(self, told: Told) -> FailureKind:
        """Give why there is no reply; what only a reply can say is taken from nowhere else."""
        if told.failure_kind not in UNTOLD_KINDS:
            raise self._wrong(f"{told.ref} has no reply, and {told.failure_kind!r} is no reason")
        return FailureKind(told.failure_kind)

    # --- pages of lists ---

    def _read_page(self, reply_id: int) -> tuple[StoredReply, dict[str | None, int]]:
        """A page, and where in it its items are."""
        if reply_id not in self._places:
            raise self._wrong(f"its evidence lacks reply {reply_id}, a page of a list")
        path, group, row = self._places[reply_id]
        found = self._group(path, group).slice(row, 1).to_batches()
        stored = self._whole(next(_rows(found[0], StoredReply._fields)))
        entries = read_page(stored.reply())
        places: dict[str | None, int] = {}
        for entry in () if isinstance(entries, Failure) else entries:
            places.setdefault(entry.id, entry.index)
        return stored, places

    @cached_property
    def _places(self) -> dict[int, tuple[Path, int, int]]:
        """Where the replies of no triple are: file, row group, row."""
        return {
            reply_id: (path, group, row)
            for path in self.files("evidence")
            for group, rows in _groups(path)
            for row, (reply_id, group_id) in enumerate(rows)
            if group_id is None
        }

    def _wrong(self, what: str) -> InputUnusable:
        return InputUnusable(f"the run {self.run.run_id} is not whole: {what}", hint=AS_IT_WAS)


class _InStep:
    """Replies that are given triple by triple; `ahead` is the first that was not given yet."""

    def __init__(self, replies: Iterator[StoredReply]) -> None:
        self._replies = replies
        self.ahead = next(replies, None)

    def of(self, ref: CheckpointRef) -> list[StoredReply]:
        """Give those of the next triple."""
        key = (ref.group_id, ref.cluster_name, ref.checkpoint_id)
        found = []
        while self.ahead is not None and self.ahead[2:5] == key:
            found.append(self.ahead)
            self.ahead = next(self._replies, None)
        return found


_TEXTS = msgspec.json.Decoder(dict[str, str])


def _is_texts(text: str) -> bool:
    try:
        _TEXTS.decode(text)
    except msgspec.DecodeError:  # a ValidationError is one
        return False
    return True


# --- Parquet -------------------------------------------------------------------------------------


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell trouble with a file's contents as `InputUnusable`."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputUnusable(f"{path} cannot be read: {error}", hint=AS_IT_WAS) from error


def batches_of(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of a file, each row group so many rows at a time as its size allows.

    Raises `InputUnusable` where the file is no Parquet file, or has not all of them.
    """
    with reading(path), pq.ParquetFile(path) as file:
        lacking = set(columns).difference(file.schema_arrow.names)
        if lacking:
            raise InputUnusable(f"{path} lacks {', '.join(sorted(lacking))}", hint=AS_IT_WAS)
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            fitting = BYTES_AT_ONCE * group.num_rows // max(1, group.total_byte_size)
            rows = max(1, min(ROWS_AT_ONCE, fitting))
            yield from file.iter_batches(rows, row_groups=[index], columns=list(columns))


def _check_types(path: Path, table: Table, batch: pa.RecordBatch) -> None:
    """Check that values are of the types that they were published with, and there."""
    for field in batch.schema:
        known = table.schema.field(field.name)
        is_there = known.nullable or not batch.column(field.name).null_count
        if field.type != known.type or not is_there:
            raise InputUnusable(
                f"{path}: {field.name} is {field.type}, wanted {known}", hint=AS_IT_WAS
            )


def _about(ref: CheckpointRef | None, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows about a triple; all of them where there is none."""
    if ref is None:
        return batch
    return batch.filter(
        pc.and_(
            pc.equal(batch.column("checkpoint_id"), ref.checkpoint_id),
            pc.and_(
                pc.equal(batch.column("cluster_name"), ref.cluster_name),
                pc.equal(batch.column("group_id"), ref.group_id),
            ),
        )
    )


def _rows(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(_values(batch.column(name)) for name in columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return list(values.to_pylist())


def _groups(path: Path) -> Iterator[tuple[int, Iterator[tuple[Any, ...]]]]:
    """The row groups of a file of replies, as far as they hold replies of no triple."""
    columns = ["reply_id", "group_id"]
    with reading(path), pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            found = file.read_row_group(index, columns)
            if not found["group_id"].null_count:
                return
            yield index, zip(*(found[name].to_pylist() for name in columns), strict=True)


def _read_group(path: Path, index: int) -> pa.Table:
    with reading(path), pq.ParquetFile(path) as file:
        return file.read_row_group(index, list(StoredReply._fields))
