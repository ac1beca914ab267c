"""A disk that is full, for real: a small file system in memory, and more room afterwards.

The program looks at the free space before it asks anything; here it is told that there is plenty,
so that the room ends in the midst of it.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.durability import EXPECTED, Books, Ended, Small, Starter, rows, write_input

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wants tmpfs")

PAGE = 4096

#: Room for all that these tests do, and for what the program wants to see free.
LARGE = 256 << 20


def plenty_of_room() -> None:
    """Before a start: whatever the disk says, there is room."""
    usage = SimpleNamespace(free=1 << 40)
    shutil.disk_usage = lambda _: usage  # type: ignore[assignment,return-value]


class Disk:
    """A file system of its own size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._mount(f"size={LARGE}")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "proof", str(self.path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")

    def leave(self, free: int) -> None:
        """Let so many bytes be free."""
        used = shutil.disk_usage(self.path).used
        self._mount(f"remount,size={used + free}")

    def enlarge(self) -> None:
        self._mount(f"remount,size={LARGE}")

    def close(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


def test_room_that_ends_in_the_midst(
    disk: Disk, tmp_path: Path, scene: Small, starter: Starter
) -> None:
    """73 and said, wherever it ends; with room again the same command finishes the same rows."""
    source = write_input(tmp_path / "nightly.csv", scene.triples)
    books = Books(disk.path / "out" / "nightly")

    def start() -> Ended:
        return starter.start(
            *("run", source, "--output-dir", disk.path / "out"),
            env=scene.atlas.env,
            set_up=["tests.durability:no_waits", "tests.test_durability_space:plenty_of_room"],
        )

    former = start()
    assert former.code == EXPECTED, former.err
    wanted, stages = rows(former.run), []
    free, ended = 0, None
    while ended is None or ended.code == 73:
        before = books.current
        disk.leave(free)
        ended = start()
        if ended.code == 73:
            stages.append(stage(books, ended))
            assert books.current == books.link == before
        disk.enlarge()
        finished = start()
        books.check_settled()
        assert finished.code == EXPECTED, finished.err
        assert rows(finished.run) == wanted
        free += 6 * PAGE

    assert ended.code == EXPECTED, ended.err
    assert set(stages) >= {"journal", "tables"}, stages


def stage(books: Books, ended: Ended) -> str:
    """Where the room ended: nothing is corrupt, and the last line says what cannot be written."""
    books.check()
    last = ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err, ended.err
    assert "exit 73: " in last
    assert "No space left" in last or "disk is full" in last or "disk I/O error" in last, last
    if ".journal" in last:
        return "journal"
    return "tables" if "stage-" in last else "before"


def test_room_that_is_known_to_end_is_said_first(
    disk: Disk, tmp_path: Path, scene: Small, starter: Starter
) -> None:
    """Before anything is asked; with room again the same command runs."""
    source = write_input(tmp_path / "nightly.csv", scene.triples)
    args = ("run", source, "--output-dir", disk.path / "out")
    disk.leave(100 * PAGE)
    scene.atlas.asked.clear()
    ended = starter.start(*args, env=scene.atlas.env)

    assert ended.code == 73
    assert "nothing more was asked" in ended.err.splitlines()[-1]
    assert not scene.atlas.asked
    disk.enlarge()
    ended = starter.start(*args, env=scene.atlas.env, set_up=["tests.durability:no_waits"])
    assert ended.code == EXPECTED
