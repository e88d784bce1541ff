"""Writes of one cycle: carries a Plan out.

1. In order. When an action for an object fails, the later ones for the same object are skipped: the next cycle decides
   again from what is there.
2. Nothing is written by a replica that does not hold the Lease. What an old holder has sent may land late, so every
   write to an existing object is a compare-and-swap on uid and resourceVersion, and a deletion carries the uid. Grants
   are simply made what they must be: one that comes late lets nobody in, because its pods have ended.
3. An object that exists already under the name of one that is to be created is accepted only if it is ours.
4. Events are sent after the status write that they tell about, and only if it succeeded. A lost event is logged.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from lethe.adapters import kube
from lethe.adapters.clock import Clock
from lethe.adapters.kube import Kind, Kube, Object
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.counts import count_failure, count_scrub
from lethe.controller.events import build_event
from lethe.controller.leader import Leadership
from lethe.crypto.sign import Signer
from lethe.decisions import actions
from lethe.decisions.actions import Action, Note, Plan
from lethe.decisions.snapshot import Snapshot
from lethe.formats.quantity import seconds_between
from lethe.formats.receipt import build_statement, envelope_sha256, seal_receipt
from lethe.model import names
from lethe.model.config import OperatorConfig
from lethe.model.errors import AlreadyExistsError, ConflictError, LetheError, RefusedError, UnavailableError
from lethe.model.resources import Metadata, ReceiptSpec
from lethe.specs.fence import (
    build_debug_binding,
    build_debug_role,
    build_grant_binding,
    build_grant_role,
    build_open_binding,
    build_open_role,
)
from lethe.specs.scheduling import required_node
from lethe.specs.scrub import build_scrub_pod
from lethe.specs.training import TrainingPodInput, build_training_pod

_log = structlog.get_logger()
_TRUE: Final = "true"
_LABEL_RELEASED: Final = names.LABEL_RELEASED.replace("/", "~1")
"""As a JSON pointer writes it."""


class Executor:
    """Carries plans out."""

    def __init__(
        self,
        api: Kube,
        leadership: Leadership,
        clock: Clock,
        config: OperatorConfig,
        signer: Callable[[str], Signer],
        metrics: OperatorMetrics,
    ) -> None:
        """`signer` returns who signs what is issued at this time."""
        self._api = api
        self._leadership = leadership
        self._clock = clock
        self._config = config
        self._signer = signer
        self._metrics = metrics
        self._verbs: Final[dict[type[Action], Callable[[Any, Snapshot], Awaitable[None]]]] = {
            actions.GuardJob: self._guard_job,
            actions.ReleaseJob: self._release_job,
            actions.CreateTrainingPod: self._create_training_pod,
            actions.WriteJobStatus: self._write_job_status,
            actions.LiftGate: self._lift_gate,
            actions.DeletePod: self._delete_pod,
            actions.ReleasePod: self._release_pod,
            actions.CreateLedger: self._create_ledger,
            actions.EnrolNode: self._enrol_node,
            actions.WriteNodeStatus: self._write_node_status,
            actions.OpenGrant: self._open_grant,
            actions.CloseGrant: self._close_grant,
            actions.RemoveGrantRole: self._remove_grant_role,
            actions.MarkNode: self._mark_node,
            actions.CreateScrubPod: self._create_scrub_pod,
            actions.IssueReceipt: self._issue_receipt,
            actions.DeleteReceipt: self._delete_receipt,
            actions.SetOpenNodes: self._set_open_nodes,
            actions.SetDebugPods: self._set_debug_pods,
            actions.LabelNamespace: self._label_namespace,
            actions.CreateJobAccount: self._create_job_account,
            actions.WriteTenantStatus: self._write_tenant_status,
        }

    async def execute(self, plan: Plan, snapshot: Snapshot) -> list[LetheError]:
        """Carry out a plan, and return what failed. UnavailableError and LeadershipError end it at once."""
        failed: dict[str, LetheError] = {}
        for action in plan.actions:
            name = type(action).__name__
            if action.about in failed:
                continue
            self._leadership.require()
            try:
                await self._verbs[type(action)](action, snapshot)
            except UnavailableError:
                raise
            except LetheError as error:
                failed[action.about] = error
                self._metrics.errors.labels(type(error).__name__).inc()
                log = _log.info if isinstance(error, ConflictError) else _log.error
                log("an action failed", action=name, about=action.about, error=str(error))
            else:
                self._metrics.writes.labels(name).inc()
                _log.debug("done", action=name, about=action.about)
        return list(failed.values())

    # ---- jobs

    async def _guard_job(self, action: actions.GuardJob, snapshot: Snapshot) -> None:
        await self._set_finalizers(
            kube.JOB_CR, action.job.metadata, [*action.job.metadata.finalizers, names.JOB_FINALIZER]
        )

    async def _release_job(self, action: actions.ReleaseJob, snapshot: Snapshot) -> None:
        metadata = action.job.metadata
        left = [finalizer for finalizer in metadata.finalizers if finalizer != names.JOB_FINALIZER]
        labels = {**metadata.labels, names.LABEL_RELEASED: _TRUE}
        await self._set_finalizers(
            kube.JOB_CR, metadata, left, {"op": "add", "path": "/metadata/labels", "value": labels}
        )

    async def _create_training_pod(self, action: actions.CreateTrainingPod, snapshot: Snapshot) -> None:
        job = action.job
        namespace = job.metadata.namespace
        datasets = [snapshot.datasets.get((namespace, use.name)) for use in job.spec.datasets]
        recipients = job.spec.outputs.recipients if job.spec.outputs is not None else []
        wanted = [recipient.tenant_key for recipient in recipients if recipient.tenant_key is not None]
        keys = [snapshot.tenant_keys.get((namespace, name)) for name in wanted]
        if None in datasets or None in keys:
            raise ConflictError(f"a dataset or tenant key of job {namespace}/{job.metadata.name} was just deleted")
        pod = build_training_pod(
            TrainingPodInput(
                job=job,
                tenant=action.tenant,
                attempt=action.attempt,
                datasets=[dataset for dataset in datasets if dataset is not None],
                tenant_keys=[key for key in keys if key is not None],
                ca_bundle=await self._ca_bundle(),
            ),
            self._config,
        )
        try:
            await self._api.create(kube.POD, pod)
        except AlreadyExistsError:
            await self._require_own(kube.POD, pod, names.LABEL_JOB_UID)
        except RefusedError as error:
            await self._tell(kube.JOB_CR, job.metadata, [Note(reason="PodRefused", message=str(error), warning=True)])
            raise

    async def _write_job_status(self, action: actions.WriteJobStatus, snapshot: Snapshot) -> None:
        await self._write_status(kube.JOB_CR, action.job.metadata, action.status, action.notes)

    # ---- pods

    async def _lift_gate(self, action: actions.LiftGate, snapshot: Snapshot) -> None:
        await self._patch_pod(
            action,
            [
                {"op": "add", "path": "/spec/affinity", "value": required_node(action.node)},
                {"op": "replace", "path": "/spec/schedulingGates", "value": []},
            ],
        )

    async def _delete_pod(self, action: actions.DeletePod, snapshot: Snapshot) -> None:
        await self._api.delete(
            kube.POD, action.name, action.namespace, uid=action.uid, grace_seconds=action.grace_seconds
        )

    async def _release_pod(self, action: actions.ReleasePod, snapshot: Snapshot) -> None:
        changes = [{"op": "replace", "path": "/metadata/finalizers", "value": action.finalizers}]
        if action.forget:
            changes.append({"op": "add", "path": f"/metadata/labels/{_LABEL_RELEASED}", "value": _TRUE})
        await self._patch_pod(action, changes)

    async def _patch_pod(self, action: actions.PodAction, changes: list[Object]) -> None:
        tests = _tests(action.uid, action.resource_version)
        await self._api.patch(kube.POD, action.name, action.namespace, [*tests, *changes])

    # ---- nodes

    async def _create_ledger(self, action: actions.CreateLedger, snapshot: Snapshot) -> None:
        body = {"metadata": {"name": action.node}, "spec": {"managed": action.managed}}
        try:
            await self._api.create(kube.GPU_NODE, body)
        except AlreadyExistsError:
            _log.debug("the GPUNode is there already", node=action.node)

    async def _enrol_node(self, action: actions.EnrolNode, snapshot: Snapshot) -> None:
        metadata = action.ledger.metadata
        patch = [
            *_tests(metadata.uid, metadata.resource_version),
            {"op": "add", "path": "/spec/managed", "value": True},
        ]
        await self._api.patch(kube.GPU_NODE, action.node, "", patch)

    async def _write_node_status(self, action: actions.WriteNodeStatus, snapshot: Snapshot) -> None:
        await self._write_status(kube.GPU_NODE, action.ledger.metadata, action.status, action.notes)
        count_failure(self._metrics, action)

    async def _open_grant(self, action: actions.OpenGrant, snapshot: Snapshot) -> None:
        if not action.has_role:
            await self._ensure(kube.ROLE, build_grant_role(action.node, action.namespace))
        await self._ensure(kube.ROLEBINDING, build_grant_binding(action.node, action.namespace, action.pod_uids))

    async def _close_grant(self, action: actions.CloseGrant, snapshot: Snapshot) -> None:
        await self._api.delete(kube.ROLEBINDING, names.grant(action.node), action.namespace)

    async def _remove_grant_role(self, action: actions.RemoveGrantRole, snapshot: Snapshot) -> None:
        await self._api.delete(kube.ROLE, names.grant(action.node), action.namespace)

    async def _mark_node(self, action: actions.MarkNode, snapshot: Snapshot) -> None:
        patch = {
            "metadata": {
                "uid": action.uid,
                "resourceVersion": action.resource_version,
                "labels": {names.NODE_LABEL: names.NODE_LABEL_VALUE if action.managed else None},
            },
            "spec": {"taints": action.taints},
        }
        await self._api.patch(kube.NODE, action.node, "", patch)

    async def _create_scrub_pod(self, action: actions.CreateScrubPod, snapshot: Snapshot) -> None:
        pod = build_scrub_pod(action.pod_name, action.config, self._config)
        try:
            await self._api.create(kube.POD, pod)
        except AlreadyExistsError:
            await self._require_own(kube.POD, pod, names.LABEL_NODE)

    async def _issue_receipt(self, action: actions.IssueReceipt, snapshot: Snapshot) -> None:
        signer = self._signer(action.predicate.issued_at)
        envelope = seal_receipt(build_statement(action.predicate), signer)
        holder = action.predicate.holder
        spec = ReceiptSpec(
            node=action.node,
            epoch=action.predicate.epoch,
            tenant=holder.tenant if holder is not None else "",
            residue_bytes=action.residue_bytes,
            sha256=envelope_sha256(envelope),
            envelope=envelope,
        )
        body = {
            "metadata": {"name": action.name, "labels": {names.LABEL_NODE: action.node}},
            "spec": {**msgspec.to_builtins(spec), "residueBytes": action.residue_bytes},
        }
        await self._api.create(kube.RECEIPT, body)
        scrub = snapshot.gpu_nodes[action.node].status.scrub
        since = scrub.started_at if scrub is not None else action.predicate.report.started_at
        count_scrub(self._metrics, action, seconds_between(since, self._clock.now()))

    async def _delete_receipt(self, action: actions.DeleteReceipt, snapshot: Snapshot) -> None:
        await self._api.delete(kube.RECEIPT, action.name, uid=action.uid)

    # ---- the rest

    async def _set_open_nodes(self, action: actions.SetOpenNodes, snapshot: Snapshot) -> None:
        role = build_open_role(action.nodes)
        if action.version:
            metadata = {**role["metadata"], "resourceVersion": action.version}
            await self._api.replace(kube.ROLE, {**role, "metadata": metadata})
        else:
            await self._api.create(kube.ROLE, role)
        await self._ensure(kube.ROLEBINDING, build_open_binding())

    async def _set_debug_pods(self, action: actions.SetDebugPods, snapshot: Snapshot) -> None:
        if not action.pods:
            await self._api.delete(kube.ROLEBINDING, names.DEBUG, action.namespace)
            await self._api.delete(kube.ROLE, names.DEBUG, action.namespace)
            return
        await self._ensure(kube.ROLE, build_debug_role(action.namespace, action.pods))
        await self._ensure(kube.ROLEBINDING, build_debug_binding(action.namespace))

    async def _label_namespace(self, action: actions.LabelNamespace, snapshot: Snapshot) -> None:
        patch = {
            "metadata": {"resourceVersion": action.resource_version, "labels": {names.LABEL_TENANT: action.tenant}}
        }
        await self._api.patch(kube.NAMESPACE, action.namespace, "", patch)

    async def _create_job_account(self, action: actions.CreateJobAccount, snapshot: Snapshot) -> None:
        body = {
            "metadata": {"name": names.JOB_ACCOUNT, "namespace": action.namespace},
            "automountServiceAccountToken": False,
        }
        try:
            await self._api.create(kube.SERVICEACCOUNT, body)
        except AlreadyExistsError:
            _log.debug("the job account is there already", namespace=action.namespace)

    async def _write_tenant_status(self, action: actions.WriteTenantStatus, snapshot: Snapshot) -> None:
        await self._write_status(kube.TENANT, action.tenant.metadata, action.status, action.notes)

    # ---- means

    async def _write_status(
        self, kind: Kind, metadata: Metadata, status: msgspec.Struct, notes: Sequence[Note]
    ) -> None:
        patch = [
            *_tests(metadata.uid, metadata.resource_version),
            {"op": "add", "path": "/status", "value": _written(status)},
        ]
        await self._api.patch(kind, metadata.name, metadata.namespace, patch, "status")
        await self._tell(kind, metadata, notes)

    async def _set_finalizers(self, kind: Kind, metadata: Metadata, finalizers: list[str], *changes: Object) -> None:
        patch = [
            *_tests(metadata.uid, metadata.resource_version),
            {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
            *changes,
        ]
        await self._api.patch(kind, metadata.name, metadata.namespace, patch)

    async def _tell(self, kind: Kind, metadata: Metadata, notes: Sequence[Note]) -> None:
        for note in notes:
            _log.info(
                note.message, kind=kind.kind, namespace=metadata.namespace, name=metadata.name, reason=note.reason
            )
            try:
                await self._api.create(kube.EVENT, build_event(kind, metadata, note, self._clock.now()))
            except LetheError as error:
                _log.warning("an event was lost", about=metadata.name, reason=note.reason, error=str(error))

    async def _ensure(self, kind: Kind, body: Object) -> None:
        """Make an object that only the operator writes equal to `body`."""
        try:
            await self._api.create(kind, body)
            return
        except AlreadyExistsError:
            live = await self._api.get(kind, body["metadata"]["name"], body["metadata"]["namespace"])
        if live is None:
            raise ConflictError(f"{kind.plural} {body['metadata']['name']} was just deleted")
        if _same(live, body):
            return
        version = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
        await self._api.replace(kind, {**body, "metadata": {**body["metadata"], **version}})

    async def _require_own(self, kind: Kind, body: Object, label: str) -> None:
        """Make sure that the object that has this name is the one that an earlier try created."""
        metadata = body["metadata"]
        live = await self._api.get(kind, metadata["name"], metadata["namespace"])
        if live is None:
            raise ConflictError(f"{kind.plural} {metadata['name']} was just deleted")
        if (live["metadata"].get("labels") or {}).get(label) != metadata["labels"][label]:
            raise RefusedError(
                f"{kind.plural} {metadata['namespace']}/{metadata['name']} exists and is not Lethe's: delete it"
            )

    async def _ca_bundle(self) -> str:
        trust = await self._api.get(kube.CONFIGMAP, names.TRUST_CONFIGMAP, names.SYSTEM_NAMESPACE)
        bundle = ((trust or {}).get("data") or {}).get(names.TRUST_CA)
        if not bundle:
            raise ConflictError(
                f"ConfigMap {names.SYSTEM_NAMESPACE}/{names.TRUST_CONFIGMAP} has no {names.TRUST_CA}: the chart's hook "
                "makes it; run `helm upgrade`"
            )
        return str(bundle)


def _tests(uid: str, resource_version: str) -> list[Object]:
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version},
    ]


def _written(status: msgspec.Struct) -> Object:
    """Return a status for the wire: its phase stands there even when it is the first one, for people and columns."""
    value: Object = msgspec.to_builtins(status)
    phase = getattr(status, "phase", None)
    return value if phase is None else {"phase": str(phase), **value}


def _same(live: Object, body: Object) -> bool:
    labels = body["metadata"].get("labels") or {}
    found = live["metadata"].get("labels") or {}
    return all((live.get(key) or []) == value for key, value in body.items() if key != "metadata") and all(
        found.get(key) == value for key, value in labels.items()
    )
