"""A cluster, in objects, in which one pod may have the keys of one dataset; tests change one thing in it."""

import copy
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lethe.adapters.kube import DATASET, GPU_NODE, JOB_CR, NODE, POD, RECEIPT, TENANT, TENANT_KEY, Kind
from lethe.crypto.sign import Signer
from lethe.decisions.evidence import Challenge, Claim, Evidence, Identity
from lethe.decisions.identity import CREDENTIAL_ID, NODE_NAME, NODE_UID, POD_NAME, POD_UID
from lethe.formats.podhash import pod_hash
from lethe.formats.receipt import envelope_sha256
from lethe.model.config import Criticalities, CriticalityRule
from lethe.model.errors import ConflictError
from lethe.model.names import API_VERSION, KEYSERVICE_ID, JobUid, receipt, release_audience
from lethe.model.posture import Posture
from lethe.model.resources import (
    EncryptedDataset,
    Envelope,
    GPUNode,
    ScrubReceipt,
    SecureTrainingJob,
    Tenant,
    TenantKey,
)
from tests.common.scrubs import (
    build_config,
    build_envelope,
    build_posture,
    build_predicate,
    build_report,
    trusted_keys,
)

Object = dict[str, Any]
Objects = list[Object]

SIGNER = Signer.generate()
RECEIPT_KEYS = trusted_keys(SIGNER)
NAMESPACE, TENANT_NAME = "acme", "acme"
POD_NAME_, POD_UID_ = "lethe-digits-job-uid-1-0", "pod-uid"
JOB_UID = JobUid("job-uid")
NODE_UID_, BOOT, EPOCH = "node-uid", "boot-1", 3
DATASET_ID = "41c0" * 8
KEY = "default"
TOKEN = "a.projected.token"
GOOD_POSTURE = build_posture()
CRITICALITIES: Criticalities = {
    "standard": CriticalityRule(),
    "sensitive": CriticalityRule(max_releases=2),
    "critical": CriticalityRule(max_releases=1, fresh_scrub=True, posture=("swapOff", "eccOn")),
}


@dataclass
class Cluster:
    """Objects of the API server as dicts. Set one to None, or change it in place."""

    pod: Object | None = field(default_factory=lambda: build_pod())
    tenants: list[Object] = field(default_factory=lambda: [build_tenant()])
    job: Object | None = field(default_factory=lambda: build_job())
    node: Object | None = field(default_factory=lambda: build_node())
    gpu_node: Object | None = field(default_factory=lambda: build_gpu_node())
    receipt: Object | None = field(default_factory=lambda: build_receipts()[1])
    previous_receipt: Object | None = field(default_factory=lambda: build_receipts()[0])
    dataset: Object | None = field(default_factory=lambda: build_dataset())
    tenant_key: Object | None = field(default_factory=lambda: build_tenant_key())

    def evidence(self, **changes: Any) -> Evidence:
        """Return the evidence that these objects make for the first release."""
        evidence = Evidence(
            claim=build_claim(),
            identity=build_identity(),
            challenge=Challenge(namespace=NAMESPACE, job_uid=JOB_UID, pod_uid=POD_UID_, public_key="an ephemeral key"),
            pod=self.pod,
            tenants=tuple(msgspec.convert(item, Tenant) for item in self.tenants),
            job=_convert(self.job, SecureTrainingJob),
            node=self.node,
            gpu_node=_convert(self.gpu_node, GPUNode),
            receipt=_convert(self.receipt, ScrubReceipt),
            previous_receipt=_convert(self.previous_receipt, ScrubReceipt),
            receipt_keys=RECEIPT_KEYS,
            dataset=_convert(self.dataset, EncryptedDataset),
            tenant_key=_convert(self.tenant_key, TenantKey),
            key_versions=frozenset({1}),
            releases=0,
            other_jobs=0,
            criticalities=CRITICALITIES,
        )
        return msgspec.structs.replace(evidence, **changes)


