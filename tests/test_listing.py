"""Lists read page by page, from a list that holds still and from one that changes meanwhile."""

import json
import random
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Reply, Request
from pipeline.listing import (
    PAGE_ITEMS,
    Listing,
    checkpoints_request,
    clusters_request,
    page_count,
    projects_request,
    read_page,
    request_count,
)
from pipeline.outcomes import Failure, FailureKind
from tests.doubles import MOMENT, error, group, reply, trouble


class Server:
    """Serves a list as pages; `granted` is the most it puts into one."""

    def __init__(self, items: Iterable[int], granted: int = PAGE_ITEMS) -> None:
        self.items = list(items)
        self.granted = granted
        self.asked: list[tuple[int, int]] = []

    def answer(self, request: Request) -> Reply:
        query = parse_qs(urlsplit(request.path).query)
        number, items = int(query["pageNum"][0]), int(query["itemsPerPage"][0])
        self.asked.append((number, items))
        items = min(items, self.granted)
        shown = self.items[(number - 1) * items : number * items]
        return reply(200, {"results": [{"id": f"{one:024x}"} for one in shown], "totalCount": 3})


def read_whole(
    server: Server, between: Callable[[Server], None] = lambda _: None
) -> tuple[list[int], Listing]:
    """Read the list; `between` happens after each reply."""
    listing = Listing.checkpoints(group(1), "orders")
    found: list[int] = []
    while (request := listing.request) is not None:
        entries = listing.read(server.answer(request))
        assert not isinstance(entries, Failure)
        found += [int(entry.id or "", 16) for entry in entries]
        between(server)
    return found, listing


# --- requests and pages -------------------------------------------------------------------------


def test_requests_name_their_page() -> None:
    """Ids and names are encoded; only a project's checkpoints cost a token of its bucket."""
    projects = projects_request(3, 490)
    clusters = clusters_request(group(1), 1, 500)
    checkpoints = checkpoints_request("a/b", "c d?", 2, 500)

    page = "itemsPerPage=500&pageNum="
    assert projects.path == ("/api/atlas/v2/groups?itemsPerPage=490&pageNum=3&includeCount=false")
    assert clusters.path == (f"/api/atlas/v2/groups/{group(1)}/clusters?{page}1&includeCount=false")
    assert checkpoints.path == (
        f"/api/atlas/v2/groups/a%2Fb/clusters/c%20d%3F/backupCheckpoints?{page}2&includeCount=false"
    )
    assert (projects.group_id, clusters.group_id, checkpoints.group_id) == ("", "", "a/b")


def test_an_item_keeps_its_json_and_its_place() -> None:
    """Who journals the page finds the item in it again; what is no object has no id."""
    body = b'{"status":200,"results":[{"id":"5F"},7,{"id":7},{ "id" : "" },"\xff"],"links":[]}'
    page = read_page(Reply(200, MOMENT, MOMENT, {}, body))

    assert not isinstance(page, Failure)
    assert [(entry.index, entry.id) for entry in page] == [
        (0, "5f"),
        (1, None),
        (2, None),
        (3, None),
        (4, None),
    ]
    assert bytes(page[3].raw).strip() == b'{ "id" : "" }'


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(404, "BACKUP_JOB_NOT_FOUND"), FailureKind.BACKUPS_ABSENT),
        (error(429), FailureKind.THROTTLED),
        (trouble(FailureKind.TIMED_OUT), FailureKind.TIMED_OUT),
        (reply(200), FailureKind.UNREADABLE),
        (reply(200, {"results": None}), FailureKind.UNREADABLE),
        (reply(200, [1]), FailureKind.UNREADABLE),
        (Reply(200, MOMENT, MOMENT, {}, b'{"results":[{"id":'), FailureKind.UNREADABLE),
        (Reply(200, MOMENT, MOMENT, {}, b'{"results":[' + b"[" * 9999), FailureKind.UNREADABLE),
        (Reply(200, MOMENT, MOMENT, {}, b'{"results":0,"results":[]}'), FailureKind.UNREADABLE),
    ],
)
def test_what_is_no_page_is_a_failure(answer: Reply, kind: FailureKind) -> None:
    """And leaves the reading where it is: the same page can be asked for again."""
    listing = Listing.projects()
    before = listing.request
    found = listing.read(answer)

    assert isinstance(found, Failure)
    assert found.kind is kind
    assert listing.request == before
    assert listing.failure is None


def test_items_without_an_id_are_told_apart_by_their_json() -> None:
    listing = Listing.projects()
    body = reply(200, {"results": [{"name": "a"}, {"name": "b"}, {"name": "a"}, {}]})
    found = listing.read(body)

    assert not isinstance(found, Failure)
    assert [entry.index for entry in found] == [0, 1, 3]


# --- a list that holds still --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "requests"),
    [(0, 1), (1, 1), (2, 1), (3, 2), (499, 2), (500, 2), (501, 3), (980, 3), (981, 4)],
)
def test_requests_for_a_list_that_holds_still(count: int, requests: int) -> None:
    """One to see the list, one to see that there is no more."""
    server = Server(range(count))
    found, listing = read_whole(server)

    assert found == list(range(count))
    assert listing.failure is None
    assert len(server.asked) == requests


