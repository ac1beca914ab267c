"""Runs that were published: finding one, and what its manifest says.

A run is named by its folder, by its id, or by its audit, which stands for the run that is current;
in a store of objects also by its address. What is in a store is brought to this machine to be read.
"""

import os
import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import msgspec

from pipeline.digests import sha256_of
from pipeline.errors import InputMissing, InputUnusable, OutputsUnwritable
from pipeline.mirror import bring_audit, bring_named, is_one_name, strangers
from pipeline.objects import SCHEME, Objects

#: Where runs are published: a folder of this machine, or objects in a store.
Outputs = Path | Objects


class Current(msgspec.Struct, frozen=True):
    """What `current.json` says; `path` is relative to the audit's folder."""

    run_id: str
    audit_date: date
    path: str
    manifest_sha256: str
    exit_code: int
    schema_version: str


class File(msgspec.Struct, frozen=True):
    """One file of a run: its place in the folder, and its digest, hexadecimal."""

    path: str
    sha256: str


class Previous(msgspec.Struct, frozen=True):
    """The run that was current when another was published."""

    run_id: str
    manifest_sha256: str


class JudgedAnew(msgspec.Struct, frozen=True):
    """What a manifest says of a run that is not Atlas's answers of its own: whose they are."""

    of: Previous


class SignedBy(msgspec.Struct, frozen=True):
    """What a manifest says of its signature: the fingerprint of the key."""

    key: str


#: It listed replies in the order of arrival, and manifest.json in SHA256SUMS by its name, not last.
FIRST_VERSION = "0.1.0"


class Manifest(msgspec.Struct, frozen=True):
    """What other runs want to know of one; the manifest itself says more.

    `notices` say how the run came about, as far as no reply tells it.
    """

    run_id: str
    audit_name: str
    audit_date: date
    parent_run_id: str | None
    started_at: datetime
    finished_at: datetime
    base_url: str
    input_source: str
    input_sha256: str
    credential_id: str
    triple_count: int
    tool_version: str
    files: tuple[File, ...]
    complete: bool | None = None
    exit_code: int | None = None
    shortfalls: tuple[str, ...] = ()
    rules_version: str = ""
    policy_sha256: str = ""
    policy_name: str | None = None
    notices: tuple[str, ...] = ()
    previous: Previous | None = None
    judged_anew: JudgedAnew | None = None
    signature: SignedBy | None = None


class _Ending(msgspec.Struct, frozen=True):
    """What the manifests of 0.1.0 leave to the summary."""

    complete: bool
    exit_code: int


class PublishedRun(msgspec.Struct, frozen=True):
    """A published run: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def run_id(self) -> str:
        """By which the run is known."""
        return self.manifest.run_id

    @property
    def signed_by(self) -> str:
        """The fingerprint of the key that the run is signed with; empty where it is not signed."""
        return self.manifest.signature.key if self.manifest.signature is not None else ""

    def files(self, folder: str) -> list[Path]:
        """Give the files of one of its folders, after checking their digests.

        Raises `InputUnusable` for one that is not as it was published.
        """
        found = [file for file in self.manifest.files if file.path.startswith(f"{folder}/")]
        return [self._checked(file) for file in found]

    def digest_of(self, path: str) -> str:
        """Give a file's digest as it was published; empty where there is none of that path."""
        return next((file.sha256 for file in self.manifest.files if file.path == path), "")

    def file(self, path: str) -> Path:
        """Give one file, as `files` does."""
        found = [file for file in self.manifest.files if file.path == path]
        if not found:
            raise InputUnusable(f"the run {self.run_id} has no {path}", hint=AS_IT_WAS)
        return self._checked(found[0])

    def _checked(self, file: File) -> Path:
        path = self.path / file.path
        try:
            is_whole = sha256_of(path) == file.sha256
        except OSError as error:
            raise InputUnusable(
                f"{path} cannot be read: {error.strerror}", hint=AS_IT_WAS
            ) from error
        if not is_whole:
            raise InputUnusable(f"{path} is not as it was published", hint=AS_IT_WAS)
        return path


#: What to do about a run that is not as it was.
AS_IT_WAS = "restore the run's folder from a copy"


def read_run(path: Path) -> PublishedRun:
    """Read the run in a folder.

    Raises `InputMissing` where there is none, `InputUnusable` where its manifest cannot be used.
    """
    manifest = path / "manifest.json"
    try:
        read = msgspec.json.decode(manifest.read_bytes(), type=Manifest)
        if read.complete is None:
            ending = msgspec.json.decode((path / "summary.json").read_bytes(), type=_Ending)
            read = msgspec.structs.replace(read, **msgspec.structs.asdict(ending))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissing(f"there is no run in {path}", hint=_NAME_ONE) from error
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"{manifest} cannot be read: {error}", hint=AS_IT_WAS) from error
    if not is_one_name(read.run_id):
        raise InputUnusable(f"{manifest} names no run: {read.run_id!r}", hint=AS_IT_WAS)
    return PublishedRun(path, read)


_NAME_ONE = "name a run by its folder, its id, or its audit (whose current run is meant then)"


