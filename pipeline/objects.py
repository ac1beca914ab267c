"""Objects below one address of a store that speaks the S3 protocol: read, written, listed, removed.

obstore does the talking, and takes credentials, region and endpoint from the environment. What it
raises is told here in the words of `errors`, by S3's own error code; its texts hold addresses and
ids of requests, and are not repeated. What is called an object's name is its key below the address.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.addresses import is_loopback, scheme_and_host
from pipeline.errors import AuditError, ConfigurationWrong, InputMissing, OutputsUnwritable

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Store

log = logging.getLogger(__name__)

SCHEME = "s3://"

#: Variables whose values no line may show.
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")

#: Where a variable can name the endpoint; the first that is set holds.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

#: Bounds on what is asked: for a connection, for more of an answer, and for all of one. A large
#: object over a slow line may take its time.
_PATIENCE = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "15min"}

#: A request is tried again so often, and for so long: with these waits, which have chance in them,
#: for ten to thirty seconds where it is refused at once, as long as it takes a store to start anew.
_RETRIES, _RETRIED = 10, timedelta(minutes=1)
_WAITS = {
    "init_backoff": timedelta(milliseconds=500),
    "max_backoff": timedelta(seconds=4),
    "base": 2,
}

#: Parts of a large object that are sent at once, of 5 MiB each.
_PARTS_AT_ONCE = 4

#: What is in memory at a time of an object that is read. Bytes.
_CHUNK = 1024 * 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Found(NamedTuple):
    """A small object, and the tag by which the store knows its version, if it tells one."""

    data: bytes
    tag: str | None


class Objects:
    """The objects below an address.

    Methods that read raise `InputMissing`, or what `refused` names; those that write raise
    `OutputsUnwritable`.
    """

    def __init__(self, address: str, refused: type[AuditError] = InputMissing) -> None:
        """`address` is s3://BUCKET or s3://BUCKET/PREFIX; raises `ConfigurationWrong`."""
        self.bucket, self._prefix = _parts(address)
        self.address = f"{SCHEME}{'/'.join(filter(None, (self.bucket, self._prefix)))}"
        self._refused = refused
        self._is_conditional = True

    def __str__(self) -> str:
        return self.address

    def within(self, folder: str, refused: type[AuditError] | None = None) -> "Objects":
        """Give the objects below a folder of these."""
        return Objects(f"{self.address}/{folder}", refused or self._refused)

    @cached_property
    def here(self) -> Path:
        """A folder of this machine to read them in; it goes when the process ends."""
        self._kept = tempfile.TemporaryDirectory(prefix="checkpoint-audit-")
        return Path(os.path.realpath(self._kept.name))

    @cached_property
    def _store(self) -> "S3Store":
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise ConfigurationWrong(
                f"{self.address} needs a package that is not installed: {error}",
                hint="pip install 'atlas-checkpoint-audit[s3]'",
            ) from error
        # Said in full: what the environment has on plain http and on certificates is not heard.
        client: Any = {
            **_PATIENCE,
            "allow_http": is_plain(os.environ),
            "allow_invalid_certificates": False,
        }
        retries: Any = {
            "max_retries": _RETRIES,
            "retry_timeout": _RETRIED,
            "backoff": _WAITS,
        }
        with self._told(ConfigurationWrong, "be reached"):
            return S3Store(
                self.bucket,
                prefix=self._prefix or None,
                client_options=client,
                retry_config=retries,
            )

    # --- reading ---

    def get(self, name: str) -> Found | None:
        """Read a small object; None where there is none."""
        with self._reading(name):
            found = self._opened(name)
            return Found(bytes(found.bytes()), found.meta["e_tag"]) if found is not None else None

    def _opened(self, name: str) -> "GetResult | None":
        try:
            return self._store.get(name)
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return None

    def has(self, name: str) -> bool:
        """Whether there is such an object, whether or not it can be read."""
        with self._reading(name):
            try:
                self._store.head(name)
            except FileNotFoundError:
                return False
            return True

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object to a file, which is there when all of it is; False where there is none."""
        with self._reading(name):
            found = self._opened(name)
        if found is None:
            return False
        part = path.with_name(f"{path.name}.part")
        with saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                for chunk in self._chunks(name, found):
                    file.write(chunk)
            part.replace(path)
        return True

    def _chunks(self, name: str, found: "GetResult") -> Iterator[memoryview]:
        stream = iter(found.stream(min_chunk_size=_CHUNK))
        while True:
            with self._reading(name):
                chunk = next(stream, None)
            if chunk is None:
                return
            yield memoryview(chunk)

    def sizes(self, folder: str) -> dict[str, int]:
        """List all objects below a folder: their names below the address, and bytes.

        Where one has a name that no file can have, nothing is listed, and `is_about_a_name` knows
        what is raised. A "folder" that somebody made there is listed without its last `/`.
        """
        with self._reading(folder):
            found = self._store.list(f"{folder}/" if folder else None)
            return {each["path"]: each["size"] for some in found for each in some}

    def names(self, folder: str) -> list[str]:
        """List all objects below a folder, by their names; raises as `sizes` does."""
        return sorted(self.sizes(folder))

    def folders(self, folder: str = "") -> list[str]:
        """List the folders in a folder, by their own names."""
        with self._reading(folder):
            found = self._store.list_with_delimiter(f"{folder}/" if folder else None)
            return sorted(path.rsplit("/", 1)[-1] for path in found["common_prefixes"])

    # --- writing ---

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object whole, in place of what may be there. Large files go in parts."""
        with self._told(OutputsUnwritable, "be written", name):
            self._store.put(name, content, max_concurrency=_PARTS_AT_ONCE)

    def replace(self, name: str, content: bytes, known: Found | None) -> bool:
        """Write an object if it still is the one that is `known`; None: if there is none.

        False where it is another one by now. A store that has no such condition is written to
        without, and that is said.
        """
        if known is not None and known.tag is None:
            self._be_plain(name)
        if not self._is_conditional:
            self.put(name, content)
            return True
        with self._told(OutputsUnwritable, "be written", name):
            try:
                self._store.put(name, content, mode="create" if known is None else _version(known))
            except _conflicts():
                return False
            except _base_error() as error:
                if code_of(error) == "ConditionalRequestConflict":
                    return False
                if not _lacks_conditions(error):
                    raise
                self._be_plain(name)
            else:
                return True
        return self.replace(name, content, known)

    def _be_plain(self, name: str) -> None:
        """Write without conditions from now on, and say so once."""
        if self._is_conditional:
            log.warning(
                "%s/%s is written without a condition, as the store knows none: "
                "let no two machines publish one audit at the same time",
                self.address,
                name,
            )
        self._is_conditional = False

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; that one is gone already is no trouble."""
        with self._told(OutputsUnwritable, "be removed", *names[:1]):
            self._store.delete(list(names))

    # --- trouble ---

    def _reading(self, name: str) -> Any:
        return self._told(self._refused, "be read", name)

    @contextmanager
    def _told(self, kind: type[AuditError], what: str, *name: str) -> Iterator[None]:
        """Tell what the store raises as an error of ours."""
        try:
            yield
        except AuditError:  # told already
            raise
        except (_base_error(), OSError, ValueError) as error:
            where = "/".join(filter(None, (self.address, *name)))
            code = code_of(error)
            raise kind(f"{where} cannot {what}: {code}", hint=_hint(code)) from error


def _parts(address: str) -> tuple[str, str]:
    bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
    prefix = prefix.rstrip("/")
    steps = prefix.split("/") if prefix else []
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationWrong(f"{address!r} names no bucket", hint=_FORM)
    if any(step in {"", ".", ".."} for step in steps) or not prefix.isprintable():
        raise ConfigurationWrong(f"{address!r} has a prefix that no path can have", hint=_FORM)
    return bucket, prefix


_FORM = "write it as s3://BUCKET/PREFIX; a bucket has 3 to 63 of a-z, 0-9, - and ."


def is_plain(environ: Mapping[str, str]) -> bool:
    """Whether the endpoint that the environment names is plain http, on loopback.

    Raises `ConfigurationWrong` for plain http to anywhere else, and for what is no address; that
    is not repeated, as it may hold a secret.
    """
    name = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if name is None:
        return False
    address = environ[name]
    scheme, host = scheme_and_host(address)
    if not host or scheme not in {"http", "https"} or any(mark in address for mark in "@?#"):
        raise ConfigurationWrong(
            f"{name} is not an address of the form https://host", hint="see docs/object-storage.md"
        )
    if scheme == "http" and not is_loopback(host):
        raise ConfigurationWrong(
            f"{name} names plain http, which would show the data to the network",
            hint="use https; http is for 127.0.0.1, ::1 and localhost alone",
        )
    return scheme == "http"


def _version(known: Found) -> Any:
    """What a version is to obstore; it takes no None for the part that S3 has not."""
    return {"e_tag": known.tag}


def _base_error() -> type[Exception]:
    from obstore.exceptions import BaseError

    return BaseError


def _conflicts() -> tuple[type[Exception], ...]:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    return AlreadyExistsError, PreconditionError


def _lacks_conditions(error: Exception) -> bool:
    from obstore.exceptions import NotSupportedError

    return isinstance(error, NotSupportedError) or code_of(error) == "NotImplemented"


def code_of(error: BaseException) -> str:
    """Say in a word or a few what an error is: by S3's code where it has one."""
    text = str(error)
    if found := re.search(r"<Code>(\w+)</Code>", text):
        return found[1]
    if found := _NAMED.search(text):
        return f"{found[1]!r} is {_BAD_NAME}"
    for sign, words in _SIGNS:
        if sign in text:
            return words
    if found := re.search(r"status code: (\d{3})", text):
        return f"HTTP status {found[1]}"
    return type(error).__name__