@pytest.mark.parametrize("count", [500, 1_000, 5_000, 50_000])
def test_full_clusters_cost_less_than_one_request_in_two_hundred(count: int) -> None:
    assert request_count(count) <= 0.005 * count


@given(st.integers(0, 6_000))
def test_the_number_of_requests_is_known_before(count: int) -> None:
    server = Server(range(count))
    found, _ = read_whole(server)

    assert found == list(range(count))
    assert len(server.asked) == request_count(count)


@pytest.mark.parametrize(
    ("count", "pages"), [(1, 1), (2, 1), (200, 1), (500, 1), (501, 2), (976, 2), (1_000, 3)]
)
def test_pages_until_all_is_shown(count: int, pages: int) -> None:
    """What a reader needs who knows what to look for: no page that only shows the end."""
    listing, server = Listing.checkpoints(group(1), "orders"), Server(range(count))
    shown = 0
    while shown < count and (request := listing.request) is not None:
        entries = listing.read(server.answer(request))
        assert not isinstance(entries, Failure)
        shown += len(entries)

    assert shown == count
    assert len(server.asked) == page_count(count) == pages
    assert request_count(count) == pages + (count > 2)


def test_more_than_overlapping_pages_can_hold_is_counted_as_dear() -> None:
    """Far beyond what a cluster keeps, pages hardly overlap any more; the count still ends."""
    assert 30 * request_count(100_000) < request_count(1_000_000) < 1_000_000


@given(st.integers(0, 600), st.integers(30, 200))
def test_a_server_may_grant_fewer_items_than_asked_for(count: int, granted: int) -> None:
    found, listing = read_whole(Server(range(count), granted))

    assert found == list(range(count))
    assert listing.failure is None


def test_pages_too_small_to_overlap_are_not_taken_for_the_whole() -> None:
    found, listing = read_whole(Server(range(60), 3))

    assert len(found) < 60
    assert listing.failure is not None
    assert "pages of 3 items are too small" in listing.failure.detail


def test_a_server_may_leave_a_few_of_a_page_out() -> None:
    """A page that is short for that reason does not end the list."""

    class Holes(Server):
        def answer(self, request: Request) -> Reply:
            whole = json.loads(super().answer(request).body)["results"]
            return reply(200, {"results": [one for one in whole if int(one["id"], 16) % 50]})

    found, listing = read_whole(Holes(range(2_000)))

    assert found == [one for one in range(2_000) if one % 50]
    assert listing.failure is None


# --- a list that changes while it is read -------------------------------------------------------


@settings(max_examples=300)
@given(
    count=st.integers(0, 2_500),
    granted=st.sampled_from([40, 100, 500]),
    churn=st.integers(0, 60),
    seed=st.integers(0, 2**32),
)
def test_what_is_there_all_the_time_is_found(
    count: int, granted: int, churn: int, seed: int
) -> None:
    """Items come and go anywhere between two replies: nothing that stays is lost or given twice."""
    chance = random.Random(seed)
    fresh = iter(range(count, 10**9))

    def change(server: Server) -> None:
        for _ in range(chance.randint(0, churn)):
            if server.items and chance.random() < 0.6:
                del server.items[chance.randrange(len(server.items))]
            else:
                server.items.insert(chance.randint(0, len(server.items)), next(fresh))

    server = Server(range(count), granted)
    found, listing = read_whole(server, change)

    stayed = {one for one in server.items if one < count}
    assert len(found) == len(set(found))
    assert stayed <= set(found) or listing.failure is not None


@pytest.mark.parametrize("gone", [1, 9, 10, 11, 300, 499, 900])
def test_deletions_in_front_lose_nothing(gone: int) -> None:
    """Once, after the first page: by fewer than pages overlap, by more, by all that was read."""
    server = Server(range(1_400))
    once = iter([gone])

    def change(server: Server) -> None:
        del server.items[: next(once, 0)]

    found, listing = read_whole(server, change)

    assert listing.failure is None
    assert set(found) >= set(range(gone, 1_400))


def test_a_list_that_empties_is_read_to_its_end() -> None:
    server = Server(range(1_400))
    found, listing = read_whole(server, lambda server: server.items.clear())

    assert found == list(range(500))
    assert listing.failure is None


def test_a_server_that_does_not_turn_the_page_is_noticed() -> None:
    """The same items for ever are no whole list, and no endless one."""

    class Stuck(Server):
        def answer(self, request: Request) -> Reply:
            query = parse_qs(urlsplit(request.path).query)
            self.asked.append((int(query["pageNum"][0]), 0))
            shown = self.items[: int(query["itemsPerPage"][0])]
            return reply(200, {"results": [{"id": f"{one:024x}"} for one in shown]})

    server = Stuck(range(900))
    _, listing = read_whole(server)

    assert listing.failure is not None
    assert "nothing new" in listing.failure.detail
    assert len(server.asked) < 30
