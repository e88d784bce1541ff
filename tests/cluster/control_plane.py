"""The embedded cluster's control plane: etcd, API server, controller manager, scheduler.

They run on the machine itself and listen only on its address in the cluster's network. The API server writes an audit
log of all that changes something; etcd's files and that log are searched by the end-to-end tests.
"""

from pathlib import Path

import yaml

from . import pki, waiting
from .addresses import CLUSTER_DOMAIN, Addresses
from .errors import ClusterError
from .kubectl import Kubectl
from .pki import Authority
from .processes import Processes

NAMES = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Bodies that are secret by nature are left out, as every careful installation does.
        {
            "level": "Metadata",
            "resources": [
                {"group": "", "resources": ["secrets", "serviceaccounts/token"]},
                {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
            ],
        },
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Request"},
    ],
}


class ControlPlane:
    """The four programs; their files lie in `folder`."""

    def __init__(self, folder: Path, *, bin: Path, addresses: Addresses, processes: Processes) -> None:
        self.folder = folder
        self.bin = bin
        self.addresses = addresses
        self.processes = processes
        self.authority = Authority(folder / "pki", "lethe-test-cluster")
        self.front_proxy = Authority(folder / "pki" / "front-proxy", "lethe-test-front-proxy")
        self.audit_log = processes.logs / "audit.log"

    def start(self, kubeconfig: Path) -> None:
        """Start what does not run and return when the API server is ready; write the administrator's kubeconfig."""
        self.authority.create()
        self.front_proxy.create()
        administrator = self.authority.issue("admin", name="lethe-test-admin", organization="system:masters")
        self._kubeconfig(kubeconfig, administrator)
        self._start_etcd()
        self._start_api_server()
        self._wait_for_api_server(kubeconfig)
        self._start_controllers()

    def stop(self) -> None:
        """End the four programs at once: their data go with them."""
        for name in NAMES:
            self.processes.stop(name, grace=0)

    def kube_proxy_kubeconfig(self) -> Path:
        """Return the kubeconfig that all nodes' kube-proxies share."""
        return self._component_kubeconfig("kube-proxy")

    def _start_etcd(self) -> None:
        pair = self.authority.issue("etcd", name="etcd", hosts=[self.addresses.host])
        client, peer = f"https://{self.addresses.host}:2379", f"https://{self.addresses.host}:2380"
        secured = {
            "cert-file": pair.certificate,
            "key-file": pair.key,
            "trusted-ca-file": self.authority.pair.certificate,
        }
        self._start(
            "etcd",
            {
                "data-dir": self.folder / "etcd",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"default={peer}",
                "client-cert-auth": "true",
                "peer-client-cert-auth": "true",
                **secured,
                **{f"peer-{flag}": value for flag, value in secured.items()},
                # The data die with the cluster: what a power failure could cost does not matter.
                "unsafe-no-fsync": "true",
                "log-level": "warn",
            },
        )

    def _start_api_server(self) -> None:
        service = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
        ]
        hosts = [self.addresses.host, self.addresses.api_service, *service]
        serving = self.authority.issue("kube-apiserver", name="kube-apiserver", hosts=hosts)
        etcd = self.authority.issue("etcd-client", name="kube-apiserver")
        to_kubelets = self.authority.issue(
            "kubelet-client", name="kube-apiserver", organization="lethe-test:kubelet-admins"
        )
        aggregator = self.front_proxy.issue("front-proxy", name="front-proxy")
        accounts = pki.service_account_key(self.authority.folder)
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        self._start(
            "kube-apiserver",
            {
                "bind-address": self.addresses.host,
                "advertise-address": self.addresses.host,
                "secure-port": "6443",
                "etcd-servers": f"https://{self.addresses.host}:2379",
                "etcd-cafile": self.authority.pair.certificate,
                "etcd-certfile": etcd.certificate,
                "etcd-keyfile": etcd.key,
                "tls-cert-file": serving.certificate,
                "tls-private-key-file": serving.key,
                "client-ca-file": self.authority.pair.certificate,
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "allow-privileged": "true",
                "service-cluster-ip-range": self.addresses.service_range,
                "service-account-issuer": ISSUER,
                "service-account-key-file": accounts.certificate,
                "service-account-signing-key-file": accounts.key,
                "kubelet-certificate-authority": self.authority.pair.certificate,
                "kubelet-client-certificate": to_kubelets.certificate,
                "kubelet-client-key": to_kubelets.key,
                "kubelet-preferred-address-types": "InternalIP",
                "requestheader-client-ca-file": self.front_proxy.pair.certificate,
                "requestheader-allowed-names": "front-proxy",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "proxy-client-cert-file": aggregator.certificate,
                "proxy-client-key-file": aggregator.key,
                "audit-policy-file": policy,
                "audit-log-path": self.audit_log,
            },
        )

    def _start_controllers(self) -> None:
        accounts = pki.service_account_key(self.authority.folder)
        programs: dict[str, dict[str, str | Path]] = {
            "kube-controller-manager": {
                "use-service-account-credentials": "true",
                "service-account-private-key-file": accounts.key,
                "root-ca-file": self.authority.pair.certificate,
                "cluster-signing-cert-file": self.authority.pair.certificate,
                "cluster-signing-key-file": self.authority.pair.key,
            },
            "kube-scheduler": {},
        }
        for name, more in programs.items():
            kubeconfig = self._component_kubeconfig(name)
            common: dict[str, str | Path] = {
                "kubeconfig": kubeconfig,
                "authentication-kubeconfig": kubeconfig,
                "authorization-kubeconfig": kubeconfig,
                "bind-address": self.addresses.host,
                "leader-elect": "false",
            }
            self._start(name, {**common, **more})

    def _wait_for_api_server(self, kubeconfig: Path) -> None:
        kubectl = Kubectl(self.bin / "kubectl", kubeconfig)

        def ready() -> bool:
            for name in ("etcd", "kube-apiserver"):
                if self.processes.find(name) is None:
                    raise ClusterError(f"{name} has ended; its log is {self.processes.logs}/{name}.log.")
            return kubectl.answers("get", "--raw", "/readyz")

        log = self.processes.logs / "kube-apiserver.log"
        waiting.until(ready, what="the API server to be ready", seconds=120, hint=f"Its log is {log}.")

    def _component_kubeconfig(self, component: str) -> Path:
        return self._kubeconfig(
            self.folder / f"{component}.kubeconfig", self.authority.issue(component, name=f"system:{component}")
        )

    def _kubeconfig(self, path: Path, pair: pki.Pair) -> Path:
        return self.authority.kubeconfig(path, server=self.addresses.api_url, pair=pair, context="lethe-embedded")

    def _start(self, program: str, flags: dict[str, str | Path]) -> None:
        words = [f"--{flag}={value}" for flag, value in flags.items()]
        self.processes.start(program, [self.bin / "lethe-kube", program, *words])
