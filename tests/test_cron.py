"""A run that nobody watches: what it leaves behind and whom it tells, however it ends.

Real processes, a simulator and a healthcheck on loopback; see also `test_cli`.
"""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.published import Current
from pipeline.runs import AuditFolder
from tests.healthcheck import KEY, Listener, listening
from tests.test_cli import (
    HEADER,
    PROGRAM,
    SECRET,
    TRIPLE,
    Ended,
    Served,
    command,
    only,
    simulating,
    start,
    wait_for,
)

PUBLISHED = (0, 1, 3, 4)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with simulating(tmp_path_factory.mktemp("atlas")) as served:
        yield served


@pytest.fixture
def check() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


def metrics(path: Path) -> dict[str, float]:
    """The metrics that have no labels but the audit's name."""
    families = text_string_to_metric_families(path.read_text("utf-8"))
    return {
        sample.name.removeprefix("checkpoint_audit_"): sample.value
        for family in families
        for sample in family.samples
        if set(sample.labels) == {"audit"}
    }


def attempts(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "attempts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def crash(statement: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"{statement}; from pipeline.__main__ import main; main()")


# --- every end ----------------------------------------------------------------------------------


class End(NamedTuple):
    """How to bring about one end of `run`, and whether it is reached with the audit held."""

    code: int
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = MappingProxyType({})
    program: tuple[str, ...] = PROGRAM
    verdicts: tuple[str, ...] = ("PASS",)
    text: str | None = None
    is_held: bool = True
    blocked: str = ""


NO_CREDENTIALS = {"MONGODB_ATLAS_CLIENT_ID": "", "MONGODB_ATLAS_CLIENT_SECRET": ""}
ENDS = {
    "nothing open": End(0),
    "open": End(1, verdicts=("PASS", "FAIL")),
    "open, turned into 0": End(0, ("--exit-zero",), verdicts=("PASS", "FAIL")),
    "incomplete": End(3, text="{triples}nothing,to,see\n"),
    "open and incomplete": End(4, verdicts=("PASS", "ABSENT"), text="{triples}nothing,to,see\n"),
    "no input": End(65, text=HEADER),
    "input missing": End(66, text=""),
    "Atlas is not there": End(69, env={"MONGODB_ATLAS_BASE_URL": "http://127.0.0.1:9"}),
    "a bug": End(70, program=crash("import pipeline.derive as d; d.judge = None")),
    "outputs not writable": End(73, blocked="runs", is_held=False),
    "no credentials": End(77, env=NO_CREDENTIALS, is_held=False),
    "credentials refused": End(77, env={"MONGODB_ATLAS_CLIENT_SECRET": "wrong-one"}),
    "wrong configuration": End(78, ("--audit-date", "tomorrow"), is_held=False),
}


class Night(NamedTuple):
    """One run that ended, and where to look."""

    ended: Ended
    folder: Path
    metrics_file: Path


def night(end: End, atlas: Served, check: Listener, place: Path, *options: str) -> Night:
    folder, metrics_file = place / "outputs", place / "audit.prom"
    source = only(atlas, place, *end.verdicts)
    if end.text is not None:
        text = end.text.format(triples=source.read_text("utf-8"))
        source.unlink()
        if text:
            source.write_text(text, "utf-8")
    audit = folder / "some"
    audit.mkdir(parents=True)
    if end.blocked:
        (audit / end.blocked).write_text("a file where a folder should be", "utf-8")
    env = {**atlas.env, "CHECKPOINT_AUDIT_PING_URL": f"{check.url}?rid=7", **end.env}
    ended = command(
        *("run", source, "--output-dir", folder, "--metrics-file", metrics_file),
        *(*end.options, *options),
        env=env,
        program=end.program,
    )
    return Night(ended, audit, metrics_file)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_end_is_told_quietly(
    end: End, log_format: str, atlas: Served, check: Listener, tmp_path: Path
) -> None:
    """One true line on stderr, or none at 0; metrics, healthcheck and notes know the code."""
    ended, folder, metrics_file = night(
        end, atlas, check, tmp_path, "--quiet", "--log-format", log_format
    )
    assert ended.code == end.code, ended.err

    lines = ended.err.splitlines()
    assert len(lines) == (0 if end.code == 0 else 1)
    for line in lines:
        said = json.loads(line)["message"] if log_format == "json" else line
        assert said.removeprefix("checkpoint-audit: ").startswith(f"exit {end.code}: ")
    if end.code in PUBLISHED and end.code:
        assert Path(ended.out.removesuffix("\n")).parent == folder / "runs"
    else:
        assert ended.out == ""

    assert metrics(metrics_file)["last_exit_code"] == end.code
    suffixes = ["/start"] * end.is_held + [f"/{end.code}" if end.code else ""]
    assert [ping.path for ping in check.came] == [f"/{KEY}{suffix}?rid=7" for suffix in suffixes]
    assert check.came[-1].body.startswith(f"exit {end.code}: ")
    for text in (ended.err, *(ping.body for ping in check.came)):
        assert KEY not in text
        assert SECRET not in text
    assert_noted(end, folder)


def assert_noted(end: End, folder: Path) -> None:
    lines = attempts(folder)
    if end.is_held:
        assert [line["event"] for line in lines] == ["start", "end"]
        assert lines[0]["attempt"] == lines[1]["attempt"]
    else:
        assert [line["event"] for line in lines] == ["end"]
    last = lines[-1]
    assert last["exit_code"] == (1 if "--exit-zero" in end.options else end.code)
    assert last["published"] is (end.code in PUBLISHED)
    assert last["published"] is ("run_id" in last and (folder / "runs" / last["run_id"]).is_dir())


def test_a_failing_night_keeps_the_last_figures(
    atlas: Served, check: Listener, tmp_path: Path
) -> None:
    """One good night, then one without a network: the file still has the good one's figures."""
    _, folder, metrics_file = night(ENDS["open"], atlas, check, tmp_path)
    good = metrics(metrics_file)
    options = ("--output-dir", tmp_path / "outputs", "--metrics-file", metrics_file)
    env = {**atlas.env, "MONGODB_ATLAS_BASE_URL": "http://127.0.0.1:9"}
    assert command("run", tmp_path / "some.csv", *options, env=env).code == 69
    bad = metrics(metrics_file)

    changed = {"last_exit_code", "last_end_timestamp_seconds"}
    assert {name for name in good if good[name] != bad[name]} == changed
    assert (good["last_exit_code"], bad["last_exit_code"]) == (1, 69)
    summary = json.loads((folder / "current/summary.json").read_text("utf-8"))
    assert bad["duration_seconds"] == summary["duration_s"]
    assert bad["last_success_timestamp_seconds"] == bad["last_published_timestamp_seconds"]
    text = metrics_file.read_text("utf-8")
    shown = re.findall(r'cluster_restorable\{[^}]*cluster_name="([^"]+)"', text)
    assert sorted(shown) == sorted(each["cluster_name"] for each in summary["clusters"])


# --- what must not change how a run ends --------------------------------------------------------


def test_metrics_that_cannot_be_written(atlas: Served, tmp_path: Path) -> None:
    """Said even quietly; the run is what it is."""
    ended = command(
        *("run", only(atlas, tmp_path, "PASS"), "--output-dir", tmp_path, "--quiet"),
        *("--metrics-file", tmp_path / "nowhere/audit.prom"),
        env=atlas.env,
    )

    assert (ended.code, ended.out) == (0, "")
    assert len(ended.err.splitlines()) == 1
    assert "nowhere/audit.prom cannot be written: No such file" in ended.err


@pytest.mark.parametrize("quiet", [True, False])
def test_a_healthcheck_that_is_gone(quiet: bool, atlas: Served, tmp_path: Path) -> None:
    with listening() as check:
        pass
    ended = command(
        *("run", only(atlas, tmp_path, "PASS"), "--output-dir", tmp_path),
        *(["--quiet"] if quiet else []),
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url},
    )
    warned = [line for line in ended.err.splitlines() if "the healthcheck was" in line]

    assert ended.code == 0
    assert len(warned) == (0 if quiet else 2)
    assert not any(KEY in line or check.url in line for line in warned)
    assert quiet or "exit 0: " in ended.last_line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("_hangups_are_heard")
