"""How far a run is."""

import sys

import pytest

from pipeline import progress


def test_no_bar_among_lines_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    assert type(progress.watcher(no_progress=False, quiet=False)) is progress.Bar
    assert (
        type(progress.watcher(no_progress=False, quiet=False, log_format="json")) is progress.Lines
    )
