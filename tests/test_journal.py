"""The journal on real SQLite: what goes in comes out, whatever happens in between."""

import errno
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import journal as module
from pipeline.atlas import EVIDENCE_HEADERS, Reply, Request
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.commits import Committer, unusable
from pipeline.errors import JournalDamaged, OutputsUnwritable
from pipeline.fetch import Item
from pipeline.journal import Answered, Journal, Taken, Tally
from pipeline.outcomes import UNSETTLED_KINDS, Failed, Failure, FailureKind, Fetched
from pipeline.triples import BadLine, Fault, Triple
from tests.doubles import MOMENT, answered, error, good, group, ref, reply, stored, trouble

REQUEST = Request("/api/atlas/v2/somewhere?x=1")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "a.journal") as opened:
        yield opened


def triple(line: int, number: int = 1, project: int = 1, **labels: str) -> Triple:
    return Triple(line, ref(number, project), labels)


def queued(queues: dict[str, Iterator[Item]]) -> dict[str, list[Item]]:
    return {group_id: list(queue) for group_id, queue in queues.items()}


def pending(journal: Journal) -> list[Item]:
    return [item for queue in queued(journal.pending()).values() for item in queue]


def answers(journal: Journal) -> list[Answered]:
    journal.flush()
    return answered(journal)


def record(journal: Journal, item: Item, answer: Reply, kind: FailureKind | None = None) -> int:
    return journal.record("checkpoint", REQUEST, answer, kind, item.triple_id)


def settle_with(journal: Journal, item: Item, kind: FailureKind | None, attempts: int = 1) -> None:
    """Answer an item with a reply that is read as `kind`."""
    reply_id = record(journal, item, error(500) if kind else good(REQUEST_FOR), kind)
    if kind is None:
        journal.settle(item, Fetched(Checkpoint(), reply_id, attempts))
    else:
        journal.settle(item, Failed(Failure(kind), reply_id, attempts))


REQUEST_FOR = Request("/api/atlas/v2/groups/g/clusters/c/backupCheckpoints/x")

# ── replies ──────────────────────────────────────────────────────────────────────────────────────

PATHS = count()


def fresh(folder: Path) -> Path:
    """A path that no other example has used."""
    return folder / f"{next(PATHS)}.journal"


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
REPLIES = st.builds(
    Reply,
    status=st.integers(0, 999),
    sent_at=MOMENTS,
    received_at=MOMENTS,
    headers=st.dictionaries(st.sampled_from(EVIDENCE_HEADERS), st.text()),
    body=st.binary(max_size=2000),
    trouble=st.none() | st.sampled_from(FailureKind),
    trouble_detail=st.text(st.characters(codec="utf-8")),
)


@given(
    told=st.lists(
        st.tuples(
            REPLIES,
            st.sampled_from(["checkpoint", "preliminary"]),
            st.none() | st.sampled_from(FailureKind),
            st.none() | st.integers(1, 3),
        ),
        max_size=5,
    )
)
@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_reply_comes_out_as_it_went_in(
    tmp_path: Path, told: list[tuple[Reply, str, FailureKind | None, int | None]]
) -> None:
    """Body to the byte, times to the microsecond, in the order of arrival, with its digest."""
    path = fresh(tmp_path)
    with Journal(path) as journal:
        journal.load_input(triple(line, line) for line in (1, 2, 3))
        ids = [
            journal.record(purpose, REQUEST, reply, kind, triple_id)
            for reply, purpose, kind, triple_id in told
        ]
    with Journal(path) as journal:
        found = stored(journal)

    assert ids == list(range(1, len(told) + 1))
    assert [
        (each.reply_id, each.reply(), each.purpose, each.failure_kind, each.checkpoint_id)
        for each in found
    ] == [
        (reply_id, *told_of, ref(triple_id).checkpoint_id if triple_id else None)
        for reply_id, (*told_of, triple_id) in zip(ids, told, strict=True)
    ]
    for each in found:
        assert each.path == REQUEST.path
        assert each.body_sha256 == hashlib.sha256(each.body).hexdigest()