def test_a_signal_during_the_last_ping(
    number: signal.Signals, atlas: Served, check: Listener, tmp_path: Path
) -> None:
    """The run is published and stays so; its code too."""
    source = only(atlas, tmp_path, "PASS", "FAIL")
    env = {**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url}
    process = start("run", source, "--output-dir", tmp_path, "--quiet", env=env)
    wait_for(lambda: check.came)
    check.hang.clear()
    wait_for(lambda: len(check.came) == 2)
    process.send_signal(number)
    threading.Timer(0.3, check.hang.set).start()
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert err.startswith("checkpoint-audit: exit 1: ")
    assert Path(out.strip()).is_dir()


def test_a_signal_during_the_last_ping_of_a_failure(
    atlas: Served, check: Listener, tmp_path: Path
) -> None:
    """Also where it failed so early that signals were not yet the run's own business."""
    check.hang.clear()
    env = {**atlas.env, **NO_CREDENTIALS, "CHECKPOINT_AUDIT_PING_URL": check.url}
    process = start("run", atlas.triples, "--output-dir", tmp_path, "--quiet", env=env)
    wait_for(lambda: check.came)
    process.send_signal(signal.SIGTERM)
    threading.Timer(0.3, check.hang.set).start()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 77
    assert len(err.splitlines()) == 1
    assert err.startswith("checkpoint-audit: exit 77: ")


