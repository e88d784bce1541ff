"""The whole release protocol over TLS, between the real client and the real service; only the API server is a fake."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from lethe.adapters.keyservice import KeyserviceClient
from lethe.crypto.aead import unwrap
from lethe.crypto.derive import random_bytes
from lethe.crypto.hpke import PrivateKey, PublicKey, parse_public
from lethe.formats.audit import AuditEvent, parse_record, verify_chain
from lethe.formats.protocol import (
    MAX_BODY,
    RELEASE_PATH,
    ChallengeRequest,
    ConfirmRequest,
    ReleaseReply,
    ReleaseRequest,
    SealedStanza,
)
from lethe.formats.transcript import Transcript, confirmation, encode_shares, parse_shares
from lethe.model.errors import ReleaseRefused, UnavailableError, UnwrapError
from lethe.model.names import KEYSERVICE_ID
from tests.common.certificates import Authority
from tests.common.keyservice import Running, build_binding
from tests.common.release import (
    DATASET_ID,
    JOB_UID,
    KEY,
    NAMESPACE,
    TOKEN,
    build_review,
    build_tenant,
)


class Exchange:
    """One ephemeral key's way through the protocol."""

    def __init__(self, running: Running, dek: bytes, **binding: Any) -> None:
        self.running = running
        self.client: KeyserviceClient = running.client()
        self.private = PrivateKey.generate()
        self.public_key = self.private.public_key().encode()
        published: PublicKey = parse_public(running.kube.cluster.tenant_key["status"]["publicKey"])  # type: ignore[index]
        self.dek = dek
        self.sealed = published.seal(dek, build_binding(**binding).info())
        self.nonce = ""

    def challenge(self, **changes: Any) -> str:
        request = ChallengeRequest(
            namespace=NAMESPACE, job="digits", job_uid=JOB_UID, public_key=self.public_key, token=TOKEN
        )
        self.nonce = self.client.challenge(msgspec.structs.replace(request, **changes)).nonce
        return self.nonce

    def release(self, **changes: Any) -> ReleaseReply:
        request = ReleaseRequest(
            namespace=NAMESPACE,
            job="digits",
            job_uid=JOB_UID,
            public_key=self.public_key,
            token=TOKEN,
            nonce=self.nonce,
            dataset="digits",
            dataset_id=DATASET_ID,
            key=KEY,
            stanzas=[SealedStanza(epoch=1, version=1, sealed=self.sealed)],
        )
        return self.client.release(msgspec.structs.replace(request, **changes))

    def digest(self, reply: ReleaseReply) -> bytes:
        return Transcript(
            releaser=KEYSERVICE_ID,
            namespace=NAMESPACE,
            job="digits",
            job_uid=JOB_UID,
            pod_uid=reply.pod_uid,
            node_uid=reply.node_uid,
            node_epoch=reply.node_epoch,
            dataset_id=DATASET_ID,
            key=KEY,
            versions=((1, 1),),
            nonce=self.nonce,
            public_key=self.public_key,
        ).digest()

    def open(self, reply: ReleaseReply) -> bytes:
        return parse_shares(self.private.open(reply.sealed, self.digest(reply)), (1,))[1]

    def confirm(self, reply: ReleaseReply) -> None:
        mac = confirmation(encode_shares({1: self.open(reply)}), self.digest(reply))
        self.client.confirm(ConfirmRequest(release_id=reply.release_id, mac=mac))

    def run(self) -> bytes:
        self.challenge()
        reply = self.release()
        self.confirm(reply)
        return self.open(reply)


def events(running: Running, chain: str = "acme") -> list[AuditEvent]:
    return [parse_record(data).event for data in running.audit(chain)]


async def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> ReleaseRefused:
    with pytest.raises(ReleaseRefused) as refusal:
        await asyncio.to_thread(call, *args, **kwargs)
    return refusal.value


async def test_keys_reach_the_pod_and_the_audit_tells_it(running: Running) -> None:
    dek = random_bytes(32)
    assert await asyncio.to_thread(Exchange(running, dek).run) == dek
    created, intent, confirmed = events(running)
    assert [created.event, intent.event, confirmed.event] == ["key-created", "intent", "confirmed"]
    assert confirmed.release_id == intent.release_id
    assert (intent.pod_uid, intent.node_uid, intent.node_epoch, intent.receipt) == ("pod-uid", "node-uid", 3, "gpu-1-3")
    assert (intent.credential_id, intent.keyfetch_image_id) == ("JTI=1234", "sha256:" + "12" * 32)
    verify_chain("acme", running.audit())


async def test_nothing_secret_is_kept(running: Running) -> None:
    dek = random_bytes(32)
    exchange = Exchange(running, dek)
    await asyncio.to_thread(exchange.run)
    stored = b"".join(file.read_bytes() for file in (running.folder / "data").iterdir() if file.is_file())
    # A positive control first: what is stored can be found in the files at all.
    assert b"JTI=1234" in stored
    for secret in (dek, dek.hex().encode(), TOKEN.encode(), bytes.fromhex(exchange.nonce), exchange.nonce.encode()):
        assert secret not in stored


