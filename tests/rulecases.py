"""For every rule: clusters that pass it, that fail it, and that stand on its boundary.

The tables are used twice: on the rules as they are, and on mutants of them, which are to be caught.
Times are minutes from noon; a cluster's checkpoints are listed oldest first unless they have ids.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part, TokenTimestamp
from pipeline.judgements import RpoStatus
from pipeline.outcomes import Answer, Failure, FailureKind, Verdict, microseconds
from pipeline.policy import Thresholds

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Found = Checkpoint | Failure


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def id_of(moment: datetime, number: int = 0) -> str:
    return f"{int(moment.timestamp()):08x}{number:016x}"


# --- checkpoints --------------------------------------------------------------------------------


def part(name: str, **changes: Any) -> Part:
    """A shard of that name, its token written at noon."""
    made = Part("REPLICA_SET", f"rs-{name}", name, True, TokenTimestamp(NOON, 1))
    return msgspec.structs.replace(made, **changes)


def token(moment: datetime | None) -> TokenTimestamp:
    return TokenTimestamp(moment, 1)


A, B, C = part("a"), part("b"), part("c")
CONFIG = part("", type_name="CONFIG_SERVER_REPLICA_SET", replica_set_name="config", shard_name=None)
OLD_CONFIG = Part("CONFIG_SERVER", token_discovered=True, token_timestamp=token(NOON))


def healthy(**changes: Any) -> Checkpoint:
    made = Checkpoint(
        started=NOON, completed=NOON, timestamp=NOON, restorable=True, parts=(A, B, CONFIG)
    )
    return msgspec.structs.replace(made, **changes)


def of(*parts: Part) -> Checkpoint:
    return healthy(parts=parts)


def shards(names: str) -> Checkpoint:
    """One with the shards of these letters and the config servers."""
    return of(*map(part, names), CONFIG)


def ran(minutes: float, extra: timedelta = timedelta()) -> Checkpoint:
    return healthy(completed=at(minutes) + extra)


ABSENT = Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CHECKPOINT_NOT_FOUND")
NO_BACKUPS = Failure(FailureKind.BACKUPS_ABSENT, 404, "BACKUP_CONFIG_NOT_FOUND")
THROTTLED = Failure(FailureKind.THROTTLED, 429)


def answers_of(
    found: Sequence[Found],
    *,
    replied: Sequence[datetime | None] = (),
    ids: Sequence[str] = (),
) -> list[Answer]:
    """One cluster's answers, by default a quarter of an hour apart, all replied to at noon."""
    return [
        Answer(
            CheckpointRef(
                "5f" * 12, "orders", ids[n] if ids else id_of(at(15 * (n - len(found))), n)
            ),
            input_line=n + 2,
            labels="{}",
            found=one,
            attempts=1,
            fetched_by="get",
            fetched_at=_microseconds(replied[n] if replied else NOON),
            reply_id=n,
            reply_sha256="ab" * 32,
        )
        for n, one in enumerate(found)
    ]


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


class Case(NamedTuple):
    """`objects`: the places in the cluster that the rule objects to."""

    rule_id: str
    kind: str
    what: str
    objects: set[int]
    found: Sequence[Found]
    thresholds: Thresholds = Thresholds()
    replied: Sequence[datetime | None] = ()
    ids: Sequence[str] = ()

    @property
    def answers(self) -> list[Answer]:
        return answers_of(self.found, replied=self.replied, ids=self.ids)


def _table(rule_id: str, *rows: tuple[Any, ...], **thresholds: Any) -> list[Case]:
    """Rows of kind, what, objects, found, and what else a case has."""
    limits = Thresholds(**thresholds)
    return [_case(rule_id, limits, *row) for row in rows]


def _case(rule_id: str, limits: Thresholds, *row: Any) -> Case:
    kind, what, objects, found, *more = row
    made = Case(rule_id, kind, what, objects, found, limits)
    return made._replace(**more[0]) if more else made


_FALSE = healthy(restorable=False)
_SILENT = healthy(restorable=None)
_LOST = part("b", token_discovered=False)
_UNTOLD = part("b", token_discovered=None)
_UNNAMED = part("b", replica_set_name=None, shard_name=None)
_KINDLESS = part("b", type_name=None, replica_set_name=None)
_BY_SET = part("b", shard_name=None)
_ZEROS = [ran(0)] * 5
_EARLIER = [id_of(at(minutes)) for minutes in (-30, -10, -20)]
_CONFIG_2 = part("", type_name="CONFIG_SERVER", replica_set_name="config-2", shard_name="x")

