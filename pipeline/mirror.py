"""Published runs in a store of objects, brought down to a folder of this machine.

What is there has the layout of a local output folder; see `runs`. A run is one when its manifest is
there, which is written last of its objects. The folder that it is brought into has the same layout
again, so that all else reads files.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from pipeline.digests import sha256_of
from pipeline.errors import AuditError, InputMissing, InputUnusable
from pipeline.objects import Objects, is_about_a_name, is_about_one, saving

log = logging.getLogger(__name__)

MANIFEST, SUMMARY, POINTER = "manifest.json", "summary.json", "current.json"

#: What vouches for a run's files, beside the manifest, and is not listed in it.
_VOUCHERS = ("SHA256SUMS", f"{MANIFEST}.sig")

#: The longest step of a path that a file system takes. Bytes.
_LONGEST_STEP = 255

_OF_THAT_TIME = "bring back the object's version of that time"

#: Objects that are brought at once.
_AT_ONCE = 8


class _File(msgspec.Struct, frozen=True):
    path: str
    sha256: str


class _Files(msgspec.Struct, frozen=True):
    """What is read of a manifest here."""

    files: tuple[_File, ...] = ()


class _Pointer(msgspec.Struct, frozen=True):
    path: str


def bring_named(objects: Objects, named: str, *, is_checked: bool = True) -> bool:
    """Bring the runs that a name may mean into `objects.here`: an audit's current one, or by id.

    False where there is none of that name. `is_checked`: raise `InputUnusable` for a file that is
    not as it was published.
    """
    audits = objects.folders()
    is_current = named in audits and _bring_current(objects, named, is_checked=is_checked)
    for audit in audits:
        if objects.get(f"{audit}/runs/{named}/{MANIFEST}") is not None:
            bring_run(
                objects.within(audit), named, objects.here / audit / "runs", is_checked=is_checked
            )
            return True
    return is_current


def _bring_current(objects: Objects, audit: str, *, is_checked: bool) -> bool:
    own, folder = objects.within(audit), objects.here / audit
    found = own.get(POINTER)
    if found is None:
        return False
    _lay(folder / POINTER, found.data)
    run_id = run_id_of(own, found.data)
    if not bring_run(own, run_id, folder / "runs", is_checked=is_checked):
        raise InputMissing(
            f"{audit!r} means {own}/runs/{run_id}, which is not there",
            hint="name another run by its id, or bring the objects of this one back",
        )
    return True


def run_id_of(own: Objects, pointer: bytes) -> str:
    """Read which run the pointer of an audit names; raises `InputUnusable`."""
    try:
        path = PurePosixPath(msgspec.json.decode(pointer, type=_Pointer).path)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(
            f"{own}/{POINTER} cannot be read: {error}", hint="bring back a version before it"
        ) from error
    if path.parent != PurePosixPath("runs") or not is_one_name(path.name):
        raise InputUnusable(
            f"{own}/{POINTER} names no run: {path}", hint="bring back a version before it"
        )
    return path.name


def is_one_name(text: str) -> bool:
    """Whether a text is the name of something in a folder, and leads nowhere else."""
    return text not in {"", ".", ".."} and not set("/\0") & set(text)


def bring_audit(objects: Objects, audit: str) -> Path:
    """Bring an audit's pointer, and the heads of all its runs; gives the folder that they are in.

    Raises `InputMissing` where there is no run of it.
    """
    own, folder = objects.within(audit), objects.here / audit
    if not bring_heads(own, own.folders("runs"), folder / "runs"):
        raise InputMissing(
            f"there is no run of an audit {audit!r} in {objects}",
            hint="check the name and --output-dir",
        )
    if (found := own.get(POINTER)) is not None:
        _lay(folder / POINTER, found.data)
    return folder


@contextmanager
def _at_once() -> Iterator[ThreadPoolExecutor]:
    """Do several things at once; where one fails, or a signal comes, no more are begun."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def bring_heads(own: Objects, run_ids: Iterable[str], runs: Path) -> list[str]:
    """Bring what tells of runs from afar into the folder `runs`; gives those that are runs.

    What is here already stays: a run never changes. One that cannot be read is said and left out.
    """
    with _at_once() as pool:
        asked = [(run_id, pool.submit(_bring_head, own, run_id, runs)) for run_id in run_ids]
        return [run_id for run_id, found in asked if found.result()]


def _bring_head(own: Objects, run_id: str, runs: Path) -> bool:
    folder = runs / run_id
    if (folder / MANIFEST).exists():
        return True
    try:
        return _bring_new_head(own, run_id, folder)
    except AuditError as error:
        if not is_about_one(error):
            raise
        log.warning("%s/runs/%s is left out: %s", own, run_id, error)
        return False


def _bring_new_head(own: Objects, run_id: str, folder: Path) -> bool:
    manifest = own.get(f"runs/{run_id}/{MANIFEST}")
    if manifest is None:
        return False
    if (summary := own.get(f"runs/{run_id}/{SUMMARY}")) is not None:
        _lay(folder / SUMMARY, summary.data)
    _lay(folder / MANIFEST, manifest.data)
    return True


