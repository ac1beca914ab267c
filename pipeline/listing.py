"""Atlas's lists, read page by page: projects, a project's clusters, a cluster's checkpoints.

Pure, like `atlas`: a `Listing` says which page to ask for next and reads the answer; somebody else
sends. Pages go by number, `links` are never followed, and neither `totalCount` (an estimate) nor a
page that is shorter than asked for (a server may grant fewer items) says where a list ends.

A list can change while it is read. An item that goes moves all later ones towards the front, maybe
onto a page that was read before. Pages therefore overlap: each one is asked for so that it begins a
little before the end of what is known. A page that shows something known continues it without a
gap. One that does not has moved by more than the overlap: it is put aside and asked for again from
further back, if need be from the first. A page that shows known items only, and fewer than it could
hold, is the last.

**The guarantee.** An item that is in the list during the whole reading is found, whatever comes and
goes meanwhile; and no item is given twice. It holds as long as items that stay keep their order,
and the server leaves no more than a few of a page's items out. Where the list moves on and on, or
pages are too small to overlap, `Listing.failure` says that it could not be read whole.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from pipeline.atlas import Reply, Request, read_results
from pipeline.outcomes import Failure, FailureKind

#: Items in one page: the most that Atlas gives for one token.
PAGE_ITEMS = 500

#: One item in so many is asked for twice, so that pages overlap.
_OVERLAP_EVERY = 50

#: No server cuts a page as short as this: such a first page is the whole list.
_SURELY_WHOLE = 2

#: Pages in a row that bring the reading no further. Each doubles the overlap, so that a list that
#: has lost any number of items between two pages is met again within so many.
_PATIENCE = 20

_HTTP_OK = 200


def projects_request(number: int, items: int) -> Request:
    """Ask for one page of the projects that the credential sees. No project's bucket pays."""
    return Request(f"/api/atlas/v2/groups?{_paging(number, items)}")


def clusters_request(group_id: str, number: int, items: int) -> Request:
    """Ask for one page of a project's clusters. No bucket of its legacy backups pays."""
    return Request(f"{_group_path(group_id)}/clusters?{_paging(number, items)}")


def checkpoints_request(group_id: str, cluster_name: str, number: int, items: int) -> Request:
    """Ask for one page of a cluster's checkpoints. The project's bucket pays one token."""
    cluster = f"{_group_path(group_id)}/clusters/{quote(cluster_name, safe='')}"
    return Request(f"{cluster}/backupCheckpoints?{_paging(number, items)}", group_id=group_id)


def _group_path(group_id: str) -> str:
    return f"/api/atlas/v2/groups/{quote(group_id, safe='')}"


def _paging(number: int, items: int) -> str:
    return f"itemsPerPage={items}&pageNum={number}&includeCount=false"


class Entry(msgspec.Struct, frozen=True):
    """One item of a list.

    `index` counts from 0 in the `results` of the very reply that showed it, `raw` is its JSON as it
    stands there, `id` its own id in lower case; None where it has none.
    """

    index: int
    id: str | None
    raw: msgspec.Raw


class _Page(msgspec.Struct):
    results: list[msgspec.Raw]


class _Named(msgspec.Struct):
    id: str | None = None


_PAGE = msgspec.json.Decoder(_Page)
_NAMED = msgspec.json.Decoder(_Named)


def read_page(reply: Reply) -> tuple[Entry, ...] | Failure:
    """Read the reply to the request for one page; never raises."""
    if reply.trouble is None and reply.status == _HTTP_OK:
        try:
            results = _PAGE.decode(reply.body).results
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # what stands there instead is read below
        else:
            return tuple(Entry(index, _id(raw), raw) for index, raw in enumerate(results))
    found = read_results(reply)
    if isinstance(found, Failure):
        return found
    return Failure(FailureKind.UNREADABLE, reply.status, detail="no page of this API")


def _id(raw: msgspec.Raw) -> str | None:
    try:
        found = _NAMED.decode(raw).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.lower() if found else None


class Window(NamedTuple):
    """Which page to ask for: its number, from 1, of pages of so many items."""

    number: int
    items: int

    @property
    def start(self) -> int:
        """How many items of the list lie before it."""
        return (self.number - 1) * self.items

    @property
    def end(self) -> int:
        """How many items of the list lie before its end."""
        return self.number * self.items


