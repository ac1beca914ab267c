"""Reporting again, offline: the same judgement, rows for a spreadsheet, another policy."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from pipeline.digests import sha256_of
from pipeline.errors import ConfigurationWrong, InputUnusable, OutputsUnwritable
from pipeline.outcomes import FailureKind
from pipeline.policy import default_policy, read_policy
from pipeline.published import PublishedRun, find_folder, read_run
from pipeline.replay import Format, check_place, judge_anew, report_again
from pipeline.runs import AuditFolder
from pipeline.verify import verify
from tests.doubles import reply
from tests.durability import Starter, table
from tests.recorded import START, Answers, Recorder, of_every_kind, ref

PAGES = [[ref(n, 3) for n in range(1, 4)], [ref(n, 3) for n in range(4, 6)]]
EVERY = [Format.HTML, Format.MD, Format.JSON, Format.CSV]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    Recorder(outputs).publish(of_every_kind(), pages=PAGES)
    return outputs


@pytest.fixture
def run(published: Path, tmp_path: Path) -> PublishedRun:
    shutil.copytree(published, tmp_path / "outputs", symlinks=True)
    return read_run(find_folder(tmp_path / "outputs", "nightly"))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ── the same judgement ───────────────────────────────────────────────────────────────────────────


def test_pages_are_those_of_the_run(run: PublishedRun, tmp_path: Path) -> None:
    to = tmp_path / "again"
    before = digests(run.path)
    written = report_again(run, EVERY, to)

    assert [path.name for path in written] == [
        "report.html",
        "report.md",
        "summary.json",
        "outcomes.csv",
        "findings.csv",
    ]
    for name in ("report.html", "report.md"):
        assert (to / name).read_text("utf-8") == (run.path / name).read_text("utf-8")
    again, said = ((folder / "summary.json").read_bytes() for folder in (to, run.path))
    assert json.loads(again) == json.loads(said)
    assert digests(run.path) == before


def test_what_is_there_is_replaced_and_nothing_else(run: PublishedRun, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    report_again(run, [Format.MD], tmp_path)

    assert (tmp_path / "report.md").read_text("utf-8") != "old"
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "mine.txt", "outputs"}


def test_a_summary_that_was_changed_is_not_reported(run: PublishedRun, tmp_path: Path) -> None:
    (run.path / "summary.json").write_text("{}")

    with pytest.raises(InputUnusable, match="not as it was published"):
        report_again(run, [Format.HTML], tmp_path / "again")


# ── a spreadsheet ────────────────────────────────────────────────────────────────────────────────


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_for_a_spreadsheet(run: PublishedRun, tmp_path: Path) -> None:
    report_again(run, [Format.CSV], tmp_path / "again")

    for name in ("outcomes", "findings"):
        found, wanted = rows_of(tmp_path / "again" / f"{name}.csv"), table(run.path, name)
        assert len(found) == len(wanted) > 0
        assert list(found[0]) == list(wanted[0])
    verdicts = [row["verdict"] for row in table(run.path, "outcomes")]
    assert [row["verdict"] for row in rows_of(tmp_path / "again/outcomes.csv")] == verdicts


FORMULAS = ["=cmd()", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_cells_are_inert(formula: str, tmp_path: Path) -> None:
    """What Atlas says comes raw into the tables, and as text into a spreadsheet."""
    document = {"error": 400, "errorCode": formula, "detail": f"{formula}\x1b[2J"}
    answers: Answers = {ref(1): [reply(400, document)]}
    run = Recorder(tmp_path).publish(answers)
    report_again(run, [Format.CSV], tmp_path / "again")
    (row,) = rows_of(tmp_path / "again/outcomes.csv")

    (raw,) = table(run.path, "outcomes")
    assert raw["error_code"] == formula
    for cell in (row["error_code"], row["error_detail"]):
        assert not cell.startswith(tuple("=+-@\t\r\n\uff1d"))
        assert cell.isprintable()


# ── another judgement ────────────────────────────────────────────────────────────────────────────

STRICTER = """
name = "stricter"