async def test_a_nonce_is_good_for_one_release(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    await asyncio.to_thread(exchange.release)
    refusal = await refused(exchange.release)
    assert refusal.check == "challenge"
    assert [event.event for event in events(running)] == ["key-created", "intent", "refused"]


async def test_of_racing_requests_with_one_nonce_one_is_served(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    results = await asyncio.gather(*(asyncio.to_thread(exchange.release) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, ReleaseReply) for result in results) == 1
    assert {result.check for result in results if isinstance(result, ReleaseRefused)} == {"challenge"}


async def test_a_nonce_is_consumed_by_a_refused_request_too(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    assert (await refused(exchange.release, dataset="faces")).check == "job-dataset"
    assert (await refused(exchange.release)).check == "challenge"


async def test_a_nonce_expires(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    running.clock.move(61)
    refusal = await refused(exchange.release)
    assert (refusal.check, refusal.retryable) == ("challenge", True)


async def test_another_key_cannot_use_the_nonce(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    thief = PrivateKey.generate().public_key().encode()
    assert (await refused(exchange.release, public_key=thief)).check == "challenge-key"


async def test_a_rerun_is_counted_alarmed_and_limited(running: Running) -> None:
    for _ in range(2):
        await asyncio.to_thread(Exchange(running, random_bytes(32)).run)
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    assert (await refused(exchange.release)).check == "release-count"
    told = [(event.event, event.count) for event in events(running) if event.event in ("intent", "rerun")]
    assert told == [("intent", 1), ("intent", 2), ("rerun", 2)]


@pytest.mark.parametrize(
    "binding",
    [
        {"dataset_id": "ff" * 16},
        {"tenant": "globex"},
        {"namespace": "globex"},
        {"key": "other"},
        {"version": 2},
        {"criticality": "standard"},
        {"criticality": "critical"},
        {"epoch": 2},
    ],
    ids=lambda binding: next(iter(binding)),
)
async def test_a_stanza_bound_elsewhere_does_not_open(running: Running, binding: dict[str, Any]) -> None:
    exchange = Exchange(running, random_bytes(32), **binding)
    await asyncio.to_thread(exchange.challenge)
    assert (await refused(exchange.release)).check == "stanza"
    assert [event.event for event in events(running)] == ["key-created", "intent", "failed"]


async def test_lowering_the_criticality_of_the_object_opens_nothing(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    running.kube.cluster.dataset["spec"]["criticality"] = "standard"  # type: ignore[index]
    await asyncio.to_thread(exchange.challenge)
    assert (await refused(exchange.release)).check == "stanza"


async def test_a_namespace_that_goes_to_another_tenant_takes_no_key_along(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    cluster = running.kube.cluster
    cluster.tenants = [build_tenant("globex", NAMESPACE)]
    cluster.pod["metadata"]["labels"]["lethe.dev/tenant"] = "globex"  # type: ignore[index]
    cluster.job["status"]["tenant"] = "globex"  # type: ignore[index]
    cluster.gpu_node["status"]["holder"]["tenant"] = "globex"  # type: ignore[index]
    await running.service.publisher.publish_all()
    await asyncio.to_thread(exchange.challenge)
    assert (await refused(exchange.release)).check == "stanza"


async def test_a_token_of_nobody_gets_no_nonce(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    assert (await refused(exchange.challenge, token="forged")).check == "token-authenticated"
    assert (await refused(exchange.challenge, job_uid="other")).check == "token-review"
    assert (await refused(exchange.challenge, namespace="globex")).check == "token-account"
    recorded = events(running, "_service")
    assert [event.check for event in recorded] == ["token-authenticated", "token-review", "token-account"]
    assert b"forged" not in b"".join(running.audit("_service"))


async def test_a_token_that_lost_its_pod_in_between_is_refused(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    running.kube.reviews[TOKEN] = {**build_review(), "authenticated": False}
    assert (await refused(exchange.release)).check == "token-authenticated"


async def test_not_yet_reported_costs_no_release(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    status = running.kube.cluster.pod["status"]["initContainerStatuses"][0]  # type: ignore[index]
    status["state"] = {"waiting": {}}
    await asyncio.to_thread(exchange.challenge)
    refusal = await refused(exchange.release)
    assert (refusal.check, refusal.retryable) == ("keyfetch-running", True)
    status["state"] = {"running": {}}
    await asyncio.to_thread(exchange.run)
    assert [event.count for event in events(running) if event.event == "intent"] == [1]


async def test_an_api_server_that_is_away_is_no_refusal(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    running.kube.error = UnavailableError("connection refused")
    with pytest.raises(UnavailableError, match="connection refused"):
        await asyncio.to_thread(exchange.challenge)
    running.kube.error = None
    await asyncio.to_thread(exchange.run)


async def test_a_wrong_confirmation_is_refused(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    reply = await asyncio.to_thread(exchange.release)
    wrong = ConfirmRequest(release_id=reply.release_id, mac=bytes(64))
    assert (await refused(exchange.client.confirm, wrong)).check == "confirmation"
    assert [event.event for event in events(running)] == ["key-created", "intent"]


async def test_a_confirmation_is_recorded_once(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    reply = await asyncio.to_thread(exchange.release)
    await asyncio.to_thread(exchange.confirm, reply)
    await asyncio.to_thread(exchange.confirm, reply)
    assert [event.event for event in events(running)] == ["key-created", "intent", "confirmed"]


async def test_the_answer_opens_with_its_own_transcript_only(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))
    await asyncio.to_thread(exchange.challenge)
    reply = await asyncio.to_thread(exchange.release)
    for change in ({"pod_uid": "other"}, {"node_uid": "other"}, {"node_epoch": 4}):
        with pytest.raises(UnwrapError):
            exchange.open(msgspec.structs.replace(reply, **change))


async def test_the_intent_is_durable_before_the_vault_is_asked(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look_first(key: bytes, wrapped: bytes, context: bytes) -> bytes:
        seen.extend(event.event for event in events(running))
        return unwrap(key, wrapped, context)

    monkeypatch.setattr("lethe.adapters.keyvault_file.unwrap", look_first)
    await asyncio.to_thread(Exchange(running, random_bytes(32)).run)
    assert seen == ["key-created", "intent"]


async def test_open_challenges_of_one_pod_are_few(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))

    def ask_often() -> None:
        for _ in range(17):
            exchange.challenge()

    assert (await refused(ask_often)).check == "challenge-limit"


async def test_too_many_requests_of_one_pod_are_slowed_down(running: Running) -> None:
    exchange = Exchange(running, random_bytes(32))

    def ask_often() -> None:
        for _ in range(41):
            with contextlib.suppress(ReleaseRefused):
                exchange.release(nonce="00" * 32)

    with pytest.raises(UnavailableError, match="more than 4 times a second"):
        await asyncio.to_thread(ask_often)
    running.clock.move(60)
    await asyncio.to_thread(exchange.run)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"protocol": "lethe.dev/release/v2"}', id="another version"),
        pytest.param(b'{"nonce": "00"}', id="fields missing"),
        pytest.param(b"\xff", id="no text"),
    ],
)
async def test_a_body_that_is_not_of_the_protocol_is_refused(running: Running, body: bytes) -> None:
    status, answer = await post(running, RELEASE_PATH, body)
    assert (status, answer["check"]) == (400, "message")


async def test_a_body_that_is_too_large_is_refused(running: Running) -> None:
    status, answer = await post(running, RELEASE_PATH, b" " * (MAX_BODY + 1))
    assert (status, answer["check"]) == (413, "message")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nonsense", id="not a key"),
        pytest.param(PublicKey("X25519", bytes(32)).encode(), id="point of low order"),
        pytest.param(PublicKey("MLKEM768-X25519", b"\xff" * 1216).encode(), id="coefficients out of range"),
        pytest.param(PrivateKey("X25519", bytes(32)).encode(), id="private key"),
    ],
)
async def test_an_unusable_public_key_is_refused(running: Running, text: str) -> None:
    assert (await refused(Exchange(running, random_bytes(32)).challenge, public_key=text)).check == "message"


async def test_only_tls_1_3_is_spoken(running: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=running.authority.pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def connect() -> None:
        with (
            socket.create_connection(("127.0.0.1", running.service.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            pass

    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(connect)


async def test_another_authority_vouches_for_nothing(running: Running) -> None:
    client = running.client(Authority())
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        await asyncio.to_thread(client.confirm, ConfirmRequest(release_id="a", mac=bytes(64)))


async def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(running: Running) -> None:
    renewed = running.authority.write_server(running.folder / "tls")
    await running.service.refresh()
    assert await asyncio.to_thread(serial, running) == renewed
    (running.folder / "tls" / "tls.key").write_text("half a key")
    await running.service.refresh()
    assert await asyncio.to_thread(serial, running) == renewed


def serial(running: Running) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=running.authority.pem)
    with (
        socket.create_connection(("127.0.0.1", running.service.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        return int(connection.getpeercert()["serialNumber"], 16)  # type: ignore[index,arg-type]


async def test_readiness_follows_vault_and_database(running: Running) -> None:
    assert await health(running, "/healthz") == 200
    assert await health(running, "/readyz") == 200
    (running.folder / "data" / "vault" / "master.key").unlink()
    assert await health(running, "/readyz") == 503
    assert await health(running, "/healthz") == 200


async def health(running: Running, path: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{running.service.health_port}{path}") as answer,
    ):
        return answer.status


async def post(running: Running, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    context = ssl.create_default_context(cadata=running.authority.pem)
    async with (
        aiohttp.ClientSession() as session,
        session.post(running.url + path, data=body, ssl=context) as answer,
    ):
        return answer.status, msgspec.json.decode(await answer.read())


def test_the_data_folder_is_private(running: Running) -> None:
    data: Path = running.folder / "data"
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "vault" / "master.key").stat().st_mode & 0o777 == 0o600
    assert all(file.stat().st_mode & 0o077 == 0 for file in data.iterdir())
