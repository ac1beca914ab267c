"""Audit of MongoDB Atlas legacy backup checkpoints.

The command is `checkpoint-audit`. As a library, `flatten` turns replies of the API into pandas
frames of checkpoints and their parts:

>>> from pipeline import CheckpointRef, flatten
>>> ref = CheckpointRef("5f" * 12, "orders", "5e" * 12)
>>> flatten([(ref, b'{"restorable": true, "parts": []}')]).checkpoints["restorable"].tolist()
[True]
"""

from typing import TYPE_CHECKING, Any

from pipeline.checkpoints import CheckpointRef

if TYPE_CHECKING:
    from pipeline.atlas import Reply
    from pipeline.tables import Frames, flatten

__version__ = "0.2.0.dev0"
__all__ = ["CheckpointRef", "Frames", "Reply", "__version__", "flatten"]


def __getattr__(name: str) -> Any:
    """Import what needs pyarrow and pandas only when it is used."""
    if name in ("Frames", "flatten"):
        from pipeline import tables

        return getattr(tables, name)
    if name == "Reply":
        from pipeline.atlas import Reply

        return Reply
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
