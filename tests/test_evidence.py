"""A published run's folder gives again what its tables were derived from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.derive import facts_of, judgements, rejudge
from pipeline.errors import InputUnusable
from pipeline.evidence import Evidence, batches_of, policy_of
from pipeline.journal import Answered, Batch
from pipeline.outcomes import FailureKind, Verdict
from pipeline.policy import default_policy, read_policy
from pipeline.published import PublishedRun
from pipeline.verify import verify
from tests.durability import table
from tests.recorded import START, Recorder, of_every_kind, ref

PAGES = [[ref(n, 3) for n in range(1, 4)], [ref(n, 3) for n in range(4, 6)]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PublishedRun:
    outputs = tmp_path_factory.mktemp("outputs")
    return Recorder(outputs).publish(of_every_kind(), pages=PAGES)


def batches(run: PublishedRun) -> list[Batch]:
    return list(Evidence(run).batches())


def answered(run: PublishedRun) -> dict[str, Answered]:
    found = [row for batch in batches(run) for row in batch.answered]
    return {f"{row.ref.group_id[-1]}/{row.ref.checkpoint_id[-1]}": row for row in found}


def test_every_triple_comes_with_its_answer(run: PublishedRun) -> None:
    found = answered(run)

    assert list(found) == sorted(found)
    assert len(found) == run.manifest.triple_count
    assert {key for key, row in found.items() if row.item is not None} == {
        f"3/{n}" for n in range(1, 6)
    }
    assert (found["1/5"].attempts, found["1/5"].fetched_by) == (2, "get")
    reply = found["1/5"].reply
    assert reply is not None
    assert (reply.http_status, reply.failure_kind) == (200, None)


def test_a_failure_without_a_reply_is_what_the_outcomes_say(run: PublishedRun) -> None:
    failure = answered(run)["1/8"].failure

    assert failure is not None
    assert (failure.kind, failure.detail) == (
        FailureKind.NOT_ASKED,
        "not asked before the deadline",
    )
    assert answered(run)["1/8"].reply is None


def test_every_reply_is_given_once(run: PublishedRun) -> None:
    evidence = Evidence(run)
    of_none = [each.reply_id for each in evidence.replies_of_no_triple()]
    of_triples = [each.reply_id for batch in batches(run) for each in batch.replies]

    assert of_none == [1, 2, 3]
    assert of_none + of_triples == [row["reply_id"] for row in table(run.path, "evidence")]
    assert evidence.reply_count() == len(of_none + of_triples)


def test_the_input_is_read_again(run: PublishedRun) -> None:
    evidence = Evidence(run)

    assert evidence.header().names[-1] == "owner"
    assert [bad.line for bad in evidence.bad_lines()] == [facts_of(run).line_count + 1]


def test_of_an_id_that_a_page_shows_twice_the_first_counts(run: PublishedRun) -> None:
    evidence = Evidence(run)

    assert [evidence.item_of(each, 3) for each in PAGES[1]] == [0, 1]
    with pytest.raises(InputUnusable, match="is not in reply 3"):
        evidence.item_of(PAGES[0][0], 3)
    with pytest.raises(InputUnusable, match="lacks reply 99, a page"):
        evidence.item_of(PAGES[0][0], 99)


def test_judged_again_it_is_what_it_was(run: PublishedRun) -> None:
    """The older run of a comparison is judged by today's rules in this way."""
    found = [each for judgement in rejudge(run, default_policy()) for each in judgement.outcomes]

    assert [each.verdict for each in found] == [
        Verdict(row["verdict"]) for row in table(run.path, "outcomes")
    ]
    (first, *_) = judgements(Evidence(run), default_policy(), START)
    assert first.cluster.triple_count == 8


def test_the_facts_are_those_of_the_runs_table(run: PublishedRun) -> None:
    (row,) = table(run.path, "runs")
    facts = facts_of(run)

    assert {name: getattr(facts, name) for name in facts.__struct_fields__ if name in row} == {
        name: row[name] for name in facts.__struct_fields__ if name in row
    }


MINE = """
name = "mine"

[rules.no-parts]
severity = "low"

[thresholds]
rpo_age = "7d"
"""


