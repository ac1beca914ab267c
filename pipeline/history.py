"""The nights of an audit: one row each, and those without a run named too.

What a row says is read from the run's manifest and, after its digest was checked, from its summary.
Whether the rest of the run is as it was published is another question, which `verify` answers.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline.cells import csv_line, on_one_line
from pipeline.errors import InputMissing, InputUnusable
from pipeline.published import AS_IT_WAS, PublishedRun, read_run

log = logging.getLogger(__name__)


class NightState(StrEnum):
    """What there is of a night."""

    COMPLETE = "COMPLETE"
    INCOMPLETE = "INCOMPLETE"
    DAMAGED = "DAMAGED"
    MISSING = "MISSING"
    NOT_YET = "NOT_YET"


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """One night; counts and what follows are of the run that counts, None where there is none.

    `run_count` are all runs of that night, `damaged_runs` those of them that cannot be read, with
    the reason. `population` are the distinct triples that were to be judged.
    """

    audit_date: date
    state: NightState
    run_count: int = 0
    run_id: str | None = None
    population: int | None = None
    pass_count: int | None = None
    fail_count: int | None = None
    absent_count: int | None = None
    inconclusive_count: int | None = None
    excused_count: int | None = None
    exit_code: int | None = None
    complete: bool | None = None
    policy_name: str | None = None
    policy_sha256: str | None = None
    rules_version: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    damaged_runs: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is missing of the night, and nothing is damaged."""
        return self.state is not NightState.MISSING and not self.damaged_runs


class History(msgspec.Struct, frozen=True, kw_only=True):
    """An audit's nights from `first` to `last`, both included."""

    audit_name: str
    first: date
    last: date
    nights: tuple[Night, ...]

    @property
    def is_sound(self) -> bool:
        """Whether each night has its run, and none is damaged."""
        return all(night.is_sound for night in self.nights)

    @property
    def counts(self) -> dict[NightState, int]:
        """Nights by their state."""
        states = [night.state for night in self.nights]
        return {state: states.count(state) for state in NightState}


class _Run(msgspec.Struct, frozen=True):
    """A run as a row of its night says it."""

    rules_version: str
    policy_sha256: str
    started_at: datetime
    finished_at: datetime


class _Counts(msgspec.Struct, frozen=True):
    triple_count: int
    pass_count: int
    fail_count: int
    absent_count: int
    inconclusive_count: int


class _Summary(msgspec.Struct, frozen=True):
    """What is read of `summary.json`; other versions of it may say more."""

    run: _Run
    counts: _Counts
    excused_count: int
    exit_code: int
    complete: bool


class _Damaged(msgspec.Struct, frozen=True):
    """A run that cannot be read, and why."""

    run_id: str
    reason: str


class _Whole(msgspec.Struct, frozen=True):
    """A run that can be read."""

    run_id: str
    summary: _Summary
    policy_name: str | None


_Found = _Whole | _Damaged


def read_history(
    folder: Path, first: date | None, last: date | None, today: date, address: str = ""
) -> History:
    """Read the nights of the audit in `folder`; None: from its first night, until `today`.

    `address`: what the folder is called in texts, where it is a copy of what is elsewhere. Raises
    `InputMissing` where there is no such audit, or no night that it could begin with.
    """
    found = _by_night(folder, address or str(folder))
    if not folder.is_dir() or (first is None and not found):
        raise InputMissing(
            f"there is no run of an audit {folder.name!r} in {folder.parent}",
            hint="check the name and --output-dir",
        )
    # A run can be labelled with tomorrow: where it is day already, UTC still has last night.
    begin, end = first or min(found), last or max(today, *found)
    nights = (begin + timedelta(days=n) for n in range((end - begin).days + 1))
    rows = tuple(_night(night, found.get(night, []), today) for night in nights)
    return History(audit_name=folder.name, first=begin, last=end, nights=rows)


def _by_night(folder: Path, address: str) -> dict[date, list[_Found]]:
    found: dict[date, list[_Found]] = defaultdict(list)
    for path in sorted((folder / "runs").glob("*")):
        night, run = _read(path)
        if isinstance(run, _Damaged):
            run = _Damaged(run.run_id, run.reason.replace(str(folder), address))
        if night is None:
            place = f"{address}/runs/{path.name}"
            log.warning("%s is left out: it is no run, and no night can be told of it", place)
        else:
            found[night].append(run)
    return dict(found)


def _read(path: Path) -> tuple[date | None, _Found]:
    """Read one run; of a damaged one the night is what its folder still tells."""
    try:
        run = read_run(path)
    except (InputMissing, InputUnusable) as error:
        return _told_night(path), _Damaged(path.name, str(error))
    try:
        return run.manifest.audit_date, _Whole(run.run_id, _summary(run), run.manifest.policy_name)
    except InputUnusable as error:
        return run.manifest.audit_date, _Damaged(path.name, str(error))