CASES: list[Case] = [
    *_table(
        "restorable-false",
        ("passes", "restorable", set(), [healthy()]),
        ("fails", "not restorable", {1}, [healthy(), _FALSE]),
        ("boundary", "not said", set(), [_SILENT]),
        ("boundary", "no checkpoint", set(), [ABSENT, THROTTLED]),
        ("fails", "beside failures", {1, 3}, [ABSENT, _FALSE, THROTTLED, _FALSE]),
    ),
    *_table(
        "restorable-not-reported",
        ("passes", "restorable", set(), [healthy()]),
        ("fails", "not said", {0}, [_SILENT]),
        ("boundary", "said to be false", set(), [_FALSE]),
    ),
    *_table(
        "token-not-discovered",
        ("passes", "all discovered", set(), [healthy()]),
        ("fails", "one not discovered", {0}, [of(A, _LOST, CONFIG), healthy()]),
        ("boundary", "one not spoken of", {0}, [of(A, _UNTOLD, CONFIG)]),
        ("boundary", "no parts", set(), [of()]),
    ),
    *_table(
        "restorable-contradicts-tokens",
        ("passes", "both say yes", set(), [healthy()]),
        ("fails", "restorable, a token not discovered", {0}, [of(A, _LOST)]),
        ("boundary", "both say no", set(), [healthy(restorable=False, parts=(A, _LOST))]),
        ("boundary", "a token not spoken of", set(), [of(A, _UNTOLD)]),
        ("boundary", "nothing said", set(), [healthy(restorable=None, parts=(A, _LOST))]),
    ),
    *_table(
        "no-parts",
        ("passes", "two shards", set(), [healthy()]),
        ("fails", "none", {0}, [of()]),
        ("fails", "config servers alone", {0}, [of(CONFIG)]),
        ("fails", "config servers alone, twice", {0}, [of(CONFIG, OLD_CONFIG)]),
        ("boundary", "one shard", set(), [of(A, CONFIG)]),
        ("boundary", "a replica set", set(), [of(A)]),
    ),
    *_table(
        "no-config-part",
        ("passes", "with config servers", set(), [healthy()]),
        ("passes", "with older ones", set(), [of(A, B, OLD_CONFIG)]),
        ("fails", "two shards alone", {0}, [of(A, B)]),
        ("boundary", "one shard alone", set(), [of(A)]),
        ("boundary", "none", set(), [of()]),
    ),
    *_table(
        "shard-missing",
        ("passes", "all the same", set(), [shards("ab")] * 3),
        ("passes", "in another order", set(), [of(A, B, CONFIG), of(CONFIG, B, A)]),
        ("fails", "between two that have it", {1}, [shards("ab"), shards("a"), shards("ab")]),
        ("fails", "two in a row", {1, 2}, [shards(s) for s in ("ab", "a", "a", "ab")]),
        ("fails", "again and again", {1, 3}, [shards(s) for s in ("ab", "a", "ab", "b", "ab")]),
        ("fails", "another each time", {1, 2}, [shards(s) for s in ("abc", "ac", "ab", "abc")]),
        ("fails", "several at once", {1}, [shards("abc"), shards("a"), shards("abc")]),
        ("boundary", "the newest", {2}, [shards("ab"), shards("ab"), shards("a")]),
        ("boundary", "the newest of two", {1}, [shards("ab"), shards("a")]),
        ("boundary", "the newest has another", {1}, [shards("a"), shards("b")]),
        ("boundary", "the oldest", set(), [shards("a"), shards("ab"), shards("ab")]),
        ("boundary", "a shard was added", set(), [shards(s) for s in ("a", "a", "ab", "ab")]),
        ("boundary", "a shard was removed", set(), [shards(s) for s in ("a", "ab", "a", "a")][2:]),
        ("fails", "beside one by its set", {1}, [shards("abc"), of(A, _BY_SET), shards("abc")]),
        ("boundary", "removed after two", set(), [shards(s) for s in ("ab", "ab", "a", "a")]),
        ("boundary", "the newest by its set", set(), [shards("ab"), shards("ab"), of(A, _BY_SET)]),
        ("boundary", "removed some time ago", set(), [shards(s) for s in ("ab", "a", "a")]),
        ("boundary", "only one", set(), [shards("a")]),
        ("boundary", "none", set(), [ABSENT]),
        ("boundary", "a part without a name", set(), [shards("ab"), of(A, _UNNAMED), shards("ab")]),
        ("boundary", "named by its set alone", set(), [shards("ab"), of(A, _BY_SET), shards("ab")]),
        ("boundary", "no part that holds data", set(), [shards("ab"), of(CONFIG), shards("ab")]),
        ("boundary", "no shard of the oldest", set(), [of(CONFIG), shards("a"), shards("ab")]),
        (
            "boundary",
            "other config servers",
            set(),
            [shards("a"), of(A, OLD_CONFIG), of(A, _CONFIG_2), shards("a")],
        ),
        (
            "boundary",
            "ordered by ids",
            {2},
            [shards("ab"), shards("ab"), shards("a")],
            {"ids": _EARLIER},
        ),
        (
            "boundary",
            "whatever started says",
            {1},
            [shards("ab"), healthy(started=at(999), parts=(A, CONFIG)), shards("ab")],
        ),
        ("fails", "failures between", {2}, [shards("ab"), ABSENT, shards("a"), shards("ab")]),
    ),
    *_table(
        "duplicate-part",
        ("passes", "each once", set(), [healthy(), shards("abc")]),
        ("fails", "a shard twice", {1}, [healthy(), of(A, B, A, CONFIG)]),
        ("fails", "a shard under two sets", {0}, [of(A, part("a", replica_set_name="x"), CONFIG)]),
        ("fails", "a set under two shards", {0}, [of(A, part("x", replica_set_name="rs-a"))]),
        ("fails", "two config parts", {0}, [of(A, CONFIG, OLD_CONFIG)]),
        ("fails", "two with all names different", {0}, [of(A, CONFIG, _CONFIG_2)]),
        ("boundary", "two without names", set(), [of(_UNNAMED, _UNNAMED, CONFIG)]),
        ("boundary", "two without a shard's name", set(), [of(_BY_SET, CONFIG)]),
        ("boundary", "none", set(), [of()]),
    ),
    *_table(
        "unknown-part",
        ("passes", "all kinds known", set(), [of(A, B, CONFIG, OLD_CONFIG)]),
        ("fails", "a kind nobody knows", {1}, [healthy(), of(A, part("b", type_name="MONGOS"))]),
        ("fails", "neither kind nor set", {0}, [of(A, _KINDLESS)]),
        ("boundary", "a set without a kind", set(), [of(A, part("b", type_name=None))]),
        ("boundary", "a kind without a set", set(), [of(A, part("b", replica_set_name=None))]),
        ("boundary", "an empty kind", {0}, [of(part("b", type_name="", replica_set_name=""))]),
        ("boundary", "none", set(), [of()]),
    ),
    *_table(
        "completed-missing",
        ("passes", "completed", set(), [healthy()]),
        ("fails", "not completed", {0}, [healthy(completed=None)]),
        ("boundary", "only completed", set(), [healthy(started=None)]),
        ("boundary", "neither", {0}, [healthy(started=None, completed=None)]),
    ),
    *_table(
        "completed-before-started",
        ("passes", "after", set(), [ran(1)]),
        ("fails", "before", {1}, [healthy(), ran(-10)]),
        ("boundary", "at once", set(), [ran(0)]),
        ("boundary", "an instant before", {0}, [ran(0, -INSTANT)]),
        ("boundary", "start not known", set(), [healthy(started=None)]),
        ("boundary", "end not known", set(), [healthy(completed=None)]),
    ),
    *_table(
        "run-time-too-long",
        ("passes", "at once", set(), [ran(0)]),
        ("fails", "two hours", {1}, [ran(0), ran(120)]),
        ("boundary", "just the limit", set(), [ran(60)]),
        ("boundary", "an instant more", {0}, [ran(60, INSTANT)]),
        ("boundary", "start not known", set(), [healthy(started=None)]),
        run_time=HOUR,
    ),
    *_table("run-time-too-long", ("passes", "without a limit", set(), [ran(6000)])),
    *_table(
        "run-time-unusual",
        ("passes", "all at once", set(), [ran(0)] * 9),
        ("passes", "all of them long", set(), [ran(100)] * 9),
        ("fails", "half an hour beside none", {5}, [*_ZEROS, ran(30)]),
        ("boundary", "ten minutes beside none", set(), [*_ZEROS, ran(10)]),
        ("boundary", "an instant more", {5}, [*_ZEROS, ran(10, INSTANT)]),
        ("boundary", "too few others", set(), [*_ZEROS[1:], ran(30)]),
        ("boundary", "too few that tell", set(), [*_ZEROS[1:], healthy(started=None), ran(30)]),
        ("boundary", "ten times the others", set(), [*[ran(2)] * 5, ran(20)]),
        ("boundary", "an instant more than that", {0}, [ran(20, INSTANT), *[ran(2)] * 5]),
        ("boundary", "the lower of two medians", {6}, [*map(ran, (9, 1, 1, 9, 1, 9)), ran(11)]),
        ("boundary", "the middle of five", {5}, [*map(ran, (1, 9, 1, 9, 2)), ran(21)]),
        ("boundary", "not the middle of five", set(), [*map(ran, (1, 9, 3, 9, 1)), ran(21)]),
        ("boundary", "shorter than most", set(), [ran(15), *[ran(100)] * 5]),
    ),
    *_table(
        "token-spread",
        ("passes", "all at once", set(), [healthy()]),
        ("fails", "ten minutes", {1}, [healthy(), of(A, part("b", token_timestamp=token(at(10))))]),
        ("boundary", "just the limit", set(), [of(A, part("b", token_timestamp=token(at(1))))]),
        (
            "boundary",
            "an instant more",
            {0},
            [of(part("b", token_timestamp=token(at(1) + INSTANT)), A)],
        ),
        ("boundary", "only one has a date", set(), [of(A, part("b", token_timestamp=token(None)))]),
        ("boundary", "none has a token", set(), [of(part("a", token_timestamp=None))]),
        token_spread=MINUTE,
    ),
    *_table(
        "token-spread",
        ("passes", "no limit", set(), [of(A, part("b", token_timestamp=token(at(99))))]),
    ),
    *_table(
        "token-distance",
        ("passes", "the same moment", set(), [healthy()]),
        ("passes", "as in the samples", set(), [healthy(timestamp=NOON - 65 * SECOND)]),
        ("fails", "two hours", {1}, [healthy(), healthy(timestamp=at(-120))]),
        ("boundary", "just the limit, before", set(), [healthy(timestamp=at(-15))]),
        ("boundary", "just the limit, after", set(), [healthy(timestamp=at(15))]),
        ("boundary", "an instant more, before", {0}, [healthy(timestamp=at(-15) - INSTANT)]),
        ("boundary", "an instant more, after", {0}, [healthy(timestamp=at(15) + INSTANT)]),
        ("boundary", "one token of three", {0}, [of(A, part("b", token_timestamp=token(at(16))))]),
        ("boundary", "one, earlier", {0}, [of(part("b", token_timestamp=token(at(-16))), A)]),
        ("boundary", "no timestamp", set(), [healthy(timestamp=None)]),
        ("boundary", "no token", set(), [healthy(timestamp=at(-99), parts=())]),
        (
            "boundary",
            "no timestamp before another",
            {1},
            [healthy(timestamp=None), healthy(timestamp=at(99))],
        ),
        token_distance=15 * MINUTE,
    ),
    *_table("token-distance", ("passes", "no limit", set(), [healthy(timestamp=at(-999))])),
    *_table(
        "clock-in-future",
        ("passes", "as they were replied to", set(), [healthy()]),
        ("fails", "a year ahead", {1}, [healthy(), healthy(timestamp=NOON + 365 * DAY)]),
        ("boundary", "start, within five minutes", set(), [healthy(started=at(5))]),
        ("boundary", "start, beyond", {0}, [healthy(started=at(5) + INSTANT)]),
        ("boundary", "end, within", set(), [healthy(completed=at(5))]),
        ("boundary", "end, beyond", {0}, [healthy(completed=at(5) + INSTANT)]),
        ("boundary", "restore point, within", set(), [healthy(timestamp=at(5))]),
        ("boundary", "restore point, beyond", {0}, [healthy(timestamp=at(5) + INSTANT)]),
        ("boundary", "token, within", set(), [of(A, part("b", token_timestamp=token(at(5))))]),
        (
            "boundary",
            "token, beyond",
            {0},
            [of(A, part("b", token_timestamp=token(at(5) + INSTANT)))],
        ),
        ("fails", "one start of several", {0}, [healthy(started=at(9)), healthy()]),
        ("fails", "one end of several", {0}, [healthy(completed=at(9)), healthy()]),
        ("fails", "one restore point of several", {0}, [healthy(timestamp=at(9)), healthy()]),
        (
            "fails",
            "one token of several",
            {0},
            [of(A, part("b", token_timestamp=token(at(9)))), healthy()],
        ),
        (
            "boundary",
            "within, by its own reply",
            set(),
            [healthy(), healthy(started=at(35))],
            {"replied": [NOON, at(30)]},
        ),
        (
            "boundary",
            "by each one's own reply",
            {0},
            [healthy(started=at(30)), healthy(started=at(30))],
            {"replied": [NOON, at(30)]},
        ),
        ("boundary", "no reply's time", set(), [healthy(started=at(99))], {"replied": [None]}),
        (
            "boundary",
            "no time of one reply",
            {1},
            [healthy(started=at(99)), healthy(started=at(99))],
            {"replied": [None, NOON]},
        ),
        ("boundary", "no times in it", set(), [healthy(started=at(99)), Checkpoint()][1:]),
        (
            "boundary",
            "no times in it, beside one ahead",
            {0},
            [healthy(started=at(99)), Checkpoint()],
        ),
    ),
    *_table(
        "absent-inside-retention",
        ("passes", "there", set(), [healthy()], {"ids": [id_of(NOON)]}),
        ("passes", "absent, and old", set(), [ABSENT], {"ids": [id_of(NOON - 2 * DAY)]}),
        ("fails", "absent, and young", {1}, [healthy(), ABSENT]),
        ("boundary", "just as old", {0}, [ABSENT], {"ids": [id_of(NOON - DAY)]}),
        ("boundary", "a second older", set(), [ABSENT], {"ids": [id_of(NOON - DAY - SECOND)]}),
        ("boundary", "from now", {0}, [ABSENT], {"ids": [id_of(at(5))]}),
        ("boundary", "from the future", set(), [ABSENT], {"ids": [id_of(at(5) + SECOND)]}),
        ("boundary", "no backups at all", set(), [NO_BACKUPS]),
        ("boundary", "not known", set(), [THROTTLED]),
        ("boundary", "no reply's time", set(), [ABSENT], {"replied": [None]}),
        retention=DAY,
    ),
    *_table("absent-inside-retention", ("passes", "no retention", set(), [ABSENT])),
]


