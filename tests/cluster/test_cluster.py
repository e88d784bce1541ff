"""The test cluster keeps what the other end-to-end tests rely on."""

import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import obstore
import obstore.exceptions
import obstore.store
import pytest

from tests.cluster.errors import NotSupported
from tests.cluster.kubectl import Kubectl
from tests.cluster.provider import GPU_LABEL, ClusterNode, Provider
from tests.cluster.s3 import REGION, Credentials, ObjectStore

pytestmark = pytest.mark.e2e

NAMESPACE = "lethe-cluster-test"
IMAGE = "localhost/lethe:dev"
SERVE = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["NODE"].encode())
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture(scope="module")
def kubectl(provider: Provider) -> Iterator[Kubectl]:
    client = provider.kubectl()
    client("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    client.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    yield client
    client("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def servers(kubectl: Kubectl, provider: Provider) -> dict[str, str]:
    """One server on each node; the name of its pod by the name of its node. A Service stands before all."""
    nodes = [node.name for node in provider.nodes()]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.apply([service, *(server(node) for node in nodes)])
    pods = {node: f"web-{node}" for node in nodes}
    kubectl("--namespace", NAMESPACE, "wait", "--for=condition=Ready", "pods", "--selector=app=web", "--timeout=120s")
    return pods


def server(node: str) -> dict[str, Any]:
    """A pod whose init container leaves a file in a memory volume, and which answers with its node's name."""
    volume = {"name": "memory", "mountPath": "/memory"}
    safe = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    write = "open('/memory/key', 'w').write('from the init container'); print('init done')"
    common = {"image": IMAGE, "imagePullPolicy": "IfNotPresent", "securityContext": safe, "volumeMounts": [volume]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"web-{node}", "namespace": NAMESPACE, "labels": {"app": "web"}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "initContainers": [{"name": "first", "command": ["python3", "-c", write], **common}],
            "containers": [
                {
                    "name": "web",
                    "command": ["python3", "-c", SERVE],
                    "env": [{"name": "NODE", "value": node}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                    **common,
                }
            ],
            "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        },
    }


def execute(kubectl: Kubectl, pod: str, *words: str) -> str:
    return kubectl("--namespace", NAMESPACE, "exec", pod, "--container=web", "--", *words)


def ready(kubectl: Kubectl, node: str) -> bool:
    conditions = kubectl.read("get", "node", node)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_there_are_gpu_nodes_and_a_node_without(provider: Provider, kubectl: Kubectl) -> None:
    nodes = provider.nodes()
    labelled = kubectl.read("get", "nodes", f"--selector={GPU_LABEL}=true")["items"]
    assert {node.name for node in nodes if node.gpu} == {node["metadata"]["name"] for node in labelled}
    assert len(labelled) >= 2
    assert not nodes[0].gpu
    assert all(ready(kubectl, node.name) for node in nodes)


def test_kubelets_offer_gpus_on_gpu_nodes_only(provider: Provider, kubectl: Kubectl) -> None:
    for node in provider.nodes():
        allocatable = kubectl.read("get", "node", node.name)["status"]["allocatable"]
        assert (int(allocatable.get("nvidia.com/gpu", "0")) > 0) == node.gpu


def test_no_two_nodes_share_a_boot_id_where_nodes_can_be_rebooted(provider: Provider, kubectl: Kubectl) -> None:
    if provider.name != "embedded":
        pytest.skip("nodes of this cluster share the machine's kernel")
    nodes = kubectl.read("get", "nodes")["items"]
    assert len({node["status"]["nodeInfo"]["bootID"] for node in nodes}) == len(nodes)


def test_an_init_container_leaves_a_file_in_a_memory_volume(servers: dict[str, str], kubectl: Kubectl) -> None:
    for pod in servers.values():
        assert execute(kubectl, pod, "cat", "/memory/key") == "from the init container"
        mounts = execute(kubectl, pod, "cat", "/proc/mounts")
        assert any(line.split()[1:3] == ["/memory", "tmpfs"] for line in mounts.splitlines())


def test_logs_of_an_ended_init_container_can_be_read(servers: dict[str, str], kubectl: Kubectl) -> None:
    for pod in servers.values():
        assert kubectl("--namespace", NAMESPACE, "logs", pod, "--container=first") == "init done\n"


def test_every_pod_reaches_every_other(servers: dict[str, str], kubectl: Kubectl) -> None:
    addresses = {
        node: kubectl.read("--namespace", NAMESPACE, "get", "pod", pod)["status"]["podIP"]
        for node, pod in servers.items()
    }
    for pod in servers.values():
        for node, address in addresses.items():
            assert execute(kubectl, pod, "python3", "-c", FETCH, f"http://{address}:8080/").strip() == node


def test_a_service_is_found_by_its_dns_name(servers: dict[str, str], kubectl: Kubectl) -> None:
    for pod in servers.values():
        url = f"http://web.{NAMESPACE}.svc.cluster.local/"
        assert execute(kubectl, pod, "python3", "-c", FETCH, url).strip() in servers


def test_the_api_server_is_reached_from_pods(servers: dict[str, str], kubectl: Kubectl) -> None:
    look_up = (
        "import socket; socket.create_connection(('kubernetes.default.svc.cluster.local', 443), 10); print('open')"
    )
    for pod in servers.values():
        assert execute(kubectl, pod, "python3", "-c", look_up).strip() == "open"


def test_an_image_named_by_digest_is_on_the_node(provider: Provider, kubectl: Kubectl) -> None:
    node = next(node for node in provider.nodes() if node.gpu)
    names = [name for image in kubectl.read("get", "node", node.name)["status"]["images"] for name in image["names"]]
    digest = next(name for name in names if name.startswith("localhost/lethe@sha256:"))
    spec = {"restartPolicy": "Never", "nodeName": node.name}
    container = {"name": "by-digest", "image": digest, "command": ["python3", "-c", "print('ran')"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-digest", "namespace": NAMESPACE},
        "spec": {**spec, "containers": [container]},
    }
    kubectl.apply([pod])
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("--namespace", NAMESPACE, "wait", "pod/by-digest", phase, "--timeout=60s")
    assert kubectl("--namespace", NAMESPACE, "logs", "by-digest") == "ran\n"


def test_the_s3_server_is_reached_from_the_machine_and_from_pods(
    object_store: ObjectStore, servers: dict[str, str], kubectl: Kubectl
) -> None:
    health = f"{object_store.endpoint}/health"
    trusted = ssl.create_default_context(cafile=str(object_store.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    assert opener.open(health, timeout=10).status == 200
    program = (
        "import ssl, sys, urllib.request as r; c = ssl.create_default_context(cadata=sys.argv[2]); "
        "print(r.urlopen(sys.argv[1], timeout=10, context=c).status)"
    )
    for pod in servers.values():
        assert execute(kubectl, pod, "python3", "-c", program, health, object_store.ca.read_text()).strip() == "200"


def test_the_s3_server_keeps_tenants_apart(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(object_store.ca))
    owner, other = object_store.user("cluster-test-a"), object_store.user("cluster-test-b")
    object_store.bucket("cluster-test", owner=owner)
    object_store.bucket("cluster-test", owner=owner)
    assert owner != other
    assert object_store.user("cluster-test-a") == owner
    obstore.put(bucket(object_store, owner), "some/object", b"content")
    assert obstore.get(bucket(object_store, owner), "some/object").bytes().to_bytes() == b"content"
    with pytest.raises(obstore.exceptions.PermissionDeniedError):
        obstore.get(bucket(object_store, other), "some/object")


def bucket(store: ObjectStore, credentials: Credentials) -> obstore.store.S3Store:
    return obstore.store.S3Store(
        "cluster-test",
        endpoint=store.endpoint,
        region=REGION,
        access_key_id=credentials.access_key,
        secret_access_key=credentials.secret_key,
    )


def test_the_audit_log_and_etcd_files_are_there_to_be_searched(provider: Provider, kubectl: Kubectl) -> None:
    if provider.name != "embedded":
        pytest.skip("only the embedded cluster's control plane has its files on this machine")
    marker = "marker-that-no-other-test-writes"
    kubectl("--namespace", NAMESPACE, "create", "configmap", marker, f"--from-literal=value={marker}")
    audit = [json.loads(line) for line in (provider.logs() / "audit.log").read_text().splitlines()]
    assert any(event.get("objectRef", {}).get("name") == marker for event in audit)
    etcd = provider.kubeconfig().with_name("etcd")
    assert any(marker.encode() in file.read_bytes() for file in etcd.rglob("*") if file.is_file())


def test_a_reboot_changes_the_boot_id_and_the_node_works_again(provider: Provider, kubectl: Kubectl) -> None:
    node: ClusterNode = provider.nodes()[-1]
    before = kubectl.read("get", "node", node.name)["status"]["nodeInfo"]["bootID"]
    try:
        provider.reboot(node.name)
    except NotSupported as reason:
        pytest.skip(str(reason))
    after = kubectl.read("get", "node", node.name)["status"]["nodeInfo"]["bootID"]
    assert after != before
    assert ready(kubectl, node.name)
    kubectl("--namespace", NAMESPACE, "delete", "pod", "after-reboot", "--ignore-not-found")
    pod = server(node.name)
    pod["metadata"]["name"] = "after-reboot"
    kubectl.apply([pod])
    kubectl("--namespace", NAMESPACE, "wait", "--for=condition=Ready", "pod/after-reboot", "--timeout=120s")
