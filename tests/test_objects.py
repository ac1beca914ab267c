"""Addresses of stores, the endpoint, and what a store's trouble is called."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from pipeline.errors import ConfigurationWrong, InputMissing, OutputsUnwritable
from pipeline.objects import Objects, code_of, is_plain
from pipeline.published import find_run


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://backups", "s3://backups"),
        ("s3://backups/", "s3://backups"),
        ("s3://my.backups-1/a b/100%/", "s3://my.backups-1/a b/100%"),
    ],
)
def test_an_address(address: str, shown: str) -> None:
    assert Objects(address).address == shown


@pytest.mark.parametrize(
    "address",
    [
        *("s3://", "s3:///x", "s3://ab", "s3://Backups", "s3://bu cket/x", "s3://-ab-"),
        *("s3://backups//x", "s3://backups/a//b", "s3://backups/../x", "s3://backups/a\nb"),
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigurationWrong):
        Objects(address)


@pytest.mark.parametrize(
    ("environ", "plain"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": "https://store.example.com"}, False),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}, True),
        ({"AWS_ENDPOINT": "http://localhost:9000"}, True),
        ({"AWS_ENDPOINT_URL_S3": "https://a.example.com", "AWS_ENDPOINT_URL": "http://x"}, False),
    ],
)
def test_plain_http_is_for_loopback(environ: dict[str, str], plain: bool) -> None:
    assert is_plain(environ) is plain


@pytest.mark.parametrize(
    "address",
    ["http://store.example.com", "store.example.com", "https://me:secret@example.com", "http://"],
)
def test_an_endpoint_that_is_refused_is_not_repeated(address: str) -> None:
    with pytest.raises(ConfigurationWrong) as raised:
        is_plain({"AWS_ENDPOINT_URL": address})

    assert "example.com" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("… status code: 403 Forbidden: <Error><Code>AccessDenied</Code>", "AccessDenied"),
        ("Generic S3 error: Missing AccessKeyId", "no credentials were found"),
        ("GET http://169.254.169.254/latest - error sending request", "no credentials were found"),
        ("HTTP error: error sending request", "no connection"),
        ("kind: Timeout, source: TimedOut", "no answer in time"),
        ("status code: 418 I'm a teapot", "HTTP status 418"),
        ("something with a-secret", "ValueError"),
        (
            'Error parsing Path "a/../b": Encountered illegal character sequence ".."',
            "'a/../b' is a name that no file can have",
        ),
        ('Path "a//b" contained empty path segment', "'a//b' is a name that no file can have"),
    ],
)
def test_trouble_in_a_word(text: str, word: str) -> None:
    assert code_of(ValueError(text)) == word


def test_certificates_are_verified_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variable is one that the library itself would obey."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
            "AWS_ALLOW_INVALID_CERTIFICATES": "true",
        }.items():
            monkeypatch.setenv(name, value)
        heard: list[str] = []
        thread = threading.Thread(target=_shake_hands, args=(listening, context, heard))
        thread.start()

        with pytest.raises(InputMissing, match="no connection"):
            Objects("s3://backups").get("x")

        listening.shutdown(socket.SHUT_RDWR)
        thread.join(30)
    assert heard
    assert set(heard) == {"refused"}


def _shake_hands(listening: socket.socket, context: ssl.SSLContext, heard: list[str]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                heard.append("agreed" if secure.recv(1) else "refused")
        except OSError:
            heard.append("refused")


def test_nothing_is_asked_for_a_name_that_is_a_path() -> None:
    """There is no endpoint: a request would end as another error."""
    with pytest.raises(InputMissing, match="there is no run '/nowhere/at/all' in s3://backups"):
        find_run(Objects("s3://backups"), "/nowhere/at/all")


@contextmanager
def refusing(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A store that refuses so many requests, as one does that starts; gives what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            is_refused = len(asked) <= count
            self.send_response(503 if is_refused else 200)
            body = b"<Error><Code>SlowDown</Code></Error>" if is_refused else b""
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_store_that_starts_anew_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing(7, monkeypatch) as asked:
        Objects("s3://backups/x").put("name", b"content")

    assert asked == ["/backups/x/name"] * 8


def test_a_store_that_goes_on_refusing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.objects._RETRIES", 1)
    with refusing(10, monkeypatch), pytest.raises(OutputsUnwritable, match="SlowDown") as raised:
        Objects("s3://backups/x").put("name", b"content")

    assert "wait until that is over; then start the same command again" in raised.value.hint