# --- clusters -----------------------------------------------------------------------------------


class StandingCase(NamedTuple):
    """`standing`: the fields of a `Standing`."""

    rule_id: str
    kind: str
    what: str
    objects: bool
    standing: dict[str, Any]


def stands(
    passed: int = 1,
    failed: int = 0,
    absent: int = 0,
    inconclusive: int = 0,
    *,
    points: Sequence[datetime] = (NOON,),
    as_of: datetime | None = NOON,
    unknown: Sequence[datetime] = (),
    oldest: datetime = NOON,
    shards: Sequence[str | None] = (),
    **thresholds: Any,
) -> dict[str, Any]:
    """`shards`: letters for each checkpoint, oldest first, the last made at noon."""
    verdicts = {
        Verdict.PASS: passed,
        Verdict.FAIL: failed,
        Verdict.ABSENT: absent,
        Verdict.INCONCLUSIVE: inconclusive,
    }
    return {
        "thresholds": Thresholds(**thresholds),
        "verdicts": Counter(verdicts),
        "points": list(points),
        "as_of": as_of,
        "unknown": list(unknown),
        "oldest": oldest,
        "shards": [
            (id_of(at(15 * (n - len(shards)))), None if letters is None else frozenset(letters))
            for n, letters in enumerate(shards, 1)
        ],
    }