def is_about_a_name(error: AuditError) -> bool:
    """Whether a listing failed for the name of one object."""
    return error.__cause__ is not None and _BAD_NAME in code_of(error.__cause__)


def is_about_one(error: AuditError) -> bool:
    """Whether an object could not be read for what it is itself: others may well be read."""
    return error.__cause__ is not None and code_of(error.__cause__) in _OF_ONE


#: What stands in the way of reading one object, and not its neighbour.
_OF_ONE = ("InvalidObjectState", "AccessDenied")

_NO_CREDENTIALS, _NO_CONNECTION = "no credentials were found", "no connection"

_BAD_NAME = "a name that no file can have"

#: How obstore tells a name with an empty step, `.`, `..` or a control character.
_NAMED = re.compile(r'Path "(.*?)"(?:: Encountered| contained)', re.DOTALL)

#: Words in the texts of obstore for what has no code of S3; an address of the link-local net is
#: where a machine of AWS has its credentials, and is asked when there are none elsewhere.
_SIGNS = (
    ("Missing", _NO_CREDENTIALS),
    ("169.254.169.254", _NO_CREDENTIALS),
    ("301 Moved", "PermanentRedirect"),
    ("status code: 501", "NotImplemented"),
    ("TimedOut", "no answer in time"),
    ("kind: Timeout", "no answer in time"),
    ("kind: Connect", _NO_CONNECTION),
    ("error sending request", _NO_CONNECTION),
)