def test_the_largest_body_fits(journal: Journal) -> None:
    body = random.Random(1).randbytes(8 * 2**20)
    journal.record("checkpoint", REQUEST, Reply(200, MOMENT, MOMENT, {}, body), None)
    journal.flush()

    assert stored(journal)[0].body == body


def test_bodies_take_little_room(tmp_path: Path) -> None:
    """Bodies of this API are alike: with the dictionary one takes half a kilobyte or so."""
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        for number in range(1000):
            journal.record("checkpoint", REQUEST, error(404), FailureKind.CHECKPOINT_ABSENT, number)

    assert path.stat().st_size < 1000 * 600


def test_a_journal_of_another_dictionary_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a body was compressed with is in the journal, not in the program."""
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        journal.record("checkpoint", REQUEST, error(404), None)
    monkeypatch.setattr(module, "COMMON_BODY", b"something else")
    with Journal(path) as journal:
        journal.record("checkpoint", REQUEST, error(404), None)
        journal.flush()

        assert [each.reply() for each in stored(journal)] == [error(404)] * 2


# ── the input ────────────────────────────────────────────────────────────────────────────────────


@given(
    lines=st.lists(st.tuples(st.integers(1, 4), st.sampled_from("ABab_-9"), st.integers(1, 5))),
    bad=st.sets(st.integers(0, 30)),
)
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_triples_are_sorted_and_distinct(
    tmp_path: Path, lines: list[tuple[int, str, int]], bad: set[int]
) -> None:
    """In key order as Python sorts it; the first line of several counts, with its labels."""
    given_: list[Triple | BadLine] = []
    for number, (project, cluster, checkpoint) in enumerate(lines):
        about = CheckpointRef(group(project), cluster, group(checkpoint))
        label = {"line": f"é{number}"}
        is_bad = number in bad
        given_.append(
            BadLine(number, (Fault("a", "b", "c"),)) if is_bad else Triple(number, about, label)
        )
    with Journal(fresh(tmp_path)) as journal:
        journal.load_input(given_)
        found, tally, bad_lines = answers(journal), journal.tally(), list(journal.bad_lines())
        items = pending(journal)

    good_lines = [each for each in given_ if isinstance(each, Triple)]
    first = {each.ref: each for each in reversed(good_lines)}
    assert [each.ref for each in found] == sorted(first)
    assert [(each.line, each.labels) for each in found] == [
        (first[about].line, f'{{"line": "é{first[about].line}"}}') for about in sorted(first)
    ]
    assert bad_lines == [each for each in given_ if isinstance(each, BadLine)]
    assert (tally.triples, tally.duplicates, tally.bad_lines) == (
        len(first),
        len(good_lines) - len(first),
        len(bad_lines),
    )
    # Consecutive keys are what lets a queue read its project by a range of keys.
    assert [item.triple_id for item in items] == list(range(1, len(first) + 1))
    assert [item.ref for item in items] == sorted(first)


def test_faults_of_bad_lines_are_kept(journal: Journal) -> None:
    """In the input's order, whatever order they came in."""
    lines = [
        BadLine(7, (Fault("cluster_name", "a/b", "letters"), Fault("x", "", "empty"))),
        BadLine(3, ()),
    ]
    journal.load_input(lines)

    assert list(journal.bad_lines()) == lines[::-1]


def test_a_broken_input_leaves_nothing_behind(journal: Journal) -> None:
    """Reading the input failed half-way: a second attempt starts from nothing."""

    def breaking() -> Iterator[Triple]:
        yield triple(1)
        raise ValueError("not UTF-8")

    with pytest.raises(ValueError, match="not UTF-8"):
        journal.load_input(breaking())
    assert journal.tally().triples == 0

    journal.load_input([triple(1)])
    assert journal.tally().triples == 1


def test_facts_are_kept(tmp_path: Path) -> None:
    """The last word counts; what was never said is empty."""
    with Journal(tmp_path / "a.journal") as journal:
        journal.set_facts(run_id="one", audit_date="2026-11-20")
        journal.set_facts(run_id="zwei €")
    with Journal(tmp_path / "a.journal") as journal:
        assert journal.fact("run_id") == "zwei €"
        assert journal.fact("audit_date") == "2026-11-20"
        assert journal.fact("never") == ""
        assert journal.fact("format") == module.FORMAT


