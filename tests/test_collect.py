"""Collecting: what ends a run, what is one triple's own, what is asked again; in virtual time."""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from pipeline.atlas import Reply, Request
from pipeline.collect import Asking, Collector
from pipeline.commits import Row
from pipeline.errors import AtlasUnavailable, AuditError, CredentialsRefused, OutputsUnwritable
from pipeline.fetch import Retry
from pipeline.journal import Answered, Journal
from pipeline.outcomes import FailureKind, FetchBy, Outcome
from pipeline.pool import DRAIN_S
from pipeline.silence import CALLS_S, SILENCE_S
from pipeline.simulator.buckets import BucketRules
from pipeline.triples import Triple
from tests.doubles import (
    MOMENT,
    Player,
    Served,
    always,
    answered,
    bucketed,
    error,
    good,
    group,
    hanging,
    limits,
    ref,
    refused,
    reply,
    stored,
    trouble,
)
from tests.virtual_time import now, run

K = FailureKind
START = 1000.0  # of virtual time
THERE = reply(200, {"results": []})
LISTED = error(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST")


class Atlas(Served):
    """Projects as they are played; a preliminary call and limits that are answered as told."""

    def __init__(
        self, preliminary: Player | None = None, limits: Player | None = None, **players: Player
    ) -> None:
        super().__init__(**players)
        self.players[""] = preliminary or always(THERE)
        self.players["limits"] = limits or always(error(403))

    async def send(self, request: Request) -> Reply:
        is_about_limits = "/rateLimits" in request.path
        about = structs.replace(request, group_id="limits") if is_about_limits else request
        return await super().send(about)

    @property
    def preliminaries(self) -> int:
        return len(self.sent[""])

    @property
    def asked(self) -> int:
        return self.total - self.preliminaries - len(self.sent["limits"])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "a.journal") as opened:
        yield opened


def load(journal: Journal, **counts: int) -> None:
    """Lay an input into the journal: `p3=5` is five triples of project 3."""
    refs = [ref(n, int(name[1:])) for name, count in counts.items() for n in range(count)]
    journal.load_input(Triple(line, about, {}) for line, about in enumerate(refs, 1))


class Run:
    """One collector's run over a journal."""

    def __init__(self, atlas: Served, journal: Journal, asking: Asking | None = None) -> None:
        self.settled: list[Outcome] = []
        self.collector = Collector(atlas, journal, asking or Asking(), self.settled.append)

    def to_the_end(self) -> None:
        run(self.collector.run())


def collect(atlas: Served, journal: Journal) -> Run:
    begun = Run(atlas, journal)
    begun.to_the_end()
    return begun


def seconds(begun: Run) -> float:
    """Run to the end; gives how long that took, also by the message of what ended it."""

    async def main() -> float:
        await begun.collector.run()
        return now() - START

    return run(main())


def kind_of(answer: Answered) -> FailureKind | None:
    """What the reply that answers a triple was read as."""
    assert answer.reply is not None
    kind = answer.reply.failure_kind
    return FailureKind(kind) if kind else None


def kinds(journal: Journal, project: int | None = None) -> dict[FailureKind | None, int]:
    """Count the answers by kind, from what can be derived: the reply, or what stands for it."""
    journal.flush()
    found: dict[FailureKind | None, int] = {}
    for answer in answered(journal):
        if project is None or answer.ref.group_id == group(project):
            kind = answer.failure.kind if answer.failure else kind_of(answer)
            found[kind] = found.get(kind, 0) + 1
    return found


def changing(*turns: tuple[float, Reply | Callable[[Request], Reply]]) -> Player:
    """Answers by the seconds since its first request: the last turn that has begun counts."""
    begun: list[float] = []

    async def player(request: Request) -> Reply:
        begun.append(now())
        await asyncio.sleep(0.1)
        found = [what for at, what in turns if now() - begun[0] >= at][-1]
        return found if isinstance(found, Reply) else found(request)

    return player


