"""S3 servers for tests: the real versitygw where there is one, and one of a few lines whose answers a test chooses."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lethe.model.resources import Storage
from tests.cluster.tools import bin_folder
from tests.common.certificates import Authority
from tests.common.servers import free_port, running_server

ACCESS, SECRET = "tester", "not-a-real-secret"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
BUCKET = "acme"
VARIABLE = "LETHE_VERSITYGW"


@dataclass(frozen=True)
class Server:
    endpoint: str
    ca_bundle: str | None

    def storage(self, prefix: str = "", bucket: str = BUCKET) -> Storage:
        return Storage(url=f"s3://{bucket}/{prefix}", endpoint=self.endpoint, ca_bundle=self.ca_bundle)


def find_versitygw() -> str:
    """Return the program, or skip the test and say why."""
    built = bin_folder() / "versitygw"
    found = os.environ.get(VARIABLE) or shutil.which("versitygw") or (str(built) if built.exists() else None)
    if not found or not Path(found).is_file():
        pytest.skip(f"no S3 server: {VARIABLE} names none, and versitygw is not in PATH")
    return found


@contextmanager
def versitygw(folder: Path) -> Iterator[Server]:
    """Run a real S3 server over TLS, with one bucket."""
    program, authority = find_versitygw(), Authority()
    authority.write_server(folder / "tls")
    (folder / "objects" / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [
        program,
        "--port",
        f"127.0.0.1:{port}",
        "--cert",
        f"{folder}/tls/tls.crt",
        "--key",
        f"{folder}/tls/tls.key",
    ]
    with running_server(
        [*command, "--quiet", "posix", f"{folder}/objects"],
        port,
        folder / "log",
        {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET},
    ):
        yield Server(f"https://127.0.0.1:{port}", authority.pem)


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class ScriptedServer:
    """Answers each request with the next of the answers; keeps what was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def storage(self) -> Storage:
        return Storage(url=f"s3://{BUCKET}/some/prefix", endpoint=self.endpoint)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.requests.append((self.command, self.path, headers, self.rfile.read(length)))
                answer = script.answers.pop(0)
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                """Keep test output free of access logs."""

        return Handler


def unused_endpoint() -> str:
    """Return an address where nobody listens."""
    return f"https://127.0.0.1:{free_port()}"
