"""A bucket of an S3 server, by its REST interface: the few requests that Lethe needs.

1. Path-style addresses; without `endpoint`, AWS's own for the region. Requests carry AWS Signature Version 4.
   Objects have at most a gigabyte, so each write is one request and there are no half-done multipart uploads.
2. `ca_bundle` replaces the system's certificates for this endpoint; nothing can switch verification off.
3. What may pass is tried again with growing pauses, fifteen seconds in all: no connection, a connection that ends too
   early, a time-out, 429, 5xx. Then UnavailableError. 401 and 403 are CredentialsError, 404 is ObjectMissingError.
   A time-out is a minute without a byte, or a body that comes slower than `SLOWEST` once a minute has passed.
4. Connections belong to the process that made them: after `fork` a child opens its own. This is why the client is not
   one with threads of its own: in a forked data loader, calls into the runtime of object_store (obstore) never return.

Source: AWS General Reference, "Create a signed AWS API request"; Amazon S3 API Reference.
"""

import hashlib
import hmac
import os
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ssl import SSLError
from typing import cast
from urllib.parse import quote, urlsplit

import urllib3

from lethe.adapters.whole import collected
from lethe.model.errors import (
    ConflictError,
    CredentialsError,
    InputError,
    IntegrityError,
    LetheError,
    ObjectMissingError,
    StorageError,
    UnavailableError,
)

DEFAULT_REGION = "us-east-1"
ATTEMPTS = 6
FIRST_PAUSE = 0.5
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
SLOWEST = 16 << 10
"""Bytes a second: a server that sends less would keep a reader for hours without one long wait."""
MAX_ERROR_BYTES = 64 << 10
_PART_BYTES = 1 << 20

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_RETRIED = frozenset({429, 500, 502, 503, 504})
_PRECONDITION_FAILED = frozenset({409, 412})
_WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound", "ExpiredToken"})


