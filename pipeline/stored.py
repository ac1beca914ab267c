"""The outputs of one audit in a store of objects; see `runs` for those in a folder.

    s3://BUCKET/PREFIX/<audit_name>/
      runs/<run_id>/      as in a folder; the manifest is written last, before it there is no run
      current.json        written last of all, on condition that it is what was read
      attempts/           an object for every start, rewritten once when it ends

A run is derived and staged on this machine, in the layout of a folder, and put up from there. The
folder also holds manifests and summaries of the runs in the store, which never change, and all
files of the current run, which the next one is compared with. What is in the store counts: the
folder may be lost between any two runs. Journal and lock are on this machine alone; machines that
publish the same audit are kept apart by the condition on `current.json`, and by nothing else.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputMissing, OutputsUnwritable
from pipeline.mirror import (
    MANIFEST,
    POINTER,
    bring_heads,
    bring_run,
    is_one_name,
    put_run,
    remove_run,
    runs_there,
)
from pipeline.objects import Found, Objects
from pipeline.published import Current, Outputs, PublishedRun, decode_current, read_run
from pipeline.runs import ABANDONED_S, AuditFolder, encoded, follows, line_of, place_of, sync
from pipeline.staging import Staging, writing

log = logging.getLogger(__name__)

#: Where the work for runs in a store is done, unless `--work-dir` says otherwise.
WORK_DIR = Path("outputs/.work")

#: What is kept here of a run that is not the current one.
_KEPT = {"manifest.json", "manifest.json.sig", "SHA256SUMS", "summary.json"}

#: How often another may be faster at `current.json` before something must be wrong.
_RACES = 20


def audit_folder(
    outputs: Outputs,
    audit_name: str,
    work_dir: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> AuditFolder:
    """Give the outputs of an audit, wherever they are.

    `tick` is called between the objects of a run that is put up, and may raise to stop.
    """
    if isinstance(outputs, Objects):
        return StoredFolder(outputs, audit_name, work_dir or WORK_DIR, tick)
    return AuditFolder(outputs, audit_name, work_dir)


class _Noted(NamedTuple):
    """The object of one start, and its lines."""

    name: str
    lines: list[bytes]


class StoredFolder(AuditFolder):
    """The outputs of one audit name in a store; raises `OutputsUnwritable` where that refuses."""

    def __init__(
        self, objects: Objects, audit_name: str, work_dir: Path, tick: Callable[[], None]
    ) -> None:
        super().__init__(work_dir / place_of(objects.address), audit_name)
        self._own = objects.within(audit_name, OutputsUnwritable)
        self._tick = tick
        self._pointer: Found | None = None
        self._noted: dict[str, _Noted] = {}

    def address_of(self, run_id: str) -> str:
        """Say where a run is in the store."""
        return f"{self._own}/runs/{run_id}"

    def clean(self) -> None:
        """Clean the work folder; then let the folder of runs be what the store holds."""
        self._clean_work()
        self._clean_marks()
        current = self.current()
        there = runs_there(self._own)
        whole = [run_id for run_id, is_run in there.items() if is_run]
        with writing(self.path):
            for path in self.runs.glob("*"):
                if not self._mark(path.name).exists():
                    _trim(path, whole, current)
        bring_heads(self._own, whole, self.runs)
        for run_id, is_run in there.items():
            if not is_run and not self._mark(run_id).exists():
                log.warning(
                    "%s has no manifest and is no run: it is being put up by another machine, "
                    "or that was broken off",
                    self.address_of(run_id),
                )

    def _clean_marks(self) -> None:
        """Forget that a run is to be put up where it is not here, or nobody went on for a week.

        Such a run is given up with its mark: it would be taken for one that is in the store.
        """
        for mark in self.work.glob("upload-*"):
            run_id = mark.name.removeprefix("upload-")
            is_here = (self.runs / run_id).exists()
            is_old = time.time() - mark.stat().st_mtime > ABANDONED_S
            if is_here and is_old:
                self._give_up(run_id)
            if is_old or not is_here:
                with writing(mark):
                    mark.unlink()

    def _give_up(self, run_id: str) -> None:
        if not self._own.has(f"runs/{run_id}/{MANIFEST}"):
            log.warning(
                "%s was not put up for a week, and is given up: what it holds is removed from %s",
                self.address_of(run_id),
                self.runs,
            )
            super()._remove(self.runs / run_id)

    def note(self, **facts: Any) -> None:
        """Add a line to `attempts.jsonl` here, and to the object of this start."""
        super().note(**facts)
        if (attempt := facts.get("attempt")) is not None:
            begun = re.sub(r"\D", "", str(facts["at"])[:19])
            noted = self._noted.setdefault(attempt, _Noted(f"attempts/{begun}-{attempt}.jsonl", []))
            noted.lines.append(line_of(facts))
            self._own.put(noted.name, b"".join(noted.lines))

    def current(self) -> Current | None:
        """Read the pointer anew, and make sure that what it names can be looked at."""
        self._pointer = self._own.get(POINTER)
        if self._pointer is None:
            return None
        current = decode_current(self._pointer.data, f"{self._own}/{POINTER}")
        if current.path != f"runs/{current.run_id}" or not is_one_name(current.run_id):
            raise OutputsUnwritable(
                f"{self._own}/{POINTER} names no run: {current.path!r}",
                hint="restore it from a copy, or remove it and start again",
            )
        bring_heads(self._own, [current.run_id], self.runs)
        return current

    def previous_to(self, night: date) -> PublishedRun | None:
        """Give the run that one of `night` is compared with, with all its files.

        Raises `InputMissing` or `InputUnusable` where the store does not give that: it is no reason
        to publish nothing.
        """
        run = super().previous_to(night)
        if run is None or self._mark(run.run_id).exists():
            return run
        bring_run(Objects(self._own.address, InputMissing), run.run_id, self.runs)
        return read_run(run.path)

    # --- publishing ---

    def publish(self, staging: Staging, current: Current, parent: str | None = None) -> bool:
        """Put a staged run up, then make it current; see `AuditFolder.publish`.

        What cannot be put up stays here; `finish` goes on with it.
        """
        with writing(self.work):
            self._mark(staging.run_id).touch()
            sync(self.work)
            self._show(staging)
        self.finish(staging.run_id)
        return self.point(current, parent)

    def _mark(self, run_id: str) -> Path:
        """What says that a run is not put up yet, or not all of it."""
        return self.work / f"upload-{run_id}"

    def finish(self, run_id: str) -> None:
        """Put a run up, if that is not done."""
        mark = self._mark(run_id)
        if not mark.exists():
            return
        log.info("putting up %s", self.address_of(run_id))
        put_run(self._own, run_id, self.runs / run_id, self._tick)
        with writing(mark):
            mark.unlink()

    def _point(self, known: Current | None, current: Current, parent: str | None) -> bool:
        """Write the pointer on condition that it is what was read; if not, look again."""
        for _ in range(_RACES):
            if known is not None and not follows(current, known, parent):
                return False
            if self._own.replace(POINTER, encoded(current), self._pointer):
                return True
            known = self.current()
        raise OutputsUnwritable(
            f"{self._own}/{POINTER} was another each time before it could be written",
            hint="see who else publishes this audit; then start the same command again",
        )

    def _remove(self, path: Path) -> None:
        remove_run(self._own, path.name)
        super()._remove(path)


def _trim(path: Path, whole: list[str], current: Current | None) -> None:
    """Forget of a run what is not kept here: all of one that is gone, the tables of an old one."""
    if path.name not in whole:
        shutil.rmtree(path)
    elif current is None or path.name != current.run_id:
        for each in path.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name not in _KEPT:
                each.unlink()
