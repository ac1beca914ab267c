"""Reporting on a published run again, offline: what it said, or what another policy says.

A run is never written into. What it said comes as pages, or as rows for a spreadsheet. What another
policy says of its evidence is a folder like a run's own, with an id of its own; it names the run
that it is of, and can be verified as any other.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec

from pipeline import __version__
from pipeline.beyond import discovered_of, find_beyond
from pipeline.cells import csv_line, on_one_line
from pipeline.changes import Changes
from pipeline.columns import SCHEMA_VERSION
from pipeline.comparison import compare, staged_side, write_failing
from pipeline.derive import derive, facts_of, rejudge
from pipeline.digests import sha256_of
from pipeline.errors import ConfigurationWrong, InputUnusable
from pipeline.evidence import Evidence, batches_of
from pipeline.intake import DISCOVERED_FILE
from pipeline.policy import Policy
from pipeline.publication import manifest_of, write_policy
from pipeline.published import PublishedRun
from pipeline.quality import check_tables
from pipeline.report import Summary, Tally, render_html, render_markdown
from pipeline.report.summary import RunFacts
from pipeline.rules import RULES_VERSION
from pipeline.runs import new_run_id, sync_tree
from pipeline.staging import Staging, writing
from pipeline.tables import FINDINGS, OUTCOMES, Table


class Format(StrEnum):
    """What is written of a run that is judged already."""

    HTML = "html"
    MD = "md"
    JSON = "json"
    CSV = "csv"


# --- the same judgement --------------------------------------------------------------------------


def report_again(run: PublishedRun, formats: list[Format], to: Path) -> list[Path]:
    """Write what a run said, as this program says it; gives the files that were written.

    What is there already is replaced, each file in one step. Raises `ConfigurationWrong` for a
    place in or below a run, `InputUnusable` where the run is not as it was published, and
    `OutputsUnwritable`.
    """
    check_place(to)
    writers: dict[str, Callable[[TextIO], None]] = {}
    for each in formats:
        writers |= _csv_writers(run) if each is Format.CSV else _page_writers(run, each)
    with writing(to):
        to.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            with _replacing(to / name) as file:
                write(file)
    return [to / name for name in writers]


def _page_writers(run: PublishedRun, page: Format) -> dict[str, Callable[[TextIO], None]]:
    summary = read_summary(run)
    content = {
        Format.HTML: ("report.html", render_html),
        Format.MD: ("report.md", render_markdown),
        Format.JSON: ("summary.json", _as_json),
    }
    name, render = content[page]
    return {name: lambda file: _write(file, render(summary))}


def _write(file: TextIO, text: str) -> None:
    file.write(text)


def _as_json(summary: Summary) -> str:
    return msgspec.json.format(msgspec.json.encode(summary), indent=2).decode() + "\n"


def read_summary(run: PublishedRun) -> Summary:
    """Read a run's summary; raises `InputUnusable`."""
    path = run.file("summary.json")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(
            f"{path} cannot be read by this version: {error}",
            hint="give --policy with the run's evidence/policy.toml to judge its evidence anew",
        ) from error


# --- rows for a spreadsheet ----------------------------------------------------------------------


def _csv_writers(run: PublishedRun) -> dict[str, Callable[[TextIO], None]]:
    return {f"{table.name}.csv": partial(_write_rows, run, table) for table in (OUTCOMES, FINDINGS)}


