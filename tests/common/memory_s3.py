"""An S3 server that keeps its objects in memory, and tells a test of each write before and after it is done."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.common.s3 import BUCKET

_Heard = Callable[[str], None]


class Refused(Exception):
    """Raised by a hook: the server answers 403 and writes nothing."""


class MemoryS3:
    """One bucket. `before` and `after` are called with the key of each write, before and after it is stored."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[tuple[str, bytes]] = []
        self.before: _Heard = lambda key: None
        self.after: _Heard = lambda key: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def below(self, prefix: str) -> dict[str, bytes]:
        """Return the objects of a prefix, without it."""
        return {key.removeprefix(f"{prefix}/"): data for key, data in self.objects.items() if key.startswith(prefix)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                key, data = self._key(), self.rfile.read(int(self.headers.get("content-length") or 0))
                try:
                    bucket.before(key)
                except Refused:
                    return self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
                if self.headers.get("if-none-match") == "*" and key in bucket.objects:
                    return self._answer(412)
                bucket.objects[key] = data
                bucket.written.append((key, data))
                bucket.after(key)
                self._answer(200)

            def do_GET(self) -> None:
                key, query = self._key(), parse_qs(urlsplit(self.path).query)
                if not key:
                    return self._answer(200, _listing(bucket.objects, query["prefix"][0]))
                if key not in bucket.objects:
                    return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                data = bucket.objects[key]
                if "range" not in self.headers:
                    return self._answer(200, data)
                first, last = self.headers["range"].removeprefix("bytes=").split("-")
                if int(first) >= len(data):
                    return self._answer(416)
                self._answer(206, data[int(first) : int(last) + 1])

            def do_DELETE(self) -> None:
                bucket.objects.pop(self._key(), None)
                self._answer(204)

            def _key(self) -> str:
                return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").removeprefix("/")

            def _answer(self, status: int, body: bytes = b"") -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # a test has killed the client

            def log_message(self, format: str, *args: object) -> None:
                """Keep test output free of access logs."""

        return Handler


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    items = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size></Contents>"
        for key in sorted(objects)
        if key.startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
