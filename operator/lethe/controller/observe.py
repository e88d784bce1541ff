"""Reads of one cycle: from the API server to a Snapshot.

1. All reads are live lists (`adapters.kube`), in the order that `decisions.snapshot` asks for: ledger, fence, pods, and
   at last who is on each node that is being closed. Objects are decoded one by one: a list holds facts, not documents.
2. An object that does not parse is left out and logged. A GPUNode that does not parse is remembered as such: nothing
   about its node is open.
3. Secrets are asked for by name, and only whether they exist.
4. A trial bind is tried only where the fence has been closed for long enough.
5. Of a watched kind exactly what is watched is read (controller.selectors), but for who is on a node: everybody counts.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from lethe.adapters import kube
from lethe.adapters.clock import Clock
from lethe.adapters.kube import Kind, Kube, Object
from lethe.controller.facts import is_occupant, parse_grant, parse_grant_role, parse_namespace, parse_node, parse_pod
from lethe.controller.selectors import WATCHED
from lethe.crypto.derive import random_bytes
from lethe.decisions.admission import is_waiting
from lethe.decisions.fence import is_closed
from lethe.decisions.outcome import keyfetch_since, until_slow
from lethe.decisions.snapshot import (
    IssuedReceipt,
    Key,
    NamespaceFacts,
    NodeFacts,
    PodFacts,
    ScrubResult,
    Snapshot,
)
from lethe.decisions.validation import secret_names
from lethe.formats.receipt import envelope_sha256, parse_report, parse_summary, verify_receipt
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.model import names
from lethe.model.config import OperatorConfig
from lethe.model.errors import LetheError, ReceiptError, RefusedError, UnavailableError
from lethe.model.phases import NodePhase
from lethe.model.resources import (
    EncryptedDataset,
    GPUNode,
    Metadata,
    ScrubReceipt,
    SecureTrainingJob,
    Tenant,
    TenantKey,
)
from lethe.specs.fence import RBAC_COPY, parse_names

_log = structlog.get_logger()
_T = TypeVar("_T")
_Own = TypeVar("_Own", SecureTrainingJob, EncryptedDataset, TenantKey)
_Parser = Callable[[msgspec.Raw], _T | None]

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
        receipt_keys: Callable[[], ReceiptKeys],
        note_read: Callable[[Kind, int], None],
    ) -> None:
        """`note_read` is told the newest version that a list of a watched kind has shown."""
        self._api = api
        self._note_read = note_read
        self._closed_since: dict[str, float] = {}
        """When this process first saw a node closed that has been closed ever since; it only ever delays."""
        self._clock = clock
        self._config = config
        self._receipt_keys = receipt_keys

    async def observe(self) -> Snapshot:
        """Return the world as it is now."""
        api = self._api
        unreadable: list[str] = []
        jobs, gpu_nodes = await asyncio.gather(
            self._watched(kube.JOB_CR, _parser(SecureTrainingJob)),
            self._watched(kube.GPU_NODE, _parser(GPUNode, unreadable)),
        )
        datasets, tenant_keys, tenants, nodes, namespaces, accounts, bindings, roles = await asyncio.gather(
            self._watched(kube.DATASET, _parser(EncryptedDataset)),
            self._watched(kube.TENANT_KEY, _parser(TenantKey)),
            self._watched(kube.TENANT, _parser(Tenant)),
            self._watched(kube.NODE, partial(_node, label=self._config.gpu_node_label)),
            self._read(kube.NAMESPACE, msgspec.json.decode),
            self._read(kube.SERVICEACCOUNT, _namespace_of, fields=f"metadata.name={names.JOB_ACCOUNT}"),
            self._watched(kube.ROLEBINDING, msgspec.json.decode),
            self._read(kube.ROLE, msgspec.json.decode, labels=RBAC_COPY),
        )
        open_role, open_binding = await asyncio.gather(
            *(api.get(kind, names.OPEN_NODES_ACCOUNT, names.OPEN_NAMESPACE) for kind in (kube.ROLE, kube.ROLEBINDING))
        )
        pods = await self._watched(kube.POD, _pod)
        snapshot = Snapshot(
            now=self._clock.now(),
            config=self._config,
            jobs=_keyed(jobs),
            gpu_nodes={node.metadata.name: node for node in gpu_nodes},
            unreadable_gpu_nodes=frozenset(unreadable),
            nodes={node.name: node for node in nodes},
            pods={pod.uid: pod for pod in pods},
            tenants={tenant.metadata.name: tenant for tenant in tenants},
            datasets=_keyed(datasets),
            tenant_keys=_keyed(tenant_keys),
            namespaces=_namespaces(namespaces, frozenset(accounts)),
            grants=tuple(parse_grant(binding) for binding in bindings if _is_grant(binding)),
            debug=_debug_pods(roles, bindings),
            grant_roles=tuple(parse_grant_role(role) for role in roles if _is_grant(role)),
            open_nodes=parse_names(open_role) if open_role is not None and open_binding is not None else None,
            open_nodes_version=open_role["metadata"]["resourceVersion"] if open_role is not None else "",
            new_nonces={
                node.metadata.name: random_bytes(32).hex() for node in gpu_nodes if node.status.phase == NodePhase.DIRTY
            },
        )
        return await self._look_closer(snapshot)

    def _closed_for(self, snapshot: Snapshot) -> dict[str, float]:
        """Return how long each node has been seen closed: in every cycle since, and read before the clock was."""
        now = self._clock.monotonic()
        self._closed_since = {
            name: self._closed_since.get(name, now) for name in snapshot.gpu_nodes if is_closed(snapshot, name)
        }
        return {name: now - since for name, since in self._closed_since.items()}

    async def _watched(self, kind: Kind, parse: _Parser[_T]) -> list[_T]:
        """Return what `parse` makes of each object that is watched, and note the newest version."""
        objects = await self._api.list_raw(kind, labels=WATCHED[kind])
        self._note_read(kind, max(map(_version, objects), default=0))
        return _parsed(objects, parse)

    async def _read(self, kind: Kind, parse: _Parser[_T], labels: str = "", fields: str = "") -> list[_T]:
        """Return what `parse` makes of each object."""
        return _parsed(await self._api.list_raw(kind, labels=labels, fields=fields), parse)

    async def _look_closer(self, snapshot: Snapshot) -> Snapshot:
        """Add what is read only for those who need it; who is on a node comes last."""
        closed_for = self._closed_for(snapshot)
        missing, scrubs, receipts, earlier, words, closed = await asyncio.gather(
            self._missing_secrets(snapshot),
            self._scrub_results(snapshot),
            self._receipts(snapshot),
            self._earlier_receipts(snapshot),
            self._keyfetch_words(snapshot),
            self._closed_nodes(snapshot, closed_for),
        )
        past = await self._past_receipts(receipts)
        asked = [
            name
            for name, node in snapshot.gpu_nodes.items()
            if node.status.phase in _LEAVING or (node.status.phase == NodePhase.FREE and snapshot.admitted_to(name))
        ]
        occupants = await asyncio.gather(*(self._occupants(name) for name in asked))
        return msgspec.structs.replace(
            snapshot,
            missing_secrets=missing,
            scrubs=scrubs,
            receipts=receipts,
            past_receipts=past,
            keyfetch_words=words,
            earlier_receipts=earlier,
            closed_for=closed_for,
            closed_nodes=closed,
            occupants=dict(zip(asked, occupants, strict=True)),
        )

    async def _occupants(self, node: str) -> tuple[str, ...]:
        pods = await self._read(kube.POD, msgspec.json.decode, fields=f"spec.nodeName={node}")
        return tuple(
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if is_occupant(pod, self._config.system_namespaces)
        )

    async def _closed_nodes(self, snapshot: Snapshot, closed_for: dict[str, float]) -> frozenset[str]:
        wanted = [
            name
            for name, node in snapshot.gpu_nodes.items()
            if node.status.phase in _CLOSING and closed_for.get(name, -1.0) >= self._config.settle_seconds
        ]
        refused = await asyncio.gather(*(self._is_refused(snapshot, name) for name in wanted))
        return frozenset(name for name, is_refused in zip(wanted, refused, strict=True) if is_refused)

    async def _is_refused(self, snapshot: Snapshot, node: str) -> bool:
        """Say whether every API server refuses a trial bind to a node."""
        try:
            return await self._api.bind_dry_run(*_trial(snapshot, snapshot.gpu_nodes[node]), node) is not None
        except UnavailableError as error:
            _log.warning("an API server does not say whether a node is closed", node=node, error=str(error))
            return False

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
        results = await asyncio.gather(*(self._scrub_result(pod) for pod in ended))
        return {pod.uid: result for pod, result in zip(ended, results, strict=True)}

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
        scrubbing = {
            name: node.status.epoch
            for name, node in snapshot.gpu_nodes.items()
            if node.status.phase == NodePhase.SCRUBBING
        }
        found = await asyncio.gather(
            *(self._api.get(kube.RECEIPT, names.receipt(name, epoch)) for name, epoch in scrubbing.items())
        )
        return {name: self._verified(raw) for name, raw in zip(scrubbing, found, strict=True) if raw is not None}

    async def _past_receipts(self, receipts: Iterable[str]) -> dict[str, tuple[IssuedReceipt, ...]]:
        """Return all receipts of the nodes that have just got one, where retention may delete some."""
        if self._config.receipt_keep_days == 0:
            return {}
        wanted = list(receipts)
        found = await asyncio.gather(*(self._receipts_of(name) for name in wanted))
        return {name: tuple(map(self._verified, some)) for name, some in zip(wanted, found, strict=True)}

    async def _receipts_of(self, node: str) -> list[Object]:
        return await self._api.list(kube.RECEIPT, labels=f"{names.LABEL_NODE}={node}")

    async def _earlier_receipts(self, snapshot: Snapshot) -> dict[str, IssuedReceipt]:
        """Return the newest receipt of each node whose ledger knows of none: the earlier ledger was deleted."""
        newest = {}
        for name, node in snapshot.gpu_nodes.items():
            if node.status.phase != NodePhase.DIRTY or node.status.epoch > 0:
                continue
            if receipts := await self._receipts_of(name):
                last = max(receipts, key=lambda receipt: receipt["spec"]["epoch"])
                newest[name] = msgspec.structs.replace(self._verified(last), epoch=last["spec"]["epoch"])
        return newest

    def _verified(self, raw: Object) -> IssuedReceipt:
        """Return what a receipt says; one that does not verify says nothing, and clears nothing."""
        name, keys = raw["metadata"]["name"], self._receipt_keys()
        try:
            envelope = msgspec.convert(raw, ScrubReceipt).spec.envelope
            predicate = verify_receipt(envelope, keys)
        except (LetheError, msgspec.ValidationError) as error:
            _log.error("a receipt does not verify", receipt=name, error=str(error))
            return IssuedReceipt(name=name, sha256="", nonce="", node_uid="", boot_id="", epoch=0)
        return IssuedReceipt(
            name=name,
            uid=raw["metadata"]["uid"],
            sha256=envelope_sha256(envelope),
            nonce=predicate.nonce,
            node_uid=predicate.node_uid,
            boot_id=predicate.boot_id,
            epoch=predicate.epoch,
            issued_at=predicate.issued_at,
        )

    async def _keyfetch_words(self, snapshot: Snapshot) -> dict[str, str]:
        words = {}
        for pod in snapshot.pods.values():
            if pod.deleting or until_slow(keyfetch_since(pod), snapshot.now) != 0:
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


def _parsed(objects: Iterable[msgspec.Raw], parse: _Parser[_T]) -> list[_T]:
    """Return what `parse` makes of each object; None leaves one out."""
    parsed = (parse(raw) for raw in objects)
    return [item for item in parsed if item is not None]


class _Named(msgspec.Struct):
    metadata: Metadata


_NAMED: Final = msgspec.json.Decoder(_Named)


def _parser(kind: type[_T], unreadable: list[str] | None = None) -> _Parser[_T]:
    """Return what decodes objects of ours; the name of one that does not parse goes to `unreadable`."""
    decoder = msgspec.json.Decoder(kind)

    def parse(raw: msgspec.Raw) -> _T | None:
        try:
            return decoder.decode(raw)
        except msgspec.ValidationError as error:
            metadata = _NAMED.decode(raw).metadata
            if unreadable is not None:
                unreadable.append(metadata.name)
            _log.error(
                "an object does not parse and is left alone",
                kind=kind.__name__,
                namespace=metadata.namespace,
                name=metadata.name,
                error=str(error),
            )
            return None

    return parse


def _node(raw: msgspec.Raw, label: str) -> NodeFacts:
    return parse_node(msgspec.json.decode(raw), label)


def _pod(raw: msgspec.Raw) -> PodFacts | None:
    """Return the facts of a pod that has our name too: labels alone may be anybody's where the policies are not."""
    pod = msgspec.json.decode(raw)
    name, namespace, labels = pod["metadata"]["name"], pod["metadata"]["namespace"], pod["metadata"]["labels"]
    if labels[names.LABEL_ROLE] == names.ROLE_SCRUB:
        is_ours = namespace == names.SYSTEM_NAMESPACE and name.startswith(names.SCRUB_POD_PREFIX)
    else:
        is_ours = name.startswith(names.POD_PREFIX) and labels.get(names.LABEL_JOB_UID)
    return parse_pod(pod) if is_ours else None