def in_turn(*replies: Reply | Callable[[Request], Reply]) -> Player:
    """Answers one after the other; the last one for ever."""
    left = list(replies)

    async def player(request: Request) -> Reply:
        await asyncio.sleep(0.1)
        found = left.pop(0) if len(left) > 1 else left[0]
        return found if isinstance(found, Reply) else found(request)

    return player


def then(first: Reply | Callable[[Request], Reply], times: int, rest: Player) -> Player:
    """Answers so many times alike, at once, and then like `rest`."""
    left = [first] * times

    async def player(request: Request) -> Reply:
        if not left:
            return await rest(request)
        found = left.pop()
        await asyncio.sleep(0.1)
        return found if isinstance(found, Reply) else found(request)

    return player


# ── a good night ─────────────────────────────────────────────────────────────────────────────────


def test_everything_is_asked_once_and_kept(journal: Journal) -> None:
    """One preliminary call, one request a triple; who watches is told each."""
    load(journal, p1=40, p2=30)
    atlas = Atlas(p2=always(error(404)))
    ended = collect(atlas, journal)

    assert kinds(journal) == {None: 40, K.CHECKPOINT_ABSENT: 30}
    assert len(ended.settled) == 70
    assert (atlas.preliminaries, atlas.asked) == (1, 70)
    assert stored(journal)[0].purpose == "preliminary"
    assert journal.tally().requests == 71


def test_a_second_start_asks_only_what_is_open(journal: Journal) -> None:
    load(journal, p1=20, p2=5)
    collect(Atlas(p2=hanging()), journal)
    atlas = Atlas()
    ended = collect(atlas, journal)

    assert kinds(journal) == {None: 25}
    assert (len(ended.settled), atlas.asked) == (5, 5)


def test_a_start_with_nothing_open_asks_nothing(journal: Journal) -> None:
    """Not even whether Atlas is there: what is known can be published while it is not."""
    load(journal, p1=150, p2=5)
    collect(Atlas(p2=always(error(404))), journal)
    atlas = Atlas(always(trouble(K.UNREACHABLE)))
    collect(atlas, journal)

    assert atlas.total == 0


@pytest.mark.parametrize("answer", [error(503), error(401), refused(3600), error(410)])
def test_a_start_with_something_open_asks(journal: Journal, answer: Reply) -> None:
    """What may get another answer by now, whichever way it failed."""
    load(journal, p1=5, p2=1)
    collect(Atlas(p2=always(answer)), journal)
    atlas = Atlas()
    collect(atlas, journal)

    assert (atlas.preliminaries, kinds(journal)) == (1, {None: 6})


# ── the preliminary call ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [K.UNREACHABLE, K.TIMED_OUT])
def test_an_atlas_that_is_not_reached_is_said_within_seconds(
    journal: Journal, kind: FailureKind
) -> None:
    """After three calls, one and three seconds apart; no project is asked."""
    load(journal, p1=5)
    atlas = Atlas(always(trouble(kind)))
    with pytest.raises(AtlasUnavailable, match="cannot be reached: made up") as raised:
        collect(atlas, journal)

    first, second, third = atlas.sent[""]
    assert [second - first, third - second] == pytest.approx([1.1, 3.1])
    assert atlas.asked == 0
    assert "proxy" in raised.value.hint


@pytest.mark.parametrize("timeout", [30, 3600])
def test_calls_that_time_out_are_not_made_for_minutes(journal: Journal, timeout: float) -> None:
    """However long a request may take elsewhere."""
    load(journal, p1=5)
    atlas = Atlas(hanging(timeout))
    with pytest.raises(AtlasUnavailable, match="no whole answer within 25 s"):
        assert seconds(Run(atlas, journal)) == 25.0

    assert atlas.preliminaries == 1


def test_an_atlas_that_is_reached_at_last_is_asked(journal: Journal) -> None:
    load(journal, p1=5)
    atlas = Atlas(in_turn(trouble(K.UNREACHABLE), trouble(K.UNREACHABLE), reply(200)))
    collect(atlas, journal)

    assert (atlas.preliminaries, kinds(journal)) == (3, {None: 5})