def read_current(folder: Path) -> Current | None:
    """Read the pointer of an audit's folder; None where there is none.

    Raises `OutputsUnwritable` for one that cannot be understood.
    """
    pointer = folder / "current.json"
    try:
        return decode_current(pointer.read_bytes(), str(pointer))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(str(pointer), error) from error


def decode_current(data: bytes, where: str) -> Current:
    """Read what `current.json` holds; raises `OutputsUnwritable` as `read_current` does."""
    try:
        return msgspec.json.decode(data, type=Current)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _unreadable(where, error) from error


def _unreadable(pointer: str, error: Exception) -> OutputsUnwritable:
    return OutputsUnwritable(
        f"{pointer} cannot be read: {error}",
        hint="restore it from a copy, or remove it and start again",
    )


def find_run(output_dir: Outputs, named: str) -> PublishedRun:
    """Find a run below `output_dir`, or anywhere by its folder or its address in a store.

    Raises `InputMissing` where there is none, `InputUnusable` where its manifest cannot be used,
    or where it is in a store and not as it was published.
    """
    return read_run(find_folder(output_dir, named))


def find_folder(output_dir: Outputs, named: str, *, is_checked: bool = True) -> Path:
    """Find a run's folder, whatever is in it; raises `InputMissing` where there is none.

    `is_checked`: what comes from a store is checked, as `find_run` tells.
    """
    output_dir, named = _addressed(output_dir, named)
    if isinstance(output_dir, Objects):
        if not (is_one_name(named) and bring_named(output_dir, named, is_checked=is_checked)):
            return _found(named, [Path(named)], output_dir)
        return _found(named, list(_places(output_dir.here, named)), output_dir)
    try:
        places = list(_places(output_dir, named))
    except OSError as error:
        raise _not_looked_up(named, error) from error
    return _found(named, places, output_dir)


def bring_to_verify(output_dir: Outputs, named: str) -> tuple[Path, list[str]]:
    """Find a run's folder as `find_folder` does, with whatever is in it, right or wrong.

    Of one in a store what vouches for it is brought too: manifests of its audit, and the pointer.
    What is there and not of the run is not brought; its names come second.
    """
    output_dir, named = _addressed(output_dir, named)
    folder = find_folder(output_dir, named, is_checked=False)
    if isinstance(output_dir, Objects) and folder.is_relative_to(output_dir.here):
        audit = folder.parent.parent.name
        bring_audit(output_dir, audit)
        return folder, strangers(output_dir.within(audit), folder.name)
    return folder, []


def _addressed(output_dir: Outputs, named: str) -> tuple[Outputs, str]:
    """Take the address of a run in a store for that store, and the run's id there."""
    if not named.startswith(SCHEME):
        return output_dir, named
    parts = re.fullmatch(r"(s3://.+)/[^/]+/runs/([^/]+)/?", named)
    if parts is None:
        raise InputMissing(f"{named!r} is not the address of a run", hint=_NAME_ONE)
    objects = Objects(parts[1])
    is_same = isinstance(output_dir, Objects) and output_dir.address == objects.address
    return (output_dir if is_same else objects), parts[2]


def _found(named: str, places: list[Path], output_dir: Outputs) -> Path:
    try:
        found = next((path for path in places if (path / "manifest.json").exists()), None)
    except OSError as error:
        raise _not_looked_up(named, error) from error
    if found is not None:
        return Path(os.path.realpath(found))
    if len(places) > 1:
        raise InputMissing(f"{named!r} means {places[0]}, which is not there", hint=AS_IT_WAS)
    raise InputMissing(f"there is no run {named!r} in {output_dir}", hint=_NAME_ONE)


def _not_looked_up(named: str, error: OSError) -> InputMissing:
    return InputMissing(f"{named!r} cannot be looked up: {error.strerror}", hint=_NAME_ONE)


def folder_of(output_dir: Outputs, audit_name: str) -> Path:
    """Give the folder of an audit, to look its runs over: manifests, summaries and the pointer.

    Of a store nothing else of a run is brought. Raises `InputMissing` where there it has no run.
    """
    if isinstance(output_dir, Objects):
        return bring_audit(output_dir, audit_name)
    return output_dir / audit_name


def address_of(output_dir: Outputs, path: Path) -> str:
    """Say where a run is that was found in the folder `path`."""
    if isinstance(output_dir, Objects) and path.is_relative_to(output_dir.here):
        return f"{output_dir}/{path.relative_to(output_dir.here)}"
    return str(path)


def local_of(output_dir: Outputs) -> Path:
    """Give the folder that what was found of `output_dir` is in."""
    return output_dir.here if isinstance(output_dir, Objects) else output_dir


def _places(output_dir: Path, named: str) -> Iterator[Path]:
    """Where a run of that name may be: an audit's current run, a run of any audit, a folder."""
    if is_one_name(named):
        is_audit = (output_dir / named).is_dir()
        if is_audit and (current := read_current(output_dir / named)) is not None:
            yield output_dir / named / current.path
        yield from sorted(output_dir.glob(f"*/runs/{_literally(named)}"))
    yield Path(named)


def _literally(text: str) -> str:
    """Keep what a glob would take for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
