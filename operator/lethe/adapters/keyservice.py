"""The key service, as a pod sees it: three requests over TLS 1.3.

1. Only the CA of the pod's own configuration vouches for the service; the system's certificates do not.
2. Each request has its own connection and time limit. Nothing is retried here.
3. A refusal is ReleaseRefused with the service's check and sentence; a service that is away, overloaded or broken is
   UnavailableError; an answer that is not of the protocol is ProtocolError.
"""

import http.client
import ssl
from typing import Final, TypeVar
from urllib.parse import urlsplit

from lethe.formats.protocol import (
    CHALLENGE_PATH,
    CONFIRM_PATH,
    MAX_BODY,
    RELEASE_PATH,
    ChallengeReply,
    ChallengeRequest,
    ConfirmRequest,
    Message,
    Refusal,
    ReleaseReply,
    ReleaseRequest,
    encode_message,
    parse_message,
)
from lethe.model.errors import InputError, ProtocolError, ReleaseRefused, UnavailableError

TIMEOUT_SECONDS: Final = 40.0
"""More than the service takes for itself, so that its own answer arrives."""

_Reply = TypeVar("_Reply", bound=Message)


class KeyserviceClient:
    """Talks to one key service."""

    def __init__(self, url: str, ca_bundle: str, timeout: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise InputError(f"serviceUrl is {url!r}, expected https://HOST:PORT")
        self._host = parts.hostname
        self._port = parts.port or 443
        self._timeout = timeout
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            self._context.load_verify_locations(cadata=ca_bundle)
        except ssl.SSLError as error:
            raise InputError(f"caBundle holds no PEM certificate: {error}") from error

    def challenge(self, request: ChallengeRequest) -> ChallengeReply:
        """Ask for a nonce."""
        return self._ask(CHALLENGE_PATH, request, ChallengeReply)

    def release(self, request: ReleaseRequest) -> ReleaseReply:
        """Ask for the keys of one dataset."""
        return self._ask(RELEASE_PATH, request, ReleaseReply)

    def confirm(self, request: ConfirmRequest) -> None:
        """Prove that released shares were opened."""
        self._post(CONFIRM_PATH, request)

    def _ask(self, path: str, request: Message, kind: type[_Reply]) -> _Reply:
        return parse_message(self._post(path, request), kind)

    def _post(self, path: str, request: Message) -> bytes:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        try:
            connection.request("POST", path, encode_message(request), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, body = answer.status, answer.read(MAX_BODY + 1)
        except (OSError, http.client.HTTPException) as error:
            # Certificate errors too: a service that is being set up, or renewed, is away and not lost.
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the key service {self._host}:{self._port} does not answer: {reason}") from error
        finally:
            connection.close()
        if len(body) > MAX_BODY:
            raise ProtocolError(f"the key service's answer is larger than {MAX_BODY} bytes")
        if 200 <= status < 300:
            return body
        raise _error(status, body)


def _error(status: int, body: bytes) -> ReleaseRefused | UnavailableError | ProtocolError:
    try:
        refusal = parse_message(body, Refusal)
    except ProtocolError as error:
        if status >= 500:
            return UnavailableError(f"the key service answers with status {status}")
        return error
    if status == 429 or status >= 500:
        return UnavailableError(f"the key service cannot serve now: {refusal.message}")
    return ReleaseRefused(refusal.check, refusal.message, retryable=refusal.retryable)
