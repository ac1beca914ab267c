"""One triple, asked until there is a lasting answer; sleeps are noted, not slept."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.atlas import Reply, Request, read_results
from pipeline.errors import CredentialsRefused
from pipeline.fetch import Fetcher, Item, Question, Retry, Transport
from pipeline.limits import Governor, Patience
from pipeline.outcomes import Failed, FailureKind, Fetched, Outcome
from tests.doubles import Notebook, Scripted, error, good, items, ref, refused, reply, trouble
from tests.virtual_time import now, run

ITEM = items(1)[0]
PERMANENT = [
    (error(400), FailureKind.BAD_REQUEST),
    (error(401), FailureKind.UNAUTHENTICATED),
    (error(402), FailureKind.ACCOUNT_SUSPENDED),
    (error(403), FailureKind.PROJECT_REFUSED),
    (error(404), FailureKind.CHECKPOINT_ABSENT),
    (error(406), FailureKind.NOT_ACCEPTABLE),
    (error(410), FailureKind.GONE),
    (error(418), FailureKind.UNEXPECTED_STATUS),
    (reply(302), FailureKind.UNEXPECTED_STATUS),
    (trouble(FailureKind.TOO_LARGE), FailureKind.TOO_LARGE),
]
TRANSIENT = [
    (error(500), FailureKind.SERVER_ERROR),
    (error(503), FailureKind.SERVER_ERROR),
    (trouble(FailureKind.UNREACHABLE), FailureKind.UNREACHABLE),
    (trouble(FailureKind.TIMED_OUT), FailureKind.TIMED_OUT),
    (trouble(FailureKind.CUT), FailureKind.CUT),
    (reply(200), FailureKind.UNREADABLE),
]


class Story:
    """One triple's story: the transport's answers, the sleeps, the record."""

    def __init__(
        self,
        *replies: Reply | Callable[[Request], Reply] | Exception,
        retry: Retry | None = None,
        jitter: float = 0.0,
        patience: Patience | None = None,
    ) -> None:
        self.transport = Scripted(*replies)
        self.slept: list[float] = []
        self.record = Notebook()
        self.governor = Governor(jitter=lambda: 0.0, patience=patience)
        self.fetcher = Fetcher(
            self.transport,
            self.governor,
            self.record,
            retry=retry,
            sleep=self._sleep,
            jitter=lambda: jitter,
        )

    async def _sleep(self, seconds: float) -> None:
        assert self.governor.in_flight == 0, "nobody holds a slot while waiting"
        self.slept.append(seconds)

    def fetch(self, item: Item = ITEM) -> Outcome:
        return run(self.fetcher.fetch(item))


def kind(outcome: Outcome) -> FailureKind | None:
    return outcome.failure.kind if isinstance(outcome, Failed) else None


def test_a_good_answer_is_fetched_at_once() -> None:
    story = Story(good)
    outcome = story.fetch()

    assert isinstance(outcome, Fetched)
    assert outcome.checkpoint.id == ITEM.ref.checkpoint_id
    assert (outcome.reply_id, outcome.attempts, story.slept) == (1, 1, [])


def test_five_lines_are_a_transport() -> None:
    """The seam is one verb: nothing else has to be there."""

    class Five:
        async def send(self, request: Request) -> Reply:
            return good(request)

    five: Transport = Five()

    assert isinstance(run(Fetcher(five, Governor(), Notebook()).fetch(ITEM)), Fetched)


@pytest.mark.parametrize("envelope", [True, False])
def test_the_request_names_its_project_and_may_ask_for_an_envelope(envelope: bool) -> None:
    transport = Scripted(good)
    run(Fetcher(transport, Governor(), Notebook(), envelope=envelope).fetch(ITEM))

    assert transport.sent[0].group_id == ITEM.ref.group_id
    assert ("envelope=true" in transport.sent[0].path) is envelope


@pytest.mark.parametrize(("answer", "meant"), PERMANENT)
def test_what_lasts_is_not_asked_again(answer: Reply, meant: FailureKind) -> None:
    story = Story(answer)
    outcome = story.fetch()

    assert kind(outcome) is meant
    assert (outcome.reply_id, outcome.attempts, story.slept) == (1, 1, [])


@pytest.mark.parametrize(("answer", "meant"), TRANSIENT)
def test_what_passes_is_asked_again(answer: Reply, meant: FailureKind) -> None:
    """Every attempt is recorded as what it was; the last good answer counts."""
    story = Story(answer, answer, good)
    outcome = story.fetch()

    assert isinstance(outcome, Fetched)
    assert (outcome.reply_id, outcome.attempts) == (3, 3)
    assert story.record.kinds == [meant, meant, None]
    assert len(story.slept) == 2


@pytest.mark.parametrize(("answer", "meant"), TRANSIENT)
@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_are_counted_and_bounded(answer: Reply, meant: FailureKind, attempts: int) -> None:
    story = Story(*[answer] * attempts, retry=Retry(attempts))
    outcome = story.fetch()

    assert kind(outcome) is meant
    assert (outcome.reply_id, outcome.attempts) == (attempts, attempts)
    assert len(story.slept) == attempts - 1
    assert story.transport.replies == []


def test_attempts_of_an_earlier_start_are_added_to() -> None:
    """The bound is each start's own; what is told counts all of them."""
    story = Story(*[error(500)] * 3, retry=Retry(3))

    assert story.fetch(Item(1, ref(), attempts=7)).attempts == 10


