"""Triples answered from lists: what a list may decide, what it may not, and what it costs."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Reply, Request
from pipeline.checkpoints import CheckpointRef
from pipeline.collect import Asking, Collector
from pipeline.errors import CredentialsRefused
from pipeline.fetch import Item, Retry
from pipeline.journal import Journal
from pipeline.outcomes import FailureKind, FetchBy, Outcome
from pipeline.sweep import Sweeper, clusters
from pipeline.triples import Triple
from tests.doubles import answered, error, good, group, items, ref, refused, reply, stored
from tests.virtual_time import now, run

K = FailureKind


def checkpoint(number: int, **changes: Any) -> dict[str, Any]:
    about = ref(number)
    return {
        "id": about.checkpoint_id,
        "groupId": about.group_id,
        "restorable": True,
        "parts": [],
        **changes,
    }


class Atlas:
    """One cluster whose list holds `listed`, newest first; singly, every checkpoint is there.

    `page` may change or replace the answer to the nth page.
    """

    def __init__(
        self,
        listed: list[Any],
        page: Callable[[int, Reply], Reply] = lambda _, answer: answer,
        single: Callable[[Request], Reply] = good,
    ) -> None:
        self.listed = listed
        self.asked: Counter[str] = Counter()
        self._page = page
        self._single = single

    async def send(self, request: Request) -> Reply:
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        if path.endswith("/backupCheckpoints"):
            self.asked["list"] += 1
            items, number = int(query["itemsPerPage"][0]), int(query["pageNum"][0])
            results = self.listed[(number - 1) * items : number * items]
            return self._page(self.asked["list"], reply(200, {"results": results}))
        if "/backupCheckpoints/" in path:
            self.asked["get"] += 1
            return self._single(request)
        self.asked["other"] += 1
        return reply(200, {"results": []}) if "rateLimits" not in path else error(403)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "a.journal") as opened:
        yield opened


def load(journal: Journal, *numbers: int) -> None:
    journal.load_input(Triple(line, ref(number), {}) for line, number in enumerate(numbers, 1))


def collect(atlas: Atlas, journal: Journal, by: FetchBy = FetchBy.LIST) -> list[Outcome]:
    settled: list[Outcome] = []
    run(Collector(atlas, journal, Asking(retry=Retry(1), by=by), settled.append).run())
    return settled


def ways(journal: Journal) -> dict[str, int]:
    """How many triples were answered which way."""
    return dict(Counter(each.fetched_by for each in answered(journal)))


def kinds(journal: Journal) -> set[str | None]:
    return {each.reply.failure_kind for each in answered(journal) if each.reply}


def test_a_page_answers_a_whole_cluster(journal: Journal) -> None:
    """Each triple by its own item of the page, which is kept once."""
    load(journal, *range(300))
    atlas = Atlas([checkpoint(number) for number in reversed(range(400))])
    settled = collect(atlas, journal)

    assert len(settled) == 300
    assert (atlas.asked["list"], atlas.asked["get"]) == (1, 0)
    assert ways(journal) == {"list": 300}
    assert {each.attempts for each in answered(journal)} == {0}
    (page,) = [each for each in stored(journal) if each.purpose == "list"]
    results = json.loads(page.body)["results"]
    for each in answered(journal):
        assert each.reply == page
        assert each.item is not None
        assert results[each.item]["id"] == each.ref.checkpoint_id


def test_get_is_the_default(journal: Journal) -> None:
    load(journal, *range(30))
    atlas = Atlas([checkpoint(number) for number in range(30)])
    collect(atlas, journal, Asking().by)

    assert (atlas.asked["list"], ways(journal)) == (0, {"get": 30})


@pytest.mark.parametrize(("count", "way"), [(1081, "list"), (1080, "get")])
def test_auto_lists_where_the_bucket_would_be_waited_for(
    journal: Journal, count: int, way: str
) -> None:
    """1080 are nine tenths of the documented bucket; the limits are not told here."""
    load(journal, *range(count))
    collect(Atlas([checkpoint(number) for number in range(count)]), journal, FetchBy.AUTO)

    assert ways(journal) == {way: count}


def test_an_id_that_the_list_does_not_hold_is_asked_for_by_itself(journal: Journal) -> None:
    """Only its own answer may call it absent."""
    load(journal, *range(10))
    atlas = Atlas([checkpoint(number) for number in range(8)], single=lambda _: error(404))
    collect(atlas, journal)

    assert ways(journal) == {"list": 8, "get": 2}
    assert kinds(journal) == {None, K.CHECKPOINT_ABSENT}


@pytest.mark.parametrize(
    ("item", "way"),
    [
        (checkpoint(3), "list"),
        (checkpoint(3, parts=None, surprise=1), "list"),
        ({"id": ref(3).checkpoint_id}, "list"),
        (checkpoint(3, groupId=group(9)), "get"),
        (checkpoint(3, id=None), "get"),
        (ref(3).checkpoint_id, "get"),
        (None, "get"),
    ],
)
def test_what_a_page_shows_of_a_triple_must_be_about_it(
    journal: Journal, item: Any, way: str
) -> None:
    """How well it is documented is the rules' business, as with a single answer."""
    load(journal, 1, 2, 3)
    collect(Atlas([checkpoint(1), item, checkpoint(2)]), journal)

    assert [each.fetched_by for each in answered(journal)] == ["list", "list", way]


