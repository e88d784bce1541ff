"""Live reads: everything that one release is decided on, from the API server and the store, at the time of asking.

1. Nothing is cached. The reads follow the checked identity of the token and the claim's names within its namespace;
   the tenant, the node's receipt and the key versions follow from what was read.
2. An object that is missing is None, and the chain of checks says what that means. An object that does not parse is an
   error of the cluster, not of the pod: UnavailableError.
3. The order of the reads does not matter for safety: whatever changes after them changed after the decision, and the
   custody of the node does not end before every pod has ended.
"""

import asyncio
from typing import Any, Final, TypeVar

import msgspec

from lethe.adapters.kube import DATASET, GPU_NODE, JOB_CR, NODE, POD, RECEIPT, TENANT, TENANT_KEY, Kind, Kube
from lethe.decisions.evidence import Challenge, Claim, Evidence, Identity
from lethe.formats.receipt import verify_receipt
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.keyservice.store import StoreThread
from lethe.model.config import Criticalities
from lethe.model.errors import CryptoError, ReceiptError, UnavailableError
from lethe.model.names import receipt as receipt_name
from lethe.model.resources import (
    EncryptedDataset,
    GPUNode,
    ScrubReceipt,
    SecureTrainingJob,
    Tenant,
    TenantKey,
)

MAX_FAILED_SCRUBS: Final = 64
"""How many epochs without a receipt may lie between a node's receipt and the one before it."""

_Typed = TypeVar("_Typed")


class Gatherer:
    """Reads the evidence for a release."""

    def __init__(self, kube: Kube, store: StoreThread, criticalities: Criticalities) -> None:
        self._kube = kube
        self._store = store
        self._criticalities = criticalities

    async def gather(
        self, claim: Claim, identity: Identity, challenge: Challenge | None, receipt_keys: ReceiptKeys
    ) -> Evidence:
        """Return the evidence; raise UnavailableError when the API server or the store is away."""
        namespace, store = identity.namespace, self._store.store
        (pod, node, job, gpu_node), (dataset, tenant_key, tenants) = await asyncio.gather(
            asyncio.gather(
                self._kube.get(POD, identity.pod, namespace),
                self._kube.get(NODE, identity.node),
                self._typed(JOB_CR, SecureTrainingJob, claim.job, namespace),
                self._typed(GPU_NODE, GPUNode, identity.node),
            ),
            asyncio.gather(
                self._typed(DATASET, EncryptedDataset, claim.dataset, namespace),
                self._typed(TENANT_KEY, TenantKey, claim.key, namespace),
                self.tenants_of(namespace),
            ),
        )
        receipt, previous = await self._receipts(gpu_node, receipt_keys)
        versions: frozenset[int] = frozenset()
        if len(tenants) == 1:
            keys = await self._store.run(store.keys, tenants[0].metadata.name, namespace, claim.key)
            versions = frozenset(key.version for key in keys)
        epoch = gpu_node.status.epoch if gpu_node is not None else 0
        return Evidence(
            claim=claim,
            identity=identity,
            challenge=challenge,
            pod=pod,
            tenants=tenants,
            job=job,
            node=node,
            gpu_node=gpu_node,
            receipt=receipt,
            previous_receipt=previous,
            receipt_keys=receipt_keys,
            dataset=dataset,
            tenant_key=tenant_key,
            key_versions=versions,
            releases=await self._store.run(store.releases, identity.pod_uid, claim.dataset_id),
            other_jobs=await self._store.run(store.other_jobs, identity.node_uid, epoch, claim.job_uid),
            criticalities=self._criticalities,
        )

    async def tenants_of(self, namespace: str) -> tuple[Tenant, ...]:
        """Return all tenants that claim a namespace."""
        tenants = [parse_object(item, Tenant) for item in await self._kube.list(TENANT)]
        return tuple(tenant for tenant in tenants if namespace in tenant.spec.namespaces)

    async def _receipts(
        self, gpu_node: GPUNode | None, keys: ReceiptKeys
    ) -> tuple[ScrubReceipt | None, ScrubReceipt | None]:
        """Return the receipt that the ledger names, and the one that it says it follows."""
        if gpu_node is None or gpu_node.status.last_receipt is None:
            return None, None
        receipt = await self._typed(RECEIPT, ScrubReceipt, gpu_node.status.last_receipt.name)
        if receipt is None:
            return None, None
        try:
            predicate = verify_receipt(receipt.spec.envelope, keys)
        except (CryptoError, ReceiptError):
            return receipt, None  # the chain of checks refuses it and says why
        if not predicate.previous:
            return receipt, None
        for epoch in range(predicate.epoch - 1, max(0, predicate.epoch - 1 - MAX_FAILED_SCRUBS), -1):
            earlier = await self._typed(RECEIPT, ScrubReceipt, receipt_name(predicate.node, epoch))
            if earlier is not None:
                return receipt, earlier
        return receipt, None

    async def _typed(self, kind: Kind, to: type[_Typed], name: str, namespace: str = "") -> _Typed | None:
        item = await self._kube.get(kind, name, namespace)
        return None if item is None else parse_object(item, to)


def parse_object(item: dict[str, Any], to: type[_Typed]) -> _Typed:
    """Return an object of the API server as its type; raise UnavailableError for contents of another version."""
    try:
        return msgspec.convert(item, to)
    except msgspec.ValidationError as error:
        name = item.get("metadata", {}).get("name")
        raise UnavailableError(
            f"{to.__name__} {name} has contents that this version does not know: {error}; upgrade the key service"
        ) from error
