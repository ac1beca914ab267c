"""Why a run is not loaded: what is there already is better, or it is no night's work of its own."""

from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from urllib.parse import urlsplit

import msgspec

from pipeline.addresses import is_loopback
from pipeline.published import Manifest

#: A run with fewer triples than this share of the loaded one's has lost too many.
_LEAST_SHARE = Fraction(4, 5)


class Slice(msgspec.Struct, frozen=True):
    """What a run says of itself in its row of `runs`. `started_at` is aware."""

    run_id: str
    started_at: datetime
    triple_count: int
    inconclusive_count: int


def refusals(manifest: Manifest, new: Slice, loaded: Slice | None) -> list[str]:
    """Say why `new` should not take the place of `loaded`, which its slice holds now, if any.

    The run that is there already is never refused.
    """
    if loaded is not None and loaded.run_id == new.run_id:
        return []
    return [*_of_itself(manifest), *(_compared(new, loaded) if loaded is not None else ())]


def _of_itself(manifest: Manifest) -> Iterator[str]:
    if manifest.judged_anew is not None:
        yield (
            f"it is {manifest.judged_anew.of.run_id} judged anew under another policy, and no "
            "audit of its own"
        )
    host = urlsplit(manifest.base_url).hostname or ""
    if is_loopback(host):
        yield f"it was made from a loopback address, {manifest.base_url}, and not from Atlas"


def _compared(new: Slice, loaded: Slice) -> Iterator[str]:
    if new.started_at < loaded.started_at:
        yield (
            f"it began at {_time(new.started_at)}, before {loaded.run_id}, which is loaded and "
            f"began at {_time(loaded.started_at)}"
        )
    if new.triple_count < _LEAST_SHARE * loaded.triple_count:
        yield (
            f"it has {new.triple_count:,} triples, over a fifth fewer than the "
            f"{loaded.triple_count:,} of {loaded.run_id}, which is loaded"
        )
    if new.inconclusive_count > loaded.inconclusive_count:
        yield (
            f"it has {new.inconclusive_count:,} inconclusive triples, more than the "
            f"{loaded.inconclusive_count:,} of {loaded.run_id}, which is loaded"
        )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
