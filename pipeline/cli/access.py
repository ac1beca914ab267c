"""Before Atlas is asked: what is said and hidden, the credentials, the way there."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.options import LogFormat

if TYPE_CHECKING:
    from pipeline.auth import Credentials
    from pipeline.reach import Reach

log = logging.getLogger("pipeline")


def set_up_talk(log_format: LogFormat, *, quiet: bool) -> None:
    """Begin to talk; what secrets the environment holds is known before anything is said."""
    from pipeline import talk
    from pipeline.auth import secrets_in
    from pipeline.objects import SECRETS

    talk.set_up(log_format=log_format, quiet=quiet)
    of_store = filter(None, map(os.environ.get, SECRETS))
    for secret in (*secrets_in(os.environ), *of_store):
        talk.hide(secret)


def credentials_by(read: "Callable[[], Credentials]") -> "Credentials":
    """Read the credentials; their secret is hidden from then on."""
    from pipeline import talk

    credentials = read()
    talk.hide(credentials.secret)
    return credentials


def reach_for(command: str, base_url: str, ca_file: Path | None, timeout: float) -> "Reach":
    """Find the way to Atlas for `command`, as the options and the environment say."""
    from pipeline.auth import read_credentials
    from pipeline.reach import Reach
    from pipeline.transport import proxy_for, read_base_url

    def read() -> "Credentials":
        return credentials_by(lambda: read_credentials(os.environ))

    address = read_base_url(base_url)
    reach = Reach(
        command=command,
        base_url=address,
        credentials=read(),
        reread=read,
        timeout=timeout,
        ca_file=ca_file,
        proxy=proxy_for(address, os.environ),
    )
    log.info("asking %s as %s %s", address, reach.credentials.kind, reach.credentials.id)
    return reach
