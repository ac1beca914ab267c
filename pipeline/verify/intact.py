"""Whether a published run's folder is as it was published: digests, pointers, chain, signature.

All of it says that nothing was changed by accident, or by somebody who could not change everything.
Whoever can write the whole folder can write other digests: only a digest that is kept elsewhere, or
a signature by a key that is kept elsewhere, stands against that.
"""

import json
import os
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from pipeline.digests import sha256_of
from pipeline.errors import AuditError
from pipeline.published import FIRST_VERSION, Current, JudgedAnew, Previous, read_current
from pipeline.report.words import plural
from pipeline.signing import Signature, SignatureWrong, check_signer, fingerprint, signature_of

#: Problems of one kind that are named; how many there are is said too.
SHOWN = 20

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
_SIGNATURE = f"{MANIFEST}.sig"


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody brings along from elsewhere to measure a run by.

    `manifest_sha256`: hexadecimal, from a log; `allowed_signers` and `signer`: whose signature is
    wanted, as `ssh-keygen` has them; `output_dir`: audits, among whose runs the one is looked for
    that a judgement was made of. Empty or None: not brought along.
    """

    manifest_sha256: str = ""
    allowed_signers: Path | None = None
    signer: str = ""
    output_dir: Path | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to one question about a run.

    `sound`: nothing is wrong. `said`: what was looked at, in sentences. `problems`: the first few
    things that are wrong, of `problem_count`.
    """

    sound: bool
    said: tuple[str, ...]
    problems: tuple[str, ...]
    problem_count: int


def answer_of(said: Iterable[str], problems: Iterable[str]) -> Answer:
    """Make an answer, with the first few problems."""
    every = iter(problems)
    shown = tuple(islice(every, SHOWN))
    count = len(shown) + sum(1 for _ in every)
    return Answer(sound=not count, said=tuple(said), problems=shown, problem_count=count)


class _File(msgspec.Struct, frozen=True):
    path: str
    bytes: int
    sha256: str


class _Manifest(msgspec.Struct, frozen=True):
    run_id: str
    audit_date: date
    schema_version: str
    tool_version: str
    files: tuple[_File, ...]
    exit_code: int | None = None
    parent_run_id: str | None = None
    previous: Previous | None = None
    judged_anew: JudgedAnew | None = None
    signature: Signature | None = None


def _path_of(line: str) -> str:
    """The path in a line of SHA256SUMS."""
    return line.partition("  ")[2]


