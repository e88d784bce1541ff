"""Lethe comes to a cluster on which others work, and goes again: nobody who is not its tenant is disturbed.

The tests are chapters of one life and run in this order: failed installations, audit mode, enforcement, enrolment, an
upgrade, removal. After each, pods can be bound wherever no node was given into custody.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.commands import attempt
from tests.cluster.errors import NotSupported
from tests.cluster.gpus import set_faults
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until
from tests.common.installation import RELEASE, SYSTEM, Installation
from tests.common.objects import condition, find, find_all, message, phase, wait_until
from tests.common.tenants import TrialTenant
from tests.common.world import World, enrol
from tests.e2e.jobs import end, let_go, releases, run_held
from tests.e2e.neighbours import AGENT, NAMESPACE, NOTEBOOK, Neighbours, pod

COMPONENTS = "app.kubernetes.io/component in (operator,keyservice)"


@dataclass(frozen=True)
class Site:
    """A cluster with neighbours, and the GPU nodes: theirs, and one that nobody uses."""

    installation: Installation
    neighbours: Neighbours
    theirs: str
    unused: str

    @property
    def kubectl(self) -> Kubectl:
        return self.installation.provider.kubectl()

    def install(self, *flags: str, **values: object) -> str:
        """Install or upgrade; the neighbours' namespace is not the system's, although it has a DaemonSet."""
        return self.installation.install(*flags, **self.values(), **values)

    def values(self) -> dict[str, object]:
        agents = self.installation.values()["systemNamespaces"]
        return {"systemNamespaces": [name for name in agents if name != NAMESPACE]}

    def try_to_install(self, *flags: str, **values: object) -> str:
        """Run an installation that must fail and return what Helm says."""
        chosen = {**self.installation.values(), **self.values(), **values}
        done = attempt(self.installation.install_command(*flags), stdin=json.dumps(chosen))
        assert done.returncode != 0
        return done.stdout + done.stderr

    def policies(self) -> list[str]:
        found = find_all(self.kubectl, "validatingadmissionpolicies", labels="app.kubernetes.io/part-of=lethe")
        return [policy["metadata"]["name"] for policy in found]

    def open_nodes(self) -> list[str]:
        """Return the nodes that nobody has given into Lethe's custody."""
        managed = {node["metadata"]["name"] for node in find_all(self.kubectl, "gpunodes") if node["spec"]["managed"]}
        return [node.name for node in self.installation.provider.nodes() if node.name not in managed]

    def wait_for_message(self, node: str, *words: str) -> str:
        """Wait until the ledger says all of these words of a Dirty node, and return the sentence."""
        found = wait_until(
            self.kubectl,
            "gpunode",
            node,
            lambda ledger: phase(ledger) == "Dirty" and all(word in message(ledger) for word in words),
            what=f"node {node} to wait and to name {' and '.join(words)}",
            seconds=60,
        )
        return message(found)

    def epoch(self, node: str) -> int:
        ledger = find(self.kubectl, "gpunode", node)
        assert ledger is not None
        return int(ledger["status"]["epoch"])

    def component_pods(self) -> set[str]:
        """Return the uids of the pods of operator and key service."""
        return {each["metadata"]["uid"] for each in find_all(self.kubectl, "pods", SYSTEM, COMPONENTS)}

    def receipts(self, node: str, epoch: int) -> list[str]:
        """Return the receipts of one epoch of a node: there is never more than one."""
        return [
            receipt["metadata"]["name"]
            for receipt in find_all(self.kubectl, "scrubreceipts")
            if (receipt["spec"]["node"], receipt["spec"]["epoch"]) == (node, epoch)
        ]


@pytest.fixture(scope="module")
def site(world: World, acme: TrialTenant) -> Iterator[Site]:
    """Return a cluster without Lethe, on which others work; afterwards Lethe is there again, and its nodes are Free."""
    theirs, unused, *_ = (node.name for node in world.installation.gpu_nodes())
    neighbours = Neighbours(world.provider.kubectl(), theirs, spared=unused)
    world.installation.uninstall()
    try:
        neighbours.move_in()
        yield Site(world.installation, neighbours, theirs, unused)
    finally:
        neighbours.move_out()
        world.installation.install()
        enrol(world)


@pytest.fixture(autouse=True)
def nobody_is_disturbed(site: Site) -> Iterator[None]:
    """Check after each test that what the neighbours run is what they ran, but for what the test itself took away."""
    before = site.neighbours.state()
    yield
    after = site.neighbours.state()
    assert {name: after[name] for name in before if name in after} == {
        name: state for name, state in before.items() if name in after
    }
    assert {name for name in before if name.startswith("web")} <= set(after)
    site.neighbours.bind(site.open_nodes())