_FIRST = Window(1, PAGE_ITEMS)


def _window(end: int, granted: int, overlap: int) -> Window:
    """Place the page that begins `overlap` items, or somewhat more, before `end`.

    `granted` is the most that a page is known to hold. Where no more than the overlap is known, it
    is the first page.
    """
    if overlap >= end:
        return _FIRST
    before = -(-(end - overlap) // granted)
    return Window(before + 1, (end - overlap) // before)


def _overlap(granted: int) -> int:
    return max(1, granted // _OVERLAP_EVERY)


def request_count(items: int) -> int:
    """How many requests it takes to read a list of so many items, if it holds still."""
    return page_count(items) + (items > _SURELY_WHOLE)


def page_count(items: int) -> int:
    """How many of these requests show something new: the last one mostly shows that it is whole."""
    granted = end = min(items, PAGE_ITEMS)
    count = 1
    while end < items:
        reached = _window(end, granted, _overlap(granted)).end
        end = min(items, max(reached, end + 1))  # a list too long to overlap is never cheap
        count += 1
    return count


class Listing:
    """One list while it is being read.

    Send `request` and hand the reply to `read`, until `request` is None. Then the list is read, or
    `failure` says why not. A reply that could not be read may be asked for again.
    """

    def __init__(self, page_request: Callable[[int, int], Request]) -> None:
        """`page_request` makes the request for a page of that number, with so many items."""
        self.failure: Failure | None = None
        self._page_request = page_request
        self._window: Window | None = _FIRST
        self._seen: set[str | bytes] = set()
        self._granted = PAGE_ITEMS
        self._end = 0
        self._gaps = 0
        self._idle = 0

    @classmethod
    def projects(cls) -> "Listing":
        """Read the projects that the credential sees."""
        return cls(projects_request)

    @classmethod
    def clusters(cls, group_id: str) -> "Listing":
        """Read a project's clusters."""
        return cls(partial(clusters_request, group_id))

    @classmethod
    def checkpoints(cls, group_id: str, cluster_name: str) -> "Listing":
        """Read a cluster's checkpoints."""
        return cls(partial(checkpoints_request, group_id, cluster_name))

    @property
    def request(self) -> Request | None:
        """What to ask next; None at the end."""
        return self._page_request(*self._window) if self._window is not None else None

    def read(self, reply: Reply) -> tuple[Entry, ...] | Failure:
        """Read the reply to `request`: the items that no reply has shown before.

        A failure is the reply's own and leaves the reading where it is.
        """
        page = read_page(reply)
        if isinstance(page, Failure) or self._window is None:
            return page
        keys = [entry.id or bytes(entry.raw) for entry in page]
        if self._window.number > 1 and self._seen.isdisjoint(keys):
            self._step_back()
            return ()
        new = self._unseen(page, keys)
        self._follow(self._window, len(page), is_new=bool(new))
        return new

    def _unseen(self, page: Sequence[Entry], keys: Sequence[str | bytes]) -> tuple[Entry, ...]:
        new = []
        for entry, key in zip(page, keys, strict=True):
            if key not in self._seen:
                self._seen.add(key)
                new.append(entry)
        return tuple(new)

    def _follow(self, window: Window, shown: int, *, is_new: bool) -> None:
        """Go on behind a page that continues what was known."""
        is_first = window.number == 1
        if shown <= _SURELY_WHOLE if is_first else not is_new and shown < window.items:
            self._window = None
            return
        if is_first:
            self._granted = min(shown, PAGE_ITEMS)
        self._end = window.start + shown
        self._gaps = 0
        self._idle = 0 if is_new else self._idle + 1
        self._place()
        if self._window is not None and self._window.end <= self._end:
            self._give_up(f"pages of {self._granted} items are too small to overlap")

    def _step_back(self) -> None:
        """Ask for the page again, from further back."""
        self._gaps += 1
        self._idle += 1
        self._place()

    def _place(self) -> None:
        self._window = _window(self._end, self._granted, _overlap(self._granted) << self._gaps)
        if self._idle > _PATIENCE:
            self._give_up(f"the last {self._idle} pages brought nothing new, nor its end")

    def _give_up(self, reason: str) -> None:
        self._window = None
        detail = f"the list could not be read whole: {reason}"
        self.failure = Failure(FailureKind.UNREADABLE, _HTTP_OK, detail=detail)