@pytest.mark.parametrize(
    ("answer", "words", "hint"),
    [
        (error(401), "401", "check the credentials"),
        (LISTED, "403 IP_ADDRESS_NOT_ON_ACCESS_LIST", "access list"),
        (error(403, "ORG_REQUIRES_ACCESS_LIST"), "403 ORG_REQUIRES", "access list"),
        (error(402), "402 ACCOUNT_SUSPENDED", "settle the account"),
    ],
)
def test_a_run_that_is_refused_ends_before_it_begins(
    journal: Journal, answer: Reply, words: str, hint: str
) -> None:
    load(journal, p1=5)
    atlas = Atlas(always(answer))
    with pytest.raises(CredentialsRefused, match=words) as raised:
        collect(atlas, journal)

    assert hint in raised.value.hint
    assert (atlas.preliminaries, atlas.asked) == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [
        error(500),
        error(503),
        error(429),
        error(404, "RESOURCE_NOT_FOUND"),
        error(403),
        error(401, "USER_UNAUTHORIZED"),
        reply(302),
        trouble(K.CUT),
    ],
)
def test_another_answer_decides_nothing(journal: Journal, answer: Reply) -> None:
    """The list of projects may fail where a checkpoint does not: the run finds out."""
    load(journal, p1=5)
    atlas = Atlas(always(answer))
    collect(atlas, journal)

    assert (atlas.preliminaries, kinds(journal)) == (1, {None: 5})


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


def test_limits_are_read_where_they_are_worth_a_request(journal: Journal) -> None:
    """A project with over a hundred triples begins with its own bucket; the reply is kept."""
    load(journal, p1=150, p2=100)
    atlas = Atlas(
        limits=always(limits(capacity=40, rate=500)),
        p1=bucketed(BucketRules(capacity=40, refill_rate=500, headers=False)),
    )
    collect(atlas, journal)
    about = [each for each in stored(journal) if each.purpose == "limits"]

    assert kinds(journal) == {None: 250}
    assert [each.path.partition("?")[2] for each in about] == [
        f"groupId={group(1)}&name=Legacy%20Backup"
    ]
    assert about[0].failure_kind is None
    assert atlas.statuses[429] <= 1  # without the limits some thirty were on their way


def test_what_was_answered_before_makes_no_limits_worth_reading(journal: Journal) -> None:
    load(journal, p1=150)
    collect(Atlas(p1=changing((0, good), (0.3, error(503)))), journal)
    open_ones = sum(journal.pending_counts().values())
    atlas = Atlas()
    collect(atlas, journal)

    assert 0 < open_ones <= 100
    assert atlas.sent["limits"] == []


@pytest.mark.parametrize(
    "answer",
    [error(403), error(401), error(404), error(429), error(500), trouble(K.CUT), reply(200)],
)
def test_limits_that_are_not_told_end_nothing(journal: Journal, answer: Reply) -> None:
    """The credentials of the run were tried before: this is the resource's own refusal."""
    load(journal, p1=150)
    atlas = Atlas(limits=always(answer))
    collect(atlas, journal)

    assert kinds(journal) == {None: 150}
    assert len(atlas.sent["limits"]) == 1


def test_limits_that_are_not_answered_are_waited_for_some_seconds(journal: Journal) -> None:
    load(journal, p1=150)
    atlas = Atlas(limits=hanging(3600))
    collect(atlas, journal)

    asked, *_ = atlas.sent["limits"]
    assert atlas.sent[group(1)][0] - asked == pytest.approx(10.0)
    assert kinds(journal) == {None: 150}


# ── refused in the middle ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [LISTED, error(402)])
def test_a_run_that_is_refused_in_the_middle_ends(journal: Journal, answer: Reply) -> None:
    """What was answered is kept; the triples that were refused are open for the next start."""
    load(journal, p1=500)
    with pytest.raises(CredentialsRefused):
        collect(Atlas(p1=changing((0, good), (0.5, answer))), journal)

    done = kinds(journal)[None]
    assert 0 < done < 500
    assert kinds(journal) == {None: done, K.NOT_ASKED: 500 - done}
    collect(Atlas(), journal)
    assert kinds(journal) == {None: 500}


