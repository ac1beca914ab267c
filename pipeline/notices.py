"""What replies say of the whole run, beside what each says of its triple."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice

from pipeline.durations import in_units
from pipeline.journal import StoredReply
from pipeline.outcomes import moment
from pipeline.rules.listed import CLOCK_TOLERANCE

#: Headers by which Atlas announces that the operation will go.
_ANNOUNCEMENTS = ("deprecation", "sunset")

#: Replies among which one with a date is looked for.
_LOOKED_AT = 10


def announcements(stored: StoredReply) -> Iterator[str]:
    """Say what a good answer announces about the operation, with its date."""
    if stored.failure_kind is not None:
        return
    for header in _ANNOUNCEMENTS:
        if header in stored.headers and (said := stored.reply().headers.get(header)):
            yield f"Atlas announces {header} of this operation: {said}"


def clocks_apart(replies: Sequence[StoredReply]) -> str:
    """Say that Atlas's clock and this machine's are apart; empty where they are not.

    One of the first few that says when it was answered stands for all. By this machine's clock
    ages are counted, and by it times lie in the future.
    """
    dated = ((stored, _date_of(stored)) for stored in islice(replies, _LOOKED_AT))
    stored, told = next(((stored, told) for stored, told in dated if told), (None, None))
    if stored is None or told is None:
        return ""
    apart = moment(stored.received_at) - told
    if abs(apart) <= CLOCK_TOLERANCE:
        return ""
    way = "ahead of" if apart > timedelta() else "behind"
    about = in_units(timedelta(minutes=round(abs(apart) / timedelta(minutes=1))))
    return (
        f"This machine's clock was {about} {way} Atlas's when reply {stored.reply_id} arrived: "
        "ages, and what lies in the future, are judged by this machine's."
    )


def _date_of(stored: StoredReply) -> datetime | None:
    """When Atlas says that it answered, in whole seconds; None where it does not say."""
    try:
        told = parsedate_to_datetime(stored.reply().headers.get("date", ""))
    except ValueError:
        return None
    return told if told.tzinfo is not None else None
