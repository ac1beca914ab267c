"""Where a warehouse is: an address from the environment, which holds a password as a rule.

Never from the command line, and shown without the password: see `Address.shown`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pipeline.errors import ConfigurationWrong
from pipeline.variables import read_variable

VARIABLE = "CHECKPOINT_AUDIT_WAREHOUSE_URL"

_FORMS = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or duckdb:///PATH/FILE.duckdb"
_ESCAPED = f"write it as {_FORMS}, with %XX for what is special in a user name or password"

#: Hosts as libpq takes them: names, addresses, folders of sockets with %2F, several with commas.
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.~%-]*)(?::[0-9]*)?"

#: An address of which it is certain what is whose: libpq, and whoever wrote it, may each have taken
#: a sign in a password for the end of it, and what follows would be shown as a host or a database.
_POSTGRESQL = re.compile(
    r"(?P<scheme>\w+)://(?:[^@/?#:]*(?::(?P<password>[^@/?#]*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<database>[^@?#]*))?(?:\?(?P<query>[^@#]*))?",
    re.ASCII,
)

#: What is secret among libpq's parameters.
_SECRET = ("password", "sslpassword", "oauth_client_secret")

_OTHERS = "for other warehouses, `checkpoint-audit schema --dialect NAME` prints what to run there"


@dataclass(frozen=True, slots=True)
class Address:
    """A warehouse's address.

    `target` is what to connect to: a URL of PostgreSQL as it was given, or the path of a DuckDB
    file. `shown` says where that is, and may be shown.
    """

    scheme: str
    target: str = field(repr=False)
    shown: str
    secrets: tuple[str, ...] = field(repr=False)


def read_address(environ: Mapping[str, str]) -> Address:
    """Find the address in `CHECKPOINT_AUDIT_WAREHOUSE_URL`, or in the file that `…_FILE` names.

    Raises `ConfigurationWrong` where there is none or it cannot be used, never repeating it, and
    `CredentialsRefused` for a file that must not be used.
    """
    found = read_variable((VARIABLE,), environ)
    if found is None:
        raise ConfigurationWrong(
            f"no warehouse is named: {VARIABLE} is not set",
            hint=f"set it to {_FORMS}, or {VARIABLE}_FILE to a file that holds it",
        )
    variable, text = found
    parts = _split(variable, text)
    if parts.scheme == "duckdb":
        return _duckdb(variable, parts)
    if parts.scheme in {"postgresql", "postgres"}:
        return _postgresql(variable, text)
    # What stands before the colon may be a part of a password that was pasted alone.
    raise ConfigurationWrong(
        f"{variable} is no address of a warehouse that can be loaded into",
        hint=f"write it as {_FORMS}; {_OTHERS}",
    )


def _split(variable: str, text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        # Without the error it came from, which repeats parts of the address.
        raise ConfigurationWrong(
            f"{variable} is not an address",
            hint=_ESCAPED,
        ) from None


def _duckdb(variable: str, parts: SplitResult) -> Address:
    path = unquote(parts.path)
    # What DuckDB calls :memory: is no file, and would be gone in the end.
    is_whole = path.startswith("/") and path.strip("/") and not path.startswith("/:memory:")
    if parts.netloc or parts.query or parts.fragment or not is_whole:
        raise ConfigurationWrong(
            f"{variable} does not name a DuckDB file by its whole path",
            hint="write it as duckdb:///PATH/FILE.duckdb, with three slashes",
        )
    path = "/" + path.lstrip("/")
    return Address("duckdb", path, f"DuckDB {path}", ())


def _postgresql(variable: str, text: str) -> Address:
    """Leave what it means to PostgreSQL's own library; here only what may be shown is taken out."""
    parts = _POSTGRESQL.fullmatch(text)
    if parts is None:
        raise ConfigurationWrong(
            f"{variable} is no address of PostgreSQL in which user, password and host can be told "
            "apart",
            hint=_ESCAPED,
        )
    told = dict(parse_qsl(parts["query"] or ""))
    hosts = parts["hosts"] or told.get("host", "") or "the default host"
    database = unquote(parts["database"] or "") or told.get("dbname", "") or "the default database"
    password = parts["password"] or ""
    # libpq knows the scheme in small letters only.
    target = parts["scheme"].lower() + text.removeprefix(parts["scheme"])
    hidden = (text, target, password, unquote(password), *map(told.get, _SECRET))
    secrets = tuple(dict.fromkeys(secret for secret in hidden if secret))
    return Address("postgresql", target, f"PostgreSQL {hosts}/{database}", secrets)
