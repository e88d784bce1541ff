"""Reads of one cycle: from the API server to a Snapshot.

1. All reads are live lists (`adapters.kube`), in the order that `decisions.snapshot` asks for: ledger, fence, pods, and
   at last who is on each node that is being closed.
2. An object that does not parse is left out and logged. A GPUNode that does not parse is remembered as such: nothing
   about its node is open.
3. Secrets are asked for by name, and only whether they exist.
4. A trial bind is tried only where the fence is closed and has settled.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from lethe.adapters import kube
from lethe.adapters.clock import Clock
from lethe.adapters.kube import Kind, Kube, Object
from lethe.controller.facts import is_occupant, parse_grant, parse_grant_role, parse_namespace, parse_node, parse_pod
from lethe.crypto.derive import random_bytes
from lethe.decisions.admission import is_waiting
from lethe.decisions.fence import is_closed
from lethe.decisions.snapshot import IssuedReceipt, Key, NamespaceFacts, PodFacts, ScrubResult, Snapshot
from lethe.decisions.validation import secret_names
from lethe.formats.quantity import seconds_between
from lethe.formats.receipt import envelope_sha256, parse_report, parse_summary, verify_receipt
from lethe.model import names
from lethe.model.config import OperatorConfig
from lethe.model.errors import LetheError, ReceiptError, RefusedError, UnavailableError
from lethe.model.phases import NodePhase
from lethe.model.resources import (
    EncryptedDataset,
    GPUNode,
    ScrubReceipt,
    SecureTrainingJob,
    Tenant,
    TenantKey,
)
from lethe.specs.fence import RBAC_COPY, parse_debug_pods, parse_open_nodes

_log = structlog.get_logger()
_T = TypeVar("_T", SecureTrainingJob, EncryptedDataset, TenantKey, Tenant, GPUNode)

_SLOW_KEYFETCH_SECONDS = 3
_LEAVING = (NodePhase.DIRTY, NodePhase.SCRUBBING, NodePhase.DRAINING, NodePhase.QUARANTINED)
_CLOSING = (NodePhase.DIRTY, NodePhase.DRAINING, NodePhase.QUARANTINED)
_TRIAL_NAMESPACE = "default"
_TRIAL_POD = "lethe-trial"
_TRIAL_UID = "00000000-0000-0000-0000-000000000000"


class Observer:
    """Reads the world for a cycle."""

    def __init__(
        self,
        api: Kube,
        clock: Clock,
        config: OperatorConfig,
        receipt_keys: dict[str, bytes],
        note_read: Callable[[Kind, list[Object]], None],
    ) -> None:
        """`note_read` is told what the lists of watched kinds have shown."""
        self._api = api
        self._note_read = note_read
        self._clock = clock
        self._config = config
        self._receipt_keys = receipt_keys

    async def observe(self) -> Snapshot:
        """Return the world as it is now."""
        api = self._api
        raw_jobs, raw_nodes = await asyncio.gather(api.list(kube.JOB_CR), api.list(kube.GPU_NODE))
        datasets, tenant_keys, tenants, nodes, namespaces, accounts, bindings, roles = await asyncio.gather(
            api.list(kube.DATASET),
            api.list(kube.TENANT_KEY),
            api.list(kube.TENANT),
            api.list(kube.NODE),
            api.list(kube.NAMESPACE),
            api.list(kube.SERVICEACCOUNT, fields=f"metadata.name={names.JOB_ACCOUNT}"),
            *(api.list(kind, labels=RBAC_COPY) for kind in (kube.ROLEBINDING, kube.ROLE)),
        )
        open_role, open_binding = await asyncio.gather(
            *(api.get(kind, names.OPEN_NODES_ACCOUNT, names.OPEN_NAMESPACE) for kind in (kube.ROLE, kube.ROLEBINDING))
        )
        pods = await api.list(kube.POD, labels=f"{names.LABEL_ROLE} in ({names.ROLE_TRAIN},{names.ROLE_SCRUB})")
        for kind, objects in (
            (kube.JOB_CR, raw_jobs),
            (kube.GPU_NODE, raw_nodes),
            (kube.DATASET, datasets),
            (kube.TENANT_KEY, tenant_keys),
            (kube.TENANT, tenants),
            (kube.NODE, nodes),
            (kube.ROLEBINDING, bindings),
            (kube.POD, pods),
        ):
            self._note_read(kind, objects)
        gpu_nodes = {node.metadata.name: node for node in _typed(raw_nodes, GPUNode)}
        snapshot = Snapshot(
            now=self._clock.now(),
            config=self._config,
            jobs=_keyed(_typed(raw_jobs, SecureTrainingJob)),
            gpu_nodes=gpu_nodes,
            unreadable_gpu_nodes=frozenset(
                node["metadata"]["name"] for node in raw_nodes if node["metadata"]["name"] not in gpu_nodes
            ),
            nodes={node["metadata"]["name"]: parse_node(node, self._config.gpu_node_label) for node in nodes},
            pods={pod["metadata"]["uid"]: parse_pod(pod) for pod in pods if _is_ours(pod)},
            tenants={tenant.metadata.name: tenant for tenant in _typed(tenants, Tenant)},
            datasets=_keyed(_typed(datasets, EncryptedDataset)),
            tenant_keys=_keyed(_typed(tenant_keys, TenantKey)),
            namespaces=_namespaces(namespaces, accounts),
            grants=tuple(parse_grant(binding) for binding in bindings if _is_grant(binding)),
            debug=_debug_pods(roles, bindings),
            grant_roles=tuple(parse_grant_role(role) for role in roles if _is_grant(role)),
            open_nodes=parse_open_nodes(open_role) if open_role is not None and open_binding is not None else None,
            open_nodes_version=open_role["metadata"]["resourceVersion"] if open_role is not None else "",
            new_nonces={name: random_bytes(32).hex() for name in gpu_nodes},
        )
        return await self._look_closer(snapshot)

    async def _look_closer(self, snapshot: Snapshot) -> Snapshot:
        """Add what is read only for those who need it; who is on a node comes last."""
        missing, scrubs, receipts, earlier, words, closed = await asyncio.gather(
            self._missing_secrets(snapshot),
            self._scrub_results(snapshot),
            self._receipts(snapshot),
            self._earlier_receipts(snapshot),
            self._keyfetch_words(snapshot),
            self._closed_nodes(snapshot),
        )
        leaving = [name for name, node in snapshot.gpu_nodes.items() if node.status.phase in _LEAVING]
        occupants = await asyncio.gather(*(self._occupants(name) for name in leaving))
        return msgspec.structs.replace(
            snapshot,
            missing_secrets=missing,
            scrubs=scrubs,
            receipts=receipts,
            earlier_receipts=earlier,
            keyfetch_words=words,
            closed_nodes=closed,
            occupants=dict(zip(leaving, occupants, strict=True)),
        )

    async def _occupants(self, node: str) -> tuple[str, ...]:
        pods = await self._api.list(kube.POD, fields=f"spec.nodeName={node}")
        return tuple(
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if is_occupant(pod, self._config.system_namespaces)
        )

    async def _closed_nodes(self, snapshot: Snapshot) -> frozenset[str]:
        closed = set()
        for name, node in snapshot.gpu_nodes.items():
            status = node.status
            if status.phase not in _CLOSING or status.closed_at is None or not is_closed(snapshot, name):
                continue
            if seconds_between(status.closed_at, snapshot.now) < self._config.settle_seconds:
                continue
            namespace, pod, uid = _trial(snapshot, node)
            try:
                refusal = await self._api.bind_dry_run(namespace, pod, uid, name)
            except UnavailableError as error:
                _log.warning("an API server does not say whether a node is closed", node=name, error=str(error))
                continue
            if refusal is not None:
                closed.add(name)
        return frozenset(closed)

    async def _missing_secrets(self, snapshot: Snapshot) -> frozenset[Key]:
        wanted: set[Key] = set()
        for job in snapshot.jobs.values():
            if is_waiting(job):
                namespace = job.metadata.namespace
                uses = [snapshot.datasets.get((namespace, use.name)) for use in job.spec.datasets]
                found = [dataset for dataset in uses if dataset is not None]
                wanted |= {(namespace, name) for name in secret_names(job, found)}
        order = sorted(wanted)
        there = await asyncio.gather(*(self._api.exists(kube.SECRET, name, namespace) for namespace, name in order))
        return frozenset(key for key, exists in zip(order, there, strict=True) if not exists)

    async def _scrub_results(self, snapshot: Snapshot) -> dict[str, ScrubResult]:
        wanted = {
            node.status.scrub.pod_uid
            for node in snapshot.gpu_nodes.values()
            if node.status.phase == NodePhase.SCRUBBING and node.status.scrub is not None
        }
        ended = [pod for uid, pod in snapshot.pods.items() if uid in wanted and pod.has_ended]
        return {pod.uid: await self._scrub_result(pod) for pod in ended}

    async def _scrub_result(self, pod: PodFacts) -> ScrubResult:
        container = pod.containers.get(names.CONTAINER_SCRUB)
        errors = []
        summary = report = None
        digest = ""
        try:
            summary = parse_summary(container.message if container is not None else "")
        except ReceiptError as error:
            errors.append(str(error))
        try:
            log = await self._api.logs(pod.namespace, pod.name, names.CONTAINER_SCRUB)
            report, digest = parse_report(log)
        except (ReceiptError, RefusedError) as error:
            errors.append(str(error))
        return ScrubResult(report=report, report_sha256=digest, summary=summary, error="; ".join(errors))

    async def _receipts(self, snapshot: Snapshot) -> dict[str, IssuedReceipt]:
        receipts = {}
        for name, node in snapshot.gpu_nodes.items():
            if node.status.phase != NodePhase.SCRUBBING:
                continue
            raw = await self._api.get(kube.RECEIPT, names.receipt(name, node.status.epoch))
            if raw is None:
                continue
            receipts[name] = self._verified(raw)
        return receipts

    async def _earlier_receipts(self, snapshot: Snapshot) -> dict[str, IssuedReceipt]:
        """Return the newest receipt of each node whose ledger knows of none: the earlier ledger was deleted."""
        newest = {}
        for name, node in snapshot.gpu_nodes.items():
            if node.status.phase != NodePhase.DIRTY or node.status.epoch > 0:
                continue
            receipts = await self._api.list(kube.RECEIPT, labels=f"{names.LABEL_NODE}={name}")
            if receipts:
                last = max(receipts, key=lambda receipt: receipt["spec"]["epoch"])
                newest[name] = msgspec.structs.replace(self._verified(last), epoch=last["spec"]["epoch"])
        return newest

    def _verified(self, raw: Object) -> IssuedReceipt:
        """Return what a receipt says; one that does not verify says nothing, and clears nothing."""
        name = raw["metadata"]["name"]
        try:
            envelope = msgspec.convert(raw, ScrubReceipt).spec.envelope
            predicate = verify_receipt(envelope, self._receipt_keys)
        except (LetheError, msgspec.ValidationError) as error:
            _log.error("a receipt does not verify", receipt=name, error=str(error))
            return IssuedReceipt(name=name, sha256="", nonce="", node_uid="", boot_id="", epoch=0)
        return IssuedReceipt(
            name=name,
            sha256=envelope_sha256(envelope),
            nonce=predicate.nonce,
            node_uid=predicate.node_uid,
            boot_id=predicate.boot_id,
            epoch=predicate.epoch,
        )

    async def _keyfetch_words(self, snapshot: Snapshot) -> dict[str, str]:
        words = {}
        for pod in snapshot.pods.values():
            keyfetch = pod.containers.get(names.CONTAINER_KEYFETCH)
            if keyfetch is None or keyfetch.state != "running" or not keyfetch.since or pod.deleting:
                continue
            if seconds_between(keyfetch.since, snapshot.now) < _SLOW_KEYFETCH_SECONDS:
                continue
            try:
                log = await self._api.logs(pod.namespace, pod.name, names.CONTAINER_KEYFETCH)
            except LetheError as error:
                _log.info("the key fetch's log cannot be read", pod=pod.name, error=str(error))
                continue
            lines = log.decode(errors="replace").strip().splitlines()
            if lines:
                words[pod.uid] = lines[-1][:300]
        return words


def _typed(objects: list[Object], kind: type[_T]) -> list[_T]:
    parsed = []
    for item in objects:
        try:
            parsed.append(msgspec.convert(item, kind))
        except msgspec.ValidationError as error:
            metadata = item.get("metadata") or {}
            _log.error(
                "an object does not parse and is left alone",
                kind=kind.__name__,
                namespace=metadata.get("namespace", ""),
                name=metadata.get("name", ""),
                error=str(error),
            )
    return parsed


def _keyed(objects: list[_T]) -> dict[Key, _T]:
    return {(item.metadata.namespace, item.metadata.name): item for item in objects}


def _namespaces(namespaces: list[Object], accounts: list[Object]) -> dict[str, NamespaceFacts]:
    with_account = {account["metadata"]["namespace"] for account in accounts}
    return {
        item["metadata"]["name"]: parse_namespace(item, has_job_account=item["metadata"]["name"] in with_account)
        for item in namespaces
    }


def _is_ours(pod: Object) -> bool:
    """Say whether a pod with our label has our name too: labels alone may be anybody's where the policies are not."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    if pod["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_SCRUB:
        return bool(namespace == names.SYSTEM_NAMESPACE and name.startswith(names.SCRUB_POD_PREFIX))
    return bool(name.startswith(names.POD_PREFIX) and pod["metadata"]["labels"].get(names.LABEL_JOB_UID))