def test_a_single_triple_of_a_cluster_is_asked_for_by_itself(journal: Journal) -> None:
    load(journal, 7)
    atlas = Atlas([checkpoint(7)])
    collect(atlas, journal)

    assert (atlas.asked["list"], atlas.asked["get"]) == (0, 1)


def test_clusters_are_taken_one_at_a_time() -> None:
    def item(number: int, cluster: str) -> Item:
        return Item(number, type(ref())(group(1), cluster, f"{number:024x}"))

    queue = [item(1, "a"), item(2, "a"), item(3, "b"), item(4, "c"), item(5, "c")]

    assert [[each.triple_id for each in found] for found in clusters(iter(queue))] == [
        [1, 2],
        [4, 5],
    ]
    assert list(clusters(iter([]))) == []
    assert list(clusters(items(3))) == [items(3)]


@pytest.mark.parametrize(
    "answer",
    [
        error(404, "CLUSTER_NOT_FOUND"),
        error(400, "BACKUP_JOB_NOT_FOUND"),
        error(403),
        error(500),
        reply(200, {"results": "none"}),
        reply(200),
    ],
)
def test_a_list_that_fails_decides_nothing(journal: Journal, answer: Reply) -> None:
    """Not even an absence: each triple gets its own answer, as without lists."""
    load(journal, *range(20))
    atlas = Atlas([], page=lambda *_: answer)
    collect(atlas, journal)

    assert ways(journal) == {"get": 20}
    assert (atlas.asked["list"], atlas.asked["get"]) == (1, 20)


def test_a_page_that_is_refused_is_asked_again(journal: Journal) -> None:
    """A refusal is the bucket's business for a page, too."""
    load(journal, *range(20))
    listed = [checkpoint(number) for number in range(20)]
    atlas = Atlas(listed, page=lambda n, page: refused(retry_after="3") if n == 1 else page)
    collect(atlas, journal)

    assert (atlas.asked["list"], ways(journal)) == (2, {"list": 20})
    assert journal.tally().refusals == 1