def _version(raw: msgspec.Raw) -> int:
    return int(_NAMED.decode(raw).metadata.resource_version)


def _is_grant(item: Object) -> bool:
    return bool(item["metadata"]["labels"].get(names.LABEL_NODE))


def _debug_pods(roles: list[Object], bindings: list[Object]) -> dict[str, frozenset[str]]:
    """Return the pods that are open to exec, by namespace; a Role that is not bound opens nothing."""
    bound = {item["metadata"]["namespace"] for item in bindings if item["metadata"]["name"] == names.DEBUG}
    lists = {
        role["metadata"]["namespace"]: parse_names(role) for role in roles if role["metadata"]["name"] == names.DEBUG
    }
    return {
        namespace: lists[namespace] if namespace in lists and namespace in bound else frozenset()
        for namespace in bound | lists.keys()
    }


def _namespace_of(raw: msgspec.Raw) -> str:
    return _NAMED.decode(raw).metadata.namespace


def _keyed(objects: Iterable[_Own]) -> dict[Key, _Own]:
    return {(item.metadata.namespace, item.metadata.name): item for item in objects}


def _namespaces(namespaces: list[Object], with_account: frozenset[str]) -> dict[str, NamespaceFacts]:
    return {
        item["metadata"]["name"]: parse_namespace(item, has_job_account=item["metadata"]["name"] in with_account)
        for item in namespaces
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