[rules.restorable-false]
severity = "low"
"""


def test_the_same_policy_judges_the_same(run: PublishedRun, tmp_path: Path) -> None:
    judge_anew(run, default_policy(), tmp_path / "anew", START)

    for name in ("checkpoints", "parts", "outcomes", "clusters", "findings"):
        found = [row | {"run_id": ""} for row in table(tmp_path / "anew", name)]
        assert found == [row | {"run_id": ""} for row in table(run.path, name)]


def test_another_policy_is_a_run_of_its_own(run: PublishedRun, tmp_path: Path) -> None:
    to = tmp_path / "anew"
    before = digests(run.path.parents[2])
    summary = judge_anew(run, read_policy(STRICTER), to, START)
    manifest = json.loads((to / "manifest.json").read_text("utf-8"))
    (row,) = table(to, "runs")

    assert verify(to).sound
    assert row["run_id"] == summary.run.run_id != run.run_id
    assert row["parent_run_id"] == manifest["judged_anew"]["of"]["run_id"] == run.run_id
    assert manifest["judged_anew"]["of"]["manifest_sha256"] == sha256_of(run.path / "manifest.json")
    assert (to / "evidence/policy.toml").read_text("utf-8") == STRICTER
    changes = summary.changes
    assert changes is not None
    assert (changes.since_run_id, changes.rules_changed) == (run.run_id, True)
    severities = {row["rule_id"]: row["severity"] for row in table(to, "findings")}
    assert severities["restorable-false"] == "low"
    assert any("Judged anew at" in notice and run.run_id in notice for notice in summary.notices)
    assert digests(run.path.parents[2]) == before
    current = AuditFolder(run.path.parents[2], "nightly").current()
    assert current is not None
    assert current.run_id == run.run_id
    assert {path.name for path in tmp_path.iterdir()} == {"anew", "outputs"}


def test_a_judgement_can_be_judged_again(run: PublishedRun, tmp_path: Path) -> None:
    judge_anew(run, read_policy(STRICTER), tmp_path / "one", START)
    judge_anew(read_run(tmp_path / "one"), default_policy(), tmp_path / "two", START)

    assert verify(tmp_path / "two").sound
    (row,) = table(tmp_path / "two", "runs")
    assert row["parent_run_id"] == read_run(tmp_path / "one").run_id


def test_notices_of_how_the_run_came_about_stay(tmp_path: Path) -> None:
    answers = of_every_kind()
    run = Recorder(tmp_path).publish(answers, not_asked="1")
    said = "1 triples were not asked before the deadline."
    summary = judge_anew(run, default_policy(), tmp_path / "anew", START)

    assert said in run.manifest.notices
    assert said in summary.notices
    assert verify(tmp_path / "anew").sound


def test_a_broken_run_is_not_judged_and_leaves_nothing(run: PublishedRun, tmp_path: Path) -> None:
    (path,) = (run.path / "evidence").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(InputUnusable):
        judge_anew(run, default_policy(), tmp_path / "anew", START)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


# ── places ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("below", ["", "evidence", "new/deep", "..", "../other", "../../.work/x"])
def test_nothing_is_written_into_a_run_or_among_runs(below: str, run: PublishedRun) -> None:
    with pytest.raises(ConfigurationWrong, match="lies "):
        check_place(run.path / below)


def test_a_link_into_a_run_is_seen_through(run: PublishedRun, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)

    with pytest.raises(ConfigurationWrong, match="lies in the run"):
        check_place(tmp_path / "link" / "new")


def test_a_link_that_leads_nowhere_is_said(run: PublishedRun, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")

    for name in ("loop", "dangling", "loop/new", "dangling/new"):
        for write in (report_plainly, judge_plainly):
            with pytest.raises(ConfigurationWrong, match="is a link that leads nowhere"):
                write(run, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "dangling", "outputs"}


def report_plainly(run: PublishedRun, to: Path) -> None:
    report_again(run, [Format.MD], to)


def judge_plainly(run: PublishedRun, to: Path) -> None:
    judge_anew(run, default_policy(), to, START)


def test_a_place_that_no_file_system_has(run: PublishedRun, tmp_path: Path) -> None:
    for write in (report_plainly, judge_plainly):
        with pytest.raises(OutputsUnwritable, match="cannot be written: File name too long"):
            write(run, tmp_path / ("x" * 300))


def test_a_link_to_an_empty_folder_is_one(run: PublishedRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    judge_plainly(run, tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert verify(tmp_path / "empty").sound
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "link", "outputs"}


def test_the_working_directory_is_not_replaced(
    run: PublishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    for to in (Path(), tmp_path / "here"):
        with pytest.raises(ConfigurationWrong, match="is the working directory"):
            judge_plainly(run, to)
    judge_plainly(run, Path("below"))
    report_plainly(run, Path())
    assert {path.name for path in Path().iterdir()} == {"below", "report.md"}


def test_another_judgement_wants_an_empty_folder(run: PublishedRun, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ConfigurationWrong, match="is not empty"):
        judge_anew(run, default_policy(), tmp_path / "full", START)
    (tmp_path / "empty").mkdir()
    judge_anew(run, default_policy(), tmp_path / "empty", START)

    assert verify(tmp_path / "empty").sound


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_the_command(run: PublishedRun, tmp_path: Path, starter: Starter) -> None:
    outputs = ("--output-dir", run.path.parents[2])
    again = starter.start("report", "nightly", *outputs, "--to", tmp_path / "again", env={})
    assert (again.code, again.out.strip()) == (0, str(tmp_path / "again"))
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "report.html",
        "report.md",
        "summary.json",
    }
    policy = tmp_path / "policy.toml"
    policy.write_text(STRICTER)
    anew = starter.start(
        *("report", "nightly", *outputs, "--to", tmp_path / "anew", "--policy", policy), env={}
    )

    assert anew.code == 0
    assert f"judged {run.run_id} anew as " in anew.err
    assert verify(tmp_path / "anew").sound


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--format", "pdf"], 2),
        (["--policy", "p.toml", "--format", "csv"], 2),
        (["--policy", "nowhere.toml"], 78),
    ],
)
def test_options_that_cannot_be_used(
    options: list[str], code: int, run: PublishedRun, tmp_path: Path, starter: Starter
) -> None:
    ended = starter.start("report", run.path, "--to", tmp_path / "again", *options, env={})

    assert ended.code == code
    assert not (tmp_path / "again").exists()


def test_absent_and_refused_answers_are_among_what_is_replayed(run: PublishedRun) -> None:
    """What these tests go on."""
    kinds = {row["failure_kind"] for row in table(run.path, "outcomes")}
    assert {FailureKind.CHECKPOINT_ABSENT, FailureKind.NOT_ASKED, None} <= kinds
    assert FailureKind.THROTTLED in {row["failure_kind"] for row in table(run.path, "evidence")}