def _summary(run: PublishedRun) -> _Summary:
    path = run.file("summary.json")
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputUnusable(f"{path} cannot be read: {error}", hint=AS_IT_WAS) from error


def _told_night(path: Path) -> date | None:
    """The night by which the tables are filed; else the day on which the run began, by its id."""
    filed = [each.name.removeprefix("dt=") for each in sorted(path.glob("*/dt=*"))]
    begun = re.sub(r"^(\d{4})(\d\d)(\d\d)T.*$", r"\1-\2-\3", path.name)
    return next(filter(None, map(_date, (*filed, begun))), None)


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _night(night: date, found: Sequence[_Found], today: date) -> Night:
    damaged = tuple(f"{run.run_id}: {run.reason}" for run in found if isinstance(run, _Damaged))
    whole = [run for run in found if isinstance(run, _Whole)]
    if not whole:
        state = _without_run(night, today, is_damaged=bool(damaged))
        return Night(audit_date=night, state=state, run_count=len(found), damaged_runs=damaged)
    run = max(whole, key=lambda each: (each.summary.complete, each.summary.run.started_at))
    summary = run.summary
    counts = msgspec.structs.asdict(summary.counts)
    return Night(
        audit_date=night,
        state=NightState.COMPLETE if summary.complete else NightState.INCOMPLETE,
        run_count=len(found),
        run_id=run.run_id,
        population=counts.pop("triple_count"),
        **counts,
        excused_count=summary.excused_count,
        exit_code=summary.exit_code,
        complete=summary.complete,
        policy_name=run.policy_name,
        **msgspec.structs.asdict(summary.run),
        damaged_runs=damaged,
    )


def _without_run(night: date, today: date, *, is_damaged: bool) -> NightState:
    """A day that is not over may still have its run."""
    if is_damaged:
        return NightState.DAMAGED
    return NightState.NOT_YET if night >= today else NightState.MISSING


# --- showing ------------------------------------------------------------------------------------


def as_json(history: History) -> str:
    """Give it as JSON, with every night and the number of nights in each state."""
    document = {**msgspec.structs.asdict(history), "counts": history.counts}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def as_csv(history: History) -> str:
    """Give the nights as CSV, with the fields' names above them; every cell is inert."""
    lines = [Night.__struct_fields__, *(_cells(night) for night in history.nights)]
    return "".join(csv_line(cells) for cells in lines)


def _cells(night: Night) -> list[str]:
    values = {**msgspec.to_builtins(night), "damaged_runs": "; ".join(night.damaged_runs)}
    return [_cell(values[name]) for name in Night.__struct_fields__]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else on_one_line(str(value))


#: What the columns of the text are called; a run's id is the last, as it is long.
_HEAD = (
    *("night", "state", "runs", "triples", "pass", "fail", "absent", "inconclusive", "excused"),
    *("exit", "policy", "rules", "run"),
)

#: Columns of words, which begin at the same place; numbers end there.
_WORDS = {"night", "state", "policy", "rules", "run"}

#: Letters of a cell, at most: what a manifest says may be anything.
_CELL, _NAME, _LAST_CELL = 12, 24, 80


def as_text(history: History) -> str:
    """Give it for a terminal: a line a night, then how many there are of each state."""
    lines = [_HEAD, *(_texts(night) for night in history.nights)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_line(cells, widths) for cells in lines]
    damaged = [
        f"damaged: {on_one_line(run)}" for night in history.nights for run in night.damaged_runs
    ]
    return "\n".join([*table, "", *damaged, _sum(history)]) + "\n"


def _texts(night: Night) -> tuple[str, ...]:
    numbers = (
        night.population,
        night.pass_count,
        night.fail_count,
        night.absent_count,
        night.inconclusive_count,
        night.excused_count,
        night.exit_code,
    )
    return (
        night.audit_date.isoformat(),
        night.state,
        str(night.run_count),
        *("" if number is None else f"{number:,}" for number in numbers),
        _policy(night),
        on_one_line(night.rules_version or "")[:_CELL],
        on_one_line(night.run_id or "")[:_LAST_CELL],
    )


def _policy(night: Night) -> str:
    """The policy's name, if it has one, and the beginning of its digest."""
    name, digest = (on_one_line(text or "") for text in (night.policy_name, night.policy_sha256))
    return " ".join(filter(None, (name[:_NAME], digest[:8])))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    placed = (
        cell.ljust(width) if name in _WORDS else cell.rjust(width)
        for name, cell, width in zip(_HEAD, cells, widths, strict=True)
    )
    return "  ".join(placed).rstrip()


def _sum(history: History) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in history.counts.items() if count)
    nights = f"{len(history.nights)} night" + ("" if len(history.nights) == 1 else "s")
    return f"{history.audit_name}: {nights} from {history.first} to {history.last}: {counts}"
