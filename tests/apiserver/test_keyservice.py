"""The key service against a real API server, with its own account's rights and real, pod-bound tokens.

Kubelet and operator are played: this test writes the statuses that they would write.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.keyservice import KeyserviceClient
from lethe.adapters.kube import Kube
from lethe.agents.keyfetch import ExitStatus, Keyfetch, Places
from lethe.crypto.derive import random_bytes
from lethe.crypto.hpke import parse_public
from lethe.formats.audit import parse_record
from lethe.formats.keyring import KEYRING_NAME, build_keyring
from lethe.formats.podhash import pod_hash
from lethe.keyservice.server import DATABASE, Keyservice
from lethe.keyservice.store import Store
from lethe.model.agentconfig import KeyfetchConfig, KeyfetchDataset
from lethe.model.config import KeyserviceConfig
from lethe.model.names import KEYSERVICE_ID, JobUid, receipt, release_audience
from lethe.model.resources import DatasetUse, EncryptedDataset
from tests.apiserver.chart import install, program
from tests.apiserver.server import Client, Object, serve
from tests.common.certificates import Authority
from tests.common.keyservice import Clock, build_binding, write_trust
from tests.common.release import (
    BOOT,
    CRITICALITIES,
    EPOCH,
    SIGNER,
    build_dataset,
    build_job,
    build_pod,
    build_tenant,
    wrap_receipt,
)
from tests.common.scrubs import build_config, build_envelope, build_predicate, build_report


@dataclass
class Scene:
    """One pod of one job, as far as its init container, on one node."""

    admin: Client
    kubeconfig: Path
    pod: Object
    job: Object
    token: str


@pytest.fixture(scope="module")
def scene(chart: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serve(program("lethe-kube"), tmp_path_factory.mktemp("apiserver")) as (admin, kubeconfig):
        install(admin, chart)
        job = _play_operator(admin)
        pod, node = _play_kubelet(admin, job)
        _assign(admin, pod, node, job)
        audience = release_audience(KEYSERVICE_ID, JobUid(job["metadata"]["uid"]))
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        yield Scene(
            admin=admin,
            kubeconfig=_kubeconfig(kubeconfig, _token(admin, "lethe-keyservice", "lethe-system")),
            pod=pod,
            job=job,
            token=_token(admin, "lethe-job", "acme", audiences=[audience], boundObjectRef=bound),
        )


async def test_keys_go_from_a_tenant_key_to_the_pod(scene: Scene, tmp_path: Path) -> None:
    authority = Authority()
    authority.write_server(tmp_path / "tls")
    write_trust(tmp_path / "trust")
    config = KeyserviceConfig(
        listen_port=0,
        health_port=0,
        tls_folder=str(tmp_path / "tls"),
        trust_folder=str(tmp_path / "trust"),
        data_folder=str(tmp_path / "data"),
        criticalities=CRITICALITIES,
    )
    clock = Clock()
    async with (
        await Kube.connect(str(scene.kubeconfig)) as kube,
        Keyservice(config, kube, now=clock, clock=clock.seconds, host="127.0.0.1") as service,
    ):
        await service.publisher.publish_all()
        key = scene.admin.get(kinds.TENANT_KEY, "default", "acme")
        assert key["status"]["conditions"][0]["reason"] == "KeyPublished"
        await service.publisher.publish_all()
        assert scene.admin.get(kinds.TENANT_KEY, "default", "acme") == key  # nothing is written at rest

        dek = random_bytes(32)
        (tmp_path / "storage").mkdir()
        keyring = build_keyring(
            build_binding().dataset_id, {1: dek}, [(build_binding(), parse_public(key["status"]["publicKey"]))]
        )
        (tmp_path / "storage" / KEYRING_NAME).write_bytes(keyring)
        pod = _Pod(scene, tmp_path, f"https://127.0.0.1:{service.port}", authority)
        assert await asyncio.to_thread(pod.fetch) == ExitStatus.DONE, pod.sentence
        assert (tmp_path / "datasets" / "digits" / "dek.1").read_bytes() == dek

        # The same pod, once its node is being drained.
        scene.admin.write_status(kinds.GPU_NODE, "gpu-1", {"phase": "Draining"})
        assert await asyncio.to_thread(pod.fetch) == ExitStatus.REFUSED
        assert "(ledger-assigned)" in pod.sentence
        # And once it is gone: its token still has nine minutes to live.
        scene.admin.send("DELETE", f"{kinds.POD.path(scene.pod['metadata']['name'], 'acme')}?gracePeriodSeconds=0")
        assert await asyncio.to_thread(pod.fetch) == ExitStatus.REFUSED
        assert "(token-" in pod.sentence or "(pod)" in pod.sentence
    store = Store(tmp_path / "data" / DATABASE)
    events = [parse_record(data).event for data in store.audit_records("acme")]
    store.close()
    assert [event.event for event in events][:4] == ["key-created", "intent", "confirmed", "refused"]
    assert events[1].credential_id.startswith("JTI=")
    assert events[1].pod_uid == scene.pod["metadata"]["uid"]


class _Pod:
    """The inside of the pod."""

    def __init__(self, scene: Scene, folder: Path, url: str, authority: Authority) -> None:
        (folder / "token").write_text(scene.token)
        dataset = build_dataset()
        dataset["spec"]["storage"] = {"url": f"file://{folder / 'storage'}"}
        self._places = Places(folder / "datasets", folder / "credentials", folder / "token", folder / "message")
        self._config = KeyfetchConfig(
            namespace="acme",
            job="digits",
            job_uid=scene.job["metadata"]["uid"],
            service_url=url,
            ca_bundle=authority.pem,
            datasets=[
                KeyfetchDataset(use=DatasetUse(name="digits"), dataset=msgspec.convert(dataset, EncryptedDataset))
            ],
        )
        self._client = KeyserviceClient(url, authority.pem)

    def fetch(self) -> ExitStatus:
        return Keyfetch(self._config, self._client, self._places, lambda: 0.0, _never).run()

    @property
    def sentence(self) -> str:
        return self._places.termination_log.read_text()


def _never(_seconds: float) -> None:
    raise AssertionError("nothing is to be waited for")


def _play_operator(admin: Client) -> Object:
    admin.create(kinds.NAMESPACE, {"metadata": {"name": "acme", "labels": {"lethe.dev/tenant": "acme"}}})
    admin.create(kinds.SERVICEACCOUNT, {"metadata": {"name": "lethe-job", "namespace": "acme"}})
    admin.create(kinds.TENANT, _new(build_tenant()))
    admin.create(kinds.TENANT_KEY, {"metadata": {"name": "default", "namespace": "acme"}})
    admin.create(kinds.DATASET, _new(build_dataset()))
    job = _new(build_job())
    job["spec"]["template"] = {"spec": {"containers": [{"name": "train", "image": "train:1"}]}}
    return admin.create(kinds.JOB_CR, job)


def _play_kubelet(admin: Client, job: Object) -> tuple[Object, Object]:
    node = admin.create(kinds.NODE, {"metadata": {"name": "gpu-1"}})
    info = dict.fromkeys(
        (
            *("architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion"),
            *("machineID", "operatingSystem", "osImage", "systemUUID"),
        ),
        "x",
    )
    admin.write_status(kinds.NODE, "gpu-1", {"nodeInfo": {**info, "bootID": BOOT}})
    body = _new(build_pod())
    body["metadata"]["labels"]["lethe.dev/job-uid"] = job["metadata"]["uid"]
    for container in (*body["spec"]["initContainers"], *body["spec"]["containers"]):
        container["imagePullPolicy"] = "IfNotPresent"
    pod = admin.create(kinds.POD, body)
    admin.write_status(kinds.POD, pod["metadata"]["name"], _running(), "acme")
    return pod, node


def _running() -> Object:
    name = "lethe-keyfetch"
    status = {"name": name, "image": "lethe:1", "imageID": "sha256:" + "12" * 32, "ready": False, "restartCount": 0}
    return {
        "phase": "Pending",
        "initContainerStatuses": [{**status, "state": {"running": {"startedAt": "2030-01-02T03:59:00Z"}}}],
    }


def _assign(admin: Client, pod: Object, node: Object, job: Object) -> None:
    node_uid, pod_uid, job_uid = (item["metadata"]["uid"] for item in (node, pod, job))
    report = build_report(build_config(node_uid=node_uid, boot_id=BOOT, epoch=EPOCH))
    scrubbed = wrap_receipt(build_envelope(SIGNER, build_predicate(report)))
    admin.create(kinds.RECEIPT, scrubbed)
    admin.create(kinds.GPU_NODE, {"metadata": {"name": "gpu-1"}, "spec": {"managed": True}})
    admin.write_status(
        kinds.GPU_NODE,
        "gpu-1",
        {
            "phase": "Assigned",
            "epoch": EPOCH,
            "nodeUid": node_uid,
            "bootId": BOOT,
            "holder": {
                "tenant": "acme",
                "namespace": "acme",
                "job": "digits",
                "jobUid": job_uid,
                "podUids": [pod_uid],
                "podHashes": {pod_uid: pod_hash(pod)},
                "since": "2030-01-02T03:05:00Z",
            },
            "lastReceipt": {
                "name": receipt("gpu-1", EPOCH),
                "sha256": scrubbed["spec"]["sha256"],
                "epoch": EPOCH,
                "bootId": BOOT,
            },
        },
    )
    placed = {"name": pod["metadata"]["name"], "uid": pod_uid, "node": "gpu-1", "bootId": BOOT, "epoch": EPOCH}
    admin.write_status(kinds.JOB_CR, "digits", {"phase": "Admitted", "tenant": "acme", "pods": [placed]}, "acme")


def _new(item: Object) -> Object:
    """Return an object as it is created: without what the API server gives it."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in ("uid", "resourceVersion")}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": metadata}


def _token(admin: Client, name: str, namespace: str, **spec: Any) -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600, **spec},
    }
    answer = admin.send("POST", path, body)
    assert answer.ok, answer.message
    token: str = answer.body["status"]["token"]
    return token


def _kubeconfig(administrators: Path, token: str) -> Path:
    """Write a kubeconfig for whoever has this token beside the administrator's."""
    document = yaml.safe_load(administrators.read_text())
    document["users"][0]["user"] = {"token": token}
    file = administrators.with_name("keyservice.kubeconfig")
    file.write_text(yaml.safe_dump(document))
    return file
