"""What replies say of the whole run."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.journal import StoredReply
from pipeline.notices import Clocks, announcements
from pipeline.outcomes import microseconds
from tests.nights import Night, summary

AT = datetime(2026, 11, 20, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OVERFLOWING = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"


def reply(kind: str | None = None, **headers: str) -> StoredReply:
    at = microseconds(AT)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return StoredReply(
        *(7, "checkpoint", None, None, None, "/", at, at, 200, kind, None, ""),
        *(json.dumps(named), b"{}", "ab" * 32),
    )


def dated(away: timedelta) -> StoredReply:
    return reply(date=format_datetime(AT + away, usegmt=True))


def clocks_apart(*seen: list[StoredReply]) -> str:
    clocks = Clocks()
    for replies in seen:
        clocks.see(replies)
    return clocks.notice


def test_an_announcement_is_told_with_its_date() -> None:
    found = reply(sunset="Sat, 31 Dec 2027 23:59:59 GMT", deprecation="@1735689600")

    assert list(announcements(found)) == [
        "Atlas announces deprecation of this operation: @1735689600",
        "Atlas announces sunset of this operation: Sat, 31 Dec 2027 23:59:59 GMT",
    ]


def test_an_error_announces_nothing() -> None:
    assert not list(announcements(reply(kind="gone", sunset="Sat, 31 Dec 2027 23:59:59 GMT")))


@pytest.mark.parametrize("away", [-5 * MINUTE, timedelta(0), 5 * MINUTE])
def test_clocks_may_be_five_minutes_apart(away: timedelta) -> None:
    assert clocks_apart([dated(away)]) == ""


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (5 * MINUTE + timedelta(seconds=1), "was 5m behind Atlas's when reply 7 arrived"),
        (-180 * MINUTE, "was 3h ahead of Atlas's when reply 7 arrived"),
    ],
)
def test_clocks_further_apart_are_told(away: timedelta, said: str) -> None:
    assert said in clocks_apart([dated(away)])


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 20 Nov 2026 03:00:00 -0000", OVERFLOWING])
def test_a_date_that_cannot_be_read_says_nothing(date: str) -> None:
    assert clocks_apart([reply(date=date), reply()]) == ""
    assert clocks_apart([reply(date=date), dated(60 * MINUTE)]) != ""
    assert clocks_apart([reply(date=date)], [], [dated(60 * MINUTE)]) != ""


def test_the_first_reply_with_a_date_stands_for_all() -> None:
    assert clocks_apart([dated(timedelta(0))], [dated(60 * MINUTE)]) == ""


@pytest.mark.parametrize("fetch", ["get", "list"])
def test_a_run_under_a_wrong_clock_says_so(fetch: str, night: Night) -> None:
    assert night.run("--fetch", fetch, set_up="tests.nights:slow_clock").code in {1, 4}
    (run,) = night.books.runs

    assert any("This machine's clock was 2h behind" in said for said in summary(run)["notices"])
