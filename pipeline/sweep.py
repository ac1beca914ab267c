"""A cluster's triples, answered from its list: up to 500 of them for one request.

What a page shows for a triple answers it if that is a checkpoint about it. Nothing else is decided
here. A triple that the list does not hold, or shows as something that cannot be read, stays open
and is asked for by itself, as are all of a cluster that cannot be listed: so no absence and no
failure is ever concluded from a list. A project whose list fails for no reason of one cluster is
listed no further.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import groupby

from pipeline.atlas import read_item
from pipeline.fetch import Asked, Fetcher, Item, Question
from pipeline.listing import Entry, Listing
from pipeline.outcomes import Failure, FailureKind, Fetched

Settle = Callable[[Item, Fetched], Awaitable[None]]
Watch = Callable[[Item, Failure], Awaitable[bool]]

#: What one cluster's list may be answered while the lists of its project's others are fine.
_OF_ONE_CLUSTER = frozenset(
    {
        FailureKind.BACKUPS_ABSENT,
        FailureKind.CHECKPOINT_ABSENT,
        FailureKind.CLUSTER_NOT_FOUND,
        FailureKind.NOT_FOUND,
        FailureKind.TOO_LARGE,
        FailureKind.UNREADABLE,
    }
)

#: A single triple is asked for by itself just as cheaply.
_FEWEST = 2


def clusters(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Take a project's items, which are in key order, a cluster at a time; single ones stay out."""
    for _, cluster in groupby(items, key=lambda item: item.ref.cluster_name):
        together = list(cluster)
        if len(together) >= _FEWEST:
            yield together


class Sweeper:
    """Answers what it can from lists."""

    def __init__(self, fetcher: Fetcher, settle: Settle, watch: Watch) -> None:
        """`settle` gets every triple that a page answers; `watch` sees a page that failed.

        It gives whether all of Atlas was away, and is back: then the page is asked for again.
        """
        self._fetcher = fetcher
        self._settle = settle
        self._watch = watch
        self._given_up: set[str] = set()

    async def sweep(self, items: Sequence[Item]) -> None:
        """Read the list of one cluster until its `items` are answered, or it ends, or costs more.

        It costs more once as many pages were read as there are items, or as many in a row answered
        none as are still open. So the worst case is twice the requests of single ones.
        """
        if items[0].ref.group_id in self._given_up:
            return
        wanted = {item.ref.checkpoint_id: item for item in items}
        listing = Listing.checkpoints(items[0].ref.group_id, items[0].ref.cluster_name)
        pages = idle = 0
        while (
            pages < len(items) and idle < len(wanted) and (request := listing.request) is not None
        ):
            question = Question(request, "list", listing.read, items[0].ref.group_id)
            asked = await self._fetcher.send(question)
            if isinstance(asked.answer, Failure):
                if await self._watch(items[0], asked.answer):
                    continue
                if asked.answer.kind not in _OF_ONE_CLUSTER:
                    self._given_up.add(items[0].ref.group_id)
                return
            open_before, pages = len(wanted), pages + 1
            await self._answer(wanted, asked.answer, asked)
            idle = idle + 1 if len(wanted) == open_before else 0

    async def _answer(
        self, wanted: dict[str, Item], page: Sequence[Entry], asked: Asked[tuple[Entry, ...]]
    ) -> None:
        for entry in page:
            item = wanted.get(entry.id or "")
            if item is None or asked.reply_id is None:
                continue
            checkpoint = read_item(item.ref, bytes(entry.raw))
            if checkpoint is not None:
                del wanted[item.ref.checkpoint_id]
                found = Fetched(checkpoint, asked.reply_id, item.attempts, entry.index)
                await self._settle(item, found)
