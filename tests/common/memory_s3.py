"""A server that keeps its objects in memory, and tells a test of each write before and after it is done.

It speaks what S3 and the XML interface of Google Cloud Storage have in common, and the conditions of a write of both.
"""

import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.common.s3 import BUCKET

_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
_Heard = Callable[[str], None]


class Refused(Exception):
    """Raised by a hook: the server answers 403 and writes nothing."""


class MemoryS3:
    """One bucket. `before` and `after` are called with the key of each write, before and after it is stored."""

    def __init__(self, tls: Path | None = None) -> None:
        """`tls` is a folder with tls.crt and tls.key."""
        self.objects: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.lock = threading.Lock()
        self.written: list[tuple[str, bytes]] = []
        self.before: _Heard = lambda key: None
        self.after: _Heard = lambda key: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
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
                with bucket.lock:
                    if not self._may_write(key):
                        return self._answer(412)
                    bucket.objects[key] = data
                    bucket.written.append((key, data))
                    bucket.versions[key] = len(bucket.written)
                bucket.after(key)
                self._answer(200, headers=self._version(key))

            def do_GET(self) -> None:
                key, query = self._key(), parse_qs(urlsplit(self.path).query)
                if not key:
                    return self._answer(200, _listing(bucket.objects, query.get("prefix", [""])[0]))
                with bucket.lock:
                    data, version = bucket.objects.get(key), self._version(key)
                if data is None:
                    return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                if "range" not in self.headers:
                    return self._answer(200, data, version)
                first, last = (int(number) for number in self.headers["range"].removeprefix("bytes=").split("-"))
                if first >= len(data):
                    return self._answer(416)
                part = data[first : last + 1]
                place = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
                self._answer(206, part, version | place)

            def do_DELETE(self) -> None:
                bucket.objects.pop(self._key(), None)
                self._answer(204)

            def _key(self) -> str:
                return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").removeprefix("/")

            def _may_write(self, key: str) -> bool:
                """Say whether the conditions of a write hold: those of S3's headers, and of Google's."""
                version = bucket.versions.get(key, 0) if key in bucket.objects else 0
                wanted = self.headers.get("if-match")
                return (
                    not (self.headers.get("if-none-match") == "*" and version)
                    and wanted in (None, _tag(version))
                    and self.headers.get("x-goog-if-generation-match") in (None, str(version))
                )

            def _version(self, key: str) -> dict[str, str]:
                version = bucket.versions.get(key, 1)
                return {"ETag": _tag(version), "x-goog-generation": str(version), "Last-Modified": _MODIFIED}

            def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
                try:
                    self.send_response(status)
                    for name, value in (headers or {}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # a test has killed the client

            def log_message(self, format: str, *args: object) -> None:
                """Keep test output free of access logs."""

        return Handler


def _tag(version: int) -> str:
    return f'"{version}"'


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    items = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size><ETag>&quot;0&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in sorted(objects)
        if key.startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
