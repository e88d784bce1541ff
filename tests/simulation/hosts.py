"""The machines of a simulated cluster: kubelets, the processes that really run, and what lies in the GPUs' memory.

1. What is true of a machine (processes, memory, boot) is kept here and not in the API server: a kubelet that is cut off
   goes on, and an object that somebody removed ends no process.
2. Memory remembers whose data lies in it, through reboots too. Who is given a GPU gets the worst one that is visible.
3. A training container may not start beside another owner's process or on another owner's memory, nor a scrub beside
   any process: that breaks custody, and stops the simulation at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.formats.quantity import format_time
from lethe.formats.receipt import encode_report
from lethe.model import names
from lethe.model.agentconfig import ScrubConfig
from lethe.model.posture import Posture
from lethe.model.scrub import GpuReport, Residue
from tests.common.scrubs import build_facts, build_gpu, build_posture, build_report, build_summary
from tests.simulation.api_server import ManualClock
from tests.simulation.backend import Backend
from tests.simulation.containers import Behaviour, is_broken, is_unknown, pod_status, terminated

GPUS: Final = 2
FOREIGN: Final = "(nobody of ours)"
_TERMINAL: Final = ("Succeeded", "Failed")


@dataclass
class Host:
    """A machine with GPUs, whether or not the cluster knows it."""

    name: str
    gpus: int
    visible: set[int]
    unhealthy: int = 0
    """Of those visible, how many its device plugin does not offer."""
    system: str = ""
    """By what name its hardware is known, where it is not its own."""
    boot: int = 1
    reachable: bool = True
    """Whether its kubelet reaches the API server."""
    posture: Posture = field(default_factory=build_posture)
    """As a scrub finds it."""
    reported: Object | None = None
    """The status that its kubelet reported last; what others write into it meanwhile stays."""

    @property
    def boot_id(self) -> str:
        """Return the boot id that its kubelet reports."""
        return f"boot-{self.name}-{self.boot}"

    def node(self) -> Object:
        """Build the Node that its kubelet registers."""
        self.reported = self.status()
        labels = {names.GPU_PRESENT_LABEL: "true"} if self.gpus else {}
        return {"metadata": {"name": self.name, "labels": labels}, "spec": {}, "status": self.status()}

    def register(self, api: Backend) -> bool:
        """Report the status, if it is another than was reported; say whether it was."""
        status = self.status()
        if status == self.reported:
            return False
        self.reported = status
        api.patch(kube.NODE, self.name, "", {"status": status}, "status")
        return True

    def status(self) -> Object:
        """Build the status that its kubelet reports."""
        gpus = {names.GPU_RESOURCE: str(len(self.visible))} if self.gpus else {}
        offered = {names.GPU_RESOURCE: str(max(0, len(self.visible) - self.unhealthy))} if self.gpus else {}
        return {
            "nodeInfo": {"bootID": self.boot_id, "systemUUID": f"system-{self.system or self.name}"},
            "capacity": gpus,
            "allocatable": offered,
            "conditions": [{"type": "Ready", "status": "True"}],
        }


@dataclass
class Process:
    """A pod's containers, as the machine's runtime knows them."""

    node: str
    namespace: str
    name: str
    role: str
    owner: str
    began: float
    states: dict[str, Object] = field(default_factory=dict)
    alive: bool = False
    """Whether it holds GPUs now, whatever the kubelet reports."""

    @property
    def is_running(self) -> bool:
        """Say whether anything of it runs."""
        return self.alive or any("running" in state for state in self.states.values())


class Hosts:
    """All machines."""

    def __init__(self, api: Backend, clock: ManualClock, logs: dict[str, bytes]) -> None:
        self.behaviour = Behaviour()
        self.machines: dict[str, Host] = {}
        self.processes: dict[str, Process] = {}
        """By pod uid."""
        self.memory: dict[tuple[str, int], str] = {}
        """By node and GPU: whose data lies in it."""
        self.ran: list[tuple[str, str]] = []
        """Pod and node of every training container that started."""
        self.cleared: set[tuple[str, str]] = set()
        """Node and nonce of every scrub that really cleared what it reported."""
        self.excused: set[str] = set()
        """Machines of which a person has said that what ran there does not matter, until their next boot."""
        self.owner_of: Callable[[Object], str] = _tenant_of
        self._api = api
        self._clock = clock
        self._logs = logs
        self._old_reports: dict[str, tuple[bytes, str]] = {}

    @property
    def is_scrubbing(self) -> bool:
        """Say whether some scrub still takes its time."""
        return any(process.alive and process.role == names.ROLE_SCRUB for process in self.processes.values())

    # ---- what happens to machines

    def add(self, name: str, gpus: int, system: str = "") -> Host:
        """Add a machine whose kubelet has not registered yet."""
        host = self.machines[name] = Host(name, gpus, set(range(gpus)), system=system)
        return host

    def reboot(self, name: str) -> None:
        """End every process of a machine; its memory stays as it is."""
        self.machines[name].boot += 1
        self.excused.discard(name)
        self.end_all(name)

    def end_all(self, name: str) -> None:
        """End every process of a machine."""
        for process in self.on(name):
            self._kill(process)

    def excuse(self, name: str) -> None:
        """Let a person take the responsibility for what runs and lies on a machine."""
        self.excused.add(name)
        for place in self.memory:
            if place[0] == name:
                self.memory[place] = FOREIGN

    def forget_states(self, name: str) -> None:
        """Let a kubelet restart and lose track of its containers, which run on."""
        for process in self.on(name):
            for container, state in process.states.items():
                if "running" in state:
                    process.states[container] = terminated(self._clock.time, 137, reason="ContainerStatusUnknown")

    def on(self, node: str) -> list[Process]:
        """Return the processes of a machine, ended ones included."""
        return [process for process in self.processes.values() if process.node == node]

    # ---- kubelets

    def run(self) -> bool:
        """Let every kubelet take a step; say whether anything moved."""
        if not self.behaviour.kubelets:
            return False
        moved = [self.run_host(host) for host in self.machines.values()]
        return any(moved)

    def run_host(self, host: Host) -> bool:
        """Let one kubelet take a step: its Node's status, its pods, and processes whose pods are gone."""
        if not host.reachable:
            return False
        if self._api.find(kube.NODE, host.name) is None:
            return False
        moved = host.register(self._api)
        pods = self._api.all(kube.POD, fields=f"spec.nodeName={host.name}")
        for pod in pods:
            moved |= self._run_pod(host, pod)
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid, process in list(self.processes.items()):
            if process.node == host.name and uid not in present:
                self._kill(process)
                del self.processes[uid]
        return moved

    def _run_pod(self, host: Host, pod: Object) -> bool:
        """Take one step in the life of a bound pod."""
        metadata, phase = pod["metadata"], pod["status"].get("phase")
        process = self.processes.get(metadata["uid"])
        if process is None and phase not in _TERMINAL:
            process = self._admit(host, pod)
            if process is None:
                refused = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no GPU for it"}
                return self._write(pod, refused)
        if phase in _TERMINAL:
            if process is not None:
                self._kill(process)
            if metadata.get("deletionGracePeriodSeconds"):
                self._api.delete(kube.POD, metadata["name"], metadata["namespace"], metadata["uid"], 0)
                return True
            return False
        assert process is not None
        step = {names.ROLE_SCRUB: self._scrub, names.ROLE_TRAIN: self._train}.get(process.role, self._run_foreign)
        return self._write(pod, step(host, pod, process))

    def _admit(self, host: Host, pod: Object) -> Process | None:
        """Take a pod that is new on this machine, if there are GPUs for it."""
        if gpus_of(pod["spec"]) > len(host.visible) - host.unhealthy:
            return None
        metadata = pod["metadata"]
        process = Process(
            node=host.name,
            namespace=metadata["namespace"],
            name=metadata["name"],
            role=(metadata.get("labels") or {}).get(names.LABEL_ROLE, ""),
            owner=self.owner_of(pod),
            began=self._clock.time.timestamp(),
        )
        self.processes[metadata["uid"]] = process
        return process

    def _write(self, pod: Object, status: Object) -> bool:
        found = pod["status"]
        if all(found.get(key) == value for key, value in status.items()):
            return False
        metadata = pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        self._api.patch(kube.POD, metadata["name"], metadata["namespace"], patch, "status")
        return True

    # ---- containers

    def _train(self, host: Host, pod: Object, process: Process) -> Object:
        states = process.states
        inits = [container["name"] for container in pod["spec"].get("initContainers") or []]
        mains = [container["name"] for container in pod["spec"]["containers"]]
        behaviour = self.behaviour
        if is_unknown(states):
            return pod_status(states, inits, mains, "Failed")
        if "deletionTimestamp" in pod["metadata"] or is_broken(states):
            self._kill(process)
            return pod_status(states, inits, mains, "Failed")
        if names.CONTAINER_KEYFETCH in inits and names.CONTAINER_KEYFETCH not in states:
            states[names.CONTAINER_KEYFETCH] = self._running()
            return pod_status(states, inits, mains, "Pending")
        if "running" in states.get(names.CONTAINER_KEYFETCH, {}):
            states[names.CONTAINER_KEYFETCH] = terminated(
                self._clock.time, behaviour.keyfetch, behaviour.keyfetch_message
            )
            return pod_status(states, inits, mains, "Failed" if behaviour.keyfetch else "Pending")
        if mains[0] not in states:
            self._start_training(host, pod, process)
            for name in [*mains, *([names.CONTAINER_OUTPUTS] if names.CONTAINER_OUTPUTS in inits else [])]:
                states[name] = self._running()
            return pod_status(states, inits, mains, "Running")
        if "running" in states[mains[0]]:
            if not behaviour.endless:
                for name in mains:
                    states[name] = terminated(self._clock.time, behaviour.train)
                process.alive = names.CONTAINER_OUTPUTS in states
            return pod_status(states, inits, mains, "Running")
        if "running" in states.get(names.CONTAINER_OUTPUTS, {}):
            states[names.CONTAINER_OUTPUTS] = terminated(self._clock.time, behaviour.outputs, behaviour.outputs_message)
            process.alive = False
            return pod_status(states, inits, mains, "Running")
        failed = states[mains[0]]["terminated"]["exitCode"] != 0
        return pod_status(states, inits, mains, "Failed" if failed else "Succeeded")

    def _start_training(self, host: Host, pod: Object, process: Process) -> None:
        for other in self.on(host.name):
            assert not other.alive or other.owner in (process.owner, "") or host.name in self.excused, (
                f"{process.name} of {process.owner} starts on {host.name} beside {other.name} of {other.owner}"
            )
        found = {number: self.memory.get((host.name, number), process.owner) for number in sorted(host.visible)}
        worst_first = sorted(found, key=lambda number: found[number] == process.owner)
        for number in worst_first[: gpus_of(pod["spec"])]:
            assert found[number] == process.owner, (
                f"{process.owner} was started on memory of {found[number]} on {host.name}"
            )
            self.memory[host.name, number] = process.owner
        process.alive = True
        self.ran.append((f"{process.namespace}/{process.name}", host.name))

    def _run_foreign(self, host: Host, pod: Object, process: Process) -> Object:
        """A pod that is none of ours sees every GPU of its node."""
        containers = [container["name"] for container in pod["spec"]["containers"]]
        if "deletionTimestamp" in pod["metadata"]:
            self._kill(process)
            return pod_status(process.states, [], containers, "Failed")
        if not process.alive and process.owner == FOREIGN:
            for number in host.visible:
                found = self.memory.get((host.name, number), FOREIGN)
                assert found == FOREIGN, f"{process.name} was started on memory of {found} on {host.name}"
                self.memory[host.name, number] = FOREIGN
        process.alive = True
        process.states |= {name: self._running() for name in containers if name not in process.states}
        return pod_status(process.states, [], containers, "Running")

    def _scrub(self, host: Host, pod: Object, process: Process) -> Object:
        states, containers = process.states, [names.CONTAINER_SCRUB]
        if is_unknown(states):
            return pod_status(states, [], containers, "Failed")
        if "deletionTimestamp" in pod["metadata"] or is_broken(states):
            self._kill(process)
            return pod_status(states, [], containers, "Failed")
        if names.CONTAINER_SCRUB not in states:
            for other in self.on(host.name):
                excused = other.owner in ("", FOREIGN) or host.name in self.excused
                assert not other.alive or excused, f"{host.name} is scrubbed under {other.name}"
            states[names.CONTAINER_SCRUB] = self._running()
            process.alive = True
            return pod_status(states, [], containers, "Running")
        if self._clock.time.timestamp() - process.began < self.behaviour.scrub_seconds:
            return pod_status(states, [], containers, "Running")
        process.alive = False
        config = msgspec.json.decode(pod["spec"]["containers"][0]["args"][1], type=ScrubConfig)
        code, message = self._clear(host, config, f"{process.namespace}/{process.name}/{names.CONTAINER_SCRUB}")
        states[names.CONTAINER_SCRUB] = terminated(self._clock.time, code, message)
        return pod_status(states, [], containers, "Failed" if code else "Succeeded")

    def _clear(self, host: Host, config: ScrubConfig, log: str) -> tuple[int, str]:
        """Scrub a machine's GPUs, or misbehave; return exit code and termination message, and write the log."""
        fault = self.behaviour.scrub_fault
        if fault == "replay" and host.name in self._old_reports:
            self._logs[log], message = self._old_reports[host.name]
            return 0, message
        if fault in ("silent", "crash"):
            return int(fault == "crash"), ""
        gpus = sorted(host.visible)[: config.gpu_count]
        left = sum(other.alive and other.owner != "" for other in self.on(host.name))
        found = [self._look(host, number, left) for number in gpus]
        told = {
            "boot_id": host.boot_id,
            "posture": host.posture,
            "gpus": found,
            "driver_scrubs_on_free": self.behaviour.driver_scrubs,
        }
        report = build_report(config, **{**told, **self.behaviour.scrub_changes})
        if not self.behaviour.scrub_changes and not left:
            self.cleared.add((host.name, config.nonce))
            for number in gpus:
                self.memory.pop((host.name, number), None)
        logged = msgspec.structs.replace(report, driver="0.0") if fault == "forge" else report
        self._logs[log] = encode_report(logged) + b"\n"
        message = msgspec.json.encode(build_summary(report)).decode()
        self._old_reports[host.name] = (self._logs[log], message)
        return 0, message

    def _look(self, host: Host, number: int, left: int) -> GpuReport:
        """Return what a scrub of a GPU reports, beside so many processes."""
        uuid = f"GPU-{host.name}-{number}"
        return build_gpu(
            number,
            facts=build_facts(number, uuid=uuid),
            after=build_facts(number, uuid=uuid, processes=left),
            residue=_residue(4096 if (host.name, number) in self.memory else 0),
        )

    def _kill(self, process: Process) -> None:
        """End what runs; it may have written to memory until now."""
        if process.alive and process.owner == FOREIGN:
            self.memory |= {(process.node, number): FOREIGN for number in self.machines[process.node].visible}
        process.alive = False
        for name, state in process.states.items():
            if "running" in state:
                process.states[name] = terminated(self._clock.time, 137)

    def _running(self) -> Object:
        return {"running": {"startedAt": format_time(self._clock.time)}}


def gpus_of(spec: Object) -> int:
    """Return how many GPUs a pod asks for."""
    return sum(
        int((container.get("resources") or {}).get("limits", {}).get(names.GPU_RESOURCE, 0))
        for container in spec["containers"]
    )


def _tenant_of(pod: Object) -> str:
    return (pod["metadata"].get("labels") or {}).get(names.LABEL_TENANT, "")


def _residue(nonzero: int) -> Residue:
    return Residue(nonzero_bytes=nonzero, nonzero_pages=nonzero // 4096, digest="00")
