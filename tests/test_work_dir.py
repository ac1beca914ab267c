"""`--work-dir`: journal, lock and staging elsewhere, be it on another file system."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability import EXPECTED, quick_folder
from tests.nights import Night


@pytest.fixture
def work() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder / "work"


def test_nothing_but_what_is_published_is_in_the_output_folder(night: Night, work: Path) -> None:
    ended = night.run("--work-dir", work)

    assert ended.code == EXPECTED, ended.err
    night.books.check()
    assert night.books.current == night.books.latest == night.books.link
    assert list((night.out / "nightly" / ".work").iterdir()) == []
    assert [path.name for path in work.glob("*/nightly/*")] == ["lock"]


def test_a_killed_run_goes_on_from_there(night: Night, work: Path) -> None:
    killed = night.run("--work-dir", work, set_up="tests.nights:killed_half_way")
    assert killed.code == -9
    assert night.books.journals == []
    assert len(list(work.glob("*/nightly/*.journal"))) == 1
    asked = night.asked

    ended = night.run("--work-dir", work)

    assert ended.code == EXPECTED, ended.err
    assert "going on with the unfinished run" in ended.err
    assert night.asked < 2 * asked + len(night.scene.triples)
    night.books.check()


def test_a_run_that_was_not_pointed_to_is_finished(night: Night, work: Path) -> None:
    assert night.run("--work-dir", work, set_up="tests.nights:killed_before_pointing").code == -9
    assert night.books.current is None
    asked = night.asked

    ended = night.run("--work-dir", work)

    assert (ended.code, night.asked) == (EXPECTED, asked)
    assert night.books.current == ended.run


def test_staging_on_another_file_system_is_copied_beside(
    night: Night, work: Path, tmp_path: Path
) -> None:
    work.mkdir()
    if work.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")

    ended = night.run("--work-dir", work, set_up="tests.test_work_dir:killed_before_it_is_seen")

    assert ended.code == -9
    (beside,) = (night.out / "nightly" / ".work").iterdir()
    assert beside.name.startswith("copy-")
    assert night.books.runs == []
    assert night.run("--work-dir", work).code == EXPECTED
    assert list((night.out / "nightly" / ".work").iterdir()) == []


def killed_before_it_is_seen() -> None:
    """A kill when the copy is whole, and not seen yet."""
    import os
    import signal

    from pipeline import runs

    sync = runs.sync_tree

    def syncing(folder: Path) -> None:
        sync(folder)
        if folder.parent.name == ".work":
            os.kill(os.getpid(), signal.SIGKILL)

    runs.sync_tree = syncing


def test_two_output_folders_share_a_work_folder(night: Night, work: Path, tmp_path: Path) -> None:
    """What was begun for one is not gone on with for the other."""
    night.run("--work-dir", work, set_up="tests.nights:killed_half_way")
    other = night.run("--work-dir", work, "--output-dir", tmp_path / "elsewhere")

    assert other.code == EXPECTED
    assert "going on" not in other.err
    assert len(list(work.glob("*/nightly/*.journal"))) == 1


def test_a_copy_under_way_is_left_to_whoever_makes_it(night: Night, work: Path) -> None:
    """Two work folders have two locks."""
    theirs = night.out / "nightly" / ".work" / "copy-01234567-stage-x"
    theirs.mkdir(parents=True)

    assert night.run("--work-dir", work).code == EXPECTED
    assert theirs.exists()


def test_a_copy_of_long_ago_is_removed(night: Night, work: Path) -> None:
    theirs = night.out / "nightly" / ".work" / "copy-01234567-stage-x"
    theirs.mkdir(parents=True)
    os.utime(theirs, (0, 0))

    assert night.run("--work-dir", work).code == EXPECTED
    assert not theirs.exists()


def test_a_copy_that_fails_says_why_and_leaves_nothing(
    night: Night, work: Path, tmp_path: Path
) -> None:
    work.mkdir()
    if work.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")

    ended = night.run("--work-dir", work, set_up="tests.test_work_dir:full_while_copying")

    assert ended.code == 73
    assert "report.html cannot be written: No space left on device" in ended.err
    assert list((night.out / "nightly" / ".work").iterdir()) == []
    asked = night.asked
    assert night.run("--work-dir", work).code == EXPECTED
    assert night.asked == asked


def full_while_copying() -> None:
    """A disk that is full when the report comes."""
    import errno
    import os
    import shutil

    copyfile = shutil.copyfile

    def copying(source: Path, target: Path) -> Path:
        if Path(target).parent.name.startswith("copy-") and Path(target).name == "report.html":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return copyfile(source, target)

    shutil.copyfile = copying  # type: ignore[assignment]


def test_a_journal_in_the_old_place_is_said(night: Night, work: Path) -> None:
    night.run(set_up="tests.nights:killed_half_way")
    (journal,) = night.books.journals

    ended = night.run("--work-dir", work)

    assert ended.code == EXPECTED
    assert f"{journal} is of a start without --work-dir" in ended.err
    assert journal.exists()