def _write_rows(run: PublishedRun, table: Table, file: TextIO) -> None:
    """Write a table row by row, every cell inert and on one line."""
    file.write("\ufeff")  # by which a spreadsheet knows UTF-8
    file.write(csv_line(table.names))
    paths = [path for path in run.files(table.name) if path.suffix == ".parquet"]
    for path in paths:
        for batch in batches_of(path, table.names):
            columns = [batch.column(name).to_pylist() for name in table.names]
            file.writelines(csv_line(map(_cell, row)) for row in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return on_one_line(str(value))


# --- another judgement ---------------------------------------------------------------------------


def judge_anew(run: PublishedRun, policy: Policy, to: Path, now: datetime) -> Summary:
    """Judge the evidence of a run under another policy, by today's rules, as of its own start.

    `to` is new, or an empty folder: it appears whole or not at all. `now` is aware. Raises as
    `report_again` does, and `ProgramFault` where a law breaks.
    """
    place = check_place(to)
    with writing(to):
        _check_new(to, place)
        place.parent.mkdir(parents=True, exist_ok=True)
    facts = _facts(run, policy)
    staging = Staging(place.parent / f".{place.name}-{secrets.token_hex(3)}", facts.run_id)
    try:
        summary = _derive_into(run, policy, facts, staging, now)
        with writing(to):
            sync_tree(staging.path)
            staging.path.rename(place)
    except BaseException:
        staging.discard()
        raise
    return summary


def _facts(run: PublishedRun, policy: Policy) -> RunFacts:
    """What is known of the run, but for who judges it."""
    facts = facts_of(run)
    return msgspec.structs.replace(
        facts,
        run_id=new_run_id(facts.started_at, facts.audit_name),
        parent_run_id=facts.run_id,
        tool_version=__version__,
        schema_version=SCHEMA_VERSION,
        rules_version=RULES_VERSION,
        policy_sha256=policy.sha256,
    )


def _derive_into(
    run: PublishedRun, policy: Policy, facts: RunFacts, staging: Staging, now: datetime
) -> Summary:
    said = (
        f"Judged anew at {now:%Y-%m-%d %H:%M} UTC under the policy {policy.name!r}, "
        f"from the evidence of {run.run_id}: nothing was asked."
    )
    notices = (*run.manifest.notices, said)
    evidence, tally = Evidence(run), Tally(policy, run.manifest.shortfalls)
    for notice in notices:
        tally.notice(notice)
    _copy_discovered(run, evidence, staging, tally)
    changes = partial(_changes, run, policy, facts)
    summary = derive(evidence, policy, facts, staging, tally, compare=changes)
    staging.copy("evidence/input.csv.gz", run.file("evidence/input.csv.gz"))
    write_policy(policy, staging)
    check_tables(staging.path, facts)
    parent = {"run_id": run.run_id, "manifest_sha256": sha256_of(run.path / "manifest.json")}
    judged = {"of": parent, "at": now.isoformat(timespec="seconds")}
    staging.seal({**manifest_of(summary, policy, notices), "previous": None, "judged_anew": judged})
    return summary


def _changes(run: PublishedRun, policy: Policy, facts: RunFacts, staging: Staging) -> Changes:
    """What the other policy, or today's rules, make of the run that is judged anew."""
    newer = staged_side(staging, facts, policy)
    write_failing(staging, newer, facts.audit_name, run)
    again = partial(rejudge, policy=policy)
    return compare(run, newer, again)


def _copy_discovered(run: PublishedRun, evidence: Evidence, staging: Staging, tally: Tally) -> None:
    """What Atlas listed beyond the input is compared again, where the run had that."""
    listed = discovered_of(run)
    if listed is not None:
        tally.beyond = find_beyond(listed, (told.ref for told in evidence.told()))
        staging.copy(f"evidence/{DISCOVERED_FILE}", listed.path)


# --- places --------------------------------------------------------------------------------------


def check_place(to: Path) -> Path:
    """Make sure that nothing is written into a run, or among the runs of an audit.

    Gives the place that `to` leads to. Raises `ConfigurationWrong`, and `OutputsUnwritable` for one
    that no file system has.
    """
    place = Path(os.path.realpath(to))  # other than Path.resolve, it gives up no link that loops
    with writing(to):
        _check_links(to)
        _check_folders(to, place)
    return place


def _check_links(to: Path) -> None:
    for path in (to, *to.parents):
        if path.is_symlink() and not path.exists():
            raise ConfigurationWrong(
                f"--to {to} cannot be reached: {path} is a link that leads nowhere",
                hint="name a folder, or a place where one can be made",
            )


def _check_new(to: Path, place: Path) -> None:
    """What is judged anew takes the place of an empty folder, if there is one."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigurationWrong(f"--to {to} is not empty", hint="name a folder that is not there")
    if place.exists() and place.samefile(Path()):
        raise ConfigurationWrong(
            f"--to {to} is the working directory, which would be replaced",
            hint="name a folder below it, or start from another one",
        )


def _check_folders(to: Path, place: Path) -> None:
    for folder in (place, *place.parents):
        if (folder / "manifest.json").exists() and (folder / "evidence").is_dir():
            raise ConfigurationWrong(f"--to {to} lies in the run {folder}", hint=_ELSEWHERE)
        is_audits = (folder.parent / "current.json").exists() and folder.name in {"runs", ".work"}
        if is_audits:
            raise ConfigurationWrong(f"--to {to} lies among the runs in {folder}", hint=_ELSEWHERE)


_ELSEWHERE = "name a folder somewhere else: what is published is never written into"


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Write beside a file, then put it in its place in one step."""
    aside = path.with_name(f".{path.name}-{secrets.token_hex(3)}")
    try:
        with aside.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
