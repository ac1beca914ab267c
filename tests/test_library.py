"""The flattening as a library, as the README shows it, and what importing the package costs."""

import doctest
import subprocess
import sys

import pipeline
from pipeline import CheckpointRef, flatten

REF = CheckpointRef("5f1e8a7c9b3d2e4f6a8b0c1d", "orders", "6655a0f1c2d3e4f5a6b7c8d9")


def test_doctest() -> None:
    """The example in the package's own words runs."""
    assert doctest.testmod(pipeline).failed == 0
    assert doctest.testmod(pipeline).attempted == 3


def test_nothing_is_dropped() -> None:
    """A body that holds no checkpoint is a row of `failures`."""
    frames = flatten([(REF, b'{"restorable": true, "parts": [{}]}'), (REF, b"<html>")])

    assert len(frames.checkpoints) == len(frames.parts) == len(frames.failures) == 1
    assert frames.failures["kind"].tolist() == ["unreadable"]


def test_import_is_light() -> None:
    """`--help` must not wait for pandas: they are imported where they are used."""
    code = "import sys, pipeline.cli; print({'pandas', 'pyarrow', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_a_run_imports_no_pandas() -> None:
    """pyarrow imports pandas with the first value that is made, unless `only_write` was there."""
    code = "import sys, pipeline.audit, pipeline.warehouse.load; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
