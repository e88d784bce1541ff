"""A state machine of everything that may happen around custody, for Hypothesis to play.

1. One step is one rule: something that a person, a machine, the network or a clock does, or the operator's own work.
2. After each step the invariants of `auditor` and `hosts` hold. At the end the disturbances stop, and everything comes
   to rest: jobs have ended or say why they wait, nodes explain themselves, and nothing is written any more.
3. Two replicas take turns. One that is set aside may sleep with a plan in its hands, and wake up long after.
4. A rule picks things by number, so that an example that fails shrinks.

A new rule of custody needs a rule here only for what people do about it (`spec` of a GPUNode, say); what the operator
does follows from its cycles.
"""

import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lethe.adapters import kube
from lethe.adapters.kube import Kind, Object
from lethe.model import names
from tests.simulation.api_server import SkewedClock
from tests.simulation.auditor import Auditor
from tests.simulation.cluster import Cluster, job_spec
from tests.simulation.faults import Fault, Faults, Request
from tests.simulation.hosts import FOREIGN, Host
from tests.simulation.loop import InstantLoop
from tests.simulation.operators import Operator
from tests.simulation.rest import check_rest
from tests.simulation.scheduler import schedule

LATE: Final = 1.0
"""Seconds that an API server's view of the fence may be late; a scrub takes longer, as on every real GPU."""
TENANTS: Final[dict[str, Object]] = {
    "acme": {},
    "globex": {"isolation": "job"},
    "initech": {"idleRetention": "60s", "gpus": {"quota": 3}},
}
SCRUB_CHANGES: Final[dict[str, Object]] = {
    "failed": {"verdict": "Failed", "reason": "GPULost", "message": "a GPU fell off the bus"},
    "nonce": {"nonce": "00" * 32},
    "epoch": {"epoch": 99},
    "boot": {"boot_id": "another"},
    "node": {"node": "another"},
    "gpus": {"gpus": []},
}
SEEN: Final[Counter[str]] = Counter()
"""Rules and transitions that were seen in this process."""

_LULLS: Final = (60.0, 700.0, 3600.0)
"""Seconds that pass at rest, and nothing may be written for: longer than every time limit."""
_LOOP: Final = InstantLoop()
_some = st.integers(0, 5)
_nodes = st.integers(0, 2)