def test_a_lasting_answer_ends_the_asking() -> None:
    story = Story(error(500), error(404))
    outcome = story.fetch()

    assert kind(outcome) is FailureKind.CHECKPOINT_ABSENT
    assert outcome.attempts == 2


# ── waits ────────────────────────────────────────────────────────────────────────────────────────


def test_waits_double_from_the_floor_to_the_ceiling() -> None:
    story = Story(*[error(500)] * 9, retry=Retry(9))
    story.fetch()

    assert story.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_jitter_takes_off_up_to_a_half() -> None:
    story = Story(*[error(500)] * 5, jitter=0.5)
    story.fetch()

    assert story.slept == [0.75, 1.5, 3.0, 6.0]


@given(
    jitter=st.floats(0, 1, exclude_max=True),
    floor=st.floats(0.01, 10),
    ceiling=st.floats(10, 100),
    asked=st.none() | st.integers(0, 10**6),
    attempts=st.integers(2, 12),  # more of them would give the project up
)
def test_every_wait_keeps_the_rule(
    jitter: float, floor: float, ceiling: float, asked: int | None, attempts: int
) -> None:
    """Never under the floor, nor over the ceiling but for a Retry-After of up to two minutes."""
    answer = error(503) if asked is None else error(503, retry_after=str(asked))
    story = Story(*[answer] * attempts, retry=Retry(attempts, floor, ceiling), jitter=jitter)
    story.fetch()
    least = max(floor, min(asked or 0, 120.0))

    assert len(story.slept) == attempts - 1
    assert all(least <= wait <= max(ceiling, least) for wait in story.slept)


@pytest.mark.parametrize(("asked", "waited"), [("0", 1.0), ("7", 7.0), ("99999", 120.0)])
def test_retry_after_of_a_fault_is_the_least(asked: str, waited: float) -> None:
    story = Story(error(503, retry_after=asked), good)
    story.fetch()

    assert story.slept == [waited]


def test_the_wait_follows_the_last_answer() -> None:
    """A Retry-After of the second answer does not count for the third."""
    story = Story(error(503), error(503, retry_after="50"), error(503), good)
    story.fetch()

    assert story.slept == [1.0, 50.0, 4.0]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_spends_no_attempt() -> None:
    """The bucket holds the project; tenacity never hears of it."""
    story = Story(refused(1, 1200, 500, 60), refused(1, 1200, 500, 60), good, retry=Retry(1))

    async def main() -> tuple[Outcome, float]:
        begun = now()
        return await story.fetcher.fetch(ITEM), now() - begun

    outcome, seconds = run(main())

    assert isinstance(outcome, Fetched)
    assert (outcome.reply_id, outcome.attempts, story.slept) == (3, 1, [])
    assert story.record.kinds == [FailureKind.THROTTLED, FailureKind.THROTTLED, None]
    assert seconds >= 11


