"""An S3 server for reading whose answers go wrong as a test asks: late, cut off, dropped, refused, or changed."""

import contextlib
import threading
from collections.abc import Iterator
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from lethe.model.resources import Storage
from tests.common.s3 import BUCKET

TRICKLE_SECONDS = 0.02


class Fault(Enum):
    UNAVAILABLE = auto()
    """503."""
    DROPPED = auto()
    """The connection ends without an answer."""
    SILENT = auto()
    """The request is taken, and no answer comes."""
    CUT = auto()
    """The connection ends in the middle of the body."""
    STALLED = auto()
    """The body stops in the middle, and the connection stays."""
    TRICKLED = auto()
    """The body comes a byte at a time, without end in sight."""
    SHORT = auto()
    """Half of what was asked for, said to be all."""
    CHANGED = auto()
    """One bit of the body is another one."""
    WHOLE = auto()
    """The range is ignored."""


class FaultyS3:
    """Serves the files of a folder as one bucket. Each request takes the next of `faults`; None is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: Iterator[Fault | None] = iter(())
        self.requests: list[str] = []
        """The key of each."""
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def storage(self) -> Storage:
        return Storage(url=f"s3://{BUCKET}", endpoint=f"http://127.0.0.1:{self._server.server_port}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = self.path.removeprefix(f"/{BUCKET}/")
                script.requests.append(key)
                fault = next(script.faults, None)
                data, status = (script.folder / key).read_bytes(), 200
                if "range" in self.headers and fault != Fault.WHOLE:
                    first, last = self.headers["range"].removeprefix("bytes=").split("-")
                    data, status = data[int(first) : int(last) + 1], 206
                # A client that gives up on an answer does as it should.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._answer(fault, status, data)

            def _answer(self, fault: Fault | None, status: int, data: bytes) -> None:
                if fault == Fault.SILENT:
                    script._ended.wait()
                if fault in (Fault.SILENT, Fault.DROPPED):
                    return
                if fault == Fault.UNAVAILABLE:
                    status, data = 503, b"<Error><Code>SlowDown</Code></Error>"
                elif fault == Fault.SHORT:
                    data = data[: len(data) // 2]
                elif fault == Fault.CHANGED:
                    data = bytes([data[0] ^ 1]) + data[1:]
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if fault in (Fault.CUT, Fault.STALLED):
                    self.wfile.write(data[: len(data) // 2])
                    if fault == Fault.STALLED:
                        script._ended.wait()
                elif fault == Fault.TRICKLED:
                    for byte in data:
                        if script._ended.wait(TRICKLE_SECONDS):
                            return
                        self.wfile.write(bytes([byte]))
                else:
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Keep test output free of access logs."""

        return Handler
