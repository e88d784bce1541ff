"""Which nodes a job may have whose datasets demand a posture, and what it is told where none has it."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.admission import Admission, decide_admission
from lethe.decisions.validation import Accepted
from lethe.model import reasons
from lethe.model.config import CriticalityRule, OperatorConfig
from lethe.model.posture import Posture
from lethe.model.resources import EncryptedDataset, GPUNode, Tenant
from tests.common.release import build_dataset
from tests.common.scrubs import build_posture
from tests.unit.decisions.worlds import HOLDER, TENANT, facts, job, ledger, pod, world

KEY = ("acme", "name-job-2")
CONFIG = OperatorConfig(
    image="lethe:test",
    criticalities={
        "standard": CriticalityRule(),
        "sensitive": CriticalityRule(posture=("swapOff",)),
        "critical": CriticalityRule(posture=("eccOn", "swapOff")),
    },
)
SWAPS = build_posture(swap="/dev/sda2")


def free(name: str, posture: Posture | None, **status: Any) -> GPUNode:
    told = None if posture is None else msgspec.to_builtins(posture)
    return ledger("Free", name, posture=told, **status)


def admit(*nodes: GPUNode, criticalities: tuple[str, ...], **changes: Any) -> Admission:
    """Decide for one job that waits, whose datasets have these criticalities."""
    dataset = build_dataset()
    datasets = [
        msgspec.convert({**dataset, "spec": {**dataset["spec"], "criticality": level}}, EncryptedDataset)
        for level in criticalities
    ]
    snapshot = world(
        *nodes,
        config=CONFIG,
        jobs={KEY: job("Queued", node="")},
        **{"nodes": {node.metadata.name: facts(node.metadata.name) for node in nodes}, **changes},
    )
    return decide_admission(snapshot, {KEY: Accepted(tenant=msgspec.convert(TENANT, Tenant), datasets=datasets)})


def test_the_node_that_passes_is_taken() -> None:
    admission = admit(free("gpu-1", SWAPS), free("gpu-2", build_posture()), criticalities=("sensitive",))
    assert admission.nodes == {KEY: "gpu-2"}


@pytest.mark.parametrize(
    "posture", [SWAPS, Posture(), None], ids=["another", "nothing could be read", "none was recorded"]
)
def test_a_node_that_does_not_pass_is_not_given(posture: Posture | None) -> None:
    admission = admit(free("gpu-1", posture), criticalities=("sensitive",))
    assert admission.nodes == {}
    assert admission.waiting[KEY].reason == reasons.POSTURE_UNMET


def test_nothing_is_demanded_of_a_node_where_the_level_demands_nothing() -> None:
    assert admit(free("gpu-1", None), criticalities=("standard",)).nodes == {KEY: "gpu-1"}
    assert admit(free("gpu-1", None), criticalities=()).nodes == {KEY: "gpu-1"}


def test_the_strictest_of_the_datasets_counts() -> None:
    node = free("gpu-1", build_posture(ecc=False))
    assert admit(node, criticalities=("standard", "sensitive")).nodes == {KEY: "gpu-1"}
    assert admit(node, criticalities=("standard", "critical", "sensitive")).nodes == {}


def test_who_waits_is_told_node_check_found_expected_and_what_to_do() -> None:
    admission = admit(
        ledger("Scrubbing", "gpu-1"),
        free("gpu-2", build_posture(swap="/dev/sda2", ecc=None)),
        criticalities=("critical",),
    )
    waiting = admission.waiting[KEY]
    assert waiting.reason == reasons.POSTURE_UNMET
    assert waiting.message == (
        "waits for a GPU node: gpu-2 does not pass swapOff (found /dev/sda2, expected off: run `swapoff -a` and take "
        "swap out of /etc/fstab), eccOn (found unknown, expected on for every GPU: run `nvidia-smi --ecc-config=1` "
        "and reset the GPUs), gpu-1 is being scrubbed; the provider has to mend the node and to reboot it, or to "
        "release and enrol it (`lethe node`): its next scrub looks again; position 1"
    )


def test_nodes_that_lack_the_same_are_named_together() -> None:
    nodes = [free("gpu-1", SWAPS), free("gpu-2", SWAPS), free("gpu-3", build_posture(swap=None))]
    message = admit(*nodes, criticalities=("sensitive",)).waiting[KEY].message
    assert "gpu-1 and gpu-2 do not pass swapOff (found /dev/sda2, " in message
    assert "gpu-3 does not pass swapOff (found unknown, " in message
    assert message.count("/dev/sda2") == 1


def test_a_node_with_another_posture_that_is_busy_does_not_give_the_reason() -> None:
    others = {**HOLDER, "tenant": "globex", "namespace": "globex"}
    node = ledger("Assigned", "gpu-1", holder=others, posture=msgspec.to_builtins(SWAPS))
    waiting = admit(node, criticalities=("sensitive",)).waiting[KEY]
    assert (waiting.reason, waiting.message) == (
        reasons.WAITING_FOR_NODE,
        "waits for a GPU node: gpu-1 is held by another tenant; position 1",
    )


@pytest.mark.parametrize(("posture", "taken"), [(build_posture(), True), (SWAPS, False)], ids=["passes", "does not"])
def test_a_tenants_own_idle_node_must_pass_as_well(posture: Posture, taken: bool) -> None:
    node = ledger("Assigned", "gpu-1", posture=msgspec.to_builtins(posture))
    admission = admit(node, criticalities=("sensitive",), pods={"pod-1": pod()})
    assert (admission.nodes == {KEY: "gpu-1"}) is taken
    assert taken or admission.waiting[KEY].reason == reasons.POSTURE_UNMET


def test_a_node_with_an_unhealthy_gpu_is_given_to_nobody() -> None:
    nodes = {"gpu-1": facts("gpu-1", gpu_allocatable=1)}
    admission = admit(free("gpu-1", build_posture()), criticalities=("standard",), nodes=nodes)
    assert admission.nodes == {}
    assert "gpu-1 has a GPU that its device plugin calls unhealthy" in admission.waiting[KEY].message
