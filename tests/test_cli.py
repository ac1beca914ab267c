"""The command line as users meet it: real processes, real HTTP, real files.

The simulator runs in a process of its own, started by the command that users have for it.
"""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.dataset as ds
import pytest

from pipeline.policy import default_policy

PROGRAM = (sys.executable, "-m", "pipeline")
ROOT = Path(__file__).parents[1]
SECRET = "mdb_sa_sk_simulated-not-a-secret"
TABLES = ("checkpoints", "parts", "outcomes", "clusters", "findings", "runs")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1]


class Served(NamedTuple):
    """A simulator in a process of its own: where it is, its triples, how to be let in."""

    url: str
    triples: Path
    env: dict[str, str]


def clean_env(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MONGODB_ATLAS")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def command(
    *args: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    program: Sequence[str] = PROGRAM,
) -> Ended:
    done = subprocess.run(
        [*program, *map(str, args)],
        env=env or clean_env(),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def simulating(folder: Path, *options: str) -> Iterator[Served]:
    triples = folder / "triples.csv"
    process = subprocess.Popen(
        [*PROGRAM, "simulate", "--write-triples", str(triples), *options],
        env=clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        env = clean_env(
            MONGODB_ATLAS_BASE_URL=url,
            MONGODB_ATLAS_CLIENT_ID="mdb_sa_id_51e0a7ed51e0a7ed51e0a7ed",
            MONGODB_ATLAS_CLIENT_SECRET=SECRET,
        )
        yield Served(url, triples, env)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small fleet without faults."""
    with simulating(tmp_path_factory.mktemp("atlas")) as served:
        yield served


def only(served: Served, folder: Path, *verdicts: str) -> Path:
    """The triples of the fleet that should end in one of `verdicts`, as a CSV."""
    with served.triples.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["expected_verdict"] in verdicts]
    assert chosen
    path = folder / "some.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return path


def table(run: Path, name: str) -> list[dict[str, Any]]:
    files = sorted(map(str, (run / name).rglob("*.parquet")))
    rows: list[dict[str, Any]] = ds.dataset(files).to_table().to_pylist()
    return rows


def verdicts(run: Path) -> dict[tuple[str, str, str], str]:
    return {
        (row["group_id"], row["cluster_name"], row["checkpoint_id"]): row["verdict"]
        for row in table(run, "outcomes")
    }


def expected(triples: Path) -> dict[tuple[str, str, str], str]:
    with triples.open(encoding="utf-8") as file:
        return {
            (row["project_id"], row["cluster_name"], row["checkpoint_id"]): row["expected_verdict"]
            for row in csv.DictReader(file)
        }


# --- whole runs ---------------------------------------------------------------------------------


def test_demo_shows_every_verdict(tmp_path: Path) -> None:
    """The demo ends with 4, as its fleet should, and its last line of stdout is the run."""
    ended = command("demo", cwd=tmp_path)

    assert ended.code == 4
    run = tmp_path / ended.out.splitlines()[-1]
    assert {row["verdict"] for row in table(run, "outcomes")} == {
        "PASS",
        "FAIL",
        "ABSENT",
        "INCONCLUSIVE",
    }
    assert re.search(r"lines \d+ = triples \d+ \+ duplicates \d+ \+ bad lines \d+", ended.err)
    assert re.search(r"triples \d+ = pass \d+ \+ fail \d+ \+ absent \d+ \+ incon", ended.err)
    assert "exit 4 means: not complete" in ended.err
    assert (tmp_path / "outputs/demo/current/report.html").is_file()


def test_the_readme_shows_what_the_demo_gives(tmp_path: Path) -> None:
    """Its first table is four rows of the table `outcomes`."""
    ended = command("demo", ROOT / "inputs/sample.csv", "--output-dir", tmp_path)
    found = table(Path(ended.out.splitlines()[-1]), "outcomes")
    text = (ROOT / "README.md").read_text("utf-8")
    columns, _, *shown = text[text.index("| cluster_name |") :].partition("\n\n")[0].splitlines()
    names = [name.strip() for name in columns.strip("|").split("|")]

    assert len(shown) == 4
    for line in shown:
        cells = [cell.strip() or None for cell in line.strip("|").split("|")]
        assert cells in [[row[name] and str(row[name]) for name in names] for row in found]


def test_demo_takes_the_sample(tmp_path: Path) -> None:
    """inputs/sample.csv is what the demo's fleet answers, to the byte."""
    ended = command("demo", ROOT / "inputs/sample.csv", "--output-dir", tmp_path)

    assert ended.code == 4
    assert command("demo", "--output-dir", tmp_path / "own").code == 4
    sample = (tmp_path / "own/demo/sample.csv").read_bytes()
    assert sample == (ROOT / "inputs/sample.csv").read_bytes()


def test_demo_notices_a_wrong_ending(tmp_path: Path) -> None:
    """A triple that does not end as its fleet should makes the demo fail."""
    text = (ROOT / "inputs/sample.csv").read_text("utf-8").replace(",FAIL,", ",PASS,", 1)
    (tmp_path / "wrong.csv").write_text(text, "utf-8")

    ended = command("demo", tmp_path / "wrong.csv", "--output-dir", tmp_path)

    assert ended.code == 70
    assert "ends as FAIL, the column expected_verdict wants PASS" in ended.last_line
    assert not list(tmp_path.rglob("manifest.json"))


def test_demo_notices_a_finding_that_is_not_there(tmp_path: Path) -> None:
    """What the simulator planted and no rule finds makes the demo fail."""
    sample = (ROOT / "inputs/sample.csv").read_text("utf-8")
    text = sample.replace(",PASS,\n", ",PASS,no-parts\n", 1)
    (tmp_path / "wrong.csv").write_text(text, "utf-8")

    ended = command("demo", tmp_path / "wrong.csv", "--output-dir", tmp_path)

    assert ended.code == 70
    assert "the rule no-parts does not object" in ended.last_line
    assert not list(tmp_path.rglob("manifest.json"))


def test_demo_tells_precision_and_recall(tmp_path: Path) -> None:
    """Of what was planted all is found; an input that does not say what was is not compared."""
    rows = (ROOT / "inputs/sample.csv").read_text("utf-8").splitlines()
    cut = [",".join(row.split(",")[:3]) for row in rows]
    (tmp_path / "cut.csv").write_text("\n".join(cut), "utf-8")
    ended = command("demo", "--output-dir", tmp_path / "whole")
    silent = command("demo", tmp_path / "cut.csv", "--output-dir", tmp_path / "cut")
    told = re.search(r"planted (\d+) sicknesses: found (\d+), missed 0, others 0", ended.err)

    assert told
    assert int(told[1]) == int(told[2]) > 10
    assert "(precision 1.0, recall 1.0)" in ended.err
    assert silent.code == 4
    assert "sicknesses" not in silent.err


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, list[Path]]]:
    """5,000 triples with every kind of fault, audited twice."""
    folder = tmp_path_factory.mktemp("faulty")
    size = ("--seed", "3", "--projects", "10", "--clusters", "10", "--checkpoints", "50")
    with simulating(folder, *size, "--faults", "nightly") as served:
        runs = []
        for _ in range(2):
            ended = command(
                "run", served.triples, "--output-dir", folder, "--timeout", "5", env=served.env
            )
            assert ended.code == 4, ended.err
            assert SECRET not in ended.out + ended.err
            runs.append(Path(ended.out.splitlines()[-1]))
        yield served, runs