def test_a_project_of_another_organization_is_its_own_trouble(journal: Journal) -> None:
    """It answers 401 in the words of bad credentials; the preliminary call tells them apart."""
    load(journal, p1=50, p2=50, p3=50)
    atlas = Atlas(p2=always(error(401)), p3=always(error(401)))
    collect(atlas, journal)

    assert kinds(journal, 1) == {None: 50}
    assert kinds(journal, 2) == kinds(journal, 3) == {K.UNAUTHENTICATED: 50}
    # At the start, and once beside each of the two: not for every triple of theirs.
    assert atlas.preliminaries == 3


def test_one_stray_401_is_asked_again(journal: Journal) -> None:
    load(journal, p1=50)
    collect(Atlas(p1=in_turn(good, good, error(401), good)), journal)

    assert kinds(journal) == {None: 50}


@pytest.mark.parametrize("answer", [error(401), LISTED, error(402)])
def test_credentials_that_are_revoked_end_the_run(journal: Journal, answer: Reply) -> None:
    """The triples say 401, and so, or worse, does the preliminary call."""
    load(journal, p1=500, p2=500)
    revoked = changing((0, good), (0.5, error(401)))
    atlas = Atlas(in_turn(reply(200), answer), p1=revoked, p2=revoked)
    with pytest.raises(CredentialsRefused, match="Atlas refuses this run"):
        collect(atlas, journal)

    found = kinds(journal)
    assert set(found) == {None, K.NOT_ASKED}
    assert found[None] > 0


def test_credentials_that_are_revoked_later_end_the_run_too(journal: Journal) -> None:
    """A project whose first 401 was its own is not believed for ever."""
    load(journal, p1=3000)
    project = changing((0, error(401)), (0.2, good), (70, error(401)))
    atlas = Atlas(changing((0, reply(200)), (70, error(401))), p1=project)
    with pytest.raises(CredentialsRefused):
        collect(atlas, journal)

    assert kinds(journal)[K.NOT_ASKED] > 0


def test_a_preliminary_call_that_fails_accuses_nobody(journal: Journal) -> None:
    load(journal, p1=50, p2=50)
    collect(Atlas(in_turn(reply(200), error(500)), p2=always(error(401))), journal)

    assert kinds(journal) == {None: 50, K.UNAUTHENTICATED: 50}


@pytest.mark.parametrize("at", ["", group(1)])
def test_credentials_refused_by_the_token_endpoint_end_the_run(journal: Journal, at: str) -> None:
    """The transport raises it, at the first request or later."""
    load(journal, p1=50)

    async def player(_: Request) -> Reply:
        await asyncio.sleep(0.1)
        raise CredentialsRefused("the secret has expired")

    atlas = Atlas()
    atlas.players[at] = player
    with pytest.raises(CredentialsRefused, match="expired"):
        collect(atlas, journal)


# ── nothing but outages ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("player", "word"),
    [
        (always(error(503)), "server_error"),
        (hanging(), "timed_out"),
        (always(error(410)), "gone"),
        (always(error(406)), "not_acceptable"),
        (always(error(404, "RESOURCE_NOT_FOUND")), "endpoint_not_found"),
        (always(reply(200)), "unreadable"),
    ],
)
def test_nothing_is_published_when_nothing_was_answered(
    journal: Journal, player: Player, word: str
) -> None:
    """An outage, or a withdrawn operation, is not ten thousand inconclusive checkpoints."""
    load(journal, p1=60, p2=3)
    with pytest.raises(AtlasUnavailable, match=f"answered nothing.*{word}"):
        collect(Atlas(p1=player, p2=player), journal)


def test_the_very_last_answer_counts(journal: Journal) -> None:
    """Five failures, and a checkpoint when asked once more: that is not nothing."""
    load(journal, p1=1)
    collect(Atlas(p1=in_turn(*[error(503)] * 5, good)), journal)

    assert kinds(journal) == {None: 1}


