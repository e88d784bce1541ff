"""Stand-ins for the agents that clusters have on every node, made from Debian packages.

1. `monitor` is Debian's prometheus-node-exporter as it is usually run: in the host's network, tolerating everything.
2. `network` is what a CNI plugin's DaemonSet does: privileged, it copies its programs to a folder of the node.
3. Their namespace, `agents`, is a system namespace only where the chart's value `systemNamespaces` names it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.apiserver.server import Object
from tests.cluster import images
from tests.cluster.commands import run

NAMESPACE = "agents"
IMAGE = "localhost/lethe-test-agents:dev"
PORT = 19100
PROGRAMS = {
    "prometheus-node-exporter": ("usr/bin/prometheus-node-exporter",),
    "containernetworking-plugins": ("usr/lib/cni/bridge", "usr/lib/cni/loopback"),
}
RECIPE = images.Recipe(
    reference=IMAGE,
    containerfile=Path(__file__).with_name("agents") / "Containerfile",
    requirements=(),
    compiles=lambda folder: fetch_programs(folder),
)


INSTALL = "cp /usr/lib/cni/* /host/; trap 'rm -f /host/*; exit' TERM; sleep 86400 & wait"


def fetch_programs(folder: Path) -> None:
    """Put the programs of the Debian packages into a folder."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        run(["apt-get", "download", "-q", *PROGRAMS], cwd=Path(scratch))
        for package, programs in PROGRAMS.items():
            [file] = Path(scratch).glob(f"{package}_*.deb")
            run(["dpkg-deb", "--extract", file, Path(scratch, package)])
            for program in programs:
                shutil.copy2(Path(scratch, package, program), folder)


def build_agents(version: str) -> list[Object]:
    """Return the DaemonSets, with a word that tells one version from the next."""
    monitor = {
        "command": ["prometheus-node-exporter", f"--web.listen-address=:{PORT}"],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    network = {
        "command": ["sh", "-c", INSTALL],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    folder = {"name": "host", "hostPath": {"path": "/run/lethe-test-agents", "type": "DirectoryOrCreate"}}
    return [
        _daemon_set("monitor", version, monitor, hostNetwork=True, hostPID=True),
        _daemon_set("network", version, network, hostNetwork=True, volumes=[folder]),
    ]


def _daemon_set(name: str, version: str, container: Object, **spec: Any) -> Object:
    labels = {"app": name}
    pod = {
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", **container}],
        **spec,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels, "annotations": {"version": version}}, "spec": pod},
        },
    }
