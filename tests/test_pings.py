"""What a healthcheck hears: a real server on loopback that writes down who came."""

import logging
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from pipeline.errors import ConfigurationWrong
from pipeline.pings import VARIABLE, Pings, behind, read_url, secrets_of, sender
from tests.healthcheck import KEY, Listener, Ping, listening


def pings(url: str, **options: float) -> Pings:
    return Pings(url, sender(url, {}), **options)


# --- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "path"), [(0, f"/{KEY}"), (1, f"/{KEY}/1"), (75, f"/{KEY}/75"), (143, f"/{KEY}/143")]
)
def test_start_and_end_are_told_in_this_order(code: int, path: str) -> None:
    with listening() as check:
        told = pings(check.url)
        told.begin()
        told.end(code, "exit: wie es endete, größer")

    assert check.came == [
        Ping("POST", f"/{KEY}/start", ""),
        Ping("POST", path, "exit: wie es endete, größer"),
    ]


def test_an_end_without_a_start(caplog: pytest.LogCaptureFixture) -> None:
    """What failed before it held the audit only ends."""
    with listening() as check:
        pings(check.url).end(77, "")

    assert [ping.path for ping in check.came] == [f"/{KEY}/77"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("url", "suffix", "wanted"),
    [
        ("https://h/uuid", "/start", "https://h/uuid/start"),
        ("https://h/uuid/", "/3", "https://h/uuid/3"),
        ("https://h/uuid?rid=a&create=1", "/start", "https://h/uuid/start?rid=a&create=1"),
        ("https://h/uuid?rid=a%2Fb", "", "https://h/uuid?rid=a%2Fb"),
        ("https://h", "/4", "https://h/4"),
    ],
)
def test_a_query_survives(url: str, suffix: str, wanted: str) -> None:
    assert behind(url, suffix) == wanted


# --- a healthcheck in trouble -------------------------------------------------------------------


def end_with(check: Listener, caplog: pytest.LogCaptureFixture) -> list[str]:
    """End with 1; gives the lines about it, none of which holds the address."""
    caplog.set_level(logging.INFO)
    pings(check.url).end(1, "words")
    lines = [record.getMessage() for record in caplog.records]
    assert not any(KEY in line or "127.0.0.1" in line for line in lines)
    return lines


@pytest.mark.parametrize("status", [429, 500, 503])
def test_one_retry(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with listening((status, b"")) as check:
        lines = end_with(check, caplog)

    assert len(check.came) == 2
    assert lines == []


def test_only_one_retry(caplog: pytest.LogCaptureFixture) -> None:
    with listening(*[(500, b"")] * 9) as check:
        lines = end_with(check, caplog)

    assert len(check.came) == 2
    assert lines == ["the healthcheck was not told of its end: it answered 500"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with listening((status, b"")) as check:
        lines = end_with(check, caplog)

    assert [ping.path for ping in check.came] == [f"/{KEY}/1"]
    assert lines == [f"the healthcheck was not told of its end: it answered {status}"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b"not found"), "it answered 404"),
        ((200, b"OK (not found)"), "it answered 200, but: not found"),
        ((200, b"OK (rate limited)"), "it answered 200, but: rate limited"),
    ],
)
def test_a_check_that_there_is_not(
    answer: tuple[int, bytes], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """healthchecks.io answers 200 for a UUID that it does not know; nobody would be alarmed."""
    with listening(answer) as check:
        lines = end_with(check, caplog)

    assert lines == [f"the healthcheck was not told of its end: {said}"]


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as check:
        pass
    lines = end_with(check, caplog)

    assert lines == ["the healthcheck was not told of its end: no connection: Connection refused"]


def test_a_certificate_that_nobody_vouches_for(caplog: pytest.LogCaptureFixture) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server)
    with listening(tls=server) as check:
        check.url = check.url.replace("http:", "https:")
        lines = end_with(check, caplog)

    assert not check.came
    assert lines == ["the healthcheck was not told of its end: its certificate is not trusted"]