def _standings(rule_id: str, *rows: tuple[str, str, bool, dict[str, Any]]) -> list[StandingCase]:
    return [StandingCase(rule_id, *row) for row in rows]


def _aged(minutes: float, **more: Any) -> dict[str, Any]:
    """A cluster with an RPO of an hour and a newest point so old."""
    return stands(points=[at(-500), at(-minutes)], rpo_age=HOUR, **more)


def _gap(minutes: float, extra: timedelta = timedelta(), **more: Any) -> dict[str, Any]:
    """A cluster with gaps of at most an hour, and one so long that ends at noon."""
    return stands(points=[at(-minutes) - extra, NOON, at(30)], gap=HOUR, **more)


def _kept(oldest: float, *points: datetime, **more: Any) -> dict[str, Any]:
    """A cluster with an hour's retention, its first checkpoint made so many minutes ago."""
    return stands(points=points, oldest=at(-oldest), retention=HOUR, **more)


STANDINGS: list[StandingCase] = [
    *_standings(
        "no-restorable-checkpoint",
        ("passes", "one passes", False, stands(1, 9, 9)),
        ("fails", "all fail", True, stands(0, 2)),
        ("fails", "all absent", True, stands(0, 0, 2)),
        ("boundary", "one inconclusive", False, stands(0, 2, 2, 1)),
        ("boundary", "passing and inconclusive", False, stands(1, 0, 0, 1)),
    ),
    *_standings(
        "too-few-restorable",
        ("passes", "enough", False, stands(3, min_restorable=2)),
        ("fails", "one of two", True, stands(1, 5, min_restorable=2)),
        ("boundary", "just enough", False, stands(2, min_restorable=2)),
        ("boundary", "inconclusive may do", False, stands(1, 0, 0, 1, min_restorable=2)),
        ("boundary", "inconclusive do not do", True, stands(1, 0, 0, 1, min_restorable=3)),
        ("boundary", "none", False, stands(0, 5, min_restorable=2)),
        ("boundary", "nothing wanted", False, stands(1, min_restorable=0)),
    ),
    *_standings(
        "rpo-age",
        ("passes", "young", False, _aged(10)),
        ("passes", "no limit", False, stands(points=[at(-9999)])),
        ("fails", "old", True, _aged(90)),
        ("boundary", "just the limit", False, _aged(60)),
        ("boundary", "an instant older", True, _aged(60, as_of=NOON + INSTANT)),
        ("boundary", "a newer inconclusive", False, _aged(90, unknown=[at(-400), at(-60)])),
        (
            "boundary",
            "a newer inconclusive, too old itself",
            True,
            _aged(90, unknown=[at(-60) - SECOND]),
        ),
        ("boundary", "an older inconclusive", True, _aged(90, unknown=[at(-120)])),
        ("boundary", "nothing passes", False, stands(0, 1, points=[], rpo_age=HOUR)),
        ("boundary", "passes without a point", True, stands(1, points=[], rpo_age=HOUR)),
        (
            "boundary",
            "passes without a point, beside inconclusive",
            False,
            stands(1, 0, 0, 1, points=[], unknown=[at(-1)], rpo_age=HOUR),
        ),
        ("boundary", "no limit and no point", False, stands(1, points=[])),
        ("boundary", "no reply's time", False, _aged(90, as_of=None)),
    ),
    *_standings(
        "rpo-gap",
        ("passes", "half an hour", False, _gap(30)),
        ("passes", "no limit", False, stands(points=[at(-9999), NOON])),
        ("fails", "two hours", True, _gap(120)),
        ("boundary", "just the limit", False, _gap(60)),
        ("boundary", "an instant more", True, _gap(60, INSTANT)),
        ("boundary", "an inconclusive in it", False, _gap(120, unknown=[at(-180), at(-60)])),
        ("boundary", "at its start", False, _gap(120, unknown=[at(-120)])),
        ("boundary", "at its end", False, _gap(120, unknown=[NOON])),
        ("boundary", "before it", True, _gap(120, unknown=[at(-121)])),
        ("boundary", "after it", True, _gap(120, unknown=[at(1)])),
        ("boundary", "before and after it", True, _gap(120, unknown=[at(-121), at(1)])),
        ("boundary", "one point", False, stands(points=[NOON], gap=HOUR)),
        (
            "boundary",
            "a second gap that is judged",
            True,
            stands(points=[at(-300), at(-200), NOON], unknown=[at(-250)], gap=HOUR),
        ),
    ),
    *_standings(
        "retention-not-reached",
        ("passes", "reached", False, _kept(120, at(-70), at(-10))),
        ("passes", "no retention", False, stands(points=[NOON], oldest=at(-999))),
        ("fails", "not reached", True, _kept(120, at(-20), at(-10))),
        ("boundary", "younger by the largest gap", False, _kept(120, at(-35), at(-10))),
        ("boundary", "and an instant", True, _kept(120, at(-35) + INSTANT, at(-10))),
        ("boundary", "one point, at the start", False, _kept(120, at(-60))),
        ("boundary", "one point, an instant later", True, _kept(120, at(-60) + INSTANT)),
        ("boundary", "the list is shorter", False, _kept(59, at(-20), at(-10))),
        ("boundary", "the list is just long enough", True, _kept(60, at(-20), at(-10))),
        ("boundary", "no point", False, _kept(120)),
        ("boundary", "no reply's time", False, _kept(120, at(-20), at(-10), as_of=None)),
        ("boundary", "older inconclusive", False, _kept(120, at(-20), unknown=[at(-90), at(-1)])),
        ("boundary", "inconclusive as old", False, _kept(120, at(-20), unknown=[at(-20)])),
        ("boundary", "younger inconclusive", True, _kept(120, at(-20), unknown=[at(-19)])),
    ),
    *_standings(
        "shards-gone",
        ("passes", "all the same", False, stands(shards=["ab"] * 3)),
        ("passes", "one was added", False, stands(shards=["a", "a", "ab", "ab"])),
        ("fails", "from some moment on", True, stands(shards=["abc"] * 12 + ["ab"] * 12)),
        ("fails", "one by one", True, stands(shards=["abc", "ab", "a", "a"])),
        ("fails", "another in its place", True, stands(shards=["ab", "ab", "ac", "ac"])),
        ("boundary", "not in the newest alone", True, stands(shards=["ab", "ab", "a"])),
        ("boundary", "in the oldest alone", True, stands(shards=["ab", "a", "a"])),
        ("boundary", "back in the newest", False, stands(shards=["ab", "a", "a", "ab"])),
        ("boundary", "back, and gone again", True, stands(shards=["ab", "a", "ab", "a"])),
        ("boundary", "the newest not known", False, stands(shards=["ab", "a", None])),
        ("boundary", "one between not known", True, stands(shards=["ab", None, "a"])),
        ("boundary", "the oldest not known", False, stands(shards=[None, "a", "a"])),
        ("boundary", "none is known", False, stands(shards=[None])),
        ("boundary", "only one", False, stands(shards=["ab"])),
        ("boundary", "none", False, stands()),
    ),
]

