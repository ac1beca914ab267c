"""A process that has the program imported and forks a child for each start of it.

A start costs hundredths of a second so, and thousands of them can be walked through. Requests and
answers are lines of JSON on standard input and output; a request's child has the standard streams,
the arguments and the environment that the request names, and its fault (see `faultpoints`).

    {"args": […], "env": {…}, "folder": "…", "fault": [lane, number, mode] | null, "set_up": […]}
    {"pid": …}       as soon as it is started
    {"status": …}    as os.waitpid gives it, when it has ended
"""

import faulthandler
import gc
import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import AuditError
from tests import faultpoints

#: What a start may take. Seconds.
_PATIENCE_S = 300


def _import_all() -> None:
    """Import what a start imports on its way."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in (
        *("pipeline.__main__", "pipeline.cli", "pipeline.audit", "pipeline.talk"),
        *("pipeline.stopping", "pipeline.transport", "pipeline.report", "pipeline.reach"),
        *("pyarrow.compute", "pyarrow.dataset", "pyarrow.acero"),
        *("concurrent.futures.thread", "gzip", "uvloop", "pwd", "encodings.idna"),
        # Where the functions are that a request has called before its start; they import a server.
        "tests.nights",
    ):
        importlib.import_module(name)
    pages = importlib.import_module("pipeline.report.pages")
    pages._environment(pages._quoted).get_template("report.md")
    pages._environment(pages.visible).get_template("report.html")
    # What reads the command line imports more when it has one to read.
    app = importlib.import_module("pipeline.cli").app
    with suppress(AuditError):
        app(["run", "-", "--audit-name", "NO NAME"], standalone_mode=False)


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _start(request)
        _say(pid=child)
        _, status = os.waitpid(child, 0)
        _say(status=status)


def _say(**what: int) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _start(request: dict[str, Any]) -> NoReturn:
    """Be the program; never returns into the loop of the zygote."""
    code = 1
    try:
        code = _run(request)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # At once: to take a large process down properly takes longer than the whole start, and
        # nothing of the program is left to be done.
        os._exit(code)


def _run(request: dict[str, Any]) -> int:
    folder = Path(request["folder"])
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(folder / name, flags), descriptor)
    log = os.open(folder / "points", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.environ.clear()
    os.environ.update(request["env"])
    # One that waits for ever says where, and ends.
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True, file=2)
    sys.argv = ["checkpoint-audit", *request["args"]]
    for place in request["set_up"]:
        module, _, name = place.partition(":")
        getattr(importlib.import_module(module), name)()
    fault = request["fault"]
    faultpoints.install(log, faultpoints.Fault(*fault) if fault else None)
    main = importlib.import_module("pipeline.__main__").main
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 1


if __name__ == "__main__":
    _import_all()
    gc.freeze()  # or each child would copy all pages that the collector writes marks to
    _serve()