def _is_grant(binding: Object) -> bool:
    return bool(binding["metadata"]["labels"].get(names.LABEL_NODE))


def _debug_pods(roles: list[Object], bindings: list[Object]) -> dict[str, frozenset[str]]:
    """Return the pods that are open to exec, by namespace; a Role that is not bound opens nothing."""
    bound = {item["metadata"]["namespace"] for item in bindings if item["metadata"]["name"] == names.DEBUG}
    lists = {
        role["metadata"]["namespace"]: parse_debug_pods(role)
        for role in roles
        if role["metadata"]["name"] == names.DEBUG
    }
    return {
        namespace: lists[namespace] if namespace in lists and namespace in bound else frozenset()
        for namespace in bound | lists.keys()
    }


def _trial(snapshot: Snapshot, node: GPUNode) -> tuple[str, str, str]:
    """Return namespace, name and uid of a pod to try the fence with: one that leaves, or nobody's."""
    holder, past = node.status.holder, node.status.previous_holder
    if holder is not None and holder.pod_uids:
        uid = holder.pod_uids[0]
        pod = snapshot.pods.get(uid)
        return holder.namespace, pod.name if pod is not None else _TRIAL_POD, uid
    if past is not None and past.namespace in snapshot.namespaces:
        return past.namespace, _TRIAL_POD, _TRIAL_UID
    return _TRIAL_NAMESPACE, _TRIAL_POD, _TRIAL_UID