# ── asking and answering ─────────────────────────────────────────────────────────────────────────


def test_what_is_pending_is_counted_by_project(journal: Journal) -> None:
    """Answered for good or not: as long as the queues are, and without those that are empty."""
    journal.load_input(triple(n, n, project=1 + n % 3) for n in range(30))
    one, two, _ = queued(journal.pending()).values()
    for item in (*one, two[0]):
        settle_with(journal, item, None)
    settle_with(journal, two[1], FailureKind.TIMED_OUT)

    assert journal.pending_counts() == {group(2): 9, group(3): 10}
    assert journal.pending_counts() == {
        group_id: len(items) for group_id, items in queued(journal.pending()).items()
    }


def test_queues_are_by_project_and_read_on(journal: Journal) -> None:
    """More than one page of them, complete, each once, while answers are written."""
    journal.load_input(triple(n, n, project=1 + n % 3) for n in range(2400))
    queues = journal.pending()
    seen: Counter[CheckpointRef] = Counter()
    for group_id, queue in queues.items():
        for item in queue:
            assert item.ref.group_id == group_id
            seen[item.ref] += 1
            settle_with(journal, item, None)
            if len(seen) % 100 == 0:
                journal.flush()

    assert len(queues) == 3
    assert seen == Counter(triple(n, n, project=1 + n % 3).ref for n in range(2400))


@pytest.mark.parametrize("kind", [None, *FailureKind])
def test_what_is_pending_after_a_restart(journal: Journal, kind: FailureKind | None) -> None:
    """Lasting answers are kept; what a later start may be answered otherwise is asked again."""
    journal.load_input([triple(1, 1), triple(2, 2)])
    first, _ = pending(journal)
    settle_with(journal, first, kind, attempts=3)
    left = {item.triple_id: item.attempts for item in pending(journal)}

    assert left == ({1: 3, 2: 0} if kind in UNSETTLED_KINDS else {2: 0})


def test_failing_gives_those_kinds_only(journal: Journal) -> None:
    journal.load_input(triple(n, n) for n in range(1, 5))
    wanted = [FailureKind.CUT, FailureKind.TIMED_OUT, None, FailureKind.THROTTLED]
    for item, kind in zip(pending(journal), wanted, strict=True):
        settle_with(journal, item, kind)

    found = queued(journal.failing([FailureKind.CUT, FailureKind.TIMED_OUT]))
    assert [item.triple_id for item in found[group(1)]] == [1, 2]
    assert queued(journal.failing([FailureKind.GONE])) == {}
    assert queued(journal.failing([])) == {}


def test_a_later_answer_replaces_an_earlier_one(journal: Journal) -> None:
    journal.load_input([triple(1)])
    item = pending(journal)[0]
    settle_with(journal, item, FailureKind.CUT, attempts=5)
    settle_with(journal, item, None, attempts=6)
    found = answers(journal)[0]

    assert found.reply is not None
    assert (found.reply.reply_id, found.reply.failure_kind, found.attempts) == (2, None, 6)
    assert journal.kinds() == {None: 1}


def test_a_failure_without_a_reply_replaces_no_reply(journal: Journal) -> None:
    """The project was given up before this triple's turn came again: its own answer says more."""
    journal.load_input([triple(1)])
    item = pending(journal)[0]
    settle_with(journal, item, FailureKind.CUT, attempts=5)
    journal.settle(item, Failed(Failure(FailureKind.NOT_ASKED, detail="given up"), None, 5))
    found = answers(journal)[0]

    assert found.reply is not None
    assert (found.reply.failure_kind, found.failure, found.attempts) == (FailureKind.CUT, None, 5)


def test_attempts_are_counted_from_the_replies(journal: Journal) -> None:
    """But for refusals; also where a run was killed before it could settle an answer."""
    journal.load_input([triple(1), triple(2, 2)])
    item = pending(journal)[0]
    journal.record("preliminary", REQUEST, reply(200), None)
    for kind in (FailureKind.THROTTLED, FailureKind.CUT, FailureKind.THROTTLED):
        record(journal, item, error(500), kind)
    assert [each.attempts for each in pending(journal)] == [1, 0]

    settle_with(journal, item, FailureKind.CUT, attempts=2)
    record(journal, item, good(REQUEST_FOR))
    assert [each.attempts for each in pending(journal)] == [3, 0]


