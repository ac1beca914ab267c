"""Secrets from environment variables, or from files that variables name."""

import logging
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigurationWrong, CredentialsRefused

log = logging.getLogger(__name__)


def read_variable(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Give (variable, value) of a secret that goes by several names; None if it is not set.

    Each name may end in _FILE, too, and then names a file. Raises `CredentialsRefused` for a file
    that must not be used or a value that holds blanks or quotes, and `ConfigurationWrong` where two
    are set and differ.
    """
    given = [
        (variable, value)
        for name in names
        for variable, value in (
            (name, environ.get(name, "").strip()),
            _from_file(f"{name}_FILE", environ),
        )
        if value
    ]
    if not given:
        return None
    variable, value = given[0]
    differing = [other for other, its_value in given if its_value != value]
    if differing:
        raise ConfigurationWrong(
            f"{variable} and {differing[0]} are both set and differ", hint="unset one of them"
        )
    if not SECRET.fullmatch(value):
        raise CredentialsRefused(
            f"{variable} holds characters that no credential has",
            hint="look for line breaks, quotes or blanks that were pasted along",
        )
    return variable, value


#: What a secret looks like: no blanks, no line breaks, no quotes around it.
SECRET = re.compile(r"(?!(['\"]).*\1$)[!-~]+")


def _from_file(variable: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name = environ.get(variable)
    if not name:
        return variable, ""
    path = Path(name)
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        # The name is not repeated: who confuses the two variables has put the secret there.
        raise CredentialsRefused(
            f"{variable} names a file that cannot be read: {reason}",
            hint="check the path and the permissions",
        ) from None
    _check_mode(variable, path, mode)
    if not text.strip():
        raise CredentialsRefused(f"{variable} names {name}, which is empty", hint="fill the file")
    return variable, text.strip()


def _check_mode(variable: str, path: Path, mode: int) -> None:
    if mode & stat.S_IROTH:
        raise CredentialsRefused(
            f"{variable} names {path}, which every user of this machine can read",
            hint=f"chmod 600 {path}, and renew the secret if the machine has other users",
        )
    if mode & stat.S_IRGRP:
        log.warning("%s names %s, which its group can read", variable, path)
