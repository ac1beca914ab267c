"""A store that speaks the S3 protocol, on loopback, for tests: moto's server.

Starts of the program reach it as they would reach any other, by the environment. What a start is to
do at one of its requests is told by `AT`, and heard by the functions here that are called before.
"""

import os
import signal
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUCKET = "backups"

#: A blank and a percent sign are part of a name, and nothing else.
PREFIX = "audits of 100%/legacy"

ADDRESS = f"s3://{BUCKET}/{PREFIX}"

#: The variable that says at which of its writes a start is to be disturbed, from 1 on.
AT = "CHECKPOINT_AUDIT_TEST_AT"

#: The variable that holds what another machine writes.
POINTER = "CHECKPOINT_AUDIT_TEST_POINTER"


class Store:
    """The store: how to reach it, and what is in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.env = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-store",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }

    def empty(self) -> None:
        """Let there be one bucket, with nothing in it."""
        self._ask("POST", "/moto-api/reset")
        self._ask("PUT", f"/{BUCKET}")

    def lay(self, name: str, data: bytes, storage: str = "STANDARD") -> None:
        """Write an object, also one whose name or kind the client would refuse."""
        path = urllib.parse.quote(f"/{BUCKET}/{PREFIX}/{name}")
        self._ask("PUT", path, data, storage)

    def archive(self, name: str) -> None:
        """Let an object be there, and not be read before somebody restores it."""
        self.lay(name, self.read(name), "GLACIER")

    def _ask(self, method: str, path: str, data: bytes | None = None, storage: str = "") -> None:
        headers = {
            "Authorization": "AWS testing:unchecked",
            "Content-Type": "application/octet-stream",
        }
        if storage:
            headers["x-amz-storage-class"] = storage
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path, data, headers, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
            assert answer.status in {200, 204}

    @property
    def client(self) -> Any:
        from obstore.store import S3Store

        return S3Store(
            BUCKET,
            endpoint=self.url,
            access_key_id="testing",
            secret_access_key="testing",
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def names(self, folder: str = PREFIX) -> list[str]:
        """All objects in a folder, by their names in it."""
        found = [each["path"] for some in self.client.list(f"{folder}/") for each in some]
        return sorted(path.removeprefix(f"{folder}/") for path in found)

    def read(self, name: str) -> bytes:
        return bytes(self.client.get(f"{PREFIX}/{name}").bytes())

    def has(self, name: str) -> bool:
        return name in self.names()

    def copy_to(self, folder: Path) -> Path:
        """Lay all objects down as files."""
        for name in self.names():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(name))
        return folder


@contextmanager
def served() -> Iterator[Store]:
    # Here, because every start that something happens to imports this module.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()


# --- what happens to a start, at the write that `AT` names --------------------------------------


def _before_a_write(
    do: Callable[[Any], None], *, names: tuple[str, ...] = ("put", "replace")
) -> None:
    """Let `do` happen before one write of many, whichever way it is written."""
    from pipeline.objects import Objects

    count = 0

    def counting(plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(objects: Objects, *args: Any) -> Any:
            nonlocal count
            count += 1
            if count == int(os.environ[AT]):
                do(objects)
            return plain(objects, *args)

        return counted

    for name in names:
        setattr(Objects, name, counting(getattr(Objects, name)))


def killed() -> None:
    """SIGKILL before a write."""
    _before_a_write(lambda _: os.kill(os.getpid(), signal.SIGKILL))


def told_to_stop() -> None:
    """SIGTERM before a write, which goes on once it was heard."""
    import threading

    from pipeline.audit import Audit

    heard, stop = threading.Event(), Audit.stop

    def hearing(audit: Audit, number: int) -> None:
        stop(audit, number)
        heard.set()

    def tell(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wait(60)

    setattr(Audit, "stop", hearing)  # noqa: B010 - which mypy would have no method replaced
    _before_a_write(tell)


def impatient() -> None:
    """What the store refuses is asked for once only."""
    from pipeline import objects

    setattr(objects, "_RETRIES", 0)  # noqa: B010 - which mypy takes for a constant


def gone() -> None:
    """From one write on the store cannot be reached."""
    impatient()

    def go_away(objects: Any) -> None:
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        objects.__dict__.pop("_store")

    _before_a_write(go_away)


def without_a_manifest() -> None:
    """The store takes all but manifests."""
    from pipeline.errors import OutputsUnwritable
    from pipeline.objects import Objects

    plain = Objects.put

    def put(objects: Objects, name: str, content: bytes | Path) -> None:
        if name.endswith("/manifest.json"):
            raise OutputsUnwritable(f"{name} cannot be written: AccessDenied")
        plain(objects, name, content)

    setattr(Objects, "put", put)  # noqa: B010 - which mypy would have no method replaced


def overtaken() -> None:
    """Before the pointer is written, another machine writes it: what `POINTER` says."""

    def write(objects: Any) -> None:
        objects._store.put("current.json", os.environ[POINTER].encode())

    _before_a_write(write, names=("replace",))


def without_the_extra() -> None:
    """The package that speaks to stores is not installed."""
    import sys

    sys.modules["obstore"] = None  # type: ignore[assignment]


def without_conditions() -> None:
    """The store knows no conditions."""
    from obstore.exceptions import NotSupportedError
    from obstore.store import S3Store

    plain = S3Store.put

    def put(store: Any, *args: Any, mode: object = None, **kwargs: Any) -> Any:
        if mode is not None:
            raise NotSupportedError("Operation not supported")
        return plain(store, *args, **kwargs)

    setattr(S3Store, "put", put)  # noqa: B010 - a class of Rust's, which mypy takes for fixed