class FakeKube:
    """The methods of `lethe.adapters.kube.Kube` that the key service uses, over a Cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.reviews: dict[str, Object] = {TOKEN: build_review()}
        self.error: Exception | None = None
        self.patches: Objects = []
        self.more_keys: Objects = []
        """TenantKeys that are listed before the cluster's own."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        for item in self._all(kind):
            metadata = item["metadata"]
            if (metadata["name"], metadata.get("namespace", "")) == (name, namespace):
                return copy.deepcopy(item)
        return None

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Objects:
        return [copy.deepcopy(item) for item in self._all(kind)]

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Object, subresource: str = "") -> Object:
        assert (kind, subresource) == (TENANT_KEY, "status")
        (item,) = [item for item in self._all(kind) if item["metadata"]["name"] == name]
        for precondition in ("uid", "resourceVersion"):
            if patch["metadata"][precondition] != item["metadata"][precondition]:
                raise ConflictError(f"{precondition} differs")
        self.patches.append(patch)
        merged = {**item.get("status", {}), **patch["status"]}
        item["status"] = {key: value for key, value in merged.items() if value is not None}
        item["metadata"]["resourceVersion"] = str(int(item["metadata"]["resourceVersion"]) + 1)
        return copy.deepcopy(item)

    async def review_token(self, token: str, audience: str) -> Object:
        if self.error is not None:
            raise self.error
        review = copy.deepcopy(self.reviews.get(token, {"authenticated": False}))
        if review.get("authenticated") and audience not in review["audiences"]:
            return {"authenticated": False, "error": "token audiences do not match"}
        return review

    def _all(self, kind: Kind) -> Objects:
        if self.error is not None:
            raise self.error
        cluster = self.cluster
        items: dict[Kind, list[Object | None]] = {
            POD: [cluster.pod],
            TENANT: list(cluster.tenants),
            JOB_CR: [cluster.job],
            NODE: [cluster.node],
            GPU_NODE: [cluster.gpu_node],
            RECEIPT: [cluster.receipt, cluster.previous_receipt],
            DATASET: [cluster.dataset],
            TENANT_KEY: [*self.more_keys, cluster.tenant_key],
        }
        return [item for item in items[kind] if item is not None]


def build_claim(**changes: Any) -> Claim:
    claim = Claim(
        namespace=NAMESPACE,
        job="digits",
        job_uid=JOB_UID,
        public_key="an ephemeral key",
        dataset="digits",
        dataset_id=DATASET_ID,
        key=KEY,
        versions=((1, 1),),
    )
    return msgspec.structs.replace(claim, **changes)


def build_identity(**changes: Any) -> Identity:
    identity = Identity(
        namespace=NAMESPACE,
        pod=POD_NAME_,
        pod_uid=POD_UID_,
        node="gpu-1",
        node_uid=NODE_UID_,
        credential_id="JTI=1234",
    )
    return msgspec.structs.replace(identity, **changes)


def build_review() -> Object:
    """Return the status of a TokenReview that names pod, node and token."""
    return {
        "authenticated": True,
        "audiences": [release_audience(KEYSERVICE_ID, JOB_UID)],
        "user": {
            "username": f"system:serviceaccount:{NAMESPACE}:lethe-job",
            "uid": "account-uid",
            "groups": ["system:serviceaccounts"],
            "extra": {
                POD_NAME: [POD_NAME_],
                POD_UID: [POD_UID_],
                NODE_NAME: ["gpu-1"],
                NODE_UID: [NODE_UID_],
                CREDENTIAL_ID: ["JTI=1234"],
            },
        },
    }


