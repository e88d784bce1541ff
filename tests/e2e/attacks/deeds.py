"""Attacks that are carried out, because the cluster has kubelets: each shows what the attacker gets.

A deed returns what it got, in a few words, or raises a ClusterError with the sentence that refused it. It leaves
nothing behind but what it did to the pod that it attacked.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen
from urllib.request import urlopen

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import running_pod
from tests.apiserver.requests import ADMIN, DAEMONSET, EVERYTHING, ROGUE
from tests.apiserver.server import Answer, Object
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until
from tests.common.installation import LETHE_IMAGE
from tests.common.objects import find_all, logs, remove, wait_until
from tests.e2e.attacks.stage import PLANTED, STAND_IN, Stage

EVE = ("eve", "system:authenticated")
PORT = 8000
SERVE_KEYS = ("python3", "-m", "http.server", str(PORT), "--directory", "/run/lethe", "&")
SAY_ALIVE = ("while sleep 0.2; do echo alive; done", "&")
"""What the attacked job does beside its training, so that there is something to see and to reach."""

SPY = """
import os, pathlib
for process in pathlib.Path('/proc').glob('[0-9]*'):
    try:
        words = (process / 'cmdline').read_bytes().split(b'\\0')
        if b'/app/train.py' in words and not words[0].endswith(b'sh'):
            keys = [path.read_bytes() for path in (process / 'root/run/lethe').rglob('*') if path.is_file()]
            print('found', b' '.join(words[:2]).decode(), 'and read', sum(map(len, keys)), 'bytes of keys')
            break
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Deed:
    """An attack that is carried out. `says` is what the refusal must say."""

    name: str
    act: Callable[[Stage], str]
    says: str


def enter(stage: Stage) -> str:
    """Run a command in the training container."""
    command = ("sh", "-c", "find /run/lethe -type f | head -1")
    return _first(stage.kubectl("--as=ed", "exec", *_pod(stage), "--container=train", "--", *command))


def attach(stage: Stage) -> str:
    """Read the output of the training container as it comes."""
    with _running(stage.kubectl.start("--as=ed", "attach", *_pod(stage), "--container=train")) as process:
        return _read_until(process, "alive")


def forward(stage: Stage) -> str:
    """Reach a port of the training pod that is open inside it only."""
    with _running(stage.kubectl.start("--as=ed", "port-forward", *_pod(stage), f":{PORT}")) as process:
        local = _read_until(process, "Forwarding from 127.0.0.1:").split(":")[1].split()[0]
        with urlopen(f"http://127.0.0.1:{local}/", timeout=20) as page:
            return f"listing of {len(page.read())} bytes"


def proxy(stage: Stage) -> str:
    """Reach the same port through the API server."""
    path = f"/api/v1/namespaces/acme/pods/{stage.scene.running}:{PORT}/proxy/"
    return f"listing of {len(_got(stage.admin.acting(*ROGUE).send('GET', path)).body['message'])} bytes"


def ask_kubelet(stage: Stage) -> str:
    """List the node's pods through its kubelet."""
    path = f"/api/v1/nodes/{stage.scene.held}/proxy/pods"
    pods = _got(stage.admin.acting(*ROGUE).send("GET", path)).body["items"]
    return f"{len(pods)} pods with their specs"


def run_by_kubelet(stage: Stage) -> str:
    """Run a command in the training container through the kubelet."""
    path = f"/api/v1/nodes/{stage.scene.held}/proxy/run/acme/{stage.scene.running}/train?cmd=id"
    return _first(_got(stage.admin.acting(*ROGUE).send("POST", path)).body["message"])


def spy(stage: Stage) -> str:
    """Run another tenant's pod on the held node, by its name, and look at the processes there."""
    made = running_pod("spy", "globex", stage.scene.held, stage.scene.image, restartPolicy="Never", hostPID=True)
    [container] = made["spec"]["containers"]
    container.update(command=["python3", "-c", SPY], securityContext={"privileged": True, "runAsUser": 0})
    try:
        _got(stage.admin.acting(*EVE).send("POST", kinds.POD.path(namespace="globex"), _typed(kinds.POD, made)))
        wait_until(
            stage.kubectl,
            "pod",
            "spy",
            lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"),
            "globex",
            what="the spy to end",
            seconds=60,
        )
        return _first(logs(stage.kubectl, "spy", "globex"))
    finally:
        remove(stage.kubectl, "pod", "spy", "globex")