STATUSES: list[tuple[str, RpoStatus, dict[str, Any]]] = [
    ("no limit", RpoStatus.NO_LIMIT, stands()),
    ("no limit, no point", RpoStatus.NO_LIMIT, stands(0, points=[])),
    ("just within", RpoStatus.WITHIN, _aged(60)),
    ("within, beside a newer inconclusive", RpoStatus.WITHIN, _aged(30, unknown=[at(-1)])),
    ("exceeded", RpoStatus.EXCEEDED, _aged(60, as_of=NOON + INSTANT)),
    ("a newer inconclusive may keep it", RpoStatus.NOT_JUDGED, _aged(90, unknown=[at(-60)])),
    ("no point", RpoStatus.NO_POINT, stands(0, 3, points=[], rpo_age=HOUR)),
    (
        "no point, and an old inconclusive",
        RpoStatus.NO_POINT,
        stands(0, 0, 0, 1, points=[], unknown=[at(-61)], rpo_age=HOUR),
    ),
    (
        "perhaps a point",
        RpoStatus.NOT_JUDGED,
        stands(0, 0, 0, 1, points=[], unknown=[at(-60)], rpo_age=HOUR),
    ),
    ("no reply's time", RpoStatus.NOT_JUDGED, _aged(10, as_of=None)),
]


# --- the tables, played -------------------------------------------------------------------------


class Rulebook(NamedTuple):
    """The rules, as they are or mutated: what the tables are played with."""

    rules: dict[str, Any]
    listed: Callable[..., Any]
    standing: Callable[..., Any]
    summed_up: Callable[..., Any]
    rpo_status: Callable[..., Any]
    listing: Callable[..., Any]

    def objects(self, case: Case) -> set[int]:
        """The places that the rule of a case objects to."""
        listed = self.listed(case.answers, case.thresholds)
        found = list(self.rules[case.rule_id].judge(listed))
        return {objection.place for objection in found}

    def objects_to_cluster(self, case: StandingCase) -> bool:
        return bool(list(self.rules[case.rule_id].judge(self.standing(**case.standing))))
