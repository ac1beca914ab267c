"""What the proofs of durability share: an Atlas that counts, starts that break, and the books.

`Books` is the output folder of one audit as a distrustful reader sees it: what is there must be
whole, what was published once must never change, and the rows must be those of an undisturbed run.
"""

import asyncio
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow.parquet as pq

from pipeline.simulator import BucketRules, Credentials, FaultPlan, Fleet, serve
from pipeline.simulator.fleet import Triple
from tests.faultpoints import Fault, Lane, Mode, Point

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "pipeline")
TABLES = ("checkpoints", "parts", "outcomes", "clusters", "findings", "runs")

#: What two undisturbed runs of the same input may differ in: who and when, and at what cost.
VARYING = {
    "*": {"run_id", "fetched_at", "reply_id", "attempts"},
    "runs": {"started_at", "finished_at", "request_count", "refusal_count", "input_source"},
    "clusters": {"rpo_age_s"},
}

Rows = dict[str, list[dict[str, Any]]]


class Atlas:
    """A simulator in a thread of this process, which counts requests by their path.

    It starts again on the same port with another plan of faults: a run belongs to its address.
    """

    def __init__(self, fleet: Fleet, plan: FaultPlan | None = None, latency: float = 0.0) -> None:
        self.fleet = fleet
        self.asked: Counter[str] = Counter()
        self._latency = latency
        self._port = 0
        self._begin(plan or FaultPlan.none())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MONGODB_ATLAS")}
        access = {
            "MONGODB_ATLAS_BASE_URL": self.url,
            "MONGODB_ATLAS_ACCESS_TOKEN": Credentials().access_token,
        }
        return {**kept, "PYTHONPATH": str(ROOT), **access}

    def play(self, plan: FaultPlan) -> None:
        """Be the same Atlas with other faults."""
        self._end()
        self._begin(plan)

    def asked_for(self, checkpoint_id: str) -> int:
        return sum(count for path, count in self.asked.items() if path.endswith(checkpoint_id))

    def _begin(self, plan: FaultPlan) -> None:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()

        def play() -> None:
            self._loop.run_until_complete(self._serve(plan, ready))
            self._loop.close()

        self._thread = threading.Thread(target=play, daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _serve(self, plan: FaultPlan, ready: threading.Event) -> None:
        rules = BucketRules(capacity=1_000_000, refill_rate=1_000_000)

        def watch(path: str) -> None:
            self.asked[path] += 1

        async with serve(
            self.fleet,
            faults=plan,
            buckets=rules,
            port=self._port,
            latency=self._latency,
            watch=watch,
        ) as simulator:
            self._port = simulator.port
            ready.set()
            await self._over.wait()


class Ended(NamedTuple):
    """How a start ended: `code` is below zero for a signal, as subprocess has it."""

    code: int
    out: str
    err: str
    points: tuple[Point, ...] = ()

    @property
    def run(self) -> Path:
        return Path(self.out.splitlines()[-1])


class Starter:
    """Starts the program many times, from a process that has it imported already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "stdin").touch()
        self._zygote = subprocess.Popen(
            # Forking beside Arrow's own thread is what Python 3.12 warns of; it only sleeps.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.zygote"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.communicate(timeout=60)

    def start(
        self,
        *args: str | Path,
        env: dict[str, str],
        fault: Fault | None = None,
        set_up: Sequence[str] = (),
        stdin: str = "",
    ) -> Ended:
        """Start the program and wait for its end; `set_up` names functions to call before."""
        (self._folder / "stdin").write_text(stdin, "utf-8")
        request = {
            "args": list(map(str, args)),
            "env": env,
            "folder": str(self._folder),
            "fault": fault,
            "set_up": set_up,
        }
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        self._heard()
        status = int(self._heard()["status"])
        points = (self._folder / "points").read_text("utf-8").splitlines()
        return Ended(
            os.waitstatus_to_exitcode(status),
            (self._folder / "stdout").read_text("utf-8"),
            (self._folder / "stderr").read_text("utf-8"),
            tuple(Point(*json.loads(line)) for line in points),
        )

    def _heard(self) -> dict[str, int]:
        assert self._zygote.stdout is not None
        heard: dict[str, int] = json.loads(self._zygote.stdout.readline())
        return heard


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory, where there is room: what a killed process leaves hangs on no disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if has_room else None) as name:
        yield Path(name)


def no_waits() -> None:
    """Before a start: what is asked again is asked again at once."""
    from pipeline.fetch import Fetcher

    Fetcher._wait = lambda *_: 0.0  # type: ignore[method-assign]


# --- what is in the output folder ---


class Books:
    """The folder of one audit, and what was published there up to now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.published: dict[str, dict[str, str]] = {}

    @property
    def runs(self) -> list[Path]:
        folder = self.path / "runs"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @property
    def current(self) -> Path | None:
        """Where `current.json` leads."""
        pointer = self.path / "current.json"
        if not pointer.exists():
            return None
        run: str = json.loads(pointer.read_bytes())["path"]
        return self.path / run

    @property
    def latest(self) -> Path:
        """The run that was published last."""
        return max(self.runs, key=lambda run: (run / "SHA256SUMS").stat().st_mtime_ns)

    @property
    def link(self) -> Path | None:
        """Where the link leads."""
        link = self.path / "current"
        return self.path / link.readlink() if link.is_symlink() else None

    @property
    def left_over(self) -> list[str]:
        """What is in the working folder and should not be, once a run is published."""
        names = sorted(path.name for path in (self.path / ".work").iterdir())
        return [name for name in names if name != "lock" and ".damaged" not in name]

    @property
    def journals(self) -> list[Path]:
        return sorted((self.path / ".work").glob("*.journal"))

    def check(self) -> None:
        """Whatever happened: runs are whole and unchanged, pointers lead to them, lines parse."""
        runs = self.runs
        for run in runs:
            found = digests(run)
            if run.name not in self.published:
                check_whole(run, found)
                check_laws(run)
                self.published[run.name] = found
            assert found == self.published[run.name], f"{run} has changed"
        assert set(self.published) == {run.name for run in runs}, "a run has gone"
        for target in (self.current, self.link):
            assert target is None or target in runs
        self.attempts()

    def check_settled(self) -> None:
        """After a run that ended well: the pointers agree too, and nothing is left over."""
        self.check()
        assert (self.path / "attempts.jsonl").read_text("utf-8").endswith("}\n")
        assert self.current == self.link
        assert self.current is not None
        assert self.left_over == []

    def attempts(self) -> list[dict[str, Any]]:
        """Every start and end that was noted; a last line without an end is not there yet."""
        path = self.path / "attempts.jsonl"
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        return [_parsed(line) for line in lines]


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    assert isinstance(found, dict), f"no line of attempts.jsonl: {line}"
    return found


def digests(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def check_whole(run: Path, found: dict[str, str]) -> None:
    """Every file is there with its digest, and none that is not listed."""
    lines = (run / "SHA256SUMS").read_text("utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    unlisted = ("SHA256SUMS", "manifest.json.sig")
    assert {name: found[name] for name in found if name not in unlisted} == listed


def check_laws(run: Path) -> None:
    """Every line and every triple is accounted for, and the tables say so too."""
    (row,) = table(run, "runs")
    verdicts = Counter(each["verdict"] for each in table(run, "outcomes"))
    counted = {name: row[f"{name.lower()}_count"] for name in VERDICTS}

    assert row["line_count"] == (
        row["triple_count"] + row["duplicate_count"] + row["bad_line_count"]
    )
    assert row["triple_count"] == sum(counted.values())
    assert counted == {name: verdicts[name] for name in VERDICTS}
    assert len(table(run, "checkpoints")) == counted["PASS"] + counted["FAIL"]
    assert sum(each["triple_count"] for each in table(run, "clusters")) == row["triple_count"]
    replies = {each["reply_id"]: each["body_sha256"] for each in table(run, "evidence")}
    taken = row["parent_run_id"] is not None and sum(
        each["sent_at"] < row["started_at"] for each in table(run, "evidence")
    )
    assert len(replies) == len(table(run, "evidence")) == row["request_count"] + taken
    for each in table(run, "outcomes"):
        assert each["reply_id"] is None or replies[each["reply_id"]] == each["reply_sha256"]


VERDICTS = ("PASS", "FAIL", "ABSENT", "INCONCLUSIVE")


def table(run: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((run / name).rglob("*.parquet")):
        found += pq.ParquetFile(path).read().to_pylist()
    return found


def rows(run: Path) -> Rows:
    """Every table without what may vary, in its own order."""
    return {name: [_steady(name, row) for row in table(run, name)] for name in TABLES}


def _steady(name: str, row: dict[str, Any]) -> dict[str, Any]:
    varying = VARYING["*"] | VARYING.get(name, set())
    return {column: value for column, value in row.items() if column not in varying}


# --- a small audit ---


class Small(NamedTuple):
    """An audit of few triples over two clusters, with every verdict; one is asked for in vain."""

    atlas: Atlas
    plan: FaultPlan
    triples: tuple[Triple, ...]


@contextmanager
def small(passing: int = 3) -> Iterator[Small]:
    """Of each cluster so many that pass, one that fails, and one that is absent."""
    fleet = Fleet.seeded(seed=7, projects=1, clusters=2, checkpoints=60)
    names = [cluster.name for cluster in fleet.projects[0].clusters]
    found = [t for t in fleet.triples() if t.cluster_name in names]
    wanted = (("PASS", passing), ("FAIL", 1), ("ABSENT", 1))
    chosen = [t for name in names for each in wanted for t in _first(found, name, *each)]
    plan = FaultPlan(checkpoints={chosen[0].checkpoint_id: "always-500"})
    with Atlas(fleet, plan) as atlas:
        yield Small(atlas, plan, tuple(chosen))


def _first(triples: Sequence[Triple], cluster: str, verdict: str, count: int) -> list[Triple]:
    fit = [t for t in triples if (t.cluster_name, t.expected_verdict) == (cluster, verdict)]
    assert len(fit) >= count
    return fit[:count]


def write_input(path: Path, triples: Sequence[Triple]) -> Path:
    """A CSV with each triple, the first one twice, and a line that names none."""
    with path.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(("project_id", "cluster_name", "checkpoint_id", "owner"))
        cells = [(t.group_id, t.cluster_name, t.checkpoint_id, t.owner) for t in triples]
        write.writerows([*cells, cells[0], ("x", *cells[0][1:])])
    return path


def number_of(points: Sequence[Point], name: str, nth: int = 0) -> int:
    """Where the main lane passes the point of that name the `nth` time."""
    return [p.number for p in points if p.lane == Lane.MAIN and p.name.startswith(name)][nth]


def fault_of(point: Point, mode: str) -> Fault:
    return Fault(point.lane, point.number, mode)


#: How the small audit ends: something fails, something could not be judged.
EXPECTED = 4


class Walker:
    """Starts one audit again and again from the same state, and breaks it each time elsewhere."""

    def __init__(self, folder: Path, scene: Small, starter: Starter) -> None:
        self._folder = folder
        self._scene = scene
        self._starter = starter
        self._input = write_input(folder / "nightly.csv", scene.triples)
        self._kept = folder / "kept"
        self.begin_anew()
        (former,) = self.books.runs
        self.wanted: Rows = rows(former)

    def begin_anew(self) -> None:
        """Keep a state in which one run is published, and nothing else was begun."""
        shutil.rmtree(self._out, ignore_errors=True)
        self._published: dict[str, dict[str, str]] = {}
        assert self.start().code == EXPECTED
        self.keep()

    @property
    def books(self) -> Books:
        """The books, opened with what was published when the state was kept."""
        books = Books(self._out / "nightly")
        books.published = dict(self._published)
        return books

    @property
    def _out(self) -> Path:
        return self._folder / "out"

    def keep(self) -> None:
        """Let the state of now be the one that every walk begins with."""
        books = self.books
        books.check()
        self._published = books.published
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self._out, self._kept, symlinks=True)

    def restore(self) -> Books:
        """Go back to the state that was kept; gives its books."""
        shutil.rmtree(self._out)
        shutil.copytree(self._kept, self._out, symlinks=True)
        return self.books

    def start(self, fault: Fault | None = None) -> Ended:
        return self._starter.start(
            *("run", self._input, "--output-dir", self._out),
            env=self._scene.atlas.env,
            fault=fault,
            set_up=["tests.durability:no_waits"],
        )

    def points(self) -> tuple[Point, ...]:
        """The points of a start from here that nothing happens to."""
        self.restore()
        ended = self.start()
        assert ended.code == EXPECTED, ended.err
        self.restore()
        return ended.points

    def begin_and_kill(self, name: str, nth: int = 0) -> None:
        """Begin a run, let it be killed at a point, and keep that state."""
        number = number_of(self.points(), name, nth)
        assert self.start(Fault(Lane.MAIN, number, Mode.KILL)).code == -9
        self.keep()

    def asked(self) -> Counter[str]:
        """Requests so far for what has a lasting answer once it was asked."""
        in_vain = set(self._scene.plan.checkpoints)
        asked = Counter(self._scene.atlas.asked)
        return Counter({path: n for path, n in asked.items() if path[-24:] not in in_vain})


def yesterday() -> None:
    """Before a start: the clock was set back by a day."""
    from datetime import UTC, datetime, timedelta

    from pipeline.audit import Audit

    begin = Audit.__init__

    def set_clock(audit: Audit, *args: Any, **more: Any) -> None:
        begin(audit, *args, **more, now=lambda: datetime.now(UTC) - timedelta(days=1))

    Audit.__init__ = set_clock  # type: ignore[assignment,method-assign]