def test_the_policy_is_read_over_the_default_of_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version has another default, by which nobody judged this run."""
    mine = read_policy(MINE)
    run = Recorder(tmp_path / "mine").publish(of_every_kind(), policy=mine)
    plain = Recorder(tmp_path / "plain").publish(of_every_kind())
    later = read_policy('[thresholds]\ngap = "1h"\n')
    monkeypatch.setattr("pipeline.policy.default_policy", lambda: later)

    assert policy_of(run) == mine
    assert policy_of(plain) == default_policy()
    assert mine.base_text == default_policy().text
    assert verify(run.path).sound
    assert verify(plain.path).sound


# ── what is not as it was ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def broken(tmp_path: Path) -> PublishedRun:
    return Recorder(tmp_path).publish(of_every_kind(), pages=PAGES)


def test_a_file_that_was_changed(broken: PublishedRun) -> None:
    (path,) = Evidence(broken).files("evidence")
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    with pytest.raises(InputUnusable, match="not as it was published"):
        batches(broken)


def forged(run: PublishedRun, folder: str, change: dict[str, object], row: int) -> None:
    """Change values of one row; whoever does so rewrites the digests too."""
    (path,) = Evidence(run).files(folder)
    stored = pq.ParquetFile(path).read()
    rows = stored.to_pylist()
    rows[row] |= change
    pq.write_table(pa.Table.from_pylist(rows, stored.schema), path)


class Trusting(Evidence):
    """Takes the files as they are."""

    def files(self, folder: str) -> list[Path]:
        return sorted((self.run.path / folder).rglob("*.parquet"))


@pytest.mark.parametrize(
    ("folder", "change", "row", "said"),
    [
        ("evidence", {"body": b"{}"}, 5, "has not the SHA-256 beside it"),
        ("evidence", {"checkpoint_id": "f" * 24}, 3, "which should answer"),
        ("evidence", {"checkpoint_id": "f" * 24}, -1, "which should answer"),
        ("outcomes", {"reply_id": 1000}, 0, "reply 1000, which should answer"),
        ("outcomes", {"reply_id": None}, 0, "None is no reason"),
        ("outcomes", {"reply_id": None, "failure_kind": "bored"}, 0, "'bored' is no reason"),
        ("outcomes", {"fetched_by": "list"}, 0, "a page of a list"),
    ],
)
def test_rows_that_do_not_belong_together(
    folder: str, change: dict[str, object], row: int, said: str, broken: PublishedRun
) -> None:
    forged(broken, folder, change, row)

    with pytest.raises(InputUnusable, match=said):
        list(Trusting(broken).batches())


def test_a_reply_that_answers_no_triple(broken: PublishedRun) -> None:
    (path,) = Evidence(broken).files("outcomes")
    stored = pq.ParquetFile(path).read()
    pq.write_table(stored.slice(0, stored.num_rows - 6), path)

    with pytest.raises(InputUnusable, match="answers no triple of its outcomes"):
        list(Trusting(broken).batches())


@pytest.mark.parametrize("content", [b"", b"PAR1" * 9, b"PAR1\xff\x00\x00\x00PAR1"])
def test_what_is_no_parquet_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)

    with pytest.raises(InputUnusable, match="cannot be read"):
        list(batches_of(path, ("n",)))


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1]}), path)

    with pytest.raises(InputUnusable, match="lacks body, path"):
        list(batches_of(path, ("n", "path", "body")))


def test_large_replies_are_not_gathered(tmp_path: Path) -> None:
    """As many are read at once as fit into some megabytes, and one at least."""
    path = tmp_path / "replies.parquet"
    bodies = [bytes(3_000_000) for _ in range(7)] + [b"x"] * 700
    with pq.ParquetWriter(path, pa.schema([("body", pa.binary())]), use_dictionary=False) as file:
        for rows in (bodies[:7], bodies[7:]):
            file.write_table(pa.table({"body": pa.array(rows, pa.binary())}))
    sizes = [batch.num_rows for batch in batches_of(path, ("body",))]

    assert sum(sizes) == 707
    assert sizes[:3] == [2, 2, 2]
    assert max(sizes) == 500