@pytest.fixture
def _hangups_are_heard() -> Iterator[None]:
    """A child of a suite that was started by nohup would ignore them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("_hangups_are_heard")
def test_a_run_that_is_stopped_is_told(
    number: signal.Signals, check: Listener, tmp_path: Path
) -> None:
    with simulating(tmp_path, "--latency", "0.2") as served:
        env = {**served.env, "CHECKPOINT_AUDIT_PING_URL": check.url}
        metrics_file = tmp_path / "audit.prom"
        options = ("--output-dir", tmp_path, "--concurrency", "1", "--metrics-file", metrics_file)
        process = start("run", served.triples, *options, "--quiet", env=env)
        wait_for(lambda: has_replies(tmp_path))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    code = 128 + number

    assert process.returncode == code
    assert len(err.splitlines()) == 1
    assert err.startswith(f"checkpoint-audit: exit {code}: stopped by signal")
    assert metrics(metrics_file)["last_exit_code"] == code
    assert [ping.path for ping in check.came] == [f"/{KEY}/start", f"/{KEY}/{code}"]
    first, last = attempts(tmp_path / "triples")
    assert (first["event"], last["event"], last["exit_code"]) == ("start", "end", code)
    assert re.fullmatch(r"\d{8}T\d{6}Z-triples-[0-9a-f]{6}", last["run_id"])


def has_replies(folder: Path) -> bool:
    for path in folder.rglob("*.journal"):
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            if db.execute("SELECT count(*) FROM replies").fetchone()[0]:
                return True
        except sqlite3.OperationalError:
            return False
        finally:
            db.close()
    return False


def test_a_stop_before_the_input_is_read(atlas: Served, check: Listener, tmp_path: Path) -> None:
    """Also a signal that comes while nothing was begun is told."""
    env = {**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url}
    metrics_file = tmp_path / "audit.prom"
    options = ("--audit-name", "x", "--output-dir", tmp_path, "--metrics-file", metrics_file)
    process = start("run", "-", *options, env=env)
    wait_for(lambda: check.came)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 143
    assert metrics(metrics_file)["last_exit_code"] == 143
    assert [ping.path for ping in check.came] == [f"/{KEY}/start", f"/{KEY}/143"]
    assert attempts(tmp_path / "x")[-1]["exit_code"] == 143


@pytest.mark.parametrize(
    ("options", "code", "is_known"),
    [
        (("--complete", "nope"), 66, False),
        (("--complete", "../some"), 66, False),
        (("--complete", "some"), 65, True),
        (("--complete", "bare"), 66, True),
        (("in.csv", "--audit-name", "NO NAME"), 78, False),
    ],
)
def test_an_end_before_the_audit_is_known_is_told(
    options: tuple[str, ...],
    code: int,
    is_known: bool,
    atlas: Served,
    check: Listener,
    tmp_path: Path,
) -> None:
    """The healthcheck hears of it; metrics and notes are kept where the audit's name was given."""
    run_id = "20261120T030000Z-some-7f3a9c"
    run = tmp_path / "some/runs" / run_id
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{", "utf-8")
    folder = AuditFolder(tmp_path, "some")
    folder.prepare()
    folder.point(Current(run_id, date(2026, 11, 20), f"runs/{run_id}", "0" * 64, 0, "1"))
    (tmp_path / "bare").mkdir()
    metrics_file = tmp_path / "audit.prom"
    ended = command(
        *("run", *options),
        *("--output-dir", tmp_path, "--metrics-file", metrics_file),
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url},
    )

    assert ended.code == code, ended.err
    assert [ping.path for ping in check.came] == [f"/{KEY}/{code}"]
    assert check.came[0].body.startswith(f"exit {code}: ")
    assert metrics_file.exists() is is_known
    if is_known:
        assert metrics(metrics_file)["last_exit_code"] == code
        (noted,) = attempts(tmp_path / options[1])
        assert (noted["event"], noted["exit_code"], noted["published"]) == ("end", code, False)