@pytest.mark.parametrize("answer", [error(404), error(403), good])
def test_one_definite_answer_is_something(
    journal: Journal, answer: Reply | Callable[[Request], Reply]
) -> None:
    load(journal, p1=60, p2=1)
    collect(Atlas(p1=always(error(503)), p2=in_turn(answer)), journal)

    assert K.SERVER_ERROR in kinds(journal, 1)


def test_an_answer_of_an_earlier_start_is_something_too(journal: Journal) -> None:
    load(journal, p1=5, p2=5)
    collect(Atlas(p2=always(error(503))), journal)
    collect(Atlas(p2=always(error(503))), journal)

    assert kinds(journal) == {None: 5, K.SERVER_ERROR: 5}


def test_refusals_are_answers(journal: Journal) -> None:
    """Throttled through and through: published, inconclusive, with the refusals as evidence."""
    load(journal, p1=50)
    collect(Atlas(p1=always(refused(3600, 1200, 500, 60))), journal)

    assert kinds(journal) == {K.THROTTLED: 50}


# ── once more at the end ─────────────────────────────────────────────────────────────────────────


def test_what_failed_is_asked_once_more_at_the_end(journal: Journal) -> None:
    """A triple that failed five times gets a sixth request, not six to ten."""
    load(journal, p1=30)
    failing = {ref(n).checkpoint_id for n in (3, 4)}
    asked: dict[str, int] = {}

    async def player(request: Request) -> Reply:
        await asyncio.sleep(0.1)
        checkpoint = request.path.rpartition("/")[2]
        asked[checkpoint] = asked.get(checkpoint, 0) + 1
        heals = checkpoint == ref(3).checkpoint_id and asked[checkpoint] == 6
        return good(request) if checkpoint not in failing or heals else error(500)

    collect(Atlas(p1=player), journal)

    assert kinds(journal) == {None: 29, K.SERVER_ERROR: 1}
    assert {asked[checkpoint] for checkpoint in failing} == {6}
    assert {each.attempts for each in answered(journal)} == {1, 6}


def test_a_project_that_was_given_up_is_asked_once_more_at_the_end(journal: Journal) -> None:
    """It was down for three minutes, and nobody waited for it so long; now it is there."""
    load(journal, p1=100, p2=2500)
    atlas = Atlas(p1=changing((0, error(503)), (120, good)))
    collect(atlas, journal)

    assert kinds(journal) == {None: 2600}


def test_a_project_that_stays_down_keeps_what_it_answered(journal: Journal) -> None:
    """Who was asked has a reply to show for it; only who never was is not asked."""
    load(journal, p1=300, p2=1)
    atlas = Atlas(p1=always(error(503)))
    collect(atlas, journal)
    found = {answer.ref: answer for answer in answered(journal)}
    asked = {
        (each.group_id, each.cluster_name, each.checkpoint_id)
        for each in stored(journal)
        if each.failure_kind and each.checkpoint_id
    }

    replied = {about for about, answer in found.items() if answer.reply} - {ref(0, 2)}
    assert {msgspec.structs.astuple(about) for about in replied} == asked
    assert kinds(journal, 1) == {K.SERVER_ERROR: len(asked), K.NOT_ASKED: 300 - len(asked)}
    assert len(asked) < 100


# ── Atlas goes away ──────────────────────────────────────────────────────────────────────────────


class Leaving(Atlas):
    """Is away from and to so many seconds after the start, as `how` plays it."""

    def __init__(self, how: Player, *times: tuple[float, float], **players: Player) -> None:
        super().__init__(**players)
        self._how = how
        self._times = times

    async def send(self, request: Request) -> Reply:
        begun = now()
        at = begun - START
        if not any(left <= at < back for left, back in self._times):
            return clocked(await super().send(request), begun)
        self.sent["away"].append(begun)
        return clocked(await self._how(request), begun)


def clocked(found: Reply, begun: float) -> Reply:
    """The reply with the times at which it was sent and received."""
    sent_at, received_at = (MOMENT + timedelta(seconds=at - START) for at in (begun, now()))
    return structs.replace(found, sent_at=sent_at, received_at=received_at)