class CustodyMachine(RuleBasedStateMachine):
    """Several tenants, jobs and nodes, two replicas of the operator, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = 0
        self.pods = 0

    @initialize(nodes=st.integers(1, 3), automatic=st.booleans(), jobs=st.integers(0, 3))
    def begin(self, nodes: int, automatic: bool, jobs: int) -> None:
        enrolment = "automatic" if automatic else "manual"
        self.cluster = Cluster(Faults(), proof_timeout_seconds=120, enrolment=enrolment)
        self.server, self.hosts, self.clock = self.cluster.server, self.cluster.hosts, self.cluster.clock
        self.hosts.behaviour.scrub_seconds = 2 * LATE
        self.hosts.owner_of = _owner
        self.auditor = Auditor(self.server, self.hosts, self.cluster.config.settle_seconds)
        self.clocks = [SkewedClock(self.clock), SkewedClock(self.clock)]
        self.operators = [
            Operator(self.server.client(), clock, self.cluster.config, Faults(_Armed())) for clock in self.clocks
        ]
        self.leader = 0
        self.resting: tuple[int, datetime] | None = None
        for name, spec in TENANTS.items():
            self.cluster.add_tenant(name, **spec)
        for number in range(nodes):
            self.cluster.add_node(f"gpu-{number}", managed=number < 2)
        for tenant in list(TENANTS)[:jobs]:
            self.add_job(tenant, 2, False)

    # ---- the operator

    @rule(rounds=st.integers(1, 3))
    def go_on(self, rounds: int) -> None:
        self._go_on(rounds)

    # Hypothesis chooses among rules alike: what leads far is a rule more than once, or nothing would get far.

    @rule(rounds=st.integers(2, 4))
    def go_further(self, rounds: int) -> None:
        self._go_on(rounds)

    @rule(rounds=st.integers(3, 6))
    def go_far(self, rounds: int) -> None:
        self._go_on(rounds)

    @rule(rounds=st.integers(1, 4))
    def go_on_quickly(self, rounds: int) -> None:
        """Cycle follows cycle at once, as they do while there is something to write."""
        self._go_on(rounds, 0.0, 0.3)

    def _go_on(self, rounds: int, pause: float = 0.5, longest: float = 4.0) -> None:
        """Let everything go its way, and time pass to what is due next."""
        SEEN["go on"] += 1
        for _ in range(rounds):
            version = self.server.version
            wait = self._wake()
            self._work()
            self.clock.move(pause if self.server.version != version else min(wait, longest))

    @rule()
    def cycle(self) -> None:
        SEEN["cycle"] += 1
        self._cycle()

    @rule(late=st.booleans())
    def work(self, late: bool) -> None:
        """Scheduler and kubelets work, and no event reaches the operator."""
        SEEN["work"] += 1
        self._work(LATE if late else 0.0)

    @rule(seconds=st.sampled_from([0.4, 1.1, 2.5, 11.0, 70.0, 400.0]))
    def wait(self, seconds: float) -> None:
        SEEN["wait"] += 1
        self.clock.move(seconds)

    @rule(after=st.integers(1, 40), fault=st.sampled_from(list(Fault)), meanwhile=st.integers(0, 4), node=_nodes)
    def disturb(self, after: int, fault: Fault, meanwhile: int, node: int) -> None:
        """Arm a fault for one of the next requests of the leader."""
        SEEN[f"disturb: {fault}"] += 1
        faults = self.operators[self.leader].faults
        assert isinstance(faults.choose, _Armed)
        faults.choose.at[faults.requests + after] = fault
        faults.meanwhile = lambda: self._meanwhile(meanwhile, node)

    @rule(on=st.booleans())
    def stall(self, on: bool) -> None:
        """Another API server's watch stalls: it judges binds by the fence as it is now."""
        SEEN["an API server stalls" if on else "it catches up"] += 1
        self.server.stall(on=on)

    @rule()
    def kill(self) -> None:
        SEEN["kill"] += 1
        self.operators[self.leader].restart()

    @rule()
    def set_aside(self) -> None:
        """The leader falls asleep before its next write, and the other replica takes over."""
        SEEN["set aside"] += 1
        _LOOP.run_until_complete(self.operators[self.leader].plan())
        self.leader = 1 - self.leader
        # Who has lost the Lease begins anew before it takes it again.
        self.operators[self.leader].restart()
        self.resting = None

    @precondition(lambda self: self.operators[1 - self.leader].has_plan)
    @rule()
    def old_leader_wakes(self) -> None:
        SEEN["old leader wakes"] += 1
        self.auditor.is_late = True
        _LOOP.run_until_complete(self.operators[1 - self.leader].execute())
        self.auditor.is_late = False

    @rule(seconds=st.sampled_from([-5, -1, 1, 90, 1200]))
    def jump(self, seconds: float) -> None:
        """A replica's clock is corrected."""
        SEEN["clock jumps"] += 1
        self.clocks[self.leader].offset += seconds
        self.resting = None

    # ---- jobs

    @precondition(lambda self: len(self._all(kube.JOB_CR)) < 5)
    @rule(tenant=st.sampled_from(list(TENANTS)), gpus=st.integers(1, 2), deadline=st.booleans())
    def add_job(self, tenant: str, gpus: int, deadline: bool) -> None:
        SEEN["add a job"] += 1
        self.jobs += 1
        limit = {"activeDeadlineSeconds": 60} if deadline else {}
        self.cluster.add_job(tenant, f"job{self.jobs}", **job_spec(gpusPerReplica=gpus, **limit))

    @rule(number=_some)
    def delete_job(self, number: int) -> None:
        if job := self._pick(kube.JOB_CR, number):
            SEEN["delete a job"] += 1
            self.server.delete(kube.JOB_CR, job["metadata"]["name"], job["metadata"]["namespace"])

    @rule(number=_some, suspend=st.booleans())
    def suspend_or_resume(self, number: int, suspend: bool) -> None:
        if job := self._pick(kube.JOB_CR, number):
            SEEN["suspend" if suspend else "resume"] += 1
            metadata = job["metadata"]
            self.server.patch(kube.JOB_CR, metadata["name"], metadata["namespace"], {"spec": {"suspend": suspend}})

    @rule(endless=st.booleans(), code=st.sampled_from(["", "", "train", "keyfetch", "outputs"]))
    def behave(self, endless: bool, code: str) -> None:
        SEEN[f"containers: {code or 'well'}"] += 1
        behaviour = self.hosts.behaviour
        behaviour.endless = endless
        behaviour.train, behaviour.keyfetch, behaviour.outputs = (
            int(code == name) for name in ("train", "keyfetch", "outputs")
        )

    @rule(how=st.sampled_from(["", "", "", *SCRUB_CHANGES, "replay", "silent", "crash"]))
    def scrubs_behave(self, how: str) -> None:
        SEEN[f"scrubs: {how or 'well'}"] += 1
        self.hosts.behaviour.scrub_changes = SCRUB_CHANGES.get(how, {})
        self.hosts.behaviour.scrub_fault = how

    # ---- pods

    @rule(number=_some)
    def tenant_deletes_pod(self, number: int) -> None:
        if pod := self._pick_pod(number):
            SEEN["tenant deletes a pod"] += 1
            self.server.delete(kube.POD, pod["metadata"]["name"], pod["metadata"]["namespace"])

    @rule(number=_some)
    def remove_by_force(self, number: int) -> None:
        """Take a pod's finalizers off and its object away, as a cluster administrator can."""
        if pod := self._pick_pod(number):
            SEEN["remove a pod by force"] += 1
            self._force(pod)

    @rule(number=_some)
    def lose_scrub_pod(self, number: int) -> None:
        pods = self.server.all(kube.POD, names.SYSTEM_NAMESPACE)
        if pods:
            SEEN["lose a scrub pod"] += 1
            self._force(pods[number % len(pods)])

    @precondition(lambda self: len(self._all(kube.POD, "default")) < 2)
    @rule(node=_nodes)
    def add_foreign_pod(self, node: int) -> None:
        """Somebody who is no tenant wants to run on a node."""
        if host := self._host(node):
            SEEN["add a foreign pod"] += 1
            self._add_pod("foreign", host)

    @precondition(lambda self: self._all(kube.POD, "default"))
    @rule(number=_some)
    def delete_foreign_pod(self, number: int) -> None:
        SEEN["delete a foreign pod"] += 1
        pods = self._all(kube.POD, "default")
        self.server.delete(kube.POD, pods[number % len(pods)]["metadata"]["name"], "default")

    @rule(node=_nodes)
    def intrude(self, node: int) -> None:
        """A cluster administrator binds a pod past the fence while a node is being scrubbed, or is free."""
        host = self._host(node)
        if host is None or self._ledger(host).get("phase") not in ("Scrubbing", "Free"):
            return
        SEEN["intrude"] += 1
        pod = self._add_pod("intruder", host)
        self.server.update(kube.POD, {**pod, "spec": {**pod["spec"], "nodeName": host.name}})

    # ---- nodes

    @rule(node=_nodes, managed=st.booleans())
    def enrol_or_release(self, node: int, managed: bool) -> None:
        host = self._host(node)
        if host is not None and self.server.find(kube.GPU_NODE, host.name) is not None:
            SEEN["enrol" if managed else "release"] += 1
            self.server.patch(kube.GPU_NODE, host.name, "", {"spec": {"managed": managed}})

    @rule(node=_nodes, drain=st.booleans())
    def drain(self, node: int, drain: bool) -> None:
        host = self._host(node)
        if host is not None and self.server.find(kube.GPU_NODE, host.name) is not None:
            SEEN["drain" if drain else "undrain"] += 1
            self.server.patch(kube.GPU_NODE, host.name, "", {"spec": {"drain": drain}})

    @rule(node=_nodes)
    def override(self, node: int) -> None:
        """An administrator answers for a quarantined node: what ran on it has ended."""
        host = self._host(node)
        if host is None or self._ledger(host).get("phase") != "Quarantined":
            return
        SEEN["override"] += 1
        self.hosts.end_all(host.name)
        wish = {"reason": f"looked at it, {SEEN['override']}", "by": "jo"}
        self.server.patch(kube.GPU_NODE, host.name, "", {"spec": {"override": wish}})

    @precondition(lambda self: len(self.hosts.machines) < 3)
    @rule(managed=st.booleans())
    def add_node(self, managed: bool) -> None:
        SEEN["add a node"] += 1
        self.cluster.add_node(f"gpu-{len(self.hosts.machines)}", managed=managed)

    @rule(node=_nodes)
    def reboot(self, node: int) -> None:
        if host := self._host(node):
            SEEN["reboot"] += 1
            self.hosts.reboot(host.name)

    @rule(node=_nodes)
    def lose_node(self, node: int) -> None:
        """The network takes a kubelet away; its containers run on."""
        if host := self._host(node):
            SEEN["lose a node"] += 1
            host.reachable = False
            self._set_ready(host, "Unknown")

    @rule(node=_nodes, rebooted=st.booleans())
    def find_node(self, node: int, rebooted: bool) -> None:
        """A lost or deleted node comes back."""
        if host := self._host(node):
            SEEN["find a node"] += 1
            if rebooted:
                self.hosts.reboot(host.name)
            self._find(host)

    @rule(node=_nodes)
    def delete_node(self, node: int) -> None:
        """A Node is deleted; the pod garbage collector ends its pods, and nobody asks the machine."""
        host = self._host(node)
        if host is not None and self.server.find(kube.NODE, host.name) is not None:
            SEEN["delete a Node"] += 1
            self.server.delete(kube.NODE, host.name)
            self._collect_pods(host)

    @rule(node=_nodes)
    def put_out_of_service(self, node: int) -> None:
        """The pod garbage collector ends the pods of a node that somebody tainted out-of-service."""
        host = self._host(node)
        if host is not None and not host.reachable:
            SEEN["out of service"] += 1
            self._collect_pods(host, says_so=False)

    @rule(node=_nodes)
    def restart_kubelet(self, node: int) -> None:
        """A kubelet restarts and does not know its containers any more."""
        if host := self._host(node):
            SEEN["kubelet forgets"] += 1
            self.hosts.forget_states(host.name)

    @rule(node=_nodes, visible=st.integers(0, 2))
    def show_gpus(self, node: int, visible: int) -> None:
        """GPUs vanish from a node's capacity, or come back."""
        if host := self._host(node):
            SEEN["GPUs vanish or appear"] += 1
            host.visible = set(range(host.gpus)[-visible:]) if visible else set()

    @rule(node=_nodes, unhealthy=st.integers(0, 2))
    def break_gpus(self, node: int, unhealthy: int) -> None:
        """GPUs of a node fall ill, or are well again, as its device plugin says."""
        if host := self._host(node):
            SEEN["GPUs fall ill or recover"] += 1
            host.unhealthy = unhealthy

    # ---- checks

    @invariant()
    def custody_holds(self) -> None:
        SEEN["steps"] += 1
        self.auditor.check()

    def teardown(self) -> None:
        """Let everything come to rest, unless a step has failed already."""
        if sys.exc_info()[0] is not None or not hasattr(self, "auditor"):
            return
        self._calm()
        quiet = 0
        for _ in range(800):
            version = self.server.version
            wait = self._wake()
            moved = self._work()
            self.auditor.check()
            if self.server.version != version or moved or wait == 0 or self.hosts.is_scrubbing:
                self.clock.move(0.5)
                quiet = 0
            elif wait < self.cluster.config.resync_seconds:
                self.clock.move(wait)
            elif quiet < len(_LULLS):
                self.clock.move(_LULLS[quiet])
                quiet += 1
            else:
                break
        else:
            raise AssertionError("no rest")
        SEEN.update(self.auditor.moves)
        SEEN["examples"] += 1
        check_rest(self.server, TENANTS)

    # ---- means

    def _wake(self) -> float:
        """Run a cycle if anything has happened since the last, or is due; return the seconds until something is."""
        if self.resting is not None and self.resting[0] == self.server.version:
            left = (self.resting[1] - self.clock.time).total_seconds()
            if left > 0:
                return left
        wait = self._cycle()
        due = self.clock.time + timedelta(seconds=wait)
        self.resting = (self.server.version, due) if wait > 0 else None
        return wait

    def _cycle(self) -> float:
        self.resting = None
        return _LOOP.run_until_complete(self.operators[self.leader].cycle())

    def _work(self, lag: float = 0.0) -> bool:
        return schedule(self.server, lag) | self.hosts.run()

    def _meanwhile(self, number: int, node: int) -> None:
        """The world moves on while a request is slow."""
        self.clock.move(0.7)
        acts: list[Callable[[], Any]] = [
            lambda: self._work(LATE),
            lambda: self.reboot(node),
            lambda: self.delete_job(node),
            lambda: self.tenant_deletes_pod(node),
            lambda: self.enrol_or_release(node, True),
        ]
        acts[number]()
        self._work(LATE)

    def _calm(self) -> None:
        """Stop every disturbance."""
        self.server.stall(on=False)
        behaviour = self.hosts.behaviour
        behaviour.scrub_changes, behaviour.scrub_fault, behaviour.endless = {}, "", False
        for operator in self.operators:
            operator.restart()
            operator.faults.choose = _Armed()
        for host in self.hosts.machines.values():
            host.visible, host.unhealthy = set(range(host.gpus)), 0
            self._find(host)
            if self.server.find(kube.GPU_NODE, host.name) is not None:
                self.server.patch(kube.GPU_NODE, host.name, "", {"spec": {"drain": False}})
        for pod in self._all(kube.POD, "default"):
            self.server.delete(kube.POD, pod["metadata"]["name"], "default")

    def _find(self, host: Host) -> None:
        host.reachable = True
        if self.server.find(kube.NODE, host.name) is None:
            self.server.create(kube.NODE, host.node())
        self._set_ready(host, "True")

    def _set_ready(self, host: Host, status: str) -> None:
        if self.server.find(kube.NODE, host.name) is not None:
            conditions = [{"type": "Ready", "status": status}]
            self.server.patch(kube.NODE, host.name, "", {"status": {"conditions": conditions}}, "status")

    def _collect_pods(self, host: Host, *, says_so: bool = True) -> None:
        """End the pods of a node as the pod garbage collector does; it marks only those of a node that is gone."""
        for pod in self.server.all(kube.POD, fields=f"spec.nodeName={host.name}"):
            metadata = pod["metadata"]
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                mark = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
                conditions = pod["status"].get("conditions") or []
                status = {"phase": "Failed", "conditions": [*conditions, *([mark] if says_so else [])]}
                self.server.patch(kube.POD, metadata["name"], metadata["namespace"], {"status": status}, "status")
            self.server.delete(kube.POD, metadata["name"], metadata["namespace"], grace=0)

    def _force(self, pod: Object) -> None:
        metadata = pod["metadata"]
        self.auditor.forced.add(metadata["uid"])
        self.server.patch(kube.POD, metadata["name"], metadata["namespace"], {"metadata": {"finalizers": None}})
        self.server.delete(kube.POD, metadata["name"], metadata["namespace"], grace=0)

    def _add_pod(self, name: str, host: Host) -> Object:
        self.pods += 1
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [host.name]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        body = {
            "metadata": {"name": f"{name}-{self.pods}", "namespace": "default"},
            "spec": {"containers": [{"name": "main"}], "affinity": {"nodeAffinity": required}},
        }
        return self.server.create(kube.POD, body)

    def _all(self, kind: Kind, namespace: str = "") -> list[Object]:
        return self.server.all(kind, namespace)

    def _pick(self, kind: Kind, number: int) -> Object | None:
        items = self._all(kind)
        return items[number % len(items)] if items else None

    def _pick_pod(self, number: int) -> Object | None:
        pods = self.server.all(kube.POD, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}")
        return pods[number % len(pods)] if pods else None

    def _host(self, number: int) -> Host | None:
        return self.hosts.machines.get(f"gpu-{number}")

    def _ledger(self, host: Host) -> Object:
        return (self.server.find(kube.GPU_NODE, host.name) or {}).get("status") or {}


class _Armed:
    """Faults at chosen requests, counted from 1."""

    def __init__(self) -> None:
        self.at: dict[int, Fault] = {}

    def __call__(self, request: Request, number: int, writes: int) -> Fault | None:
        return self.at.pop(number, None) if self.at else None


def _owner(pod: Object) -> str:
    """Return whose data a pod handles: a tenant's, one job's where jobs are isolated, or nobody's that we know."""
    metadata = pod["metadata"]
    tenant = (metadata.get("labels") or {}).get(names.LABEL_TENANT, "")
    if tenant:
        isolated = TENANTS[tenant].get("isolation") == "job"
        return f"{tenant}/{metadata['labels'][names.LABEL_JOB_UID]}" if isolated else tenant
    return FOREIGN if metadata["name"].startswith("foreign") else ""
