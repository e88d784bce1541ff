"""The tables of the key service's database."""

from typing import Final

import msgspec
import sqlalchemy as sa

SCHEMA_VERSION: Final = 1
"""Raised with every change of a table that an older version could not read."""

TABLES: Final = sa.MetaData()

TENANT_KEYS: Final = sa.Table(
    "tenant_keys",
    TABLES,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("suite", sa.Text, nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
)

CHALLENGES: Final = sa.Table(
    "challenges",
    TABLES,
    sa.Column("nonce_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("job_uid", sa.Text, nullable=False),
    sa.Column("pod_uid", sa.Text, nullable=False, index=True),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False, index=True),
    sa.Column("consumed", sa.Integer, nullable=False),
)

RELEASES: Final = sa.Table(
    "releases",
    TABLES,
    sa.Column("release_id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("job_uid", sa.Text, nullable=False),
    sa.Column("pod_uid", sa.Text, nullable=False),
    sa.Column("dataset_id", sa.Text, nullable=False),
    sa.Column("node_uid", sa.Text, nullable=False),
    sa.Column("node_epoch", sa.Integer, nullable=False),
    sa.Column("confirmation", sa.LargeBinary),
    sa.Column("confirmed", sa.Integer, nullable=False),
    sa.Index("releases_by_pod", "pod_uid", "dataset_id"),
    sa.Index("releases_by_node", "node_uid", "node_epoch"),
)

AUDIT: Final = sa.Table(
    "audit",
    TABLES,
    sa.Column("chain", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
)


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `tenant_keys`: one version of one tenant's key."""

    tenant: str
    namespace: str
    name: str
    version: int
    suite: str
    public_key: str
    """As `lethe.crypto.hpke.PublicKey.encode` writes it."""
    wrapped: bytes
    """The private half, raw, under the tenant's wrapping key."""

    def __repr__(self) -> str:
        return f"StoredKey({self.tenant}/{self.namespace}/{self.name}, version={self.version})"
