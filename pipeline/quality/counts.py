"""Figures: what the rows count to is what `runs` and `summary.json` say."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.outcomes import FailureKind, Verdict
from pipeline.quality.files import TableFile, fault
from pipeline.report.summary import Summary
from pipeline.tables import FINDINGS, OUTCOMES, REPLIES

_SUMMARY = "summary.json"


def read_summary(folder: Path) -> Summary:
    """Read the staged summary; raises `ProgramFault`."""
    try:
        return msgspec.json.decode((folder / _SUMMARY).read_bytes(), type=Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise fault(_SUMMARY, f"cannot be read: {error}") from error


class Counted:
    """Counts rows zone after zone."""

    def __init__(self) -> None:
        self._verdicts: Counter[Any] = Counter()
        self._kinds: Counter[Any] = Counter()
        self._rules: Counter[Any] = Counter()
        self._replies: Counter[Any] = Counter()
        self._excused = 0

    def add(self, outcomes: pa.Table, findings: pa.Table, replies: pa.Table) -> None:
        """Count the rows of one zone."""
        self._verdicts.update(_counts(outcomes["verdict"]))
        failed = outcomes.filter(pc.is_valid(outcomes["failure_kind"]))
        pairs = pc.binary_join_element_wise(failed["verdict"], failed["failure_kind"], " ")
        self._kinds.update(_counts(pairs))
        self._rules.update(_counts(findings["rule_id"]))
        self._replies.update(_counts(replies["failure_kind"]))
        self._excused += pc.count(outcomes["excused_by"]).as_py()

    def check(self, runs: TableFile, summary: Summary) -> None:
        """Compare with the one row of `runs`, and with the summary; raises `ProgramFault`."""
        row = _only_row(runs)
        told = {
            **msgspec.structs.asdict(summary.run),
            **msgspec.structs.asdict(summary.counts),
            "excused_count": summary.excused_count,
            "complete": summary.complete,
            "exit_code": summary.exit_code,
        }
        known = {name: told[name] for name in row}
        _check(runs.table.name, row, known, f"as in {_SUMMARY}")
        counted = f"as {OUTCOMES.name} and {REPLIES.name} count to"
        _check(runs.table.name, row, self._figures(), counted)
        requests, replies = row["request_count"], self._replies.total()
        if requests > replies:
            raise runs.fault(f"request_count is {requests}, and {REPLIES.name} has {replies} rows")
        self._check_lists(summary)

    def _figures(self) -> dict[str, int]:
        return {
            "triple_count": self._verdicts.total(),
            **{f"{verdict.lower()}_count": self._verdicts[verdict] for verdict in Verdict},
            "excused_count": self._excused,
            "refusal_count": self._replies[FailureKind.THROTTLED],
        }

    def _check_lists(self, summary: Summary) -> None:
        rules = Counter({each.rule_id: each.count for each in summary.rules})
        kinds = Counter({f"{each.verdict} {each.kind}": each.count for each in summary.kinds})
        for table, told, counted in (
            (FINDINGS.name, rules, self._rules),
            (OUTCOMES.name, kinds, self._kinds),
        ):
            _check(_SUMMARY, told, {**dict.fromkeys(told, 0), **counted}, f"as {table} count to")


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(values).to_pylist()}


def _only_row(runs: TableFile) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        row for batch in runs.read(runs.table.names) for row in batch.to_pylist()
    ]
    if len(rows) != 1:
        raise runs.fault(f"has {len(rows)} rows, wanted 1")
    return rows[0]


def _check(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any], why: str) -> None:
    for name in wanted:
        if found[name] != wanted[name]:
            raise fault(where, f"{name} is {found[name]}, wanted {wanted[name]}, {why}")
