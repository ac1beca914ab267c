"""A healthcheck on loopback that writes down who came."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

KEY = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"


class Ping(NamedTuple):
    """One request that came."""

    method: str
    path: str
    body: str


class Listener:
    """A healthcheck: answers in turn what it was told, then 200; keeps what came."""

    def __init__(self, port: int, *answers: tuple[int, bytes]) -> None:
        self.url = f"http://127.0.0.1:{port}/{KEY}"
        self.came: list[Ping] = []
        self.answers = list(answers)
        self.hang = threading.Event()
        self.hang.set()


@contextmanager
def listening(*answers: tuple[int, bytes], tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(size).decode()
            listener.came.append(Ping(self.command, self.path, body))
            listener.hang.wait()
            status, answer = listener.answers.pop(0) if listener.answers else (200, b"OK")
            with suppress(ConnectionError):  # who hung long enough finds nobody there
                self.answer(status, answer)

        def answer(self, status: int, answer: bytes) -> None:
            self.send_response(status)
            if status in range(300, 400):
                self.send_header("Location", f"{listener.url}/elsewhere")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815 - a redirect that is followed would come as a GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    listener = Listener(server.server_port, *answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield listener
    finally:
        listener.hang.set()
        server.shutdown()
        server.server_close()
        thread.join()