FOREVER = float("inf")
AWAY = {
    "refused": always(trouble(K.UNREACHABLE), 0.02),
    "black hole": hanging(30),
    "maintenance": always(error(503)),
    "reset": always(trouble(K.CUT)),
    "a portal": always(reply(200, "<html>"), 0.05),
}


@pytest.mark.parametrize("how", AWAY.values(), ids=AWAY)
@pytest.mark.parametrize("load_", [{"p1": 2000}, {f"p{n}": 150 for n in range(1, 21)}])
def test_a_run_ends_within_a_minute_of_atlas_going_away(
    journal: Journal, how: Player, load_: dict[str, int]
) -> None:
    """What was answered is kept and not asked again; all the rest is, by the next start."""
    load(journal, **load_)
    total, left = sum(load_.values()), 3.0
    ended: list[float] = []

    async def main() -> None:
        try:
            await Run(Leaving(how, (left, FOREVER)), journal).collector.run()
        finally:
            ended.append(now() - START)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with pytest.raises(AtlasUnavailable) as raised:
        run(main())
    done = kinds(journal)[None]

    assert ended[0] - left == pytest.approx(SILENCE_S + CALLS_S, abs=1.0)
    assert SILENCE_S + CALLS_S <= 50
    assert "not given a usable answer since 03:00:03 UTC (" in str(raised.value)
    assert f"; {done:,} of {total:,} triples are answered and kept" in str(raised.value)
    assert "the same command again" in raised.value.hint
    back = Atlas()
    collect(back, journal)
    assert 0 < done < total
    assert (back.asked, kinds(journal)) == (total - done, {None: total})


@pytest.mark.parametrize("how", AWAY.values(), ids=AWAY)
@pytest.mark.parametrize("load_", [{"p1": 1000}, {f"p{n}": 50 for n in range(1, 21)}])
@pytest.mark.parametrize("left", [1.0, 1.6])
def test_a_short_outage_costs_no_answer(
    journal: Journal, how: Player, load_: dict[str, int], left: float
) -> None:
    load(journal, **load_)
    atlas = Leaving(how, (left, left + 20))
    collect(atlas, journal)

    assert len(atlas.sent["away"]) >= 64
    assert kinds(journal) == {None: sum(load_.values())}


@pytest.mark.parametrize("length", [20, 45])
def test_attempts_that_ran_out_in_an_outage_are_made_up_for(journal: Journal, length: int) -> None:
    """The last triples of a run, and nothing else to tell when Atlas is back: it is called up."""
    load(journal, p1=3)
    atlas = Leaving(AWAY["refused"], (0.15, 0.15 + length))
    collect(atlas, journal)

    assert kinds(journal) == {None: 3}
    assert {each.attempts for each in answered(journal)} == {1, 6}


def test_an_outage_while_asking_once_more_costs_no_answer(journal: Journal) -> None:
    """What it hits is asked once more again, up to three times in all."""
    load(journal, p1=2)
    atlas = Leaving(AWAY["refused"], (0.35, 10), (15.15, 21), p1=in_turn(*[error(503)] * 2, good))
    Run(atlas, journal, Asking(retry=Retry(1))).to_the_end()

    assert kinds(journal) == {None: 2}


def test_outages_that_never_end_are_not_waited_for_for_ever(journal: Journal) -> None:
    """Atlas is there whenever it is called up, and away for the triples."""
    load(journal, p1=2, p2=1)
    calls = in_turn(THERE, *[trouble(K.UNREACHABLE), THERE] * 100)
    atlas = Atlas(calls, p1=always(error(503)))
    Run(atlas, journal, Asking(retry=Retry(1))).to_the_end()

    assert kinds(journal) == {None: 1, K.SERVER_ERROR: 2}
    assert len(atlas.sent[group(1)]) == 2 * (1 + 3)