def test_a_failure_without_a_reply_stands_for_itself(journal: Journal) -> None:
    """Until there is a better answer, be it another of its kind."""
    journal.load_input([triple(1), triple(2, 2)])
    item = pending(journal)[0]
    for detail in ("earlier", "later"):
        given_up = Failed(Failure(FailureKind.NOT_ASKED, detail=detail), None, 0)
        journal.settle(item, given_up)
    told, untold = answers(journal)

    assert told.reply is None
    assert told.failure == Failure(FailureKind.NOT_ASKED, detail="later")
    assert (told.attempts, told.fetched_by) == (0, "none")
    assert untold.failure == Failure(FailureKind.NOT_ASKED)
    assert (untold.attempts, untold.fetched_by) == (0, "none")
    settle_with(journal, item, None)
    assert answers(journal)[0].reply is not None


def test_an_answer_has_its_reply_and_its_line(journal: Journal) -> None:
    journal.load_input([triple(9, 1, owner="Zoë")])
    item = pending(journal)[0]
    record(journal, item, trouble(FailureKind.TIMED_OUT), FailureKind.TIMED_OUT)
    settle_with(journal, item, FailureKind.SERVER_ERROR, attempts=2)
    found = answers(journal)[0]

    assert (found.ref, found.line, found.labels) == (item.ref, 9, '{"owner": "Zoë"}')
    assert (found.attempts, found.fetched_by, found.failure) == (2, "get", None)
    assert found.reply is not None
    assert (found.reply.reply_id, found.reply.reply()) == (2, error(500))


def test_the_tally_counts_everything(journal: Journal) -> None:
    """Requests are all replies, refusals those of them that were throttled."""
    journal.load_input([triple(1, 1), triple(2, 1), triple(3, 2), BadLine(4, ())])
    item, _ = pending(journal)
    journal.record("preliminary", REQUEST, reply(200), None)
    record(journal, item, error(429), FailureKind.THROTTLED)
    settle_with(journal, item, None)
    journal.flush()

    assert journal.tally() == Tally(2, 1, 1, 1, 3, 1)
    assert journal.kinds() == {None: 1}


# ── a thread of its own ──────────────────────────────────────────────────────────────────────────


def wait_until(holds: Callable[[], bool]) -> None:
    """Look again and again until it holds; a minute is long enough for any machine."""
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def others_see(path: Path) -> int:
    """Count the committed replies as another process would."""
    db = sqlite3.connect(path)
    try:
        return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])
    finally:
        db.close()


