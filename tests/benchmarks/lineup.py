"""Who takes part: this program and what people would write instead; how each is run and checked."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.figures import BenchmarkFailed

PROGRAM = "this program"
_PREFIX = "MONGODB_ATLAS_"
SCRIPTS = Path(__file__).parent / "contenders"
PARTS_A_CHECKPOINT = 3

#: What the servers here take. None of it is secret.
CLIENT_ID, CLIENT_SECRET, TOKEN = "mdb_sa_id_benchmark", "mdb_sa_sk_benchmark", "benchmark"


@dataclass(frozen=True, slots=True)
class Contender:
    """One who asks for all triples of a file and makes tables of the answers.

    `command` gives the command for an input and a folder for the output; `counts` what was made,
    (checkpoints, parts) or (bodies,), from the standard output. Who is `slow` is left out of large
    inputs.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    counts: Callable[[str], tuple[int, ...]]
    slow: bool = False
    needs: Sequence[str] = ()

    @property
    def missing(self) -> list[str]:
        """The programs that it needs and that are not installed."""
        return [one for one in self.needs if shutil.which(one) is None]

    def environment(self, base_url: str) -> dict[str, str]:
        """Give this process's environment, asking the server at `base_url` and no other."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith(_PREFIX)}
        own = {"CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": CLIENT_SECRET}
        atlas = own if self.name == PROGRAM else {"ACCESS_TOKEN": TOKEN}
        atlas["BASE_URL"] = base_url
        # No proxy comes between, whatever this machine has: not all here leave loopback alone.
        direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**kept, **direct, **{_PREFIX + name: text for name, text in atlas.items()}}

    def check(self, output: str, *wanted: int) -> None:
        """Raise `BenchmarkFailed` unless as many as wanted were made, as far as both are known."""
        found = self.counts(output)
        if not found or any(one != other for one, other in zip(found, wanted, strict=False)):
            raise BenchmarkFailed(f"{self.name} made {found}, {wanted} were wanted")


def _run(source: Path, output: Path) -> list[str]:
    """Give the command by which users run this program."""
    command = [sys.executable, "-m", "pipeline", "run", str(source), "--output-dir", str(output)]
    return [*command, "--no-progress"]


def _run_counts(output: str) -> tuple[int, ...]:
    """The passes of the run whose folder is the last line of the output."""
    folder = Path(output.strip().rpartition("\n")[2])
    return (json.loads((folder / "summary.json").read_bytes())["counts"]["pass_count"],)


def _script(name: str) -> Callable[[Path, Path], list[str]]:
    path = str(SCRIPTS / name)
    interpreter = "sh" if name.endswith(".sh") else sys.executable
    return lambda source, output: [interpreter, path, str(source), str(output)]


def _written(output: str) -> tuple[int, ...]:
    return tuple(map(int, output.split()))


THIS_PROGRAM = Contender(PROGRAM, _run, _run_counts)
PLAIN_POOL = Contender("aiohttp, gather, json_normalize", _script("gather.py"), _written)

CONTENDERS = (
    THIS_PROGRAM,
    PLAIN_POOL,
    Contender("requests, threads, json_normalize", _script("threads.py"), _written, slow=True),
    Contender("curl --parallel, jq", _script("curl.sh"), _written, True, ("curl", "jq", "awk")),
    Contender("bare aiohttp, bodies only (the floor)", _script("bare.py"), _written),
)