def test_a_project_given_up_ends_with_the_triples_own_refusal() -> None:
    """The refusal is the evidence; not one attempt was spent."""
    story = Story(refused(3600, 1200, 500, 60))
    outcome = story.fetch()

    assert kind(outcome) is FailureKind.THROTTLED
    assert isinstance(outcome, Failed)
    assert outcome.failure.http_status == 429
    assert (outcome.reply_id, outcome.attempts) == (1, 0)


def test_who_was_never_asked_has_no_reply() -> None:
    """A project that another triple's refusal gave up: the failure says so, without evidence."""
    story = Story(refused(3600, 1200, 500, 60))
    story.fetch()
    outcome = story.fetch(items(2)[1])

    assert kind(outcome) is FailureKind.THROTTLED
    assert (outcome.reply_id, outcome.attempts) == (None, 0)
    assert len(story.transport.sent) == 1


def test_a_triples_own_answer_says_more_than_a_project_given_up() -> None:
    """Given up between two attempts: the outcome is what this triple was answered."""
    story = Story(error(503), patience=Patience(failures=1, probe_waits=()))
    outcome = story.fetch()

    assert kind(outcome) is FailureKind.SERVER_ERROR
    assert (outcome.reply_id, outcome.attempts) == (1, 1)
    assert len(story.transport.sent) == 1


def test_a_refusal_after_a_fault_is_the_last_answer() -> None:
    story = Story(error(503), refused(3600, 1200, 500, 60))
    outcome = story.fetch()

    assert kind(outcome) is FailureKind.THROTTLED
    assert (outcome.reply_id, outcome.attempts) == (2, 1)


# ── what ends a run ──────────────────────────────────────────────────────────────────────────────


def test_refused_credentials_pass_through_and_hold_no_slot() -> None:
    story = Story(CredentialsRefused("no"))

    with pytest.raises(CredentialsRefused):
        story.fetch()

    assert story.governor.in_flight == 0
    assert story.record.kinds == []


def test_a_record_that_fails_passes_through_and_holds_no_slot() -> None:
    class Broken(Notebook):
        def __call__(self, *_: object, **__: object) -> int:
            raise OSError("disk full")

    governor = Governor()
    with pytest.raises(OSError, match="disk full"):
        run(Fetcher(Scripted(good), governor, Broken()).fetch(ITEM))

    assert governor.in_flight == 0


def test_ask_asks_once() -> None:
    """The second pass of a run: refusals are waited out, faults are not asked again."""
    story = Story(refused(1, 1200, 500, 60), error(503))
    outcome = run(story.fetcher.ask(ITEM))

    assert kind(outcome) is FailureKind.SERVER_ERROR
    assert (outcome.reply_id, outcome.attempts, story.slept) == (2, 1, [])


# --- any other question --------------------------------------------------------------------------


def question(queue: str = "") -> Question[list[Any]]:
    return Question(Request("/api/atlas/v2/groups"), "list", read_results, queue)


def test_a_question_is_asked_again_as_a_triple_is() -> None:
    """Its own reader decides what is an answer; every reply is recorded, for no triple."""
    story = Story(reply(200), refused(1), reply(200, {"results": [7]}))
    asked = run(story.fetcher.send(question()))

    assert (asked.answer, asked.reply_id, asked.attempts) == ([7], 3, 2)
    assert len(story.slept) == 1
    assert story.record.kinds == [FailureKind.UNREADABLE, FailureKind.THROTTLED, None]
    assert set(story.record.triples) == {None}


def test_a_refusal_holds_its_own_queue_only() -> None:
    """Other questions go on meanwhile, though no project's bucket pays for either."""

    async def both() -> list[tuple[str, float]]:
        served = Scripted(refused(retry_after="60"), *[reply(200, {"results": []})] * 2)
        fetcher = Fetcher(served, Governor(jitter=lambda: 0.0), Notebook())
        ended: list[tuple[str, float]] = []

        async def ask(queue: str) -> None:
            await fetcher.send(question(queue))
            ended.append((queue, now()))

        begun = now()
        await asyncio.gather(ask("held"), ask("other"))
        return [(queue, moment - begun) for queue, moment in ended]

    (first, _), (last, waited) = run(both())

    assert (first, last) == ("other", "held")
    assert waited >= 60