def test_a_missing_image_closes_nothing(site: Site) -> None:
    missing = {"repository": "localhost/lethe", "tag": "missing", "pullPolicy": "Never"}
    site.try_to_install("--timeout=5s", image=missing)
    assert site.policies() == []


def test_an_operator_that_never_gets_ready_closes_nothing(site: Site) -> None:
    too_large = {"resources": {"requests": {"cpu": "1000"}}}
    said = site.try_to_install("--wait=hookOnly", operator=too_large, hooks={"openListTimeoutSeconds": 5})
    assert "has not classified every node" in said
    assert "No policy was applied" in said
    assert site.policies() == []


def test_an_installation_that_is_killed_closes_nothing(site: Site) -> None:
    deployment = find(site.kubectl, "deployment", "lethe-operator", SYSTEM)
    assert deployment is not None
    values = {**site.installation.values(), **site.values()}
    with subprocess.Popen(
        [str(word) for word in site.installation.install_command()], stdin=subprocess.PIPE, text=True
    ) as helm:
        assert helm.stdin is not None
        helm.stdin.write(json.dumps(values))
        helm.stdin.close()
        wait_until(
            site.kubectl,
            "deployment",
            "lethe-operator",
            lambda found: found["metadata"]["generation"] > deployment["metadata"]["generation"],
            SYSTEM,
            what="Helm to put the operator in",
            seconds=60,
        )
        helm.kill()
    assert site.policies() == []
    assert "pending" in site.installation.helm("status", RELEASE).stdout


def test_audit_mode_is_installed_and_says_whom_enrolment_would_meet(site: Site) -> None:
    said = site.install(fence={"mode": "audit"})
    assert "NOTHING IS PROTECTED" in said
    # Helm 4 quotes what a hook says, with its line ends as \n.
    [warned] = re.findall(rf"GPU node {site.theirs} runs pods[^\\\n]*", said)
    agent = site.neighbours.agent_on(site.theirs)
    assert agent is not None
    assert f"{NAMESPACE}/{NOTEBOOK}" in warned
    assert f"{NAMESPACE}/{agent['metadata']['name']}" in warned
    assert set(site.open_nodes()) == {node.name for node in site.installation.provider.nodes()}


def test_audit_mode_warns_and_protects_nothing(site: Site) -> None:
    assert "Free" in site.installation.cli("node", "enrol", site.unused, "--wait")
    ledger = find(site.kubectl, "gpunode", site.unused)
    assert ledger is not None
    assert condition(ledger, "Fenced")["status"] == "False"
    assert "NOTHING IS PROTECTED" in site.installation.cli("node", "list")

    placed = pod("placed", site.unused, nodeName=site.unused)
    done = site.kubectl.attempt("create", "--filename=-", stdin=json.dumps(placed))
    assert done.returncode == 0, done.stderr
    assert f"lethe: node {site.unused} is closed" in done.stderr
    site.neighbours.leave("placed")
    guest = pod("guest", site.unused, tolerations=[{"operator": "Exists"}])
    site.kubectl.apply([guest])
    site.neighbours.wait_for("guest", "the scheduler to bind a foreign pod, as audit mode lets it")


def test_enforcing_closes_what_audit_mode_left_open(site: Site) -> None:
    before = site.epoch(site.unused)
    site.install()
    site.wait_for_message(site.unused, f"{NAMESPACE}/guest")
    site.neighbours.is_shut_out(site.unused)
    site.neighbours.leave("guest")
    site.installation.wait_for_node(site.unused, "Free")
    assert site.epoch(site.unused) == before + 1
    ledger = find(site.kubectl, "gpunode", site.unused)
    assert ledger is not None
    assert condition(ledger, "Fenced") == {}


def test_enrolment_waits_and_says_for_whom(site: Site) -> None:
    agent = site.neighbours.agent_on(site.theirs)
    assert agent is not None
    site.installation.cli("node", "enrol", site.theirs)
    site.wait_for_message(site.theirs, f"{NAMESPACE}/{NOTEBOOK}", f"{NAMESPACE}/{agent['metadata']['name']}")
    site.neighbours.is_shut_out(site.theirs)

    site.neighbours.leave(NOTEBOOK)
    wait_until(
        site.kubectl,
        "gpunode",
        site.theirs,
        lambda ledger: NOTEBOOK not in message(ledger),
        what="the node to wait for the agent alone",
        seconds=60,
    )
    assert f"{NAMESPACE}/{AGENT}" in site.wait_for_message(site.theirs, AGENT)
    site.neighbours.leave(agent["metadata"]["name"])
    assert "Free" in site.installation.cli("node", "enrol", site.theirs, "--wait")
    assert site.neighbours.agent_on(site.theirs) is None, "what its DaemonSet made anew came back"
    site.neighbours.leave("daemonset", AGENT)
    site.installation.cli("receipt", "verify", "--all")