def infiltrate(stage: Stage) -> str:
    """Have a DaemonSet of another tenant put its pod on the held node."""
    template = running_pod("agents", "globex", "", stage.scene.image, labels={"app": "agents"}, tolerations=EVERYTHING)
    del template["spec"]["nodeName"]
    spec = {
        "selector": {"matchLabels": {"app": "agents"}},
        "template": {"metadata": {"labels": {"app": "agents"}}, "spec": template["spec"]},
    }
    body = {"metadata": {"name": "agents", "namespace": "globex"}, "spec": spec}
    try:
        _got(stage.admin.acting(*EVE).send("POST", DAEMONSET.path(namespace="globex"), _typed(DAEMONSET, body)))
        until(lambda: bool(_agents(stage) or _complaints(stage)), what="the DaemonSet to make pods", seconds=60)
        if not _agents(stage):
            raise ClusterError(_complaints(stage)[0])
        return f"a pod of globex runs on {stage.scene.held}"
    finally:
        remove(stage.kubectl, "daemonset", "agents", "globex")
        until(
            lambda: not find_all(stage.kubectl, "pods", "globex", "app=agents"),
            what="the agents to be gone",
            seconds=60,
        )
        stage.kubectl("delete", "events", "--namespace=globex", "--field-selector=involvedObject.name=agents")


def debug(stage: Stage) -> str:
    """Start a container inside the training pod, beside the training process."""
    path = f"{kinds.POD.path(stage.scene.running, 'acme', 'ephemeralcontainers')}"
    container = {
        "name": f"debug-{time.time_ns()}",
        "image": stage.scene.image,
        "imagePullPolicy": "IfNotPresent",
        "targetContainerName": "train",
        "command": ["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline | head -1"],
    }
    change = {"spec": {"ephemeralContainers": [container]}}
    kind = "application/strategic-merge-patch+json"
    _got(stage.admin.acting(*ADMIN).send("PATCH", path, change, kind))

    def ended(pod: Object) -> bool:
        statuses = pod["status"].get("ephemeralContainerStatuses", [])
        return any("terminated" in each["state"] for each in statuses if each["name"] == container["name"])

    wait_until(stage.kubectl, "pod", stage.scene.running, ended, "acme", what="the container to end", seconds=60)
    printed = logs(stage.kubectl, stage.scene.running, "acme", str(container["name"]))
    return f"sees the process {_first(printed)!r}"


def swap_image(stage: Stage) -> str:
    """Change the image of a pod with keys, which the kubelet then starts with the same mounts."""
    [container] = stage.admin.get(kinds.POD, STAND_IN, "acme")["spec"]["containers"]
    other = f"{LETHE_IMAGE}:dev"
    image = other if container["image"] != other else stage.scene.image
    change = {"spec": {"containers": [{"name": "train", "image": image}]}}
    path = kinds.POD.path(STAND_IN, "acme")
    _got(stage.admin.acting("ed", "system:authenticated").send("PATCH", path, change, STRATEGIC))
    until(
        lambda: "other image" in logs(stage.kubectl, STAND_IN, "acme", "train"),
        what="the kubelet to start the other image",
        seconds=60,
    )
    assert PLANTED in logs(stage.kubectl, STAND_IN, "acme", "train")
    return "another image runs and reads the key"


STRATEGIC = "application/strategic-merge-patch+json"

DEEDS = [
    Deed("done: exec into a training pod", enter, "no exec, attach"),
    Deed("done: attach to a training pod", attach, "no exec, attach"),
    Deed("done: port-forward into a training pod", forward, "no exec, attach"),
    Deed("done: proxy into a training pod", proxy, "no exec, attach"),
    Deed("done: a held node's kubelet asked through nodes/proxy", ask_kubelet, "nodes/proxy"),
    Deed("done: a command run by a held node's kubelet", run_by_kubelet, "nodes/proxy"),
    Deed("done: another tenant's pod placed on a held node", spy, "is closed"),
    Deed("done: another tenant's DaemonSet on a held node", infiltrate, "tolerate"),
    Deed("done: an ephemeral container in a training pod", debug, "lethe:"),
    Deed("done: the image of a pod with keys changed", swap_image, "does not change"),
]


def _pod(stage: Stage) -> tuple[str, str]:
    return ("--namespace=acme", stage.scene.running)


def _typed(kind: kinds.Kind, body: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def _got(answer: Answer) -> Answer:
    if not answer.ok:
        raise ClusterError(f"{answer.status} {answer.message}")
    return answer


def _first(text: str) -> str:
    lines = text.strip().splitlines()
    if not lines:
        raise ClusterError("Nothing was printed.")
    return lines[0]


def _agents(stage: Stage) -> list[Object]:
    found = find_all(stage.kubectl, "pods", "globex", "app=agents")
    return [
        pod for pod in found if pod["spec"].get("nodeName") == stage.scene.held and pod["status"]["phase"] == "Running"
    ]


def _complaints(stage: Stage) -> list[str]:
    events = find_all(stage.kubectl, "events", "globex")
    return [
        each["message"]
        for each in events
        if each["involvedObject"]["name"] == "agents" and each["reason"] == "FailedCreate"
    ]


@contextmanager
def _running(process: Popen[str]) -> Iterator[Popen[str]]:
    """End a program that would go on, at the end of the block or when it has said nothing for too long."""
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        watchdog.cancel()


def _read_until(process: Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        if wanted in line:
            return line.strip()
        printed.append(line)
    raise ClusterError("".join(printed).strip())
