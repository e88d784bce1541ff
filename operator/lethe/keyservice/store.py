"""What the key service remembers, in one SQLite database: tenant keys, challenges, releases, audit.

1. Every method is one transaction that has the write lock from its start, so that two replicas or threads never read
   the same head, count or nonce. When a method returns, what it wrote is on the disk (`synchronous = FULL`).
2. A nonce is consumed by one statement that finds it unused; only its hash is kept.
3. A release is counted in the transaction that writes its audit intent: neither exists without the other.
4. Private keys are kept wrapped, and audit records as the exact bytes that their hashes cover.
5. Each audit record is also logged once it is durable, with its hash: whoever collects the log has seen the head.

Methods block; the service calls them through `StoreThread`.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa
import structlog

from lethe.crypto.derive import sha256
from lethe.decisions.evidence import Challenge
from lethe.formats.audit import SERVICE_CHAIN, AuditEvent, ChainHead, encode_record
from lethe.keyservice.tables import AUDIT, CHALLENGES, RELEASES, SCHEMA_VERSION, TABLES, TENANT_KEYS, StoredKey
from lethe.model.errors import ReleaseRefused, UnavailableError, UsageError

_BUSY_SECONDS: Final = 5
_WRITTEN: Final = "audit records written"
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_log = structlog.get_logger()


class Store:
    """One database file; safe for several threads and processes."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its log files the mode of the database, so that is made first.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
        self._engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": _BUSY_SECONDS})
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        with self._transaction() as connection:
            TABLES.create_all(connection)
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found not in (0, SCHEMA_VERSION):
                raise UsageError(
                    f"{file} was written by a key service of another version: its schema is {found}, expected "
                    f"{SCHEMA_VERSION}; run the version that wrote it"
                )
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Raise UnavailableError when the database cannot be written."""
        with self._transaction() as connection:
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    # --- tenant keys

    def has_keys(self) -> bool:
        """Say whether any tenant key is stored."""
        with self._transaction() as connection:
            return connection.execute(sa.select(TENANT_KEYS.c.version).limit(1)).first() is not None

    def keys(self, tenant: str, namespace: str, name: str) -> list[StoredKey]:
        """Return all versions of a tenant's key, the oldest first."""
        with self._transaction() as connection:
            return _read_keys(connection, tenant, namespace, name)

    def add_key(self, key: StoredKey, event: AuditEvent) -> StoredKey:
        """Keep the first version of a key, with its audit record; return the stored one, which never is replaced."""
        with self._transaction() as connection:
            stored = _read_keys(connection, key.tenant, key.namespace, key.name)
            if stored:
                return stored[-1]
            connection.execute(sa.insert(TENANT_KEYS).values(**msgspec.structs.asdict(key)))
            _append(connection, key.tenant, event)
            return key

    # --- challenges

    def add_challenge(self, nonce: bytes, challenge: Challenge, now: datetime, expires: datetime, limit: int) -> None:
        """Remember a nonce; raise ReleaseRefused when the pod has `limit` open ones already."""
        open_ones = (
            sa.select(sa.func.count())
            .select_from(CHALLENGES)
            .where(CHALLENGES.c.pod_uid == challenge.pod_uid, CHALLENGES.c.consumed == 0)
        )
        with self._transaction() as connection:
            connection.execute(sa.delete(CHALLENGES).where(CHALLENGES.c.expires <= now.timestamp()))
            if connection.execute(open_ones).scalar_one() >= limit:
                raise ReleaseRefused("challenge-limit", f"the pod has {limit} open challenges; use one", retryable=True)
            connection.execute(
                sa.insert(CHALLENGES).values(
                    nonce_sha256=sha256(nonce),
                    namespace=challenge.namespace,
                    job_uid=challenge.job_uid,
                    pod_uid=challenge.pod_uid,
                    public_key=challenge.public_key,
                    expires=expires.timestamp(),
                    consumed=0,
                )
            )

    def consume_challenge(self, nonce: bytes, now: datetime) -> Challenge | None:
        """Use a nonce up; return what it was given out for, or None when it is unknown, used or expired."""
        statement = (
            sa.update(CHALLENGES)
            .where(
                CHALLENGES.c.nonce_sha256 == sha256(nonce),
                CHALLENGES.c.consumed == 0,
                CHALLENGES.c.expires > now.timestamp(),
            )
            .values(consumed=1)
            .returning(CHALLENGES.c.namespace, CHALLENGES.c.job_uid, CHALLENGES.c.pod_uid, CHALLENGES.c.public_key)
        )
        with self._transaction() as connection:
            row = connection.execute(statement).first()
        return None if row is None else Challenge(**row._mapping)

    # --- releases and their audit

    def releases(self, pod_uid: str, dataset_id: str) -> int:
        """Return how often this pod got this dataset's keys, or was about to."""
        with self._transaction() as connection:
            return _count_releases(connection, pod_uid, dataset_id)

    def other_jobs(self, node_uid: str, node_epoch: int, job_uid: str) -> int:
        """Return how many other jobs got keys on this node in this epoch."""
        statement = sa.select(sa.func.count(sa.distinct(RELEASES.c.job_uid))).where(
            RELEASES.c.node_uid == node_uid, RELEASES.c.node_epoch == node_epoch, RELEASES.c.job_uid != job_uid
        )
        with self._transaction() as connection:
            return connection.execute(statement).scalar_one()

    def record_intent(self, event: AuditEvent, max_releases: int) -> int:
        """Count a release and write its intent, before anything is unwrapped; return which one for this pod it is.

        A second one also writes the alarm `rerun`. Raise ReleaseRefused when the limit was reached in the meantime.
        """
        with self._transaction() as connection:
            count = _count_releases(connection, event.pod_uid, event.dataset_id) + 1
            if count > max_releases:
                raise ReleaseRefused(
                    "release-count", f"pod {event.namespace}/{event.pod} got these keys {count - 1} times already"
                )
            connection.execute(
                sa.insert(RELEASES).values(
                    release_id=event.release_id,
                    tenant=event.tenant,
                    job_uid=event.job_uid,
                    pod_uid=event.pod_uid,
                    dataset_id=event.dataset_id,
                    node_uid=event.node_uid,
                    node_epoch=event.node_epoch,
                    confirmation=None,
                    confirmed=0,
                )
            )
            counted = msgspec.structs.replace(event, count=count)
            _append(connection, event.tenant, counted)
            if count > 1:
                _append(connection, event.tenant, msgspec.structs.replace(counted, event="rerun"))
            return count

    def expect_confirmation(self, release_id: str, mac: bytes) -> None:
        """Remember what the pod will prove; only a hash of it is kept."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(RELEASES).where(RELEASES.c.release_id == release_id).values(confirmation=sha256(mac))
            )

    def confirm(self, release_id: str, mac: bytes, time: str) -> bool:
        """Write the audit record of a right confirmation, once; say whether it was right."""
        statement = sa.select(RELEASES).where(
            RELEASES.c.release_id == release_id, RELEASES.c.confirmation == sha256(mac)
        )
        with self._transaction() as connection:
            row = connection.execute(statement).first()
            if row is None:
                return False
            if not row.confirmed:
                connection.execute(sa.update(RELEASES).where(RELEASES.c.release_id == release_id).values(confirmed=1))
                event = AuditEvent(
                    event="confirmed",
                    time=time,
                    release_id=release_id,
                    tenant=row.tenant,
                    job_uid=row.job_uid,
                    pod_uid=row.pod_uid,
                    dataset_id=row.dataset_id,
                    node_uid=row.node_uid,
                    node_epoch=row.node_epoch,
                )
                _append(connection, row.tenant, event)
            return True

    def append(self, event: AuditEvent) -> None:
        """Write an audit record into the chain of its tenant, or of the service."""
        with self._transaction() as connection:
            _append(connection, event.tenant, event)

    def audit_records(self, chain: str) -> list[bytes]:
        """Return all records of a chain, in order, as the bytes that were written."""
        statement = sa.select(AUDIT.c.record).where(AUDIT.c.chain == chain).order_by(AUDIT.c.sequence)
        with self._transaction() as connection:
            return list(connection.execute(statement).scalars())

    def audit_heads(self) -> dict[str, ChainHead]:
        """Return the last record of every chain."""
        with self._transaction() as connection:
            chains = connection.execute(sa.select(AUDIT.c.chain).distinct()).scalars().all()
            return {chain: _head(connection, chain) for chain in chains}

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                written: list[dict[str, Any]] = []
                connection.info[_WRITTEN] = written
                yield connection
        except sa.exc.DBAPIError as error:
            raise UnavailableError(
                f"the key service's database cannot be used: {error.orig}; look at its volume"
            ) from error
        for record in written:
            _log.info("audit", **record)


class StoreThread:
    """Runs the blocking methods of a store one after the other in a thread of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(
        self, method: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Call a method of the store and wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: method(*args, **kwargs))

    def close(self) -> None:
        """Finish what runs and close the database."""
        self._thread.shutdown()
        self.store.close()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin`, never by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read_keys(connection: sa.Connection, tenant: str, namespace: str, name: str) -> list[StoredKey]:
    statement = (
        sa.select(TENANT_KEYS)
        .where(TENANT_KEYS.c.tenant == tenant, TENANT_KEYS.c.namespace == namespace, TENANT_KEYS.c.name == name)
        .order_by(TENANT_KEYS.c.version)
    )
    return [StoredKey(**row._mapping) for row in connection.execute(statement)]


def _count_releases(connection: sa.Connection, pod_uid: str, dataset_id: str) -> int:
    statement = (
        sa.select(sa.func.count())
        .select_from(RELEASES)
        .where(RELEASES.c.pod_uid == pod_uid, RELEASES.c.dataset_id == dataset_id)
    )
    return connection.execute(statement).scalar_one()


def _head(connection: sa.Connection, chain: str) -> ChainHead:
    row = connection.execute(
        sa.select(AUDIT.c.sequence, AUDIT.c.sha256)
        .where(AUDIT.c.chain == chain)
        .order_by(AUDIT.c.sequence.desc())
        .limit(1)
    ).first()
    return ChainHead() if row is None else ChainHead(sequence=row.sequence, sha256=row.sha256)


def _append(connection: sa.Connection, tenant: str, event: AuditEvent) -> None:
    chain = tenant or SERVICE_CHAIN
    record, head = encode_record(chain, _head(connection, chain), event)
    connection.execute(sa.insert(AUDIT).values(chain=chain, sequence=head.sequence, sha256=head.sha256, record=record))
    connection.info[_WRITTEN].append({"record": record.decode(), "sha256": head.sha256})