def test_faults_end_in_the_verdict_they_should(faulty: tuple[Served, list[Path]]) -> None:
    """Transient faults change no verdict; lasting ones end INCONCLUSIVE, never PASS or ABSENT."""
    served, runs = faulty
    wanted = expected(served.triples)

    assert len(wanted) == 5000
    assert verdicts(runs[0]) == wanted


def test_second_run_agrees(faulty: tuple[Served, list[Path]]) -> None:
    _, runs = faulty

    assert runs[0] != runs[1]
    assert verdicts(runs[0]) == verdicts(runs[1])


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Large buckets, no project in trouble, but passing faults on every tenth path."""
    folder = tmp_path_factory.mktemp("roomy")
    (folder / "plan.toml").write_text("rate = 0.1\n", "utf-8")
    size = ("--seed", "3", "--projects", "5", "--clusters", "10", "--checkpoints", "50")
    faults = ("--faults", str(folder / "plan.toml"), "--capacity", "5000")
    with simulating(folder, *size, *faults) as served:
        yield served


@pytest.mark.parametrize("by", ["list", "auto"])
def test_lists_give_the_same_verdicts(by: str, roomy: Served, tmp_path: Path) -> None:
    """`fetched_by` and the evidence say which way each was answered; absences are never listed."""
    options = ("--fetch", by, "--timeout", "5", "--max-share", "0.05")
    ended = command("run", roomy.triples, "--output-dir", tmp_path, *options, env=roomy.env)
    assert ended.code == 4, ended.err
    run = Path(ended.out.splitlines()[-1])
    outcomes = table(run, "outcomes")
    asked = {reply["reply_id"]: reply for reply in table(run, "evidence")}

    assert verdicts(run) == expected(roomy.triples)
    assert {outcome["fetched_by"] for outcome in outcomes} == {"get", "list"}
    for outcome in outcomes:
        purpose = {"get": "checkpoint", "list": "list"}[outcome["fetched_by"]]
        assert asked[outcome["reply_id"]]["purpose"] == purpose
        assert asked[outcome["reply_id"]]["body_sha256"] == outcome["reply_sha256"]
        assert outcome["fetched_by"] == "get" or outcome["verdict"] in ("PASS", "FAIL")
    assert len(asked) < 0.5 * len(outcomes)


def test_numbers_reconcile(faulty: tuple[Served, list[Path]]) -> None:
    """Every number of a report is one that the tables give too."""
    _, (run, _) = faulty
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    outcomes, row = table(run, "outcomes"), table(run, "runs")[0]
    counted = Counter(outcome["verdict"] for outcome in outcomes)
    replies = table(run, "evidence")

    assert summary["counts"]["triple_count"] == len(outcomes) == row["triple_count"]
    for verdict, name in (("PASS", "pass"), ("FAIL", "fail"), ("ABSENT", "absent")):
        assert summary["counts"][f"{name}_count"] == counted[verdict] == row[f"{name}_count"]
    assert len(table(run, "checkpoints")) == counted["PASS"] + counted["FAIL"]
    assert sum(c["part_count"] for c in table(run, "checkpoints")) == len(table(run, "parts"))
    assert sum(c["triple_count"] for c in table(run, "clusters")) == len(outcomes)
    assert len(replies) == row["request_count"]
    assert sum(r["failure_kind"] == "throttled" for r in replies) == row["refusal_count"] > 0
    assert all(law["left"] == law["right"] for law in summary["laws"])
    fails = {rule_id for rule_id, terms in default_policy().rules.items() if terms.fails}
    accused = [f for f in table(run, "findings") if f["scope"] == "checkpoint"]
    failing = {f["checkpoint_id"] for f in accused if f["rule_id"] in fails}
    assert failing == {o["checkpoint_id"] for o in outcomes if o["verdict"] == "FAIL"}


def test_digests_hold(faulty: tuple[Served, list[Path]]) -> None:
    _, (run, _) = faulty
    listed = {line.split()[1] for line in (run / "SHA256SUMS").read_text("utf-8").splitlines()}
    there = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}

    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=run, check=True)
    assert there - listed == {"SHA256SUMS"}


def test_no_secret_is_written(faulty: tuple[Served, list[Path]]) -> None:
    """No file of the outputs holds the secret or a token, in the clear or compressed."""
    _, runs = faulty
    audit = runs[0].parents[1]
    texts = [path.read_bytes() for path in audit.rglob("*") if path.is_file()]
    texts += [gzip.decompress(path.read_bytes()) for path in audit.rglob("*.gz")]
    texts += [repr(table(run, name)).encode() for run in runs for name in (*TABLES, "evidence")]

    assert any(b"CHECKPOINT_NOT_FOUND" in text for text in texts)
    assert not [text for text in texts if SECRET.encode() in text or b"Bearer " in text]


def test_unresolved_is_an_input(faulty: tuple[Served, list[Path]], tmp_path: Path) -> None:
    """What could not be determined can be audited by itself, with its labels."""
    served, (run, _) = faulty
    ended = command(
        "run", run / "unresolved.csv", "--output-dir", tmp_path, "--timeout", "5", env=served.env
    )
    again = Path(ended.out.splitlines()[-1])
    before = {k for k, v in verdicts(run).items() if v == "INCONCLUSIVE"}

    assert set(verdicts(again)) == before
    assert {frozenset(json.loads(row["labels"])) for row in table(again, "outcomes")} == {
        frozenset({"owner", "expected_verdict", "expected_findings"})
    }


def test_readers_agree(faulty: tuple[Served, list[Path]]) -> None:
    """DuckDB, pandas, polars and pyarrow read every table and count the same."""
    import duckdb
    import pandas as pd
    import polars as pl

    current = faulty[1][1].parents[1] / "current"
    run = current.resolve()
    pointer = json.loads((current.parent / "current.json").read_text("utf-8"))
    assert current.parent / pointer["path"] == run == faulty[1][1]
    for name in TABLES:
        rows = ds.dataset(run / name, format="parquet").count_rows()

        assert rows > 0
        assert len(pd.read_parquet(run / name)) == rows
        assert pl.scan_parquet(run / name / "**/*.parquet").collect().height == rows
        query = f"SELECT count(*) FROM '{run}/{name}/*/*.parquet'"  # noqa: S608
        assert duckdb.execute(query).fetchone() == (rows,)


# --- every verdict of a run has its code --------------------------------------------------------


def test_nothing_open_is_0_and_quiet(atlas: Served, tmp_path: Path) -> None:
    """A complete night with nothing open is silence."""
    ended = command(
        "run", only(atlas, tmp_path, "PASS"), "--quiet", "--output-dir", tmp_path, env=atlas.env
    )

    assert ended == Ended(0, "", "")
    assert (tmp_path / "some/current").is_dir()


def test_one_true_line(atlas: Served, tmp_path: Path) -> None:
    """A night with something open is one line, quietly."""
    path = only(atlas, tmp_path, "PASS", "FAIL")
    ended = command("run", path, "--quiet", "--output-dir", tmp_path, env=atlas.env)

    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("checkpoint-audit: exit 1: No: ")
    assert re.search(r"manifest sha256:[0-9a-f]{64}", ended.err)


def test_exit_zero(atlas: Served, tmp_path: Path) -> None:
    path = only(atlas, tmp_path, "PASS", "FAIL")
    ended = command("run", path, "--exit-zero", "--output-dir", tmp_path, env=atlas.env)

    assert ended.code == 0
    assert table(Path(ended.out.splitlines()[-1]), "runs")[0]["exit_code"] == 1


def test_inconclusive_is_3(atlas: Served, tmp_path: Path) -> None:
    """Bad lines alone make a run incomplete, and nothing else."""
    path = only(atlas, tmp_path, "PASS")
    path.write_text(path.read_text("utf-8") + "nothing,to,see\n", "utf-8")
    ended = command("run", path, "--output-dir", tmp_path, env=atlas.env)

    assert ended.code == 3
    assert "1 input line could not be used" in ended.last_line


def test_standard_input_and_api_key(atlas: Served, tmp_path: Path) -> None:
    """`-` reads standard input; an API key works as well as a service account."""
    from pipeline.simulator import Credentials

    key = Credentials()
    env = clean_env(
        MONGODB_ATLAS_BASE_URL=atlas.url,
        MONGODB_ATLAS_PUBLIC_API_KEY=key.public_key,
        MONGODB_ATLAS_PRIVATE_API_KEY=key.private_key,
    )
    text = only(atlas, tmp_path, "PASS").read_text("utf-8")
    ended = command(
        "run", "-", "--audit-name", "piped", "--output-dir", tmp_path, env=env, stdin=text
    )

    assert ended.code == 0, ended.err
    row = table(Path(ended.out.splitlines()[-1]), "runs")[0]
    assert row["credential_id"] == key.public_key
    assert row["audit_name"] == "piped"


def test_envelope_changes_nothing(atlas: Served, tmp_path: Path) -> None:
    """Wrapped answers give the same verdicts, from the true status inside."""
    for options in ([], ["--envelope"]):
        folder = tmp_path / "-".join(["run", *options])
        ended = command("run", atlas.triples, "--output-dir", folder, *options, env=atlas.env)

        run = Path(ended.out.splitlines()[-1])
        assert verdicts(run) == expected(atlas.triples)
        assert 404 in {row["http_status"] for row in table(run, "outcomes")}


def test_json_lines(atlas: Served, tmp_path: Path) -> None:
    ended = command(
        *("run", atlas.triples, "--log-format", "json", "--output-dir", tmp_path), env=atlas.env
    )
    lines = [json.loads(line) for line in ended.err.splitlines()]

    assert lines[-1]["exit_code"] == ended.code == 4
    assert lines[-1]["message"].startswith("exit 4: No: ")


# --- what stops a run ---------------------------------------------------------------------------

HEADER = "project_id,cluster_name,checkpoint_id\n"
TRIPLE = "5f1e8a7c9b3d2e4f6a8b0c1d,orders,6655a0f1c2d3e4f5a6b7c8d9\n"
TOKEN = {"MONGODB_ATLAS_ACCESS_TOKEN": "a-token"}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 65, "the input is empty"),
        (HEADER, 65, "there is only a header"),
        (TRIPLE, 65, "the first line is a triple, not a header"),
        (HEADER + "a,b,c\n", 65, "none of 1 lines names one: line 2, column project_id: 'a'"),
        (None, 66, "No such file"),
    ],
)
def test_unusable_input(text: str | None, code: int, said: str, tmp_path: Path) -> None:
    """Nothing to audit is never a clean night; nothing is published and the reason is said."""
    if text is not None:
        (tmp_path / "in.csv").write_text(text, "utf-8")
    ended = command("run", tmp_path / "in.csv", "--output-dir", tmp_path, env=clean_env(**TOKEN))

    assert ended.code == code
    assert said in ended.last_line
    assert "what to do: " in ended.last_line
    assert not list(tmp_path.rglob("manifest.json"))


def test_no_credentials(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    ended = command("run", tmp_path / "in.csv", "--output-dir", tmp_path)

    assert ended.code == 77
    assert "MONGODB_ATLAS_CLIENT_ID" in ended.last_line


@pytest.mark.parametrize(
    "wrong",
    [
        {"MONGODB_ATLAS_CLIENT_SECRET": "a-wrong-secret"},
        {
            "MONGODB_ATLAS_CLIENT_ID": "",
            "MONGODB_ATLAS_CLIENT_SECRET": "",
            "MONGODB_ATLAS_ACCESS_TOKEN": "a-wrong-secret",
        },
        {
            "MONGODB_ATLAS_CLIENT_ID": "",
            "MONGODB_ATLAS_CLIENT_SECRET": "",
            "MONGODB_ATLAS_PUBLIC_KEY": "abcdefgh",
            "MONGODB_ATLAS_PRIVATE_KEY": "a-wrong-secret",
        },
    ],
    ids=["service account", "access token", "API key"],
)
def test_refused_credentials(wrong: dict[str, str], atlas: Served, tmp_path: Path) -> None:
    """Refused credentials end the run at once, whichever kind they are, and are not repeated."""
    env = {**atlas.env, **wrong}
    ended = command("run", atlas.triples, "--output-dir", tmp_path, env=env)

    assert ended.code == 77
    assert "refuses" in ended.last_line
    assert "what to do: check" in ended.last_line
    assert "a-wrong-secret" not in ended.err


def test_no_network(tmp_path: Path) -> None:
    """Nobody listens there: said within seconds, nothing published, resumable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    env = clean_env(MONGODB_ATLAS_BASE_URL=f"http://127.0.0.1:{port}", **TOKEN)
    ended = command("run", tmp_path / "in.csv", "--output-dir", tmp_path, env=env)

    assert ended.code == 69
    assert "cannot be reached" in ended.last_line
    assert "what to do: check network" in ended.last_line