# --- signals at the worst moments ---------------------------------------------------------------

WHILE_IMPORTING = """
import os, signal, sys

# What a shell starts in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            {stop}

sys.meta_path.insert(0, Finder())
from pipeline.__main__ import main
main()
"""
STOP = "os.kill(os.getpid(), signal.{name})"
STOPPED_BY = ("SIGINT", "SIGTERM", "SIGHUP")
STOPS = {
    "as it is": STOP,
    "told as something else": f"""
            try:
                {STOP}
            except Exception:
                raise ImportError("it cannot begin") from None
""",
}


@pytest.mark.parametrize(
    ("name", "module", "stop"),
    [
        # After this one aiohttp cannot be imported any more.
        *((name, "aiohttp.tracing", stop) for name in STOPPED_BY for stop in STOPS),
        # The signals are not in place, and only this one raises.
        ("SIGINT", "pipeline.errors", "as it is"),
    ],
)
@pytest.mark.usefixtures("_hangups_are_heard")
def test_a_signal_while_libraries_are_imported(
    name: str, module: str, stop: str, atlas: Served, tmp_path: Path
) -> None:
    """The code of the signal and one line with its hint; what is half imported is left alone."""
    code = WHILE_IMPORTING.format(module=module, stop=STOPS[stop].format(name=name))
    program = (sys.executable, "-c", code)
    args = ("run", atlas.triples, "--output-dir", tmp_path)
    number = signal.Signals[name]
    ended = command(*args, env=atlas.env, program=program)
    as_json = command(*args, "--log-format", "json", env=atlas.env, program=program)
    message = (
        f"exit {128 + number}: stopped by signal {number:d}; what to do: "
        "start the same command again to go on where it stopped"
    )

    assert ended == Ended(128 + number, "", f"checkpoint-audit: {message}\n")
    assert as_json.code == 128 + number
    (line,) = map(json.loads, as_json.err.splitlines())
    assert (line["message"], line["exit_code"]) == (message, 128 + number)
    assert line["hint"] == message.partition("what to do: ")[2]


