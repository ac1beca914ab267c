"""What replies say of the whole run, beside what each says of its triple."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from pipeline.durations import in_units
from pipeline.journal import StoredReply
from pipeline.outcomes import moment
from pipeline.rules.listed import CLOCK_TOLERANCE

#: Headers by which Atlas announces that the operation will go.
_ANNOUNCEMENTS = ("deprecation", "sunset")


def announcements(stored: StoredReply) -> Iterator[str]:
    """Say what a good answer announces about the operation, with its date."""
    if stored.failure_kind is not None:
        return
    for header in _ANNOUNCEMENTS:
        if header in stored.headers and (said := stored.reply().headers.get(header)):
            yield f"Atlas announces {header} of this operation: {said}"


class Clocks:
    """Whether Atlas's clock and this machine's are apart.

    By this machine's clock ages are counted, and by it times lie in the future. The first reply
    that says when it was answered stands for all.
    """

    def __init__(self) -> None:
        self._first: StoredReply | None = None
        self._told: datetime | None = None

    def see(self, replies: Iterable[StoredReply]) -> None:
        """Look at some replies, in the order of the evidence."""
        if self._told is None:
            self._first = next((stored for stored in replies if _date_of(stored)), None)
            self._told = _date_of(self._first) if self._first is not None else None

    @property
    def notice(self) -> str:
        """Say that they are apart; empty where they are not, or nothing is known."""
        if self._first is None or self._told is None:
            return ""
        apart = moment(self._first.received_at) - self._told
        if abs(apart) <= CLOCK_TOLERANCE:
            return ""
        way = "ahead of" if apart > timedelta() else "behind"
        about = in_units(timedelta(minutes=round(abs(apart) / timedelta(minutes=1))))
        return (
            f"This machine's clock was {about} {way} Atlas's when reply {self._first.reply_id} "
            "arrived: ages, and what lies in the future, are judged by this machine's."
        )


def _date_of(stored: StoredReply) -> datetime | None:
    """When Atlas says that it answered, in whole seconds; None where it does not say."""
    try:
        told = parsedate_to_datetime(stored.reply().headers.get("date", ""))
    except (ValueError, OverflowError):
        return None
    return told if told.tzinfo is not None else None
