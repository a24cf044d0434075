"""A program that webhooks are delivered to: a plain HTTP server that remembers what it got and answers as a test wishes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

__all__ = ["Got", "Receiver", "WebhookApi", "is_signed", "receiving"]


class Got:
    """One message: its headers in lower case, and its body."""

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.headers = headers
        self.body = body
        self.json: Any = json.loads(body)

    @property
    def id(self) -> str:
        return self.headers["x-tiled-event-id"]


class Receiver:
    """`answer` is asked for the status of each message."""

    def __init__(self, port: int) -> None:
        self.got: list[Got] = []
        self.answer: Callable[[Got], int] = lambda got: 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.delay = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got = Got({name.lower(): value for name, value in self.headers.items()}, body)
                time.sleep(receiver.delay)
                status = receiver.answer(got)
                receiver.got.append(got)
                with contextlib.suppress(OSError):  # the sender may have gone
                    self.send_response(status)
                    for name, value in receiver.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(receiver.body)))
                    self.end_headers()
                    self.wfile.write(receiver.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        """What the messages were about, in order of arrival."""
        return ["/".join(got.json["path"]) for got in self.got]

    def wait(self, count: int, *, seconds: float = 20.0) -> list[Got]:
        """Until there are so many messages; fails if they do not come."""
        end = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} messages came: {self.paths()}"
            time.sleep(0.01)
        return list(self.got)


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver; on any free port if none is given."""
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()


class WebhookApi:
    """The routes, and what makes events, of a server at `base` (with ``/api/v1``)."""

    def __init__(self, base: str, key: str) -> None:
        self.http = httpx.Client(base_url=base, headers={"Authorization": f"Apikey {key}"}, timeout=30)

    def ok(self, method: str, path: str, **options: Any) -> Any:
        response = self.http.request(method, path, **options)
        assert response.status_code == 200, (response.status_code, response.text)
        return response.json()

    def register(self, url: str, path: str = "", **fields: Any) -> int:
        return int(self.ok("POST", f"/webhooks/target/{path}", json={"url": url, **fields})["id"])

    def create(self, path: str, **fields: Any) -> None:
        parent, _, key = path.rpartition("/")
        body = {"id": key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": [], **fields}
        self.ok("POST", f"/metadata/{parent}", json=body)

    def history(self, id: int) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = self.ok("GET", f"/webhooks/history/{id}")
        return history


def is_signed(got: Got, secret: str) -> bool:
    """Written down anew, from the description of the protocol."""
    return got.headers["x-tiled-signature"] == "sha256=" + hmac.new(secret.encode(), got.body, hashlib.sha256).hexdigest()