def runs_there(own: Objects) -> dict[str, bool]:
    """Tell of each folder of runs in the store whether it is one: whether it has a manifest.

    By one listing of all objects, of which each request gives a thousand. Where somebody's object
    has a name that none can be made with, the manifests are asked for instead.
    """
    try:
        names = [PurePosixPath(name).relative_to("runs") for name in own.names("runs")]
    except AuditError as error:
        if not is_about_a_name(error):
            raise
        log.warning("%s", error)
        return _runs_asked(own)
    runs = {name.parts[0]: False for name in names if name.parent.name}
    return runs | {str(name.parent): True for name in names if name.parts[1:] == (MANIFEST,)}


def _runs_asked(own: Objects) -> dict[str, bool]:
    run_ids = own.folders("runs")
    with _at_once() as pool:
        found = pool.map(lambda run_id: own.has(f"runs/{run_id}/{MANIFEST}"), run_ids)
        return dict(zip(run_ids, found, strict=True))


def _lay(path: Path, data: bytes) -> None:
    """Write a file, which is there when all of it is."""
    part = path.with_name(f"{path.name}.part")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)


def bring_run(own: Objects, run_id: str, runs: Path, *, is_checked: bool = True) -> bool:
    """Bring a run into the folder `runs`, its manifest last; False where there is none.

    That is what its manifest lists, and what vouches for it; see `strangers` for what else is
    there. A file that is here and as it was published is not brought again. `is_checked`: raise
    `InputUnusable` for one that is not there, or not so when it has been brought either.
    """
    manifest = own.get(f"runs/{run_id}/{MANIFEST}")
    if manifest is None:
        return False
    digests, folder = _digests(own, run_id, manifest.data), runs / run_id
    wrong = _misnamed(digests)
    if is_checked and wrong:
        raise InputUnusable(
            f"a file of {own}/runs/{run_id} is called {min(wrong)!r}, which no run of ours has",
            hint=_OF_THAT_TIME,
        )

    def bring(name: str, wanted: str) -> None:
        path = folder / name
        if path.is_file() and sha256_of(path) == wanted:
            return
        is_there = own.fetch(f"runs/{run_id}/{name}", path)
        if is_checked and not (is_there and sha256_of(path) == wanted):
            what = "not as it was published" if is_there else "not there"
            raise InputUnusable(f"{own}/runs/{run_id}/{name} is {what}", hint=_OF_THAT_TIME)

    with _at_once() as pool:
        asked = [pool.submit(bring, *each) for each in digests.items() if each[0] not in wrong]
        for done in asked:
            done.result()
    for name in _VOUCHERS:
        own.fetch(f"runs/{run_id}/{name}", folder / name)
    _lay(folder / MANIFEST, manifest.data)
    return True


def strangers(own: Objects, run_id: str) -> list[str]:
    """Name the objects in a run's folder that are not of the run.

    No folder is one: an object with nothing in it, called as what others are in. Where a name is
    none that a file can have it is told, and nothing of the others is known.
    """
    manifest, folder = own.get(f"runs/{run_id}/{MANIFEST}"), f"runs/{run_id}"
    if manifest is None:
        return []
    ours = {MANIFEST, *_VOUCHERS, *_digests(own, run_id, manifest.data)}
    try:
        sizes = own.sizes(folder)
    except AuditError as error:
        if not is_about_a_name(error):
            raise
        return [str(error)]
    folders = {str(each) for name in sizes for each in PurePosixPath(name).parents} | {folder}
    return [
        name.removeprefix(f"{folder}/")
        for name, size in sorted(sizes.items())
        if name.removeprefix(f"{folder}/") not in ours and (size or name not in folders)
    ]


def _digests(own: Objects, run_id: str, manifest: bytes) -> dict[str, str]:
    try:
        read = msgspec.json.decode(manifest, type=_Files)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(
            f"{own}/runs/{run_id}/{MANIFEST} cannot be read: {error}",
            hint=_OF_THAT_TIME,
        ) from error
    return {file.path: file.sha256 for file in read.files}


def _misnamed(names: Iterable[str]) -> set[str]:
    """Which of the files that a manifest lists can be none: its names may lead anywhere."""
    paths = {name: PurePosixPath(name) for name in names}
    taken = {str(parent) for path in paths.values() for parent in path.parents}
    return {
        name
        for name, path in paths.items()
        if not all(map(_is_step, name.split("/")))
        or name in taken
        or path.parts[0] in {MANIFEST, *_VOUCHERS}
    }


def _is_step(text: str) -> bool:
    return is_one_name(text) and len(text.encode("utf-8", "replace")) <= _LONGEST_STEP


def put_run(own: Objects, run_id: str, folder: Path, tick: Callable[[], None]) -> None:
    """Put up all files of a run, the manifest last: before that they are no run to anybody.

    `tick` is called before each, and may raise to stop.
    """
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    listed = set(_digests(own, run_id, (folder / MANIFEST).read_bytes()))
    # What vouches for the rest comes after it.
    names.sort(key=lambda name: (name == MANIFEST, name not in listed))
    for name in names:
        tick()
        own.put(f"runs/{run_id}/{name}", folder / name)


def remove_run(own: Objects, run_id: str) -> None:
    """Remove a run, its manifest first: half-removed it is none."""
    names = own.names(f"runs/{run_id}")
    own.remove([f"runs/{run_id}/{MANIFEST}"])
    own.remove([name for name in names if not name.endswith(f"{run_id}/{MANIFEST}")])