def test_a_page_can_end_the_run(journal: Journal) -> None:
    load(journal, *range(20))
    listed = error(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST")
    with pytest.raises(CredentialsRefused):
        collect(Atlas([], page=lambda *_: listed), journal)

    assert {each.fetched_by for each in answered(journal)} == {"none"}


def test_a_resumed_run_lists_only_what_is_open(journal: Journal) -> None:
    load(journal, *range(20))
    listed = [checkpoint(number) for number in range(20)]
    down = Atlas(listed[:12], single=lambda _: error(500))
    collect(down, journal)
    assert ways(journal) == {"list": 12, "get": 8}
    again = Atlas(listed)
    collect(again, journal)

    assert (again.asked["list"], ways(journal)) == (1, {"list": 20})
    assert kinds(journal) == {None}


@given(
    listed=st.integers(0, 1300),
    wanted=st.lists(st.integers(0, 1299), min_size=2, max_size=60, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_lists_never_cost_more_than_twice_the_single_requests(
    tmp_path_factory: pytest.TempPathFactory, listed: int, wanted: list[int]
) -> None:
    """And every triple is answered, wherever in the list it is, or is not."""
    with Journal(tmp_path_factory.mktemp("sweep") / "a.journal") as journal:
        load(journal, *wanted)
        atlas = Atlas([checkpoint(number) for number in reversed(range(listed))])
        collect(atlas, journal)

        assert sum(ways(journal).values()) == len(wanted)
        assert kinds(journal) == {None}
        assert atlas.asked["list"] + atlas.asked["get"] <= 2 * len(wanted)


@given(gone=st.lists(st.integers(1, 700), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_list_that_shifts_while_it_is_read_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, gone: list[int]
) -> None:
    """Checkpoints at its head go while the pages are read; all are answered, nothing by chance."""
    listed = [checkpoint(number) for number in reversed(range(2000))]
    steps = iter(gone)

    def page(_: int, answer: Reply) -> Reply:
        del atlas.listed[: next(steps, 0)]
        return answer

    with Journal(tmp_path_factory.mktemp("sweep") / "a.journal") as journal:
        load(journal, *range(200))
        atlas = Atlas(listed, page=page)
        collect(atlas, journal)

        assert sum(ways(journal).values()) == 200
        assert kinds(journal) == {None}
        assert atlas.asked["get"] == ways(journal).get("get", 0)


def test_reading_on_ends_when_it_brings_nothing(journal: Journal) -> None:
    """Two are not in the list: two pages in a row without any are as dear as asking for them."""
    load(journal, *range(100), 8000, 9000)
    atlas = Atlas([checkpoint(number) for number in range(5000)])
    collect(atlas, journal)

    assert (atlas.asked["list"], atlas.asked["get"]) == (3, 2)


# ── several clusters and projects ────────────────────────────────────────────────────────────────


class Fleet:
    """Clusters of projects; `lists` says what a project's lists are answered, else they are good.

    Keeps the moments at which what was asked, by project.
    """

    def __init__(self, **lists: Reply) -> None:
        self.lists = {group(int(name[1:])): answer for name, answer in lists.items()}
        self.asked: dict[tuple[str, str], list[float]] = defaultdict(list)

    async def send(self, request: Request) -> Reply:
        await asyncio.sleep(0.1)
        path = urlsplit(request.path).path
        if "/backupCheckpoints" not in path:
            return error(403) if "rateLimits" in path else reply(200, {"results": []})
        _, _, rest = path.partition("/groups/")
        group_id, _, cluster, kind, *one = rest.split("/")
        self.asked[group_id, "get" if one else "list"].append(now())
        if one:
            return good(request)
        every = [{"id": of_cluster(cluster, n), "groupId": group_id, "parts": []} for n in range(9)]
        return self.lists.get(group_id) or reply(200, {"results": every if kind else []})


def of_cluster(cluster: str, number: int) -> str:
    return f"{int(cluster[1:]):012x}{number:012x}"


def load_clusters(journal: Journal, *projects: int, clusters: int = 12) -> None:
    """Nine triples of each of some clusters of some projects."""
    refs = [
        CheckpointRef(group(project), f"c{cluster}", of_cluster(f"c{cluster}", number))
        for project in projects
        for cluster in range(clusters)
        for number in range(9)
    ]
    journal.load_input(Triple(line, about, {}) for line, about in enumerate(refs, 1))


def sweep(fleet: Fleet, journal: Journal) -> None:
    run(Collector(fleet, journal, Asking(by=FetchBy.LIST), lambda _: None).run())


@pytest.mark.parametrize("answer", [error(503), error(403), error(401, "NOT_IN_GROUP")])
def test_lists_that_are_down_hold_nothing_against_the_single_requests(
    journal: Journal, answer: Reply
) -> None:
    """With many clusters and all the retries: the project is listed no further, and asked."""
    load_clusters(journal, 1)
    fleet = Fleet(p1=answer)
    sweep(fleet, journal)

    assert ways(journal) == {"get": 108}
    assert kinds(journal) == {None}
    assert len(fleet.asked[group(1), "list"]) <= 4 * Retry().attempts


@pytest.mark.parametrize("retry", [Retry(1), Retry()])
def test_a_list_goes_on_after_an_outage(journal: Journal, retry: Retry) -> None:
    """It was not its own: one by one, what is left would cost a hundred times the requests."""
    load(journal, *range(3000))

    class Leaving(Atlas):
        left = float("inf")

        async def send(self, request: Request) -> Reply:
            await asyncio.sleep(0.1)
            if self.asked["list"] == 3:
                self.left = min(self.left, now())
            if self.left <= now() < self.left + 20:
                return error(503)
            return await super().send(request)

    atlas = Leaving([checkpoint(number) for number in range(3000)])
    run(Collector(atlas, journal, Asking(retry=retry, by=FetchBy.LIST), lambda _: None).run())

    assert ways(journal) == {"list": 3000}


def test_a_project_whose_lists_are_waited_for_holds_up_no_other(journal: Journal) -> None:
    load_clusters(journal, 1, 2, 3)
    fleet = Fleet(p1=refused(retry_after="300"), p2=error(404, "CLUSTER_NOT_FOUND"))
    begun = 1000.0
    sweep(fleet, journal)

    assert max(fleet.asked[group(3), "list"]) < begun + 5
    assert len(fleet.asked[group(2), "get"]) == 108
    assert max(fleet.asked[group(2), "get"]) < begun + 30
    assert max(fleet.asked[group(1), "list"]) > begun + 300


def test_only_a_few_clusters_are_held_at_a_time(journal: Journal) -> None:
    """Their triples are in memory while their list is read."""
    load_clusters(journal, 1, clusters=40)
    held: list[int] = []

    class Counted(Sweeper):
        async def sweep(self, items: Sequence[Item]) -> None:
            held.append(held[-1] + 1 if held else 1)
            await super().sweep(items)
            held.append(held[-1] - 1)

    collector = Collector(Fleet(), journal, Asking(by=FetchBy.LIST), lambda _: None)
    collector._sweeper = Counted(collector._fetcher, collector._settle, collector._watch_list)
    run(collector.run())

    assert ways(journal) == {"list": 360}
    assert max(held) == 4


def test_limits_are_not_worth_asking_for_a_few_pages(journal: Journal) -> None:
    """150 triples are a page or two: a call about the limits would be as much again."""
    load(journal, *range(150))
    atlas = Atlas([checkpoint(number) for number in range(150)])
    collect(atlas, journal)

    assert {each.purpose for each in stored(journal)} == {"preliminary", "list"}