def test_an_upgrade_disturbs_no_work_in_progress(site: Site, acme: TrialTenant) -> None:
    job = run_held(acme, "through-an-upgrade")
    scrubbed = next(name for name in (site.theirs, site.unused) if name != job["status"]["node"])
    epoch = site.epoch(scrubbed) + 1
    site.installation.cli("node", "release", scrubbed)
    site.installation.wait_for_node(scrubbed, "Unmanaged")
    try:
        set_faults(site.installation.provider, scrubbed, hang=1)
    except NotSupported as reason:
        pytest.skip(str(reason))
    try:
        site.installation.cli("node", "enrol", scrubbed)
        site.installation.wait_for_node(scrubbed, "Scrubbing")

        refused = site.installation.helm("uninstall", RELEASE)
        assert refused.returncode != 0
        said = refused.stdout + refused.stderr
        assert f"job {acme.name}/through-an-upgrade is Running" in said
        assert f"node {scrubbed} is Scrubbing" in said
        assert f"kubectl annotate namespace {SYSTEM} lethe.dev/uninstall=force" in said
        assert len(site.policies()) > 0
        revision = json.loads(site.installation.helm("history", RELEASE, "--output=json").stdout)[-1]["revision"]
        rolled_back = site.installation.helm("rollback", RELEASE, str(revision))
        assert rolled_back.returncode == 0, rolled_back.stderr

        before = site.component_pods()
        annotations = site.installation.values()["podAnnotations"]
        site.install(podAnnotations={**annotations, "example.com/revision": "next"})
        until(
            lambda: not before & site.component_pods(),
            what="the pods of operator and key service to be others",
            seconds=60,
        )
        assert site.receipts(scrubbed, epoch) == []
    finally:
        set_faults(site.installation.provider, scrubbed)
    site.installation.wait_for_node(scrubbed, "Free")
    assert site.epoch(scrubbed) == epoch
    assert len(site.receipts(scrubbed, epoch)) == 1

    let_go(acme, job)
    ended = end(acme, "through-an-upgrade")
    assert phase(ended) == "Succeeded", message(ended)
    assert ended["status"]["attempt"] == 1
    assert releases(site.kubectl, job) == 1
    site.installation.wait_for_node(job["status"]["node"], "Free")
    site.installation.cli("receipt", "verify", "--all")


def test_a_forced_removal_cleans_every_node_and_leaves_none_closed(site: Site, acme: TrialTenant) -> None:
    job = run_held(acme, "cut-short")
    held = job["status"]["node"]
    occupied = next(name for name in (site.theirs, site.unused) if name != held)
    epoch = site.epoch(held) + 1
    site.installation.cli("node", "release", occupied)
    site.installation.wait_for_node(occupied, "Unmanaged")
    site.kubectl.apply([pod("squatter", occupied)])
    site.neighbours.wait_for("squatter")
    site.installation.cli("node", "enrol", occupied)
    site.wait_for_message(occupied, f"{NAMESPACE}/squatter")

    said = site.installation.uninstall()
    assert f"NOT CLEAN: node {occupied} was Dirty" in said
    assert f"NOT CLEAN: node {held}" not in said
    assert len(site.receipts(held, epoch)) == 1
    assert site.policies() == []
    assert set(site.open_nodes()) == {node.name for node in site.installation.provider.nodes()}
    for node in find_all(site.kubectl, "nodes"):
        assert "node-restriction.kubernetes.io/lethe" not in node["metadata"]["labels"]
        assert "lethe.dev/gpu" not in [taint["key"] for taint in node["spec"].get("taints", [])]
    left = find(site.kubectl, "stj", "cut-short", acme.name)
    assert left is not None
    assert (phase(left), left["metadata"].get("finalizers", [])) == ("Suspended", [])
    until(
        lambda: not find_all(site.kubectl, "pods", acme.name),
        what="the training pods to be gone, finalizers and all",
        seconds=30,
    )
    annotations = site.kubectl.read("get", "namespace", SYSTEM)["metadata"].get("annotations", {})
    assert "lethe.dev/uninstall" not in annotations