def test_a_certificate_that_the_system_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other half of the proof: the same server is told where its authority is trusted."""
    server, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority"))
    with listening(tls=server) as check:
        check.url = check.url.replace("http:", "https:")
        lines = end_with(check, caplog)

    assert [ping.path for ping in check.came] == [f"/{KEY}/1"]
    assert lines == []


def test_one_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The start does not wait at all; the end waits for its patience and no longer."""
    with listening() as check:
        check.hang.clear()
        told = pings(check.url, patience=0.2)
        told.begin()
        told.end(0, "")
        waiting = [thread for thread in threading.enumerate() if thread.name == "ping its end"]

        assert [thread.daemon for thread in waiting] == [True]
        assert "the healthcheck was not told of its end: no answer in time" in caplog.messages
        check.hang.set()
        for thread in waiting:
            thread.join()


def test_a_request_has_its_own_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as check:
        check.hang.clear()
        send = sender(check.url, {})
        send._timeout = 0.05

        assert send(check.url, b"") == "no answer in time"


def test_a_sender_that_breaks_does_not_break_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a ping stays in its thread."""
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(str(args.exc_value)))

    def send(address: str, body: bytes) -> str:
        raise RuntimeError("a bug")

    Pings("https://h/uuid", send).end(0, "")

    assert seen == ["a bug"]


# --- the address --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"https://hc-ping.com/{KEY}",
        f"https://hc-ping.com/{KEY}?rid=1",
        "http://127.0.0.1:8000/x",
        "http://[::1]/x",
        "http://localhost/x",
    ],
)
def test_addresses(url: str) -> None:
    assert read_url({VARIABLE: f" {url}\n"}) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://hc-ping.com/topsecret",
        "hc-ping.com/topsecret",
        "ftp://hc-ping.com/topsecret",
        "file:///topsecret",
        "https:///topsecret",
        "https://me:topsecret@hc-ping.com/x",
        "https://hc-ping.com/x#topsecret",
        "https://hc-ping.com:0/topsecret",
        "https://hc-ping.com:port/topsecret",
        "https://hc-ping.com/top secret/topsecret",
        "https://hc-ping.com/topsecret\r\nHost: elsewhere",
        "https://[hc-ping.com/topsecret",
        "http://127.0.0.1.example.org/topsecret",
        "http://127.0.0.1\\@example.org/topsecret",
    ],
)
def test_what_is_no_address_is_told_without_it(url: str) -> None:
    with pytest.raises(ConfigurationWrong) as raised:
        read_url({VARIABLE: url})

    assert str(raised.value).startswith(VARIABLE)
    assert "topsecret" not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: " "}])
def test_no_address(environ: dict[str, str]) -> None:
    assert read_url(environ) is None


def test_what_is_secret_of_an_address() -> None:
    """A check's name is not: it may be the audit's own, which every line may name."""
    key = "aWJ1c2luZXNzX2tleQ12"
    url = f"https://hc-ping.com/{key}/nightly-orders?rid=1"

    assert set(secrets_of(url)) == {url, f"/{key}/nightly-orders", key, "rid=1"}


# --- proxies ------------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_a_tunnel() -> None:
    """As the environment says; the address itself, in the tunnel, is not for the proxy."""
    heard: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            heard.append(f"{self.path} {self.headers.get('Proxy-Authorization')}")
            self.send_error(502)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"https://check.invalid/{KEY}"
        environ = {"HTTPS_PROXY": f"http://me:word@127.0.0.1:{server.server_port}"}
        trouble = sender(url, environ)(url, b"")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert heard == ["check.invalid:443 Basic bWU6d29yZA=="] * 2
    assert trouble
    assert KEY not in trouble
    assert "word" not in trouble


def test_loopback_is_never_proxied() -> None:
    with listening() as check:
        environ = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}

        assert sender(check.url, environ)(check.url, b"") == ""
    assert len(check.came) == 1


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "https://127.0.0.1:1", "nonsense"])
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(ConfigurationWrong):
        sender("https://check.invalid/x", {"HTTPS_PROXY": proxy})