_CREDENTIALS = (
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and what they may do: "
    "docs/object-storage.md lists it"
)
_REGION = "set AWS_REGION to the bucket's region"

_HINTS = {
    "NoSuchBucket": "make the bucket, or check its name and AWS_ENDPOINT_URL",
    **dict.fromkeys(
        (
            *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
            *("InvalidToken", "HTTP status 401", "HTTP status 403", _NO_CREDENTIALS),
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        _REGION,
    ),
    **dict.fromkeys(
        ("SlowDown", "ServiceUnavailable", "InternalError", "HTTP status 503", "HTTP status 500"),
        "the store has trouble of its own: wait until that is over",
    ),
    "NoSuchKey": "bring the object back, from a version or a copy",
    "InvalidObjectState": "the object is archived: restore it from there",
    "ValueError": "check the variables AWS_…, of which one cannot be understood",
}


def _hint(code: str) -> str:
    ahead = _HINTS.get(code, "check AWS_ENDPOINT_URL, AWS_REGION and the network")
    if code.endswith(_BAD_NAME):
        ahead = "remove the object of that name"
    return f"{ahead}; then start the same command again"


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Tell trouble with a file of this machine as `OutputsUnwritable`."""
    try:
        yield
    except OSError as error:
        raise OutputsUnwritable(
            f"{error.filename or path} cannot be written: {error.strerror or error}"
        ) from error
