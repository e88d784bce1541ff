"""A real API server with its etcd, alone: enough for schemas, admission policies and RBAC, and up in seconds."""

import base64
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from lethe.adapters.kube import Kind
from tests.cluster.pki import Authority, service_account_key
from tests.cluster.waiting import until

Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: Object

    @property
    def ok(self) -> bool:
        """Say whether the request was allowed and done."""
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """Return the sentence of a refusal."""
        return str(self.body.get("message", ""))


@dataclass(frozen=True)
class Client:
    """Speaks to the server as an administrator, or as whoever `acting` names."""

    port: int
    context: ssl.SSLContext
    user: str = ""
    groups: tuple[str, ...] = ()
    host: str = "127.0.0.1"

    def acting(self, user: str, *groups: str) -> Self:
        """Return a client that acts as somebody else, by impersonation."""
        return replace(self, user=user, groups=groups)

    def send(
        self, method: str, path: str, body: Object | list[Object] | None = None, content_type: str = "application/json"
    ) -> Answer:
        """Send one request."""
        connection = HTTPSConnection(self.host, self.port, timeout=30, context=self.context)
        try:
            data = json.dumps(body).encode() if body is not None else b""
            connection.putrequest(method, path)
            connection.putheader("Accept", "application/json, */*")
            connection.putheader("Content-Length", str(len(data)))
            connection.putheader("Content-Type", content_type)
            for name, value in self._impersonation():
                connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            return Answer(answer.status, _parse(answer.read()))
        finally:
            connection.close()

    def _impersonation(self) -> Iterator[tuple[str, str]]:
        if self.user:
            yield "Impersonate-User", self.user
        for group in self.groups:
            yield "Impersonate-Group", group

    def create(self, kind: Kind, body: Object) -> Object:
        """Create an object."""
        namespace = body["metadata"].get("namespace", "")
        return self._done(self.send("POST", kind.path(namespace=namespace), _typed(kind, body)))

    def write_status(self, kind: Kind, name: str, status: Object, namespace: str = "") -> Object:
        """Write the status of an object."""
        path = kind.path(name, namespace, "status")
        return self._done(self.send("PATCH", path, {"status": status}, "application/merge-patch+json"))

    def delete(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Delete an object; a missing one is no error."""
        answer = self.send("DELETE", kind.path(name, namespace))
        if answer.status != 404:
            self._done(answer)

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Return an object."""
        return self._done(self.send("GET", kind.path(name, namespace)))

    def _done(self, answer: Answer) -> Object:
        if not answer.ok:
            raise AssertionError(f"{answer.status} {answer.message}")
        return answer.body


def client_of(kubeconfig: Path, folder: Path) -> Client:
    """Return a client for the cluster of a kubeconfig whose user has a certificate; its files are put into a folder."""
    document = yaml.safe_load(kubeconfig.read_text())
    chosen = next(item["context"] for item in document["contexts"] if item["name"] == document["current-context"])
    cluster = next(item["cluster"] for item in document["clusters"] if item["name"] == chosen["cluster"])
    user = next(item["user"] for item in document["users"] if item["name"] == chosen["user"])
    files = {}
    for name in ("client-certificate-data", "client-key-data"):
        files[name] = folder / name
        files[name].write_bytes(base64.b64decode(user[name]))
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    context.load_cert_chain(files["client-certificate-data"], files["client-key-data"])
    address = urlsplit(cluster["server"])
    return Client(address.port or 443, context, host=address.hostname or "")


def _typed(kind: Kind, body: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def _parse(data: bytes) -> Object:
    try:
        body = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
    return body if isinstance(body, dict) else {"message": str(body)}


@contextmanager
def serve(program: Path, folder: Path, *flags: str) -> Iterator[tuple[Client, Path]]:
    """Run etcd and the API server, with more flags, in a folder; yield an administrator's client and kubeconfig."""
    with serve_side_by_side(program, folder, {"apiserver": flags}) as servers:
        yield servers["apiserver"]


@contextmanager
def serve_side_by_side(
    program: Path, folder: Path, servers: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, tuple[Client, Path]]]:
    """Run etcd and, on its data, API servers with these flags more; yield client and kubeconfig of each by name."""
    authority = Authority(folder / "pki", "test")
    authority.create()
    pair = authority.issue("server", name="kube-apiserver", hosts=["127.0.0.1", "localhost"])
    admin = authority.issue("admin", name="admin", organization="system:masters")
    accounts = service_account_key(folder / "pki")
    context = ssl.create_default_context(cafile=authority.pair.certificate)
    context.load_cert_chain(admin.certificate, admin.key)
    etcd, peer, *secure = _free_ports(2 + len(servers))
    with ExitStack() as stack:
        stack.enter_context(
            _running(
                folder / "etcd.log",
                [
                    *(program, "etcd", f"--data-dir={folder}/etcd", "--unsafe-no-fsync"),
                    *(
                        f"--listen-client-urls=http://127.0.0.1:{etcd}",
                        f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                    ),
                    *(f"--listen-peer-urls=http://127.0.0.1:{peer}",),
                    *(f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",),
                    *(f"--initial-cluster=default=http://127.0.0.1:{peer}",),
                ],
            )
        )
        served = {}
        for (name, flags), port in zip(servers.items(), secure, strict=True):
            stack.enter_context(
                _running(
                    folder / f"{name}.log",
                    [
                        *(program, "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}"),
                        *("--bind-address=127.0.0.1", f"--secure-port={port}", "--advertise-address=127.0.0.1"),
                        *(f"--tls-cert-file={pair.certificate}", f"--tls-private-key-file={pair.key}"),
                        f"--client-ca-file={authority.pair.certificate}",
                        f"--service-account-key-file={accounts.certificate}",
                        f"--service-account-signing-key-file={accounts.key}",
                        "--service-account-issuer=https://kubernetes.default.svc",
                        *("--service-cluster-ip-range=10.99.0.0/16", "--endpoint-reconciler-type=none"),
                        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
                        # Nobody makes service accounts here.
                        *("--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"),
                        *flags,
                    ],
                )
            )
            kubeconfig = authority.kubeconfig(
                folder / f"{name}.kubeconfig", server=f"https://127.0.0.1:{port}", pair=admin, context="test"
            )
            client = Client(port, context)
            until(partial(_is_ready, client), what="the API server to be ready", seconds=60)
            served[name] = (client, kubeconfig)
        yield served


def _is_ready(client: Client) -> bool:
    try:
        return client.send("GET", "/readyz").ok and client.send("GET", "/api/v1/namespaces/default").ok
    except (OSError, HTTPException):
        return False


@contextmanager
def _running(log: Path, command: Sequence[str | Path]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
