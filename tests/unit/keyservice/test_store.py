import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import msgspec
import pytest

from lethe.decisions.evidence import Challenge
from lethe.formats.audit import AuditEvent, parse_record, verify_chain
from lethe.keyservice.store import Store
from lethe.keyservice.tables import StoredKey
from lethe.model.errors import ReleaseRefused, UnavailableError, UsageError

NOW = datetime(2030, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)
CHALLENGE = Challenge(namespace="acme", job_uid="job-uid", pod_uid="pod-uid", public_key="key")
INTENT = AuditEvent(
    event="intent",
    time="2030-01-02T00:00:00Z",
    release_id="r-1",
    tenant="acme",
    job_uid="job-uid",
    pod_uid="pod-uid",
    dataset_id="41" * 16,
    node_uid="node-uid",
    node_epoch=3,
)
KEY = StoredKey(
    tenant="acme", namespace="acme", name="default", version=1, suite="X25519", public_key="pub", wrapped=b"wrapped"
)
CREATED = AuditEvent(event="key-created", time="2030-01-02T00:00:00Z", tenant="acme")


def intent(number: int, **changes: object) -> AuditEvent:
    return msgspec.structs.replace(INTENT, release_id=f"r-{number}", **changes)


def test_racing_threads_consume_a_nonce_once(store: Store) -> None:
    racers, rounds = 4, 100
    barrier = Barrier(racers)

    def race(nonce: bytes) -> bool:
        barrier.wait()
        return store.consume_challenge(nonce, NOW) is not None

    with ThreadPoolExecutor(racers) as pool:
        for number in range(rounds):
            nonce = number.to_bytes(32, "big")
            store.add_challenge(nonce, CHALLENGE, NOW, LATER, limit=rounds)
            assert sum(pool.map(race, [nonce] * racers)) == 1


def test_two_processes_worth_of_stores_count_releases_together(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "one.sqlite") for _ in range(2)]

    def release(number: int) -> bool:
        try:
            stores[number % 2].record_intent(intent(number), max_releases=3)
        except ReleaseRefused as refusal:
            assert refusal.check == "release-count"
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(release, range(24))) == 3
    verify_chain("acme", stores[0].audit_records("acme"))
    for store in stores:
        store.close()


def test_a_challenge_comes_back_as_it_was(store: Store) -> None:
    store.add_challenge(b"n" * 32, CHALLENGE, NOW, LATER, limit=4)
    assert store.consume_challenge(b"n" * 32, NOW) == CHALLENGE
    assert store.consume_challenge(b"m" * 32, NOW) is None


@pytest.mark.parametrize(("seconds", "is_valid"), [(59, True), (60, False), (61, False)])
def test_a_challenge_expires(store: Store, seconds: int, is_valid: bool) -> None:
    store.add_challenge(b"n" * 32, CHALLENGE, NOW, LATER, limit=4)
    assert (store.consume_challenge(b"n" * 32, NOW + timedelta(seconds=seconds)) is not None) is is_valid


def test_a_pod_has_few_open_challenges(store: Store) -> None:
    for number in range(3):
        store.add_challenge(bytes([number]) * 32, CHALLENGE, NOW, LATER, limit=3)
    with pytest.raises(ReleaseRefused) as refusal:
        store.add_challenge(b"x" * 32, CHALLENGE, NOW, LATER, limit=3)
    assert refusal.value.retryable
    other = msgspec.structs.replace(CHALLENGE, pod_uid="other")
    store.add_challenge(b"y" * 32, other, NOW, LATER, limit=3)
    store.consume_challenge(bytes(32), NOW)
    store.add_challenge(b"x" * 32, CHALLENGE, NOW, LATER, limit=3)


def test_old_challenges_are_forgotten(store: Store) -> None:
    for number in range(3):
        store.add_challenge(bytes([number]) * 32, CHALLENGE, NOW, LATER, limit=3)
    store.add_challenge(b"x" * 32, CHALLENGE, LATER, LATER + timedelta(seconds=60), limit=3)


def test_releases_are_counted_for_each_pod_and_dataset(store: Store) -> None:
    assert store.record_intent(intent(1), max_releases=2) == 1
    assert store.record_intent(intent(2), max_releases=2) == 2
    assert store.record_intent(intent(3, pod_uid="other"), max_releases=2) == 1
    assert store.record_intent(intent(4, dataset_id="42" * 16), max_releases=2) == 1
    with pytest.raises(ReleaseRefused):
        store.record_intent(intent(5), max_releases=2)
    assert store.releases("pod-uid", INTENT.dataset_id) == 2


def test_other_jobs_of_the_epoch_are_known(store: Store) -> None:
    store.record_intent(intent(1, job_uid="a"), max_releases=9)
    store.record_intent(intent(2, job_uid="a", pod_uid="second"), max_releases=9)
    store.record_intent(intent(3, job_uid="b"), max_releases=9)
    store.record_intent(intent(4, job_uid="c", node_epoch=4), max_releases=9)
    store.record_intent(intent(5, job_uid="d", node_uid="other"), max_releases=9)
    assert [store.other_jobs("node-uid", 3, job) for job in ("a", "b", "x")] == [1, 1, 2]


def test_a_key_is_never_replaced(store: Store) -> None:
    assert not store.has_keys()
    assert store.add_key(KEY, CREATED) == KEY
    assert store.add_key(msgspec.structs.replace(KEY, public_key="another"), CREATED) == KEY
    assert store.keys("acme", "acme", "default") == [KEY]
    assert store.keys("globex", "acme", "default") == []
    assert len(store.audit_records("acme")) == 1


def test_chains_are_apart(store: Store) -> None:
    store.append(AuditEvent(event="refused", time="t"))
    store.append(AuditEvent(event="refused", time="t", tenant="acme"))
    store.append(AuditEvent(event="refused", time="t", tenant="globex"))
    store.append(AuditEvent(event="refused", time="t", tenant="acme"))
    heads = store.audit_heads()
    assert {chain: head.sequence for chain, head in heads.items()} == {"_service": 1, "acme": 2, "globex": 1}
    for chain, head in heads.items():
        assert verify_chain(chain, store.audit_records(chain), seen=head) == head


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    """The intent is on the disk when the method returns, whatever happens to the process right after."""
    file = tmp_path / "keyservice.sqlite"
    program = f"""
import os
from pathlib import Path
from lethe.formats.audit import AuditEvent
from lethe.keyservice.store import Store
store = Store(Path({str(file)!r}))
store.record_intent(AuditEvent(event="intent", time="t", release_id="r", tenant="acme", pod_uid="p"), 1)
os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == -9
    store = Store(file)
    assert [parse_record(data).event.event for data in store.audit_records("acme")] == ["intent"]
    with pytest.raises(ReleaseRefused):
        store.record_intent(msgspec.structs.replace(INTENT, pod_uid="p", dataset_id=""), 1)
    store.close()


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keyservice.sqlite"
    store = Store(file)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA user_version = 7")
    store.close()
    with pytest.raises(UsageError, match="schema is 7, expected 1"):
        Store(file)


def test_a_broken_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "keyservice.sqlite"
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(UnavailableError):
        Store(file)


def test_writes_go_through_to_the_disk(store: Store) -> None:
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
