import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lethe.adapters.keyservice import KeyserviceClient
from lethe.formats.protocol import MAX_BODY, ConfirmRequest, Refusal, encode_message
from lethe.model.errors import InputError, ProtocolError, ReleaseRefused, UnavailableError
from tests.common.certificates import Authority

REQUEST = ConfirmRequest(release_id="a", mac=bytes(64))


class Answering:
    """A server that gives one answer."""

    def __init__(self, port: int, authority: Authority) -> None:
        self.status, self.body = 204, b""
        self.client = KeyserviceClient(f"https://127.0.0.1:{port}", authority.pem, timeout=10)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    authority = Authority()
    authority.write_server(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answering.status)
            self.end_headers()
            self.wfile.write(answering.body)

        def log_message(self, *_args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        answering = Answering(server.server_port, authority)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield answering
        server.shutdown()
        thread.join()


REFUSAL = encode_message(Refusal(check="pod", message="there is no pod"))
LATER = encode_message(Refusal(check="job-pod", message="not yet", retryable=True))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(403, REFUSAL, ReleaseRefused, id="refused"),
        pytest.param(401, REFUSAL, ReleaseRefused, id="token refused"),
        pytest.param(409, LATER, ReleaseRefused, id="not yet"),
        pytest.param(429, REFUSAL, UnavailableError, id="too often"),
        pytest.param(503, REFUSAL, UnavailableError, id="away"),
        pytest.param(502, b"<html>", UnavailableError, id="proxy"),
        pytest.param(404, b"<html>", ProtocolError, id="another server"),
        pytest.param(200, b" " * (MAX_BODY + 1), ProtocolError, id="too large"),
    ],
)
def test_answers_become_errors(answering: Answering, status: int, body: bytes, error: type[Exception]) -> None:
    answering.status, answering.body = status, body
    with pytest.raises(error) as caught:
        answering.client.confirm(REQUEST)
    if isinstance(caught.value, ReleaseRefused):
        assert caught.value.retryable is (status == 409)


def test_a_good_answer_is_none(answering: Answering) -> None:
    answering.client.confirm(REQUEST)


def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        KeyserviceClient("https://127.0.0.1:1", Authority().pem, timeout=5).confirm(REQUEST)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8443", "127.0.0.1:8443", "https://"])
def test_a_url_without_tls_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="https://HOST:PORT"):
        KeyserviceClient(url, Authority().pem)


def test_a_bundle_without_certificate_is_refused() -> None:
    with pytest.raises(InputError, match="caBundle"):
        KeyserviceClient("https://127.0.0.1:1", "no certificate")