def build_pod() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD_NAME_,
            "namespace": NAMESPACE,
            "uid": POD_UID_,
            "labels": {"lethe.dev/role": "train", "lethe.dev/job-uid": JOB_UID, "lethe.dev/tenant": TENANT_NAME},
        },
        "spec": {
            "serviceAccountName": "lethe-job",
            "nodeName": "gpu-1",
            "initContainers": [{"name": "lethe-keyfetch", "image": "lethe:1", "args": ["--config", "{}"]}],
            "containers": [{"name": "train", "image": "train:1"}],
            "volumes": [{"name": "lethe-keys", "emptyDir": {"medium": "Memory"}}],
            "securityContext": {"fsGroup": 65532},
        },
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [
                {"name": "lethe-keyfetch", "state": {"running": {}}, "imageID": "sha256:" + "12" * 32}
            ],
        },
    }


def build_tenant(name: str = TENANT_NAME, *namespaces: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"namespaces": list(namespaces) or [NAMESPACE]},
    }


def build_job() -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "SecureTrainingJob",
        "metadata": {"name": "digits", "namespace": NAMESPACE, "uid": JOB_UID},
        "spec": {"template": {}, "datasets": [{"name": "digits"}]},
        "status": {
            "phase": "Admitted",
            "tenant": TENANT_NAME,
            "pods": [{"name": POD_NAME_, "uid": POD_UID_, "node": "gpu-1", "bootId": BOOT, "epoch": EPOCH}],
        },
    }


def build_node() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "gpu-1", "uid": NODE_UID_},
        "status": {"nodeInfo": {"bootID": BOOT}},
    }


def build_gpu_node() -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "GPUNode",
        "metadata": {"name": "gpu-1"},
        "spec": {"managed": True},
        "status": {
            "phase": "Assigned",
            "epoch": EPOCH,
            "nodeUid": NODE_UID_,
            "bootId": BOOT,
            "holder": {
                "tenant": TENANT_NAME,
                "namespace": NAMESPACE,
                "job": "digits",
                "jobUid": JOB_UID,
                "podUids": [POD_UID_],
                "podHashes": {POD_UID_: pod_hash(build_pod())},
                "since": "2030-01-02T03:05:00Z",
            },
            "lastReceipt": {
                "name": receipt("gpu-1", EPOCH),
                "sha256": build_receipts()[1]["spec"]["sha256"],
                "epoch": EPOCH,
                "bootId": BOOT,
            },
        },
    }


def build_receipt(
    epoch: int = EPOCH,
    previous: str = "",
    signer: Signer = SIGNER,
    posture: Posture | None = GOOD_POSTURE,
    **changes: Any,
) -> Object:
    """Return a ScrubReceipt; `changes` are made in the predicate."""
    report = build_report(build_config(node_uid=NODE_UID_, boot_id=BOOT, epoch=epoch), posture=posture)
    return wrap_receipt(build_envelope(signer, build_predicate(report, previous=previous, **changes)), epoch)


def wrap_receipt(envelope: Envelope, epoch: int = EPOCH) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "ScrubReceipt",
        "metadata": {"name": receipt("gpu-1", epoch)},
        "spec": {
            "node": "gpu-1",
            "epoch": epoch,
            "sha256": envelope_sha256(envelope),
            "envelope": msgspec.to_builtins(envelope),
        },
    }


def build_receipts() -> tuple[Object, Object]:
    """Return the receipts of epochs 1 and 3: the scrub of epoch 2 failed and left none."""
    first = build_receipt(1)
    return first, build_receipt(EPOCH, previous=first["spec"]["sha256"])


def build_dataset() -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "EncryptedDataset",
        "metadata": {"name": "digits", "namespace": NAMESPACE},
        "spec": {
            "storage": {"url": "s3://acme/digits"},
            "datasetId": DATASET_ID,
            "index": {"object": "6f" * 16, "sha256": "9a" * 32},
            "scheme": "provider",
            "criticality": "sensitive",
        },
    }


def build_tenant_key() -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "TenantKey",
        "metadata": {"name": KEY, "namespace": NAMESPACE, "uid": "key-uid", "resourceVersion": "1", "generation": 1},
        "spec": {},
    }


def _convert(item: Object | None, to: Any) -> Any:
    return None if item is None else msgspec.convert(item, to)