@pytest.mark.parametrize("load_", [{"p1": 300}, {"p1": 300, "p2": 50}])
@pytest.mark.parametrize("how", [hanging(30), always(error(503))])
def test_one_project_that_is_down_is_no_outage(
    journal: Journal, how: Player, load_: dict[str, int]
) -> None:
    """Though for minutes it is the only one that is asked: the preliminary call is answered."""
    load(journal, **load_)
    atlas = Atlas(p1=then(good, 5, how))
    took = seconds(Run(atlas, journal))

    assert kinds(journal, 1)[None] == 5
    assert sum(kinds(journal, 1).values()) == 300
    assert kinds(journal, 2) == ({None: 50} if "p2" in load_ else {})
    assert took > SILENCE_S
    assert 2 <= atlas.preliminaries <= 3 + took / SILENCE_S


def test_waiting_for_a_bucket_is_no_silence(journal: Journal) -> None:
    """Not even after a stray fault, nor when Atlas is away while nothing is asked."""
    load(journal, p1=30)
    project = bucketed(BucketRules(capacity=10, refill_rate=10, refill_duration=120))
    atlas = Leaving(AWAY["refused"], (20, 30), (35, 50), p1=project)
    collect(atlas, journal)

    assert atlas.preliminaries == 1
    assert kinds(journal) == {None: 30}


@pytest.mark.parametrize("answer", [error(404), error(403), refused(1)])
def test_any_definite_answer_is_a_sign_of_life(journal: Journal, answer: Reply) -> None:
    """The project that gives it is there, whatever all the others and the calls say."""
    load(journal, p1=200, p2=20)
    calls = changing((0, THERE), (1, error(503)))

    async def now_and_then(_: Request) -> Reply:
        await asyncio.sleep(14)
        return answer

    atlas = Atlas(calls, p1=hanging(30), p2=now_and_then)
    asking = Asking(concurrency=8, retry=Retry(2))

    async def main() -> None:
        begun = Run(atlas, journal, asking)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(100)
        assert not running.done()
        begun.collector.stop()
        await running

    run(main())
    assert atlas.preliminaries == 1


def test_a_call_that_is_refused_ends_the_run_as_refused(journal: Journal) -> None:
    load(journal, p1=200)
    calls = in_turn(THERE, error(401))
    with pytest.raises(CredentialsRefused):
        collect(Atlas(calls, p1=hanging(30)), journal)


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_drains_and_leaves_the_rest_for_later(journal: Journal) -> None:
    """Every answer that came is kept, nothing is raised, and the next start finishes."""
    load(journal, p1=300, p2=300)
    atlas = Atlas()

    async def main() -> None:
        begun = Run(atlas, journal)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(0.55)
        begun.collector.stop()
        await running
        assert len(begun.settled) == atlas.asked

    run(main())
    done = atlas.asked

    assert 0 < done < 600
    assert kinds(journal) == {None: done, K.NOT_ASKED: 600 - done}
    assert len(collect(Atlas(), journal).settled) == 600 - done
    assert kinds(journal) == {None: 600}


def test_a_stop_during_an_outage_is_no_outage(journal: Journal) -> None:
    """Nobody can say that nothing was answered when not everything was asked."""
    load(journal, p1=100)

    async def main() -> None:
        begun = Run(Atlas(p1=always(error(503))), journal)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(20)
        begun.collector.stop()
        await running

    run(main())


@pytest.mark.parametrize("how", AWAY.values(), ids=AWAY)
@pytest.mark.parametrize("by", [FetchBy.GET, FetchBy.LIST])
@pytest.mark.parametrize("at", [1.0, 20.0, 31.0, 34.0, 49.9])
def test_a_stop_while_atlas_is_away_drains_and_raises_nothing(
    journal: Journal, how: Player, by: FetchBy, at: float
) -> None:
    """Also while it is being called up, a moment before it would be given up."""
    load(journal, p1=500, p2=500)

    async def main() -> float:
        begun = Run(Leaving(how, (0.15, FOREVER)), journal, Asking(by=by))
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(at)
        begun.collector.stop()
        await running
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return now() - START - at

    assert run(main()) <= DRAIN_S + 0.01