def test_atlas_is_withdrawn(tmp_path: Path) -> None:
    """An API that is not there any more publishes nothing: no row could be told."""
    (tmp_path / "plan.toml").write_text("withdrawn = true\n", "utf-8")
    size = ("--projects", "1", "--clusters", "1", "--checkpoints", "3")
    with simulating(tmp_path, *size, "--faults", str(tmp_path / "plan.toml")) as served:
        ended = command(
            *("run", served.triples, "--attempts", "1", "--output-dir", tmp_path), env=served.env
        )

    assert ended.code == 69
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize(
    ("plan", "said"),
    [("access_list = true", "access list"), ("account_suspended = true", "suspended")],
)
def test_run_wide_refusals(plan: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(plan + "\n", "utf-8")
    with simulating(tmp_path, "--faults", str(tmp_path / "plan.toml")) as served:
        ended = command("run", served.triples, "--output-dir", tmp_path, env=served.env)

    assert ended.code == 77
    assert said in ended.last_line.lower().replace("_", " ")


def test_unwritable_folder(tmp_path: Path) -> None:
    """A path below a file cannot be written by anybody, root included."""
    (tmp_path / "file").write_text("", "utf-8")
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    ended = command(
        *("run", tmp_path / "in.csv", "--output-dir", tmp_path / "file"), env=clean_env(**TOKEN)
    )

    assert ended.code == 73
    assert "cannot be written" in ended.last_line


def test_full_disk(atlas: Served, tmp_path: Path) -> None:
    """A file that may not grow stands for a full disk: 73, nothing published."""
    limited = (
        "import resource, signal, sys;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.argv[0] = 'checkpoint-audit';"
        "from pipeline.__main__ import main; main()"
    )
    ended = command(
        *("run", atlas.triples, "--output-dir", tmp_path),
        env=atlas.env,
        program=(sys.executable, "-c", limited),
    )

    assert ended.code == 73, ended.err
    assert not (tmp_path / "triples/current").exists()


def test_usage() -> None:
    assert command("run").code == 2
    assert command("run", "x.csv", "--no-such-option").code == 2
    assert command("run", "x.csv", "--concurrency", "0").code == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--audit-name", "Not A Name"],
        ["--audit-date", "yesterday"],
        ["--base-url", "http://example.org"],
        ["--base-url", "https://user:pw@example.org"],
    ],
)
def test_wrong_configuration(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    ended = command(
        "run", tmp_path / "in.csv", *options, "--output-dir", tmp_path, env=clean_env(**TOKEN)
    )

    assert ended.code == 78
    assert "user:pw" not in ended.err


CRASHES = {
    "a bug": "import pipeline.derive as d; d.judge = None; ",
    "a broken installation": "import sys; sys.modules['typer'] = None; ",
    "a broken library": "import sys; sys.modules['pyarrow'] = None; ",
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
def test_crash(crash: str, atlas: Served, tmp_path: Path) -> None:
    """A fault of the program ends with 70, never with Python's own 1; nothing is published."""
    ended = command(
        *("run", atlas.triples, "--output-dir", tmp_path),
        env=atlas.env,
        program=(sys.executable, "-c", crash + "from pipeline.__main__ import main; main()"),
    )

    assert ended.code == 70
    assert "exit 70: " in ended.last_line
    assert SECRET not in ended.err
    assert not (tmp_path / "triples/current").exists()


def test_reader_who_leaves(tmp_path: Path) -> None:
    """A closed pipe does not change how the run ended."""
    process = subprocess.Popen(
        [*PROGRAM, "demo", "--output-dir", str(tmp_path)],
        env=clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()

    assert process.wait(timeout=120) == 4


def test_one_at_a_time(atlas: Served, tmp_path: Path) -> None:
    """The second run of an audit ends at once and says who holds it."""
    first = start("run", "-", "--audit-name", "triples", "--output-dir", tmp_path, env=atlas.env)
    wait_for((tmp_path / "triples/.work/holder").exists)
    ended = command("run", atlas.triples, "--output-dir", tmp_path, env=atlas.env)
    first.kill()
    first.communicate()

    assert ended.code == 75
    assert f"process {first.pid} on " in ended.last_line


# --- stopping -----------------------------------------------------------------------------------


def start(*args: str | Path, env: dict[str, str], before: Sequence[str] = ()) -> Any:
    return subprocess.Popen(
        [*before, *PROGRAM, *map(str, args)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(there: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every answer takes half a second."""
    with simulating(tmp_path_factory.mktemp("slow"), "--latency", "0.5") as served:
        yield served


def wait_for_answers(folder: Path) -> None:
    """Wait until the journal below `folder` holds a committed answer."""
    import sqlite3

    def has_answers() -> bool:
        for path in folder.rglob("*.journal"):
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                return bool(db.execute("SELECT count(*) FROM answers").fetchone()[0])
            except sqlite3.OperationalError:
                return False
            finally:
                db.close()
        return False

    wait_for(has_answers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_and_go_on(number: signal.Signals, slow: Served, tmp_path: Path) -> None:
    """A signal ends the run with its own code; the same command goes on under the same run."""
    args = ("run", slow.triples, "--output-dir", tmp_path, "--concurrency", "8")
    process = start(*args, env=slow.env)
    wait_for_answers(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 128 + number
    assert "start the same command again" in err
    assert not (tmp_path / "triples/current").exists()
    run_id = re.search(r"run (\S+): ", err)
    assert run_id is not None

    ended = command(*args[:4], env=slow.env)

    assert ended.code == 4, ended.err
    run = Path(ended.out.splitlines()[-1])
    assert run.name == run_id[1]
    assert "answered before" in ended.err
    assert verdicts(run) == expected(slow.triples)
    assert not list(tmp_path.rglob("*.journal*"))


def test_killed_run_goes_on(slow: Served, tmp_path: Path) -> None:
    """SIGKILL loses nothing that was committed: the same command finishes the same run."""
    process = start(
        *("run", slow.triples, "--output-dir", tmp_path, "--concurrency", "8"), env=slow.env
    )
    wait_for_answers(tmp_path)
    process.kill()
    process.communicate()
    ended = command("run", slow.triples, "--output-dir", tmp_path, env=slow.env)

    assert ended.code == 4, ended.err
    assert "going on with the unfinished run" in ended.err
    assert verdicts(Path(ended.out.splitlines()[-1])) == expected(slow.triples)


def interrupted(slow: Served, folder: Path) -> str:
    """Begin a run, stop it after its first answers, and give its run id."""
    process = start(
        *("run", slow.triples, "--output-dir", folder, "--concurrency", "8"), env=slow.env
    )
    wait_for_answers(folder)
    process.terminate()
    _, err = process.communicate(timeout=60)
    run_id = re.search(r"run (\S+): ", err)
    assert process.returncode == 143
    assert run_id is not None
    return run_id[1]


def test_fresh_starts_anew(slow: Served, tmp_path: Path) -> None:
    run_id = interrupted(slow, tmp_path)
    ended = command("run", slow.triples, "--output-dir", tmp_path, "--fresh", env=slow.env)

    assert ended.code == 4
    assert Path(ended.out.splitlines()[-1]).name != run_id
    assert "answered before" not in ended.err


def test_damaged_journal_is_set_aside(slow: Served, tmp_path: Path) -> None:
    """What cannot be read is kept, said, and does not stand in the way of tonight's run."""
    interrupted(slow, tmp_path)
    (journal,) = tmp_path.rglob("*.journal")
    for beside in tmp_path.rglob("*.journal-*"):
        beside.unlink()
    journal.write_bytes(b"garbage" * 1000)
    ended = command("run", slow.triples, "--output-dir", tmp_path, env=slow.env)

    assert ended.code == 4, ended.err
    assert "the journal is set aside as" in ended.err
    assert journal.with_suffix(".damaged").exists()


def test_resumed_run_names_everybody_who_asked(slow: Served, tmp_path: Path) -> None:
    """Evidence is credited to whoever fetched it; attempts are what the evidence holds."""
    from pipeline.simulator import Credentials

    interrupted(slow, tmp_path)
    token = Credentials().access_token
    env = clean_env(MONGODB_ATLAS_BASE_URL=slow.url, MONGODB_ATLAS_ACCESS_TOKEN=token)
    ended = command("run", slow.triples, "--output-dir", tmp_path, env=env)
    run = Path(ended.out.splitlines()[-1])
    asked = Counter(
        reply["checkpoint_id"]
        for reply in table(run, "evidence")
        if reply["purpose"] == "checkpoint" and reply["failure_kind"] != "throttled"
    )

    assert ended.code == 4, ended.err
    who = table(run, "runs")[0]["credential_id"].split(", ")
    assert who[0] == "mdb_sa_id_51e0a7ed51e0a7ed51e0a7ed"
    assert who[1].startswith("access-token-")
    assert {o["checkpoint_id"]: o["attempts"] for o in table(run, "outcomes")} == asked


KILLS = {
    "before the pointer": "import pipeline.runs as r; r.AuditFolder._point = DIE; ",
    "before the link": "import pathlib; pathlib.Path.symlink_to = DIE; ",
    "before the journal goes": "import pipeline.audit as a; a.remove_journal = DIE; ",
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_killed_while_publishing(kill: str, atlas: Served, tmp_path: Path) -> None:
    """Whatever publishing dies of, the next start finishes that very run."""
    args = ("run", atlas.triples, "--output-dir", tmp_path)
    die = "import os; DIE = lambda *_: os._exit(9); "
    program = (sys.executable, "-c", die + kill + "from pipeline.__main__ import main; main()")

    assert command(*args, env=atlas.env, program=program).code == 9
    ended = command(*args, env=atlas.env)

    assert ended.code == 4, ended.err
    (run,) = (tmp_path / "triples/runs").iterdir()
    assert (tmp_path / "triples/current").resolve() == run
    assert json.loads((tmp_path / "triples/current.json").read_bytes())["run_id"] == run.name
    assert not list(tmp_path.rglob("*.journal*"))


def test_signal_after_publishing(atlas: Served, tmp_path: Path) -> None:
    """Once a run is published, its own code is how the process ends."""
    code = (
        "import os, signal; from pipeline.cli import run as r; report = r.say_published; "
        "r.say_published = lambda *a, **k: "
        "(os.kill(os.getpid(), signal.SIGTERM), report(*a, **k))[1]; "
        "from pipeline.__main__ import main; main()"
    )
    ended = command(
        *("run", atlas.triples, "--output-dir", tmp_path),
        env=atlas.env,
        program=(sys.executable, "-c", code),
    )

    assert ended.code == 4
    assert "exit 4: " in ended.last_line


def test_current_never_goes_back(atlas: Served, tmp_path: Path) -> None:
    """A run of an earlier date is published, and does not become current."""
    args = ("run", atlas.triples, "--output-dir", tmp_path)
    command(*args, env=atlas.env)
    current = (tmp_path / "triples/current").resolve()
    ended = command(*args, "--audit-date", "2026-01-01", env=atlas.env)

    assert ended.code == 4
    assert "published, but not current" in ended.err
    assert (tmp_path / "triples/current").resolve() == current
    assert Path(ended.out.splitlines()[-1]).is_dir()


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "<&-"])
def test_closed_streams(redirection: str, tmp_path: Path) -> None:
    """Standard streams that are closed or full do not change how a run ends."""
    shell = ("sh", "-c", f'exec "$@" {redirection}', "sh", *PROGRAM)
    ended = command("demo", "--output-dir", tmp_path, program=shell)

    assert ended.code == 4
    assert (tmp_path / "demo/current").is_dir()


def test_second_signal_stops_at_once(tmp_path: Path) -> None:
    with simulating(tmp_path, "--latency", "30") as served:
        process = start(
            *("run", served.triples, "--output-dir", tmp_path, "--timeout", "100"), env=served.env
        )
        wait_for(lambda: list(tmp_path.rglob("*.journal")))
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=7)

    assert process.returncode == 143


def test_stop_while_reading_standard_input(atlas: Served, tmp_path: Path) -> None:
    process = start("run", "-", "--audit-name", "x", "--output-dir", tmp_path, env=atlas.env)
    wait_for((tmp_path / "x/.work/holder").exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == 143


def _may_unshare() -> bool:
    tool = shutil.which("unshare")
    probe = [tool or "false", "--pid", "--fork", "true"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_unshare(), reason="this user may not make a PID namespace")
def test_stop_as_pid_1(slow: Served, tmp_path: Path) -> None:
    """As the first process of a container SIGTERM ends with 143, not 0."""
    process = start(
        *("run", slow.triples, "--output-dir", tmp_path, "--concurrency", "4"),
        env=slow.env,
        before=["unshare", "--pid", "--fork", "--kill-child"],
    )
    wait_for_answers(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8").split()
    os.kill(int(children[0]), signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 143


# --- discover -----------------------------------------------------------------------------------


def discovered(text: str) -> set[tuple[str, str, str]]:
    rows = csv.DictReader(text.splitlines())
    return {(row["project_id"], row["cluster_name"], row["checkpoint_id"]) for row in rows}


def listed(served: Served) -> set[tuple[str, str, str]]:
    """Those of the fleet's triples that have a checkpoint: absent ones are in no list."""
    wanted = ("PASS", "FAIL")
    return {triple for triple, verdict in expected(served.triples).items() if verdict in wanted}


def test_discover_finds_the_fleet(atlas: Served, tmp_path: Path) -> None:
    """Every checkpoint there is, to standard output or to a file, the same twice."""
    ended = command("discover", env=atlas.env)
    to_file = command("discover", "--to", tmp_path / "found.csv", env=atlas.env)

    assert ended.code == to_file.code == 0, ended.err
    assert discovered(ended.out) >= listed(atlas)
    assert (tmp_path / "found.csv").read_text("utf-8") == ended.out
    assert to_file.out == ""
    assert re.search(r"exit 0: [\d,]+ checkpoints written", ended.last_line)


def test_discover_feeds_run(atlas: Served, tmp_path: Path) -> None:
    """Two processes and a pipe: what was discovered is audited."""
    walk = start("discover", env=atlas.env)
    audit = command(
        *("run", "-", "--audit-name", "found", "--output-dir", tmp_path),
        env=atlas.env,
        stdin=walk.communicate(timeout=60)[0],
    )

    assert walk.returncode == 0
    assert audit.code in {0, 1}, audit.err
    found = verdicts(Path(audit.out.splitlines()[-1]))
    assert found.items() >= {
        (triple, verdict)
        for triple, verdict in expected(atlas.triples).items()
        if triple in listed(atlas)
    }


def test_discover_says_why_there_is_nothing(atlas: Served) -> None:
    ended = command("discover", "--cluster", "scratch", "--cluster", "restored", env=atlas.env)

    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert "have no legacy backups" in ended.last_line
    assert "March 2020" in ended.last_line


def test_discover_through_faults_and_moving_pages(tmp_path: Path) -> None:
    """Transient faults and lists that shift while they are read lose nothing."""
    plan = 'rate = 0.3\nkinds = ["500", "cut-body", "empty-200", "reset"]\npage_shift = 15\n'
    (tmp_path / "plan.toml").write_text(plan, "utf-8")
    size = ("--projects", "1", "--clusters", "2", "--checkpoints", "1300")
    with simulating(tmp_path, *size, "--faults", str(tmp_path / "plan.toml")) as served:
        ended = command("discover", "--concurrency", "4", env=served.env)

        assert ended.code == 0, ended.err
        assert discovered(ended.out) >= listed(served)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo's fleet: one project of it refuses, another is throttled for an hour."""
    with simulating(tmp_path_factory.mktemp("refusing"), "--faults", "demo") as served:
        yield served


def test_discover_that_is_not_whole_cannot_pass(refusing: Served, tmp_path: Path) -> None:
    """3, the rest is there, and an audit of it ends as not complete even behind a pipe."""
    ended = command("discover", "--to", tmp_path / "found.csv", env=refusing.env)
    audit = command(
        *("run", tmp_path / "found.csv", "--output-dir", tmp_path, "--exit-zero"),
        env=refusing.env,
    )

    assert ended.code == 3, ended.err
    assert "2 places could not be listed" in ended.last_line
    assert "what to do: " in ended.last_line
    lines = (tmp_path / "found.csv").read_text("utf-8").splitlines()
    assert all("not listed: " in line for line in lines[-2:])
    assert audit.code == 3, audit.err
    assert table(Path(audit.out.splitlines()[-1]), "runs")[0]["bad_line_count"] == 2


def test_discover_without_credentials_or_network(atlas: Served, tmp_path: Path) -> None:
    """Nothing is written where nothing could be asked."""
    wrong = {**atlas.env, "MONGODB_ATLAS_CLIENT_SECRET": "a-wrong-secret"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    refused = command("discover", "--to", tmp_path / "found.csv", env=wrong)
    nobody = command("discover", "--attempts", "1", "--base-url", nowhere, env=clean_env(**TOKEN))
    missing = command("discover")

    assert (refused.code, nobody.code, missing.code) == (77, 69, 77)
    assert (refused.out, nobody.out, missing.out) == ("", "", "")
    assert "a-wrong-secret" not in refused.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def hangups_are_heard() -> Iterator[None]:
    """A suite that was itself started by nohup hands an ignored SIGHUP on to what it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups_are_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_discover_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """Rows so far end in a line that says so; a file stays as it was."""
    (tmp_path / "old.csv").write_text("old\n", "utf-8")
    with simulating(tmp_path, "--latency", "0.3") as served:
        slowly = ("discover", "--concurrency", "1")
        to_file = start(*slowly, "--to", tmp_path / "old.csv", env=served.env)
        to_pipe = start(*slowly, env=served.env)
        assert to_pipe.stdout.readline().startswith("project_id")
        wait_for(lambda: list(tmp_path.glob(".old.csv.*")))
        for process in (to_file, to_pipe):
            process.send_signal(number)
        rest = to_pipe.communicate(timeout=30)[0]
        to_file.communicate(timeout=30)

    assert to_pipe.returncode == to_file.returncode == 128 + number
    assert "cut short" in rest.splitlines()[-1]
    assert (tmp_path / "old.csv").read_text("utf-8") == "old\n"
    assert not list(tmp_path.glob(".old.csv.*"))


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """Under nohup the list goes on to its end."""
    with simulating(tmp_path, "--latency", "0.3") as served:
        walk = start("discover", "--concurrency", "4", env=served.env, before=["nohup"])
        assert walk.stdout.readline().startswith("project_id")
        walk.send_signal(signal.SIGHUP)
        rest = walk.communicate(timeout=60)[0]

    assert walk.returncode == 0
    assert "cut short" not in rest


def test_discover_for_a_reader_who_leaves(atlas: Served) -> None:
    """A pipe that nobody reads to its end is no whole list."""
    with subprocess.Popen(
        [*PROGRAM, "discover"], env=atlas.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as walk:
        assert walk.stdout is not None
        walk.stdout.close()
        walk.wait(timeout=60)

    assert walk.returncode == 73


@pytest.mark.parametrize("options", [["--newer-than", "7"], ["--older-than", "1y"]])
def test_discover_durations(options: list[str]) -> None:
    ended = command("discover", *options, env=clean_env(**TOKEN))

    assert ended.code == 78
    assert "is not a duration" in ended.last_line


def test_discover_from_before_there_was_a_calendar() -> None:
    ended = command("discover", "--newer-than", "999999d", env=clean_env(**TOKEN))

    assert ended.code == 78
    assert "longer than there has been Atlas" in ended.last_line


# --- plan ---------------------------------------------------------------------------------------


def test_plan_without_credentials(atlas: Served) -> None:
    """Nobody is asked, and it says so; the plan is on standard output, the talk is not."""
    for options in ([], ["--no-ask"]):
        env = clean_env() if not options else atlas.env
        ended = command("plan", atlas.triples, *options, env=env)

        assert ended.code == 0, ended.err
        assert "216 lines = 216 triples + 0 duplicates + 0 bad lines" in ended.out
        assert "told for 0 of" in ended.out
        assert "the documented limits are taken" in ended.err


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_plan_that_cannot_be_written(form: str, tmp_path: Path) -> None:
    """It is the result: without it the command has not done its work."""
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*PROGRAM, "plan", str(tmp_path / "in.csv"), "--no-ask", "--format", form],
            env=clean_env(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert ended.returncode == 73
    assert b"standard output cannot be written" in ended.stderr


def test_plan_asks_for_limits(tmp_path: Path) -> None:
    """The larger projects' limits come from Atlas, and no checkpoint is asked for."""
    size = ("--projects", "2", "--clusters", "1", "--checkpoints", "150")
    with simulating(tmp_path, *size, "--capacity", "60", "--refill-rate", "30") as served:
        ended = command("plan", served.triples, "--format", "yaml", env=served.env)
        quiet = command("plan", served.triples, "--format", "json", "--quiet", env=served.env)

    assert ended.code == 2
    assert (quiet.code, quiet.err) == (0, "")
    made = json.loads(quiet.out)
    assert made["triple_count"] == 300
    buckets = [one["bucket"] for one in made["projects"] if one["triple_count"] > 100]
    assert buckets
    assert {(one["capacity"], one["refill_rate"], one["source"]) for one in buckets} == {
        (60, 30, "told")
    }
    assert made["by_get"]["bound_by"] == "bucket"
    assert made["by_get"]["expected_s"] > made["by_list"]["expected_s"]


def test_plan_that_may_not_ask(atlas: Served, tmp_path: Path) -> None:
    """77 and 69 as for a run, with the way around; unusable input is found first."""
    (tmp_path / "in.csv").write_text(HEADER, "utf-8")
    wrong = clean_env(MONGODB_ATLAS_BASE_URL=atlas.url, **TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    refused = command("plan", atlas.triples, env=wrong)
    nobody = command("plan", atlas.triples, "--base-url", nowhere, env=clean_env(**TOKEN))
    empty = command("plan", tmp_path / "in.csv", env=wrong)
    missing = command("plan", tmp_path / "none.csv", env=wrong)

    assert (refused.code, nobody.code, empty.code, missing.code) == (77, 69, 65, 66)
    assert refused.out == nobody.out == ""
    assert "--no-ask" in refused.last_line
    assert "--no-ask" in nobody.last_line