@dataclass(frozen=True)
class Credentials:
    """Static credentials. They print without the secret."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class BucketStore:
    """The objects of a bucket below one prefix."""

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str,
        endpoint: str | None,
        region: str | None,
        ca_bundle: str | None,
        credentials: Credentials | None,
    ) -> None:
        self._region = region or DEFAULT_REGION
        self._endpoint = (endpoint or f"https://s3.{self._region}.amazonaws.com").rstrip("/")
        parts = urlsplit(self._endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path:
            raise InputError(f"endpoint {endpoint!r} is not https://host or https://host:port")
        self._host = parts.netloc
        self._is_encrypted = parts.scheme == "https"
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._ca_bundle = ca_bundle
        self._credentials = credentials
        self._pool: urllib3.PoolManager | None = None
        self._pid = 0

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Return a whole object."""
        return self._request("GET", key, limit=limit).data

    def get_tagged(self, key: str, limit: int | None = None) -> tuple[bytes, str]:
        """Return a whole object and the tag (ETag) of this version of it."""
        response = self._request("GET", key, limit=limit)
        return response.data, response.headers.get("etag", "")

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        if length == 0:
            return b""
        response = self._request("GET", key, headers={"range": f"bytes={start}-{start + length - 1}"}, limit=length)
        if response.status != 206 or len(response.data) != length:
            raise IntegrityError(
                f"object {self._name(key)} does not have bytes {start} to {start + length}: it was cut off, "
                "or the server ignores ranges"
            )
        return response.data

    def view(self, key: str) -> None:
        """Say that objects of a bucket have to be fetched."""

    def create(self, key: str, length: int) -> AbstractContextManager[Callable[[memoryview], object]]:
        """Give what takes the bytes of an object; they are sent together."""
        return collected(lambda whole: self.put(key, whole), length)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object, replacing what was there."""
        self._request("PUT", key, body=data)

    def put_new(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object; raise StorageError when one is there already."""
        there = StorageError(f"object {self._name(key)} is there already: choose an empty prefix")
        self._request("PUT", key, body=data, headers={"if-none-match": "*"}, precondition=there)

    def replace(self, key: str, data: bytes | bytearray | memoryview, tag: str) -> None:
        """Write a whole object in place of the one with this tag; raise ConflictError when another is there by now."""
        other = ConflictError(f"object {self._name(key)} was written by another meanwhile: read it again")
        self._request("PUT", key, body=data, headers={"if-match": tag}, precondition=other)

    def list(self) -> Iterable[tuple[str, int]]:
        """Yield key and size of every object."""
        query = {"list-type": "2", "prefix": self._prefix}
        while True:
            tree = _parse_xml(self._request("GET", None, query=query).data)
            for item in tree.iterfind("{*}Contents"):
                yield (item.findtext("{*}Key") or "").removeprefix(self._prefix), int(item.findtext("{*}Size") or 0)
            token = tree.findtext("{*}NextContinuationToken")
            if tree.findtext("{*}IsTruncated") != "true" or not token:
                return
            query = {**query, "continuation-token": token}

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._request("DELETE", key)

    def _request(
        self,
        method: str,
        key: str | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | bytearray | memoryview = b"",
        limit: int | None = None,
        precondition: LetheError | None = None,
    ) -> "Response":
        path = quote(self._path(key), safe="/-_.~")
        payload_hash = self._payload_hash(body)
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                response = self._send(method, path, query or {}, headers or {}, body, payload_hash, key, limit)
            except urllib3.exceptions.SSLError as error:
                raise StorageError(
                    f"{self._endpoint} does not show a certificate that is trusted for it: set caBundle ({error})"
                ) from error
            except urllib3.exceptions.HTTPError as error:
                failure = _network_failure(error, self._endpoint)
                continue
            if response.status < 300 or (method == "DELETE" and response.status == 404):
                return response
            if precondition and response.status in _PRECONDITION_FAILED:
                raise precondition
            if response.status not in _RETRIED:
                raise self._refusal(response, key)
            failure = f"{self._endpoint} answers {response.status} {response.code}"
        raise UnavailableError(
            f"storage is away ({failure}; {ATTEMPTS} attempts for {self._name(key)}): try again later"
        )

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | bytearray | memoryview,
        payload_hash: str,
        key: str | None,
        limit: int | None,
    ) -> "Response":
        encoded = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
        signed = self._sign(method, path, encoded, payload_hash, datetime.now(UTC))
        answer = self._connections().request(
            method,
            f"{self._endpoint}{path}" + (f"?{encoded}" if encoded else ""),
            headers={**headers, **signed},
            body=cast(bytes, body) if method == "PUT" else None,
            preload_content=False,
            redirect=False,
            retries=False,
        )
        try:
            length = int(answer.headers.get("content-length") or 0)
            if limit is not None and answer.status < 300 and length > limit:
                raise IntegrityError(f"object {self._name(key)} has {length} bytes, expected at most {limit}")
            most = MAX_ERROR_BYTES if answer.status >= 300 else None if limit is None else limit + 1
            data = _read_body(answer, most)
            if limit is not None and answer.status < 300 and len(data) > limit:
                raise IntegrityError(f"object {self._name(key)} has more than {limit} bytes")
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return Response(answer.status, answer.headers, data)

    def _connections(self) -> urllib3.PoolManager:
        if self._pool is None or self._pid != os.getpid():
            ssl = urllib3.util.create_urllib3_context()
            try:
                if self._ca_bundle:
                    ssl.load_verify_locations(cadata=self._ca_bundle)
                else:
                    ssl.load_default_certs()
            except (SSLError, ValueError) as error:
                raise InputError("caBundle is not PEM certificates: paste the CA file as it is") from error
            self._pool = urllib3.PoolManager(
                maxsize=8,
                ssl_context=ssl,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            )
            self._pid = os.getpid()
        return self._pool

    def _payload_hash(self, body: bytes | bytearray | memoryview) -> str:
        """Inside TLS a signed hash of the body adds nothing, and costs a pass over the data."""
        if not body:
            return _EMPTY_SHA256
        return "UNSIGNED-PAYLOAD" if self._is_encrypted else hashlib.sha256(body).hexdigest()

    def _sign(self, method: str, path: str, query: str, payload_hash: str, now: datetime) -> dict[str, str]:
        headers = {
            "host": self._host,
            "x-amz-content-sha256": payload_hash,
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        if self._credentials is None:
            return headers
        if self._credentials.session_token:
            headers["x-amz-security-token"] = self._credentials.session_token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = hashlib.sha256(f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}".encode()).hexdigest()
        scope = f"{now:%Y%m%d}/{self._region}/s3/aws4_request"
        key = f"AWS4{self._credentials.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{request}"
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _refusal(self, response: "Response", key: str | None) -> StorageError | IntegrityError:
        name, code = self._name(key), response.code
        if response.status in (401, 403) or code in _WRONG_CREDENTIALS:
            who = f"access key {self._credentials.access_key}" if self._credentials else "a request without credentials"
            return CredentialsError(
                f"storage refuses {who} for {name} ({response.status} {code}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of the storage Secret, and what they may do in this bucket"
            )
        if code == "NoSuchBucket":
            return ObjectMissingError(
                f"bucket {self._bucket} does not exist at {self._endpoint}: check the storage URL"
            )
        if response.status == 404:
            return ObjectMissingError(f"object {name} does not exist at {self._endpoint}")
        if response.status == 416:
            return IntegrityError(f"object {name} is shorter than expected: it was cut off")
        if 300 <= response.status < 400:
            return StorageError(f"storage redirects {name} ({response.status} {code}): check endpoint and region")
        return StorageError(
            f"storage refuses the request for {name}: {response.status} {code} {response.message}".rstrip()
        )

    def _path(self, key: str | None) -> str:
        return f"/{self._bucket}" if key is None else f"/{self._bucket}/{self._prefix}{key}"

    def _name(self, key: str | None) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key or ''}"


class Response:
    """An answer, read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data

    @property
    def code(self) -> str:
        """Return the error code of the answer's body, or an empty text: a HEAD has none."""
        return self._error_text("Code")

    @property
    def message(self) -> str:
        return self._error_text("Message")

    def _error_text(self, tag: str) -> str:
        try:
            return ElementTree.fromstring(self.data).findtext(f"{{*}}{tag}") or ""
        except ElementTree.ParseError:
            return ""


def _read_body(answer: urllib3.BaseHTTPResponse, most: int | None) -> bytes:
    """Return the body, or its first `most` bytes."""
    begin, parts, size = time.monotonic(), [], 0
    while most is None or size < most:
        part = answer.read1(_PART_BYTES if most is None else min(_PART_BYTES, most - size))
        if not part:
            break
        parts.append(part)
        size += len(part)
        if time.monotonic() - begin > READ_SECONDS + size / SLOWEST:
            raise urllib3.exceptions.TimeoutError(f"{size} bytes came at fewer than {SLOWEST} a second")
    return b"".join(parts)


def _parse_xml(data: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise StorageError("storage answers a listing with something that is not XML: check endpoint") from error


def _network_failure(error: urllib3.exceptions.HTTPError, endpoint: str) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason)
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
        reason, urllib3.exceptions.NewConnectionError
    ):
        return f"{endpoint} does not answer in time"
    return f"no connection to {endpoint}: {text.rpartition(': ')[2] or type(reason).__name__}"
