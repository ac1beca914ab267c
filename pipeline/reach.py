"""How a command reaches Atlas: where it is, as whom, and through what."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from pipeline import __version__
from pipeline.auth import Credentials, authentication
from pipeline.transport import Connection, HttpTransport, connect


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is needed to send requests.

    `command` is what the server is told as the reason; `reread` reads the credentials again;
    `timeout` is in seconds, for a whole request.
    """

    command: str
    base_url: str
    credentials: Credentials
    reread: Callable[[], Credentials] | None = None
    timeout: float = 30.0
    ca_file: Path | None = None
    proxy: str | None = None


@asynccontextmanager
async def reached(reach: Reach) -> AsyncIterator[HttpTransport]:
    """Open a session for as long as the context lasts; tokens are given back at its end."""
    connection = Connection(
        reach.base_url,
        f"checkpoint-audit/{__version__} ({reach.command})",
        timeout=reach.timeout,
        ca_file=reach.ca_file,
        proxy=reach.proxy,
    )
    who = authentication(reach.credentials, reach.base_url, reread=reach.reread)
    async with connect(connection, who) as transport:
        yield transport
