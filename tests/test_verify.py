"""Verifying: whatever was changed in a published run is found, and named."""

import json
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.digests import sha256_of
from pipeline.errors import InputMissing
from pipeline.policy import default_policy
from pipeline.published import PublishedRun, find_folder, read_run
from pipeline.replay import judge_anew
from pipeline.signing import Signer
from pipeline.verify import Verification, as_text, intact, verify
from pipeline.verify.intact import SUMS, Trust
from tests.durability import Starter
from tests.recorded import START, Answers, Recorder, good, of_every_kind, ref

PAGES = [[ref(n, 3) for n in range(1, 4)], [ref(n, 3) for n in range(4, 6)]]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True
    )
    return path


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    """The outputs of an audit of three nights; every run is signed."""
    outputs = tmp_path_factory.mktemp("outputs")
    recorder = Recorder(outputs, signer=Signer(key))
    for _ in range(3):
        recorder.publish(of_every_kind(), pages=PAGES)
    return outputs


@pytest.fixture
def run(audit: Path, tmp_path: Path) -> PublishedRun:
    """The current run of a copy of them."""
    shutil.copytree(audit, tmp_path / "outputs", symlinks=True)
    return read_run(find_folder(tmp_path / "outputs", "nightly"))


def test_an_untouched_run_is_sound(run: PublishedRun) -> None:
    found = verify(run.path)

    assert (found.intact.problems, found.rederived.problems) == ((), ())
    assert found.sound
    assert "current.json names it" in found.intact.said
    assert found.intact.said[-1].startswith("chain: 2 earlier runs back to ")
    assert "15 triples, as the input has them" in found.rederived.said