def test_a_reply_is_committed_without_anybody_asking(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.journal") as journal:
        journal.record("checkpoint", REQUEST, reply(200), None)
        wait_until(lambda: others_see(journal.path) == 1)


def test_flush_waits_for_all_that_was_queued(journal: Journal) -> None:
    for _ in range(1234):
        journal.record("checkpoint", REQUEST, reply(200), None)
    journal.flush()

    assert others_see(journal.path) == 1234


def test_close_commits_and_may_be_called_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.journal")
    journal.record("checkpoint", REQUEST, reply(200), None)
    journal.close()
    journal.close()
    journal.flush()

    assert others_see(journal.path) == 1
    assert not [each for each in threading.enumerate() if each.name == "journal"]


def test_reading_goes_on_while_another_thread_records(journal: Journal) -> None:
    """As deriving does beside a watcher: neither is in the other's way."""
    journal.load_input(triple(n, n) for n in range(2000))
    items = pending(journal)
    for item in items[:1000]:
        settle_with(journal, item, None)
    journal.flush()
    counts: list[int] = []
    reader = threading.Thread(
        target=lambda: counts.extend(len(answered(journal)) for _ in range(5))
    )
    reader.start()
    for item in items[1000:]:
        settle_with(journal, item, None)
    reader.join()
    journal.flush()

    assert counts == [2000] * 5
    assert journal.kinds() == {None: 2000}


def test_several_may_flush_at_once(journal: Journal) -> None:
    flushing = [threading.Thread(target=journal.flush) for _ in range(8)]
    for number, thread in enumerate(flushing):
        journal.record("checkpoint", REQUEST, reply(200), None, number)
        thread.start()
    for thread in flushing:
        thread.join(60)

    assert not any(thread.is_alive() for thread in flushing)
    assert others_see(journal.path) == 8


# ── what cannot be written ───────────────────────────────────────────────────────────────────────


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "a.journal"


def no_sqlite(folder: Path) -> Path:
    path = folder / "a.journal"
    path.write_bytes(b"this is text, and long enough to be looked at as a database" * 100)
    return path


def a_folder(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("place", [below_a_file, no_sqlite, a_folder])
def test_a_journal_that_cannot_be_opened(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """Said with its path; no thread is left behind."""
    path = place(tmp_path)
    with pytest.raises(
        OutputsUnwritable, match=f"the journal {path} (cannot be written|is damaged)"
    ):
        Journal(path)

    assert not [each for each in threading.enumerate() if each.name == "journal"]


def test_what_to_do_about_a_full_disk() -> None:
    """What is kept is said: a run of hours is not lost."""
    path = Path("a.journal")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert "make room" in unusable(path, full).hint
    assert "what was answered is kept" in unusable(path, full).hint
    assert "sets the journal aside" in unusable(path, sqlite3.DatabaseError("malformed")).hint


def break_from_outside(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE replies")
    db.close()


def promptly(what: Callable[[], object]) -> None:
    """Do it in a thread, so that what hangs fails instead of hanging the tests."""
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            what()
        except OutputsUnwritable as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


def test_a_commit_that_failed_surfaces_everywhere_and_hangs_nobody(tmp_path: Path) -> None:
    """At the next flush, record or settle, and at the end; a second end is quiet or says it too."""
    journal = Journal(tmp_path / "a.journal")
    journal.load_input([triple(1)])
    item = pending(journal)[0]
    break_from_outside(journal.path)
    record(journal, item, reply(200))
    with pytest.raises(OutputsUnwritable, match="no such table"):
        promptly(journal.flush)
    with pytest.raises(OutputsUnwritable):
        record(journal, item, reply(200))
    with pytest.raises(OutputsUnwritable):
        journal.settle(item, Failed(Failure(FailureKind.CUT), 1, 1))
    with pytest.raises(OutputsUnwritable):
        promptly(journal.pending)
    for _ in range(2):
        with pytest.raises(OutputsUnwritable):
            promptly(journal.close)


def test_a_commit_that_cannot_even_begin_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread lives: who waits for it is told, and what comes later is not lost in silence."""
    journal = Journal(tmp_path / "a.journal")
    take = Committer._take

    def failing(committer: Committer, words: list[threading.Event]) -> object:
        if take(committer, words):
            raise MemoryError("no room")
        return {}

    monkeypatch.setattr(Committer, "_take", failing)
    journal.record("checkpoint", REQUEST, reply(200), None)
    with pytest.raises(OutputsUnwritable, match="no room"):
        promptly(journal.flush)
    with pytest.raises(OutputsUnwritable, match="no room"):
        journal.record("checkpoint", REQUEST, reply(200), None)
    with pytest.raises(OutputsUnwritable, match="no room"):
        promptly(journal.close)

    assert not [each for each in threading.enumerate() if each.name == "journal"]


def test_after_a_failed_commit_nothing_more_is_written(tmp_path: Path) -> None:
    """What is kept has no gap: nobody may take a later reply for the next one."""
    journal = Journal(tmp_path / "a.journal")
    outside = sqlite3.connect(journal.path)
    outside.execute(
        "INSERT INTO replies VALUES (1, 0, '', '', 0, 0, 0, '', '', '', '', '', 0, '', 0)"
    )
    outside.commit()
    outside.close()
    with suppress(OutputsUnwritable):
        for _ in range(1000):
            journal.record("checkpoint", REQUEST, reply(200), None)
    with pytest.raises(OutputsUnwritable, match="UNIQUE"):
        journal.close()

    assert others_see(journal.path) == 1


def test_the_end_of_a_block_tells_of_a_failed_commit(tmp_path: Path) -> None:
    """Or a run would be published whose last replies are not kept."""

    def block() -> None:
        with Journal(tmp_path / "a.journal") as journal:
            break_from_outside(journal.path)
            journal.record("checkpoint", REQUEST, reply(200), None)

    with pytest.raises(OutputsUnwritable):
        block()


FULL_DISK = """
import os, random, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.atlas import Reply, Request
from pipeline.errors import JournalDamaged, OutputsUnwritable
from pipeline.journal import Journal

journal = Journal(Path(sys.argv[1]))
journal.set_facts(run_id="before")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
chance, told, moment = random.Random(1), [], datetime.now(UTC)

def attempt(what):
    try:
        what()
    except OutputsUnwritable as error:
        told.append(type(error).__name__)

def fill():
    for _ in range(1000):
        reply = Reply(200, moment, moment, {}, chance.randbytes(10_000))
        journal.record("checkpoint", Request("/x"), reply, None)
        journal.flush()

attempt(fill)
attempt(journal.flush)
attempt(lambda: journal.set_facts(big="x" * 400_000))
attempt(lambda: journal.load_input(()))
attempt(journal.close)
print(*told)
"""


def child(code: str, *args: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_is_said_and_hangs_nobody(tmp_path: Path) -> None:
    """A limit on the size of files stands for it; what was kept before can be read afterwards."""
    process = child(FULL_DISK, tmp_path / "a.journal")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert out.split()[:3] == ["OutputsUnwritable"] * 3
    assert out.split()[-1] == "OutputsUnwritable"
    with Journal(tmp_path / "a.journal") as journal:
        assert journal.fact("run_id") == "before"
        assert [len(each.body) for each in stored(journal)]


# ── sudden ends ──────────────────────────────────────────────────────────────────────────────────

ENDLESS = """
import sys
from pathlib import Path
from datetime import UTC, datetime
from pipeline.atlas import Reply, Request
from pipeline.journal import Journal

journal, moment = Journal(Path(sys.argv[1])), datetime.now(UTC)
number = 0
while True:
    for _ in range(150):
        number += 1
        body = b"%d" % number
        journal.record("checkpoint", Request("/x"), Reply(200, moment, moment, {}, body), None)
    if number % 450 == 0:
        journal.flush()
        print(number, flush=True)
"""


@pytest.mark.parametrize("flushes", [1, 4])
def test_a_kill_loses_nothing_that_was_flushed(tmp_path: Path, flushes: int) -> None:
    """SIGKILL in the middle of writing: the file opens, holds a sound beginning, and goes on."""
    process = child(ENDLESS, tmp_path / "a.journal")
    assert process.stdout is not None
    flushed = [int(process.stdout.readline()) for _ in range(flushes)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Journal(tmp_path / "a.journal") as journal:
        kept = [(each.reply_id, each.body) for each in stored(journal)]
        next_id = journal.record("checkpoint", REQUEST, reply(200), None)

        assert len(kept) >= flushed
        assert kept == [(n, b"%d" % n) for n in range(1, len(kept) + 1)]
        assert next_id == len(kept) + 1
        assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def torn(folder: Path, source: Path, cut: float) -> Path:
    """Copy a journal whose last pages never reached the disk: its log ends at `cut` of it."""
    target = folder / f"{cut}.journal"
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{target}{suffix}")
    log = Path(f"{target}-wal")
    log.write_bytes(log.read_bytes()[: int(log.stat().st_size * cut)])
    return target


def test_a_torn_tail_leaves_a_sound_beginning(tmp_path: Path) -> None:
    """A power cut: whole commits survive, in order, without a gap."""
    with Journal(tmp_path / "a.journal") as journal:
        for number in range(1, 301):
            body = b"%d" % number
            journal.record("checkpoint", REQUEST, Reply(200, MOMENT, MOMENT, {}, body), None)
            if number % 50 == 0:
                journal.flush()
        copies = [torn(tmp_path, journal.path, cut / 20) for cut in range(21)]
    counts = []
    for path in copies:
        with Journal(path) as journal:
            kept = [(each.reply_id, each.body) for each in stored(journal)]
        assert kept == [(n, b"%d" % n) for n in range(1, len(kept) + 1)]
        counts.append(len(kept))

    assert counts == sorted(counts)
    assert counts[-1] == 300
    assert len(set(counts)) > 3


def test_times_before_the_epoch_of_all_things_still_hold(journal: Journal) -> None:
    """A host without a clock battery wakes up in 1970, or before."""
    early = datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)
    journal.record("checkpoint", REQUEST, Reply(200, early, early + timedelta(0, 0, 1)), None)
    journal.flush()
    kept = stored(journal)[0].reply()

    assert (kept.sent_at, kept.received_at.microsecond) == (early, 0)


# ── whether it holds what was written ────────────────────────────────────────────────────────────


def settle_number(journal: Journal, number: int) -> None:
    settle_with(journal, Item(number, ref(number)), None)


def change(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


def test_a_sound_journal_passes_its_check(journal: Journal) -> None:
    journal.load_input([triple(2, 1), triple(3, 2)])
    settle_number(journal, 1)
    journal.flush()
    journal.check()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE replies SET body = x'00'", "the body of reply 1"),
        ("UPDATE replies SET sha256 = 'x'", "the body of reply 1 is not what was received"),
    ],
)
def test_a_body_that_changed_is_found(journal: Journal, statement: str, said: str) -> None:
    journal.load_input([triple(2, 1)])
    settle_number(journal, 1)
    journal.flush()
    change(journal.path, statement)

    with pytest.raises(JournalDamaged, match="a row of its replies, 1"):
        journal.check()
    with pytest.raises(JournalDamaged, match=said):
        list(journal.batches())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM replies",
        "UPDATE replies SET triple_id = 2",
        "UPDATE answers SET reply_id = 9",
    ],
)
def test_an_answer_without_its_own_reply_is_found(journal: Journal, statement: str) -> None:
    journal.load_input([triple(2, 1)])
    settle_number(journal, 1)
    journal.flush()
    change(journal.path, statement)

    with pytest.raises(JournalDamaged, match="an answer's reply is not there"):
        list(journal.batches())


# ── what another run was answered ────────────────────────────────────────────────────────────────


def test_what_was_not_asked_is_given_up(journal: Journal) -> None:
    journal.load_input([triple(2, 1), triple(3, 2), triple(4, 3)])
    settle_number(journal, 1)
    record(journal, Item(3, ref(3)), error(500), FailureKind.SERVER_ERROR)

    assert journal.give_up("no time") == 2
    first, second, third = answers(journal)
    assert first.failure is None
    assert second.failure == Failure(FailureKind.NOT_ASKED, detail="no time")
    assert (second.attempts, second.fetched_by) == (0, "none")
    assert (third.attempts, third.fetched_by) == (1, "get")  # killed between reply and answer
    assert journal.give_up("no time") == 0
    assert sum(journal.pending_counts().values()) == 2  # a later start asks for them


def test_triples_are_given_in_key_order(journal: Journal) -> None:
    journal.load_input([triple(2, 2), triple(3, 1)])
    assert list(journal.triples()) == [(1, ref(1)), (2, ref(2))]


def test_replies_that_are_taken_keep_their_ids_and_are_not_counted(
    journal: Journal, tmp_path: Path
) -> None:
    journal.load_input([triple(2, 1), triple(3, 2)])
    settle_number(journal, 1)
    journal.flush()
    (found,) = stored(journal)
    with Journal(tmp_path / "other.journal") as other:
        other.load_input([triple(2, 1), triple(3, 2)])
        taken = found._replace(reply_id=7)
        other.take(taken, 1)
        other.take_answer(1, Taken(7, None, None, 3, "get"))
        other.set_facts(taken_replies="1")
        settle_number(other, 2)
        other.flush()

        assert [each.reply_id for each in stored(other)] == [7, 8]
        assert stored(other)[0] == taken
        assert answered(other)[0].attempts == 3
        assert (other.tally().requests, other.reply_count()) == (1, 2)
        assert other.pending_counts() == {}