def is_intact(folder: Path, trust: Trust, strangers: Iterable[str] = ()) -> Answer:
    """Tell whether the run in `folder` is as it was published; `strangers` are files beside it.

    Raises `ConfigurationWrong` where a signer is asked for and no signature can be checked.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(content, type=_Manifest)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        return answer_of((), [f"{MANIFEST} cannot be read: {error}"])
    found = _Intact(folder, manifest, sha256_of(folder / MANIFEST), strangers)
    return found.answer(trust)


class _Intact:
    """Looks at one run; gathers what it looked at and what is wrong."""

    def __init__(
        self, folder: Path, manifest: _Manifest, digest: str, strangers: Iterable[str]
    ) -> None:
        self._folder = folder
        self._audit = folder.parent.parent
        self._manifest = manifest
        self._digest = digest
        self._said: list[str] = []
        self._problems = [f"{name} is not in the manifest" for name in strangers]

    def answer(self, trust: Trust) -> Answer:
        self._check_files()
        self._check_sums()
        self._check_expected(trust.manifest_sha256.lower())
        self._check_signature(trust)
        if self._folder.parent.name == "runs":
            self._check_pointer()
            self._check_attempts()
        self._check_neighbours()
        if self._manifest.judged_anew is not None:
            self._check_origin(self._manifest.judged_anew.of, trust.output_dir)
        else:
            self._check_chain()
        return answer_of(self._said, self._problems)

    # --- files ---

    def _check_files(self) -> None:
        listed = {file.path: file for file in self._manifest.files}
        there = dict(_entries(self._folder))
        for name in sorted({*listed, *there}):
            if name not in listed:
                self._check_extra(name, there[name])
            elif name not in there:
                self._problems.append(f"{name} is not there")
            else:
                self._check_file(listed[name], there[name])
        size = sum(file.bytes for file in self._manifest.files)
        self._said.append(f"{len(listed)} files, {size:,} bytes, digests compared")

    def _check_extra(self, name: str, path: Path) -> None:
        """What the manifest cannot list: itself, and what was made of it."""
        if name not in {MANIFEST, SUMS, _SIGNATURE}:
            self._problems.append(f"{name} is not in the manifest")
        elif path.is_symlink():
            self._problems.append(f"{name} is a link")

    def _check_file(self, file: _File, path: Path) -> None:
        if path.is_symlink() or not path.is_file():
            self._problems.append(f"{file.path} is not a file of its own")
        elif (size := path.stat().st_size) != file.bytes:
            self._problems.append(f"{file.path} has {size:,} bytes, wanted {file.bytes:,}")
        elif (digest := sha256_of(path)) != file.sha256:
            self._problems.append(f"{file.path} has SHA-256 {digest}, wanted {file.sha256}")

    def _check_sums(self) -> None:
        lines = [f"{file.sha256}  {file.path}\n" for file in self._manifest.files]
        lines.append(f"{self._digest}  {MANIFEST}\n")
        wanted = {"".join(lines).encode()}
        if self._manifest.tool_version == FIRST_VERSION:
            wanted.add("".join(sorted(lines, key=_path_of)).encode())
        sums = self._folder / SUMS
        if not sums.is_file():
            self._problems.append(f"{SUMS} is not there")
        elif sums.read_bytes() not in wanted:
            self._problems.append(f"{SUMS} and {MANIFEST} do not agree")

    # --- from elsewhere ---

    def _check_expected(self, wanted: str) -> None:
        if not wanted:
            return
        self._said.append("the manifest's digest compared with the one given")
        self._compare("the one given", wanted)

    def _compare(self, by: str, wanted: str) -> None:
        if wanted != self._digest:
            self._problems.append(
                f"{MANIFEST} has SHA-256 {self._digest}, which by {by} is {wanted}"
            )

    def _check_signature(self, trust: Trust) -> None:
        announced = self._manifest.signature
        if not signature_of(self._folder / MANIFEST).is_file():
            if announced is not None:
                self._problems.append(f"{_SIGNATURE} is not there, and the manifest announces it")
            if trust.signer:
                self._problems.append(f"no signature is there, and {trust.signer}'s is wanted")
            self._said.append("signature: none")
            return
        try:
            key = fingerprint(self._folder / MANIFEST)
            self._said.append(f"signature: {self._said_of(key, trust)}")
        except SignatureWrong as error:
            self._problems.append(str(error))
        else:
            if announced is not None and announced.key != key:
                self._problems.append(f"signed with {key}, announced was {announced.key}")

    def _said_of(self, key: str, trust: Trust) -> str:
        if trust.allowed_signers is None:
            return f"whole, by the key {key}; nobody said whose key is trusted"
        check_signer(self._folder / MANIFEST, trust.allowed_signers, trust.signer)
        return f"by {trust.signer}, as {trust.allowed_signers} allows, with the key {key}"

    # --- beside the run ---

    def _check_pointer(self) -> None:
        try:
            current = read_current(self._audit)
        except AuditError as error:
            self._problems.append(str(error))
            return
        if current is None:
            return
        pointed = self._audit / current.path
        is_it = os.path.realpath(pointed) == os.path.realpath(self._folder)
        if current.run_id == self._manifest.run_id or is_it:
            self._said.append("current.json names it")
            self._check_current(current)
        elif not pointed.is_dir():
            self._problems.append(f"current.json names {current.path}, which is not there")

    def _check_current(self, current: Current) -> None:
        manifest = self._manifest
        wanted = {
            "run_id": manifest.run_id,
            "audit_date": manifest.audit_date,
            "path": f"runs/{manifest.run_id}",
            "manifest_sha256": self._digest,
            "exit_code": manifest.exit_code,
            "schema_version": manifest.schema_version,
        }
        for name, value in wanted.items():
            if value is not None and getattr(current, name) != value:
                found = getattr(current, name)
                self._problems.append(f"current.json has {name} {found}, wanted {value}")
        content = (self._audit / "current.json").read_bytes()
        if msgspec.json.format(content, indent=2) + b"\n" != content:
            self._problems.append("current.json is not laid out as it was written")

    def _check_attempts(self) -> None:
        count = 0
        for number, line in _lines(self._audit / "attempts.jsonl"):
            if line is None:
                self._said.append(f"line {number} of attempts.jsonl cannot be read")
            elif line.get("run_id") == self._manifest.run_id and "manifest_sha256" in line:
                count += 1
                self._compare(f"line {number} of attempts.jsonl", str(line["manifest_sha256"]))
        if count:
            self._said.append(f"attempts.jsonl names it {plural(count, 'time')}")

    def _check_neighbours(self) -> None:
        """Runs that were published while this one was current say its manifest's digest."""
        count = 0
        for path in sorted(self._folder.parent.glob(f"*/{MANIFEST}")):
            previous = None if path.parent == self._folder else _previous_of(path)
            if previous is not None and previous.run_id == self._manifest.run_id:
                count += 1
                self._compare(f"the later run {path.parent.name}", previous.manifest_sha256)
        if count:
            self._said.append(f"{count} later runs name it")

    def _check_origin(self, origin: Previous, output_dir: Path | None) -> None:
        """A judgement made anew is not part of a chain; it names the run that it is of."""
        if origin.run_id != self._manifest.parent_run_id:
            parent = self._manifest.parent_run_id
            said = f"judged_anew names {origin.run_id}, parent_run_id {parent}"
            self._problems.append(f"{MANIFEST}: {said}")
        found = self._manifests_of(origin.run_id, output_dir)
        for path in found:
            self._said.append(f"judged anew: of {origin.run_id}, compared with {path}")
            if (digest := sha256_of(path)) != (wanted := origin.manifest_sha256):
                said = f"has SHA-256 {digest}, which by the judgement of it is {wanted}"
                self._problems.append(f"{path} {said}")
        if not found:
            said = f"not found; its manifest had SHA-256 {origin.manifest_sha256}"
            self._said.append(f"judged anew: of {origin.run_id}, which is {said}")

    def _manifests_of(self, run_id: str, output_dir: Path | None) -> list[Path]:
        """Find a run beside this one, and among those that were published."""
        beside = self._folder.parent.glob(f"*/{MANIFEST}")
        published = output_dir.glob(f"*/runs/*/{MANIFEST}") if output_dir else ()
        places = {os.path.realpath(path) for path in (*beside, *published) if _is_of(path, run_id)}
        return sorted(map(Path, places - {os.path.realpath(self._folder / MANIFEST)}))

    def _check_chain(self) -> None:
        """Go back from run to run; that old ones were removed is no fault."""
        seen, name, previous = {self._manifest.run_id}, self._manifest.run_id, self._previous()
        while previous is not None and previous.run_id not in seen:
            path = self._folder.parent / previous.run_id / MANIFEST
            if Path(previous.run_id).name != previous.run_id or not path.is_file():
                break
            if (digest := sha256_of(path)) != previous.manifest_sha256:
                self._problems.append(
                    f"{previous.run_id}/{MANIFEST} has SHA-256 {digest}, "
                    f"which by {name} is {previous.manifest_sha256}"
                )
            seen.add(previous.run_id)
            name, previous = previous.run_id, _previous_of(path)
        self._said.append(_chain(len(seen) - 1, name, previous))

    def _previous(self) -> Previous | None:
        return self._manifest.previous


def _chain(count: int, first: str, missing: Previous | None) -> str:
    ends = f", then {missing.run_id}, which is not present" if missing else ", the first of all"
    back = f"{plural(count, 'earlier run')} back to {first}" if count else "no earlier run"
    return f"chain: {back}{ends}"


class _Named(msgspec.Struct, frozen=True):
    run_id: str


def _is_of(manifest: Path, run_id: str) -> bool:
    """Whether it is a run's, by its folder or its own word; one that cannot be read has none."""
    if manifest.parent.name == run_id:
        return True
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=_Named).run_id == run_id
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return False


class _Link(msgspec.Struct, frozen=True):
    previous: Previous | None = None


def _previous_of(manifest: Path) -> Previous | None:
    """The run before a neighbour; one whose manifest cannot be read names none that counts."""
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=_Link).previous
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything in a folder but folders of its own."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield PurePosixPath(path.relative_to(folder)).as_posix(), path


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a file of JSON objects; None for one that is none."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, _object(line)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