def test_a_copy_of_the_folder_alone_is_sound(run: PublishedRun, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere").sound


def test_lists_refusals_and_troubles_are_derived_again(run: PublishedRun) -> None:
    """Nothing of what is compared is empty."""
    rows = {
        path.parent.name: pq.read_metadata(path).num_rows for path in run.path.rglob("*.parquet")
    }
    assert all(rows.values()), rows


# ── a byte ───────────────────────────────────────────────────────────────────────────────────────


def places(size: int) -> list[int]:
    """Where bytes are flipped: both ends, the last eight (a footer's), and between."""
    some = {0, 1, 3, 4, size // 7, size // 3, size // 2, 2 * size // 3, *range(size - 9, size)}
    return sorted(place for place in some if 0 <= place < size)


def flipped(path: Path, place: int, bit: int = 1) -> bytes:
    """Flip a bit of a file; gives what was there."""
    content = path.read_bytes()
    changed = bytearray(content)
    changed[place] ^= bit
    path.write_bytes(bytes(changed))
    return content


def files_of(run: PublishedRun) -> list[Path]:
    pointer = run.path.parents[1] / "current.json"
    return [pointer, *(path for path in sorted(run.path.rglob("*")) if path.is_file())]


def test_a_flipped_byte_is_found_in_every_file(run: PublishedRun) -> None:
    missed = []
    files = files_of(run)
    assert {"current.json", "manifest.json", "manifest.json.sig", SUMS, "report.html"} <= {
        path.name for path in files
    }
    for path in files:
        for place in places(path.stat().st_size):
            content = flipped(path, place)
            if is_intact(run):
                missed.append(f"{path.name} at {place}")
            path.write_bytes(content)

    assert missed == []
    assert verify(run.path).sound


def is_intact(run: PublishedRun) -> bool:
    return intact.is_intact(run.path, Trust()).sound


@pytest.mark.parametrize("name", ["manifest.json.sig", "current.json", SUMS])
def test_every_single_byte_of_small_files(name: str, run: PublishedRun) -> None:
    """Some readers forgive white space, line ends, or what padding leaves over."""
    path = next(path for path in files_of(run) if path.name == name)
    every = range(path.stat().st_size)
    missed = []
    for place in every if name == "manifest.json.sig" else every[::7]:
        content = flipped(path, place, bit=4)
        if is_intact(run):
            missed.append(place)
        path.write_bytes(content)

    assert missed == []


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


def delete(run: PublishedRun) -> str:
    (run.path / "report.md").unlink()
    return "report.md is not there"


def add(run: PublishedRun) -> str:
    (run.path / "evidence/notes.txt").write_text("mine")
    return "evidence/notes.txt is not in the manifest"


def truncate(run: PublishedRun) -> str:
    path = next((run.path / "parts").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    return "bytes, wanted"


def append(run: PublishedRun) -> str:
    with (run.path / "report.html").open("ab") as file:
        file.write(b"\n")
    return "report.html has"


def swap(run: PublishedRun) -> str:
    one, other = run.path / "report.md", run.path / "summary.json"
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return "report.md has"


def link(run: PublishedRun) -> str:
    path, aside = run.path / "report.md", run.path.parent / "aside"
    path.rename(aside)
    path.symlink_to(aside)
    return "report.md is not a file of its own"


def link_manifest(run: PublishedRun) -> str:
    path, aside = run.path / "manifest.json", run.path.parent / "aside"
    path.rename(aside)
    path.symlink_to(aside)
    return "manifest.json is a link"


def unsign(run: PublishedRun) -> str:
    (run.path / "manifest.json.sig").unlink()
    return "manifest.json.sig is not there, and the manifest announces it"


def without_sums(run: PublishedRun) -> str:
    (run.path / SUMS).unlink()
    return f"{SUMS} is not there"


def without_manifest(run: PublishedRun) -> str:
    (run.path / "manifest.json").write_text("{}")
    return "manifest.json cannot be read"


@pytest.mark.parametrize(
    "change",
    [
        delete,
        add,
        truncate,
        append,
        swap,
        link,
        link_manifest,
        unsign,
        without_sums,
        without_manifest,
    ],
)
def test_a_file(change: Callable[[PublishedRun], str], run: PublishedRun) -> None:
    said = change(run)
    found = verify(run.path)

    assert not found.sound
    assert not found.intact.sound
    assert any(said in problem for problem in found.intact.problems), found.intact.problems


def test_no_name_begins_a_line_of_its_own(run: PublishedRun) -> None:
    (run.path / "x\nre-derived: yes\u2028run x: sound").write_text("mine")
    lines = as_text(verify(run.path)).splitlines()

    assert [line for line in lines if not line.startswith(" ")] == [
        f"run {run.run_id}: NOT SOUND",
        "intact: NO",
        "re-derived: yes",
    ]


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_that_was_rewritten_is_told_by_what_names_it(
    audit: Path, run: PublishedRun
) -> None:
    """By current.json, by the run after it, and by the digest that somebody kept."""
    first, second, last = sorted(run.path.parent.iterdir())
    digests = {path: sha256_of(path / "manifest.json") for path in (first, second, last)}
    rewrite(last)
    assert any("current.json has manifest_sha256" in each for each in problems(last))
    rewrite(first)
    assert any(f"by the later run {second.name}" in each for each in problems(first))
    assert any(f"{first.name}/manifest.json has" in each for each in problems(second))
    given = verify(first, Trust(manifest_sha256=digests[first])).intact
    assert any("which by the one given is" in each for each in given.problems)


def test_the_digest_that_was_kept_is_right(run: PublishedRun) -> None:
    digest = sha256_of(run.path / "manifest.json")
    assert verify(run.path, Trust(manifest_sha256=digest.upper())).sound


def test_attempts_name_the_digest(run: PublishedRun) -> None:
    attempts = run.path.parents[1] / "attempts.jsonl"
    lines = [{"run_id": run.run_id, "manifest_sha256": "0" * 64}, {"run_id": "another"}]
    attempts.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "torn\n")
    found = verify(run.path).intact

    assert any("by line 1 of attempts.jsonl" in each for each in found.problems)
    assert "line 3 of attempts.jsonl cannot be read" in found.said


def test_runs_that_were_removed_are_a_gap(run: PublishedRun) -> None:
    first, second, _ = sorted(run.path.parent.iterdir())
    shutil.rmtree(first)
    found = verify(run.path)

    assert found.sound
    assert f"1 earlier run back to {second.name}, then {first.name}" in found.intact.said[-1]


def test_a_pointer_to_nothing(run: PublishedRun) -> None:
    first, *_, last = sorted(run.path.parent.iterdir())
    shutil.rmtree(last)

    assert any("which is not there" in each for each in problems(first))


@pytest.fixture
def judged(run: PublishedRun, tmp_path: Path) -> Path:
    """A run's evidence, judged anew in a folder of its own."""
    judge_anew(run, default_policy(), tmp_path / "elsewhere" / "judged", START)
    return tmp_path / "elsewhere" / "judged"


def of(run: PublishedRun) -> Trust:
    return Trust(output_dir=run.path.parents[2])


def test_a_judgement_names_the_run_that_it_is_of(run: PublishedRun, judged: Path) -> None:
    digest = sha256_of(run.path / "manifest.json")
    alone, found = verify(judged), verify(judged, of(run))

    assert alone.sound
    assert found.sound
    named = f"judged anew: of {run.run_id}, "
    assert alone.intact.said[-1] == f"{named}which is not found; its manifest had SHA-256 {digest}"
    assert found.intact.said[-1] == f"{named}compared with {run.path / 'manifest.json'}"
    assert not [said for said in alone.intact.said if said.startswith("chain")]


def test_a_judgement_knows_its_run_again(run: PublishedRun, judged: Path) -> None:
    shutil.copytree(run.path, judged.parent / "copy")
    assert verify(judged).sound
    rewrite(judged.parent / "copy")
    rewrite(run.path)

    for trust, changed in ((Trust(), judged.parent / "copy"), (of(run), run.path)):
        said = [each for each in verify(judged, trust).intact.problems if str(changed) in each]
        assert "which by the judgement of it is" in said[0]


def test_a_judgement_of_two_runs(judged: Path) -> None:
    rewrite(judged, judged_anew={"of": {"run_id": "another", "manifest_sha256": "0" * 64}})

    assert any("judged_anew names another" in each for each in verify(judged).intact.problems)


def test_a_pointer_that_loops(run: PublishedRun) -> None:
    (run.path.parent / "loop").symlink_to("loop")
    pointer = run.path.parents[1] / "current.json"
    told = json.loads(pointer.read_text("utf-8"))
    pointer.write_text(json.dumps(told | {"path": "runs/loop", "run_id": "another"}), "utf-8")

    assert any("which is not there" in each for each in problems(run.path))


def problems(folder: Path) -> tuple[str, ...]:
    found = verify(folder)
    return (*found.intact.problems, *found.rederived.problems)


# ── forgeries ────────────────────────────────────────────────────────────────────────────────────


def rewrite(folder: Path, **facts: Any) -> None:
    """What a careful forger does: digests of all files, the manifest and the sums once more."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8")) | {"host": "forged"} | facts
    manifest.pop("signature", None)
    (folder / "manifest.json.sig").unlink(missing_ok=True)
    for file in manifest["files"]:
        content = (folder / file["path"]).read_bytes()
        file |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest, indent=2), "utf-8")
    sums = [f"{file['sha256']}  {file['path']}\n" for file in manifest["files"]]
    (folder / SUMS).write_text("".join([*sums, f"{sha256_of(path)}  manifest.json\n"]), "utf-8")


@pytest.fixture
def alone(run: PublishedRun, tmp_path: Path) -> Path:
    """A run's folder without anything beside it that would know better."""
    return Path(shutil.copytree(run.path, tmp_path / "alone"))


Row = dict[str, Any]


def forge(folder: Path, table: str, change: Callable[[list[Row]], list[Row]]) -> Verification:
    (path,) = sorted((folder / table).rglob("*.parquet"))
    stored = pq.ParquetFile(path).read()
    rows = change(stored.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, stored.schema), path)
    listed = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
    for file in listed:
        file["rows"] = len(rows) if file["path"].endswith(path.name) else file["rows"]
    rewrite(folder, files=listed)
    return verify(folder)


def setting(row: int, **values: Any) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        rows[row] |= values
        return rows

    return change


def without(row: int) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: rows[:row] + rows[row + 1 :]


def twice(row: int) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [*rows[:row], rows[row], *rows[row:]]


def twice_the_last(rows: list[Row]) -> list[Row]:
    return [*rows, rows[-1]]


#: As if the triple had ended without a reply, and yet with what a waiver could excuse.
UNTOLD = {"reply_id": None, "reply_sha256": None, "failure_kind": "checkpoint_absent"}

FORGERIES = {
    "a verdict": ("outcomes", setting(3, verdict="PASS"), "verdict is 'PASS', wanted 'FAIL'"),
    "an excuse": ("outcomes", setting(3, excused_by="w-1"), "excused_by is 'w-1', wanted None"),
    "a line": ("outcomes", setting(0, input_line=99), "input_line is 99, wanted 2"),
    "a label": ("outcomes", setting(0, labels='{"owner":"me"}'), "labels is"),
    "a time": ("outcomes", setting(0, fetched_at=None), "fetched_at is None"),
    "a digest": ("outcomes", setting(0, reply_sha256="0" * 64), "reply_sha256 is"),
    "attempts": ("outcomes", setting(0, attempts=9), "attempts 9, at most 1"),
    "another reply": ("outcomes", setting(0, reply_id=5), "reply 5, which should answer"),
    "no reply": ("outcomes", setting(3, **UNTOLD), "'checkpoint_absent' is no reason"),
    "a refusal that nobody said": (
        "outcomes",
        setting(7, failure_kind="project_refused"),
        "'project_refused' is no reason",
    ),
    "no outcome": ("outcomes", without(0), "outcomes: row 0 is"),
    "one outcome more": ("outcomes", twice(0), "row 1 is"),
    "restorable": ("checkpoints", setting(3, restorable=True), "restorable is True, wanted False"),
    "a moment": ("checkpoints", setting(0, restore_point_at=None), "restore_point_at is None"),
    "no checkpoint": ("checkpoints", without(1), "row 1 is"),
    "the last checkpoint": ("checkpoints", without(-1), "checkpoints: row"),
    "one checkpoint more": ("checkpoints", twice_the_last, "1 rows more than can be derived"),
    "a token": ("parts", setting(0, token_increment=7), "token_increment is 7, wanted 1"),
    "no finding": ("findings", without(0), "findings: row 0"),
    "severity": ("findings", setting(0, severity="low"), "severity is 'low'"),
    "a cluster": ("clusters", setting(0, pass_count=8), "pass_count is 8"),
    "a count": ("runs", setting(0, fail_count=0), "fail_count is 0"),
    "who asked": ("runs", setting(0, credential_id="you"), "credential_id is 'you', wanted 'id'"),
    "a body": ("evidence", setting(6, body=b"{}"), "has not the SHA-256 beside it"),
    "a reply less": ("evidence", without(0), "request_count is"),
    "headers": ("evidence", setting(6, headers="["), "is none"),
    "an eon": ("evidence", setting(6, trouble="bored"), "is none"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_with_all_digests_is_found_by_deriving(name: str, alone: Path) -> None:
    table, change, said = FORGERIES[name]
    found = forge(alone, table, change)

    assert found.intact.sound, found.intact.problems
    assert not found.rederived.sound
    text = as_text(found)
    assert said in text, text


def test_a_good_reply_that_is_passed_over_is_pointed_at(alone: Path) -> None:
    """To let an earlier failure count hides what Atlas said in the end."""
    replies = pq.ParquetFile(next((alone / "evidence").glob("*.parquet"))).read().to_pylist()
    (failed,) = [
        row["reply_id"]
        for row in replies
        if row["checkpoint_id"] == ref(5).checkpoint_id and row["http_status"] == 500
    ]
    untouched = verify(alone)
    found = forge(alone, "outcomes", setting(4, reply_id=failed))

    assert not [said for said in untouched.rederived.said if "does not count" in said]
    assert any(
        said.startswith("of 1 triples a later definite reply does not count: ")
        and str(ref(5)) in said
        for said in found.rederived.said
    )


@pytest.mark.parametrize("number", [5, 6], ids=["a checkpoint", "an absence"])
def test_a_definite_reply_that_is_left_out_is_pointed_at(number: int, alone: Path) -> None:
    """As of a run that was killed in between: what was said last is not what counts."""
    unasked = UNTOLD | {"failure_kind": "not_asked"}
    found = forge(alone, "outcomes", setting(number - 1, **unasked))

    (said,) = [said for said in found.rederived.said if "does not count" in said]
    assert str(ref(number)) in said


def test_forged_facts(alone: Path) -> None:
    rewrite(alone, line_count=1000)
    text = as_text(verify(alone))

    assert "line_count is 1000, the input has 17" in text
    assert "a law is broken" in text


def test_forged_texts(alone: Path) -> None:
    (alone / "unresolved.csv").write_text("nothing\n")
    policy = (alone / "evidence/policy.toml").read_text("utf-8")
    (alone / "evidence/policy.toml").write_text(policy + "# mine\n")
    summary = json.loads((alone / "summary.json").read_text("utf-8"))
    summary["counts"]["fail_count"] = 0
    (alone / "summary.json").write_text(json.dumps(summary))
    rewrite(alone)
    text = as_text(verify(alone))

    assert "unresolved.csv: is not what the outcomes give" in text
    assert "evidence/policy.toml: has SHA-256" in text
    assert "summary.json: counts.fail_count is 0, wanted " in text


SUMMARY: dict[str, Any] = {
    "answer": "Yes",
    "headline": "15 of 15 checkpoints pass.",
    "exit_meaning": "complete, nothing open",
    "population": "population: everything",
    "duration_s": 1.5,
    "laws": [],
    "shortfalls": ["none"],
    "projects": [],
    "clusters": [],
    "clusters_left_out": 1,
    "failing": {"shown": [], "left_out": 0},
    "absent": {"shown": [], "left_out": 0},
    "inconclusive": {"shown": [], "left_out": 0},
    "rules": [],
    "kinds": [],
    "cluster_findings": [{"rule_id": "mine"}],
    "bad_lines": {"shown": [], "left_out": 0},
    "statements": [],
    "waivers": [{"id": "W-1"}],
    "excused": {"FAIL": 3},
    "policy": None,
    "timeline": None,
    "mine": "too",
}


@pytest.mark.parametrize("name", SUMMARY)
def test_a_forged_summary(name: str, alone: Path) -> None:
    summary = json.loads((alone / "summary.json").read_text("utf-8"))
    assert summary.get(name) != SUMMARY[name]
    (alone / "summary.json").write_text(json.dumps(summary | {name: SUMMARY[name]}))
    rewrite(alone)
    found = verify(alone).rederived

    assert found.problems
    assert all(each.startswith(f"summary.json: {name}") for each in found.problems)


@pytest.mark.parametrize("notices", [[], None])
def test_a_notice_that_was_left_out(notices: Any, tmp_path: Path) -> None:
    folder = Recorder(tmp_path).publish(of_every_kind(), not_asked="1").path
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert verify(folder).sound
    (folder / "summary.json").write_text(json.dumps(summary | {"notices": notices}))
    rewrite(folder)

    assert [*verify(folder).rederived.problems] == [
        "summary.json: notices lack '1 triples were not asked before the deadline.'"
    ]


@pytest.mark.parametrize(
    "facts", [{"complete": True}, {"exit_code": 0}, {"policy_name": "strict"}], ids=str
)
def test_a_forged_ending(facts: dict[str, Any], alone: Path) -> None:
    rewrite(alone, **facts)
    ((name, value),) = facts.items()
    (problem,) = verify(alone).rederived.problems

    assert problem.startswith(f"manifest.json: {name} is {value}, wanted ")


def test_rows_that_the_manifest_miscounts(alone: Path) -> None:
    files = json.loads((alone / "manifest.json").read_text("utf-8"))["files"]
    for file in files:
        file["rows"] = 77 if file["path"].startswith("parts") else file["rows"]
    rewrite(alone, files=files)

    assert any("rows, not 77" in each for each in problems(alone))


def test_what_is_named_is_bounded_and_counted(tmp_path: Path) -> None:
    many: Answers = {ref(n): [good(ref(n))] for n in range(1, 61)}
    folder = Recorder(tmp_path).publish(many).path
    found = forge(folder, "checkpoints", lambda rows: [row | {"cluster_id": "0"} for row in rows])

    assert (len(found.rederived.problems), found.rederived.problem_count) == (20, 60)
    assert "wrong: 40 more" in as_text(found)


# ── other versions ───────────────────────────────────────────────────────────────────────────────


def of_version(folder: Path, name: str, version: str) -> None:
    """As if another version had published the run."""
    (path,) = (folder / "runs").rglob("*.parquet")
    stored = pq.ParquetFile(path).read()
    row = stored.to_pylist()[0] | {name: version}
    pq.write_table(pa.Table.from_pylist([row], stored.schema), path)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    summary["run"][name] = version
    (folder / "summary.json").write_text(json.dumps(summary))
    rewrite(folder, **{name: version})


def test_another_version_of_the_rules_is_named_and_no_tampering(alone: Path) -> None:
    """What does not hang on the judgement is compared all the same."""
    forge(alone, "outcomes", setting(3, verdict="PASS"))
    forge(alone, "findings", without(0))
    of_version(alone, "rules_version", "0.9")
    found = verify(alone)

    assert found.sound, found.rederived.problems
    assert any("judged by rules version 0.9" in each for each in found.rederived.said)
    assert not forge(alone, "checkpoints", setting(0, restorable=None)).sound


def test_another_version_of_the_program_says_it_in_other_words(alone: Path) -> None:
    """No tampering either; the numbers are compared all the same."""
    summary = json.loads((alone / "summary.json").read_text("utf-8"))
    reworded = summary | {"headline": "Mostly fine.", "more": 1, "notices": []}
    (alone / "summary.json").write_text(json.dumps(reworded))
    of_version(alone, "tool_version", "0.0.9")
    found = verify(alone)
    (alone / "summary.json").write_text(json.dumps(summary | {"excused_count": 7}))
    of_version(alone, "tool_version", "0.0.9")

    assert found.sound, found.rederived.problems
    assert any("published by version 0.0.9" in each for each in found.rederived.said)
    assert any("excused_count is 7" in each for each in problems(alone))


def test_another_version_of_the_tables(alone: Path) -> None:
    of_version(alone, "schema_version", "0")
    found = verify(alone)

    assert found.sound, found.rederived.problems
    assert any("schema version 0" in each for each in found.rederived.said)


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_the_command(run: PublishedRun, starter: Starter) -> None:
    outputs = run.path.parents[2]
    sound = starter.start("verify", "nightly", "--output-dir", outputs, env={})
    assert (sound.code, sound.out.splitlines()[0]) == (0, f"run {run.run_id}: sound")
    flipped(run.path / "report.html", 100)
    wrong = starter.start("verify", run.path, "--format", "json", "--quiet", env={})

    assert wrong.code == 1
    assert json.loads(wrong.out)["intact"]["sound"] is False
    assert json.loads(wrong.out)["rederived"]["sound"] is True
    assert "is not sound: " in wrong.err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--manifest-sha256", "abc"], 78),
        (["--signer", "me"], 2),
        (["--allowed-signers", "x"], 2),
        (["--allowed-signers", "nowhere", "--signer", "me"], 78),
    ],
)
def test_options_that_cannot_be_used(
    options: list[str], code: int, run: PublishedRun, starter: Starter
) -> None:
    assert starter.start("verify", run.path, *options, env={}).code == code


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        find_folder(tmp_path, "nightly")