@pytest.mark.parametrize(
    ("atlas", "at"),
    [
        (Atlas(in_turn(THERE, trouble(K.UNREACHABLE)), p1=always(error(503))), 20.0),
        (Atlas(then(THERE, 1, hanging()), p1=always(error(401))), 5.0),
        (Atlas(p1=then(error(503), 15, hanging())), 40.0),
    ],
    ids=["before asking once more", "beside a 401", "while asking once more"],
)
def test_a_stop_is_heard_in_every_stage(journal: Journal, atlas: Atlas, at: float) -> None:
    load(journal, p1=3)

    async def main() -> float:
        begun = Run(atlas, journal)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(at)
        assert not running.done()
        begun.collector.stop()
        await running
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return now() - START - at

    assert run(main()) <= DRAIN_S + 0.01


@pytest.mark.parametrize("atlas", [Atlas(hanging()), Atlas(limits=hanging())])
def test_a_stop_is_heard_before_the_first_checkpoint(journal: Journal, atlas: Atlas) -> None:
    """Which may hang for half a minute; a stopped container has seconds."""
    load(journal, p1=150)

    async def main() -> float:
        begun = Run(atlas, journal)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(5)
        at = now()
        begun.collector.stop()
        await running
        return now() - at

    assert run(main()) == 0.0
    assert atlas.asked == 0


def test_a_stop_before_the_start_asks_nothing(journal: Journal) -> None:
    load(journal, p1=5)
    atlas = Atlas()
    begun = Run(atlas, journal)
    begun.collector.stop()
    begun.to_the_end()

    assert atlas.asked == 0


@pytest.mark.parametrize("seconds", [0.05, 3.0])
def test_cancelling_is_no_stop(journal: Journal, seconds: float) -> None:
    """During the preliminary call and after it: the cancellation goes through, nothing stays."""
    load(journal, p1=5)

    async def main() -> None:
        begun = Run(Atlas(p1=hanging()), journal)
        running = asyncio.create_task(begun.collector.run())
        await asyncio.sleep(seconds)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# ── the journal ──────────────────────────────────────────────────────────────────────────────────


def test_a_journal_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    """A full disk is heard of with the next reply; no answer is settled that is not kept."""
    journal = Journal(tmp_path / "a.journal")
    load(journal, p1=2000)
    atlas = Atlas()

    async def break_it() -> None:
        await asyncio.sleep(1)
        journal.flush()
        outside = sqlite3.connect(journal.path)
        outside.execute("DROP TABLE replies")
        outside.close()

    async def main() -> None:
        breaking = asyncio.create_task(break_it())
        await Run(atlas, journal).collector.run()
        await breaking

    with pytest.raises(OutputsUnwritable, match="journal"):
        run(main())
    with pytest.raises(OutputsUnwritable):
        journal.close()


@pytest.mark.parametrize(("bound", "most"), [("QUEUE_ROWS", 1000), ("QUEUE_BYTES", 60_000)])
def test_a_disk_that_stalls_holds_up_the_asking(
    bound: str, most: int, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched meanwhile is bounded; then all goes on."""
    monkeypatch.setattr(f"pipeline.commits.{bound}", most)
    load(journal, **{f"p{n}": 100 for n in range(1, 41)})
    writes, pack = threading.Event(), journal._writer._pack

    def stalling(statement: str, rows: Sequence[Row]) -> Sequence[Row]:
        assert writes.wait(timeout=120)
        return pack(statement, rows)

    atlas = Atlas()

    async def main() -> int:
        running = asyncio.create_task(Run(atlas, journal).collector.run())
        await asyncio.sleep(0.5)
        journal.flush()
        before, journal._writer._pack = atlas.asked, stalling
        await asyncio.sleep(60)
        asked = atlas.asked - before
        writes.set()
        await running
        return asked

    # In virtual time nobody who waits ever sleeps: the thread that writes needs its turns at once.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        asked = run(main())
    finally:
        sys.setswitchinterval(interval)
    # A triple is two rows: as many as may wait, as many in the thread's hands, and the slots.
    assert 500 <= asked <= 2 * (500 + 64)
    assert kinds(journal) == {None: 4000}


def test_what_ends_a_run_is_an_audit_error() -> None:
    assert issubclass(AtlasUnavailable, AuditError)
    assert (AtlasUnavailable.exit_code, CredentialsRefused.exit_code) == (69, 77)
