"""Tells a healthcheck that a run begins and how it ends, in the protocol of healthchecks.io.

The address is a secret, since whoever has it can say that all is well. After the lock is taken it
is asked with `/start` behind its path, at the end as it is (0) or with `/<exit code>`. Any method
will do (https://healthchecks.io/docs/http_api/): a POST, because it may carry the last line.

Not aiohttp but the standard library, in threads that nobody has to wait for: a ping is sent when
the event loop is not there yet or not any more, must not hold up the loop while it is, and nothing
can interrupt a resolver that hangs but to leave its thread behind.
"""

import logging
import re
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPException
from typing import Protocol
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from pipeline import __version__
from pipeline.addresses import is_loopback
from pipeline.errors import ConfigurationWrong
from pipeline.transport import proxy_for

log = logging.getLogger(__name__)

VARIABLE = "CHECKPOINT_AUDIT_PING_URL"

#: What a run waits for pings at its end, and what one request may wait for an answer. Seconds.
_ALL_S, _REQUEST_S = 10.0, 4.0

_ATTEMPTS = 2
_OK = range(200, 300)
_WORTH_ANOTHER = (429, *range(500, 600))

#: What is read of an answer: enough for the sentence in which a server tells why it takes no note.
_ANSWER_BYTES = 200


class Send(Protocol):
    """Sends one ping; gives what went wrong, in words that hold no address, or nothing."""

    def __call__(self, address: str, body: bytes) -> str:
        """Send `body` to `address`."""


class Pings:
    """The pings of one run. None of its methods raises or waits longer than its bounds."""

    def __init__(self, url: str, send: Send, *, patience: float = _ALL_S) -> None:
        """`url` as `read_url` gives it; `patience` in seconds, of all that is sent at the end."""
        self._url = url
        self._send = send
        self._patience = patience
        self._beginning: threading.Thread | None = None

    def begin(self) -> None:
        """Tell that the run begins; without waiting."""
        self._beginning = self._thread("its start", "/start", "")

    def end(self, code: int, words: str) -> None:
        """Tell how the run ended, after its beginning was told; waits for `patience` at most."""
        suffix = f"/{code}" if code else ""
        ending = self._thread("its end", suffix, words, after=self._beginning)
        ending.join(self._patience)
        if ending.is_alive():
            log.warning("the healthcheck was not told of its end: no answer in time")

    def _thread(
        self, what: str, suffix: str, words: str, *, after: threading.Thread | None = None
    ) -> threading.Thread:
        """Send in the background, once `after` is done or has had half of the time."""

        def work() -> None:
            if after is not None:
                after.join(self._patience / 2)
            trouble = self._send(behind(self._url, suffix), words.encode("utf-8", "replace"))
            if trouble:
                log.warning("the healthcheck was not told of %s: %s", what, trouble)

        thread = threading.Thread(target=work, name=f"ping {what}", daemon=True)
        thread.start()
        return thread


def behind(url: str, suffix: str) -> str:
    """Put `suffix` at the end of the path, before the query."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + suffix if suffix else parts.path
    return parts._replace(path=path).geturl()


# --- the address --------------------------------------------------------------------------------


def read_url(environ: Mapping[str, str]) -> str | None:
    """Find the address; None where none is set.

    Raises `ConfigurationWrong`, naming the variable and never its value.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return None
    parts = _split(text)
    if parts is None or parts.scheme not in ("https", "http") or not parts.hostname:
        raise ConfigurationWrong(
            f"{VARIABLE} is not an address of the form https://host/path",
            hint="copy it from the healthcheck as it is shown there, or unset the variable",
        )
    if "@" in parts.netloc or parts.fragment:
        raise ConfigurationWrong(
            f"{VARIABLE} holds a user name, a password or a fragment",
            hint="give the address alone, as the healthcheck shows it",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigurationWrong(
            f"{VARIABLE} begins with http: everybody on the way could read it",
            hint="use https; http is for 127.0.0.1, ::1 and localhost alone",
        )
    return text


def _split(text: str) -> SplitResult | None:
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts


def secrets_of(url: str) -> tuple[str, ...]:
    """What must not be shown of an address: all of it, its path, and keys that the path holds."""
    parts = urlsplit(url)
    keys = (part for part in parts.path.split("/") if _KEY.fullmatch(part))
    return tuple(filter(None, (url, parts.path, parts.query, *keys)))


#: A key or a UUID; not a check's name, which may be the audit's own and is no secret.
_KEY = re.compile(r"(?=.*\d).{16,}")


# --- sending ------------------------------------------------------------------------------------


class Sender:
    """Sends over HTTP: certificates verified, redirects not followed, one retry."""

    def __init__(self, opener: OpenerDirector, *, timeout: float = _REQUEST_S) -> None:
        """`timeout` in seconds, for each step of a request."""
        self._opener = opener
        self._timeout = timeout

    def __call__(self, address: str, body: bytes) -> str:
        """Send; once more where that may help."""
        trouble = ""
        for _ in range(_ATTEMPTS):
            trouble, is_worth_another = self._attempt(address, body)
            if not is_worth_another:
                break
        return trouble

    def _attempt(self, address: str, body: bytes) -> tuple[str, bool]:
        """Give what went wrong, and whether another attempt may help."""
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "User-Agent": f"checkpoint-audit/{__version__}",
        }
        # The scheme was checked by `read_url`, and the opener knows http and https alone.
        request = Request(address, body, headers, method="POST")  # noqa: S310
        try:
            with closing(self._opener.open(request, timeout=self._timeout)) as response:
                return _trouble_of(response.status, response.read(_ANSWER_BYTES))
        except (OSError, HTTPException) as error:
            return _words_for(error), True


def _trouble_of(status: int, answer: bytes) -> tuple[str, bool]:
    if status not in _OK:
        return f"it answered {status}", status in _WORTH_ANOTHER
    # healthchecks.io answers 200 "OK (not found)" for a check that there is not, and
    # 200 "OK (rate limited)"; see its page on the pinging API.
    for known in (b"not found", b"rate limited"):
        if known in answer:
            return f"it answered {status}, but: {known.decode()}", False
    return "", False


def _words_for(error: OSError | HTTPException) -> str:
    """Say what went wrong without repeating what a foreign error carries."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(reason, ssl.SSLError):
        return "no TLS with it"
    if isinstance(reason, OSError):
        return f"no connection: {reason.strerror or type(reason).__name__}"
    return f"no answer ({type(error).__name__})"


def sender(url: str, environ: Mapping[str, str]) -> Sender:
    """Make what sends to `url`, through the proxy that the environment names for it.

    Raises `ConfigurationWrong` for a proxy that cannot be used.
    """
    proxy = proxy_for(url, environ)
    if proxy is not None and not proxy.startswith("http:"):
        raise ConfigurationWrong(
            f"the proxy named for {VARIABLE} is reached by TLS, which pings cannot do",
            hint="name one of the form http://host:port, or the ping's host in NO_PROXY",
        )
    opener = OpenerDirector()
    for handler in (
        ProxyHandler({} if proxy is None else {"https": proxy}),
        HTTPHandler(),
        HTTPSHandler(context=ssl.create_default_context()),
    ):
        opener.add_handler(handler)
    return Sender(opener)