@pytest.mark.parametrize("command_name", ["run", "discover"])
@pytest.mark.parametrize("options", [(), ("--quiet",), ("--log-format", "json")])
def test_a_second_signal_says_one_line(
    options: tuple[str, ...], command_name: str, tmp_path: Path
) -> None:
    """The second comes while the first still waits for what is in flight; both are the launcher's.

    A stop that is never done stands for one that takes its time.
    """
    stops = (
        "import os, signal, pipeline.stopping as s\n"
        "s.Stopping._stop_gently = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        "begin = s.Stopping.begin\n"
        "s.Stopping.begin = lambda *a: (begin(*a), os.kill(os.getpid(), signal.SIGTERM))\n"
        "from pipeline.__main__ import main; main()"
    )
    with simulating(tmp_path, "--latency", "30") as served:
        args = [str(served.triples), "--output-dir", str(tmp_path)] if command_name == "run" else []
        program = (sys.executable, "-c", stops)
        ended = command(command_name, *args, *options, env=served.env, program=program)
    said = json.loads(ended.last_line)["message"] if "json" in options else ended.last_line

    assert ended.code == 130
    assert said.removeprefix("checkpoint-audit: ").startswith(
        "exit 130: stopped at once by a second signal; what to do: start the same command again"
    )
    assert len(ended.err.splitlines()) == 1 or "--quiet" not in options


# --- two at a time ------------------------------------------------------------------------------


def test_who_comes_second_tells_nobody(atlas: Served, check: Listener, tmp_path: Path) -> None:
    """75 leaves metrics and healthcheck to the run that is going on; but it is noted."""
    first = start("run", "-", "--audit-name", "triples", "--output-dir", tmp_path, env=atlas.env)
    wait_for((tmp_path / "triples/.work/holder").exists)
    metrics_file = tmp_path / "audit.prom"
    metrics_file.write_text("as it was\n", "utf-8")
    ended = command(
        *("run", atlas.triples, "--output-dir", tmp_path, "--metrics-file", metrics_file),
        "--quiet",
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url},
    )
    lines = attempts(tmp_path / "triples")
    first.kill()
    first.communicate()

    assert ended.code == 75
    assert len(ended.err.splitlines()) == 1
    assert not check.came
    assert metrics_file.read_text("utf-8") == "as it was\n"
    assert [line["event"] for line in lines] == ["start", "start", "end"]
    assert lines[1]["attempt"] == lines[2]["attempt"] != lines[0]["attempt"]
    assert (lines[2]["exit_code"], lines[2]["published"]) == (75, False)


# --- usage and configuration --------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("run",), ("run", "x.csv", "--nonsense"), ("nonsense",)])
def test_a_wrong_command_line_is_one_line_where_wanted(arguments: tuple[str, ...]) -> None:
    quiet = command(*arguments, "--quiet")
    as_json = command(*arguments, "--log-format", "json")

    assert (quiet.code, as_json.code) == (2, 2)
    assert len(quiet.err.splitlines()) == 1
    assert quiet.err.startswith("checkpoint-audit: exit 2: ")
    assert [json.loads(line)["exit_code"] for line in as_json.err.splitlines()] == [2]
    assert "Usage: " in command(*arguments).err


def test_a_wrong_command_line_tells_nobody(check: Listener, tmp_path: Path, atlas: Served) -> None:
    metrics_file = tmp_path / "audit.prom"
    ended = command(
        *("run", "--metrics-file", metrics_file),
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url},
    )

    assert ended.code == 2
    assert not check.came
    assert not metrics_file.exists()


def test_a_ping_address_that_cannot_be_used(atlas: Served, tmp_path: Path) -> None:
    """It stops the run before anything is asked, names the variable, and is not repeated."""
    (tmp_path / "in.csv").write_text(HEADER + TRIPLE, "utf-8")
    metrics_file = tmp_path / "audit.prom"
    ended = command(
        *("run", tmp_path / "in.csv", "--output-dir", tmp_path, "--metrics-file", metrics_file),
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": f"http://example.org/{KEY}"},
    )

    assert ended.code == 78
    assert "CHECKPOINT_AUDIT_PING_URL" in ended.last_line
    assert KEY not in ended.err
    assert metrics(metrics_file)["last_exit_code"] == 78
    assert not (tmp_path / "in").exists()


