"""The S3 server of the tests: versitygw in the cluster, with TLS and one user for each tenant.

1. It is a Deployment on the first node without GPUs; its data die with its pod.
2. One URL reaches it from pods and from the machine: a node's address and a fixed port of all nodes.
3. Authority, root credentials and users lie in `<state>/<provider>/s3`, so that a repeated `up` changes nothing.
"""

import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import urllib3

from . import folders, tools, waiting
from .commands import attempt, failure
from .errors import ClusterError
from .pki import Authority
from .progress import step
from .provider import ClusterNode, Provider
from .scratch import scratch_image

NAMESPACE = "lethe-s3"
IMAGE = "localhost/lethe-s3:dev"
NODE_PORT = 30900
REGION = "us-east-1"
USER = 65532


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """An S3 user's key pair."""

    access_key: str
    secret_key: str


def image() -> Path:
    """Return the archive of the server's image."""
    return scratch_image(IMAGE, {"/versitygw": tools.bin_folder() / "versitygw"})


class ObjectStore:
    """The S3 server of one cluster."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.folder = folders.state(provider.name) / "s3"
        self.authority = Authority(self.folder, "lethe-test-s3")
        self.ca = self.authority.pair.certificate

    @property
    def endpoint(self) -> str:
        """The URL, the same for pods and for the machine."""
        return f"https://{self._node().address}:{NODE_PORT}"

    @property
    def root(self) -> Credentials:
        """The server's own administrator."""
        return self._credentials("root")

    def deploy(self) -> None:
        """Bring the server up and return when it answers; its image is on the nodes."""
        with step("Starting the S3 server"):
            self.authority.create()
            addresses = [node.address for node in self.provider.nodes()]
            names = ["localhost", "127.0.0.1", f"s3.{NAMESPACE}", f"s3.{NAMESPACE}.svc", *addresses]
            pair = self.authority.issue("server", name="s3", hosts=names)
            tls = {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()}
            kubectl = self.provider.kubectl()
            kubectl.apply(manifests(node=self._node().name, root=self.root, tls=tls))
            kubectl.rolled_out(NAMESPACE, "deployment/s3", seconds=120)
            waiting.until(self._answers, what=f"the S3 server at {self.endpoint}", seconds=60)

    def user(self, name: str) -> Credentials:
        """Return the credentials of a user, who is made on the first call."""
        credentials = self._credentials(name)
        done = self._admin(
            "create-user", "--role", "user", "--access", credentials.access_key, "--secret", credentials.secret_key
        )
        if done.returncode != 0 and "exist" not in done.stdout + done.stderr:
            raise ClusterError(failure(["versitygw", "admin", "create-user", name], done))
        return credentials

    def bucket(self, name: str, *, owner: Credentials) -> None:
        """Make a bucket that only its owner (and the root user) can use, unless the owner has it."""
        done = self._admin("create-bucket", "--bucket", name, "--owner", owner.access_key)
        if done.returncode != 0 and "BucketAlreadyOwnedByYou" not in done.stdout + done.stderr:
            raise ClusterError(failure(["versitygw", "admin", "create-bucket", name], done))

    def _node(self) -> ClusterNode:
        return next(node for node in self.provider.nodes() if not node.gpu)

    def _credentials(self, name: str) -> Credentials:
        path = self.folder / f"{name}.json"
        with suppress(FileNotFoundError):
            return Credentials(**json.loads(path.read_text()))
        made = Credentials(access_key=f"{name}-{secrets.token_hex(4)}", secret_key=secrets.token_urlsafe(30))
        self.folder.mkdir(parents=True, exist_ok=True)
        folders.write_private(path, json.dumps(asdict(made)).encode())
        return made

    def _answers(self) -> bool:
        """Ask with a time-out of its own: a request to a pod that is gone would hang."""
        with urllib3.PoolManager(ca_certs=str(self.ca)) as pool:
            try:
                return pool.request("GET", f"{self.endpoint}/health", timeout=2, retries=False).status == 200
            except urllib3.exceptions.HTTPError:
                return False

    def _admin(self, *words: str) -> CompletedProcess[str]:
        environment = {
            "ADMIN_ACCESS_KEY_ID": self.root.access_key,
            "ADMIN_SECRET_ACCESS_KEY": self.root.secret_key,
            "ADMIN_ENDPOINT_URL": self.endpoint,
            "ADMIN_REGION": REGION,
            "SSL_CERT_FILE": str(self.ca),
            "NO_PROXY": "*",
        }
        return attempt([tools.bin_folder() / "versitygw", "admin", *words], env=environment, timeout=60)


def manifests(*, node: str, root: Credentials, tls: dict[str, str]) -> list[dict[str, Any]]:
    """Return the server's objects; a changed certificate or password replaces its pod."""
    metadata = {"name": "s3", "namespace": NAMESPACE}
    labels = {"app": "s3"}
    secret = {"ROOT_ACCESS_KEY_ID": root.access_key, "ROOT_SECRET_ACCESS_KEY": root.secret_key}
    digest = hashlib.sha256(json.dumps([secret, tls], sort_keys=True).encode()).hexdigest()
    container = {
        "name": "s3",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--port=:9000",
            "--cert=/tls/tls.crt",
            "--key=/tls/tls.key",
            "--iam-dir=/data/users",
            f"--region={REGION}",
            "--health=/health",
            "--quiet",
            "posix",
            "/data/buckets",
        ],
        "envFrom": [{"secretRef": {"name": "s3-root"}}],
        "ports": [{"name": "s3", "containerPort": 9000}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "s3", "scheme": "HTTPS"},
            "periodSeconds": 1,
            "failureThreshold": 30,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "users", "mountPath": "/data/users"},
            {"name": "buckets", "mountPath": "/data/buckets"},
            {"name": "tls", "mountPath": "/tls", "readOnly": True},
        ],
    }
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [
            {"name": "users", "emptyDir": {}},
            {"name": "buckets", "emptyDir": {}},
            {"name": "tls", "secret": {"secretName": "s3-tls", "defaultMode": 0o440}},
        ],
    }
    template = {"metadata": {"labels": labels, "annotations": {"lethe.dev/secrets": digest}}, "spec": pod}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        _secret("s3-root", secret),
        _secret("s3-tls", tls),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": template,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"name": "s3", "port": 9000, "targetPort": "s3", "nodePort": NODE_PORT}],
            },
        },
    ]


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}