def test_a_traceback_does_not_show_the_address(
    atlas: Served, check: Listener, tmp_path: Path
) -> None:
    """Not even where a bug carries it."""
    url = f"https://example.org/{KEY}"
    code = (
        "import pipeline.derive as d, pipeline.pings as p; "
        f"d.judge = lambda *a, **k: int('{url}'); p.Pings.begin = lambda s: None; "
        "p.Pings.end = lambda s, code, words: None"
    )
    ended = command(
        *("run", only(atlas, tmp_path, "PASS"), "--output-dir", tmp_path),
        env={**atlas.env, "CHECKPOINT_AUDIT_PING_URL": url},
        program=crash(code),
    )

    assert ended.code == 70
    assert "[secret]" in ended.err
    assert KEY not in ended.err


def test_the_demo_tells_nobody(check: Listener, tmp_path: Path, atlas: Served) -> None:
    env = {**atlas.env, "CHECKPOINT_AUDIT_PING_URL": check.url}

    assert command("demo", "--output-dir", tmp_path, env=env).code == 4
    assert command("demo", "--metrics-file", tmp_path / "x", env=env).code == 2
    assert not check.came


def test_a_broken_installation_is_one_line_where_wanted(atlas: Served, tmp_path: Path) -> None:
    program = crash("import sys; sys.modules['pyarrow'] = None")
    quiet = command("run", atlas.triples, "--quiet", env=atlas.env, program=program)
    as_json = command("run", atlas.triples, "--log-format=json", env=atlas.env, program=program)

    assert (quiet.code, as_json.code) == (70, 70)
    assert len(quiet.err.splitlines()) == 1
    assert "the installation is broken" in quiet.err
    assert [json.loads(line)["exit_code"] for line in as_json.err.splitlines()] == [70]


# --- attempts.jsonl -----------------------------------------------------------------------------


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    """What died while it wrote leaves a line cut short, which is taken away."""
    folder = AuditFolder(tmp_path, "nightly")
    folder.prepare()
    folder.note(event="start")
    with (folder.path / "attempts.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "en')
    folder.note(event="start")
    folder.note(event="end")
    lines = (folder.path / "attempts.jsonl").read_text("utf-8").splitlines()

    assert [json.loads(line)["event"] for line in lines] == ["start", "start", "end"]


def test_notes_of_many_do_not_mix(tmp_path: Path) -> None:
    """Each is one write at the file's end, so that no lock is needed."""
    script = (
        "import sys; from pathlib import Path; from pipeline.runs import AuditFolder\n"
        "folder = AuditFolder(Path(sys.argv[1]), 'nightly')\n"
        "for number in range(50): folder.note(event='end', error=sys.argv[2] * 2000)"
    )
    AuditFolder(tmp_path, "nightly").prepare()
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), letter]) for letter in "abcd"
    ]

    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    said = sorted(line["error"] for line in attempts(tmp_path / "nightly"))
    assert said == sorted(letter * 2000 for letter in "abcd" * 50)


def test_a_published_run_that_cannot_be_noted_stays_published(
    atlas: Served, tmp_path: Path
) -> None:
    """Its code says what it found; that a note is missing is a warning."""
    code = (
        "import pipeline.runs as r; note = r.AuditFolder.note\n"
        "def fail(self, **facts):\n"
        "    if facts['event'] == 'end': raise r.OutputsUnwritable('the disk is full')\n"
        "    note(self, **facts)\n"
        "r.AuditFolder.note = fail\n"
        "from pipeline.__main__ import main; main()"
    )
    ended = command(
        *("run", only(atlas, tmp_path, "PASS"), "--output-dir", tmp_path),
        env=atlas.env,
        program=(sys.executable, "-c", code),
    )

    assert ended.code == 0
    assert "the end of this run could not be noted: the disk is full" in ended.err
    assert (tmp_path / "some/current").is_dir()
