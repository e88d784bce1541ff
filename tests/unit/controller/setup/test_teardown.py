import asyncio
from typing import Any

import pytest

from lethe.adapters.kube import (
    ADMISSION_BINDING,
    ADMISSION_POLICY,
    DEPLOYMENT,
    GPU_NODE,
    JOB_CR,
    NAMESPACE,
    NODE,
    POD,
    ROLE,
    ROLEBINDING,
    Kind,
)
from lethe.controller.setup import teardown
from lethe.controller.setup.teardown import closed_status, free_node_patch, tear_down, without_finalizer
from lethe.model.errors import InputError, RefusedError
from lethe.specs.fence import build_grant_binding, build_grant_role, build_open_binding, build_open_role
from tests.common.fake_kube import FakeKube

Object = dict[str, Any]
OURS = {"app.kubernetes.io/part-of": "lethe"}
HOLDER = {"tenant": "acme", "namespace": "acme", "job": "digits", "jobUid": "j", "podUids": ["p"], "since": "then"}


def cluster(node_phase: str = "Free", job_phase: str = "Succeeded") -> FakeKube:
    status: Object = {"phase": node_phase, "epoch": 4}
    if node_phase in ("Assigned", "Draining"):
        status["holder"] = HOLDER
    other_taint = {"key": "other", "effect": "NoSchedule"}
    return FakeKube(
        (ADMISSION_POLICY, {"metadata": {"name": "lethe-bind", "labels": OURS}}),
        (ADMISSION_BINDING, {"metadata": {"name": "lethe-bind", "labels": OURS}}),
        (ADMISSION_POLICY, {"metadata": {"name": "of-somebody"}}),
        (DEPLOYMENT, {"metadata": {"name": "lethe-operator", "namespace": "lethe-system"}, "spec": {"replicas": 1}}),
        (
            NODE,
            {
                "metadata": {"name": "gpu-1", "labels": {"node-restriction.kubernetes.io/lethe": "managed", "a": "b"}},
                "spec": {"taints": [{"key": "lethe.dev/gpu", "effect": "NoSchedule"}, other_taint]},
            },
        ),
        (GPU_NODE, {"metadata": {"name": "gpu-1"}, "spec": {"managed": True}, "status": status}),
        (
            JOB_CR,
            {
                "metadata": {"name": "digits", "namespace": "acme", "finalizers": ["lethe.dev/job", "other/x"]},
                "spec": {},
                "status": {"phase": job_phase},
            },
        ),
        (
            POD,
            {
                "metadata": {
                    "name": "lethe-digits",
                    "namespace": "acme",
                    "labels": {"lethe.dev/role": "train"},
                    "finalizers": ["lethe.dev/custody"],
                }
            },
        ),
        (NAMESPACE, {"metadata": {"name": "acme", "labels": {"lethe.dev/tenant": "acme"}}}),
        (ROLE, build_open_role(["cpu-1"])),
        (ROLEBINDING, build_open_binding()),
        (ROLE, build_grant_role("gpu-1", "acme")),
        (ROLEBINDING, build_grant_binding("gpu-1", "acme", ["p"])),
        (ROLE, {"metadata": {"name": "their-own", "namespace": "acme"}}),
        (ROLE, {"metadata": {"name": "lethe-operator", "namespace": "lethe-system"}}),
    )


async def run(kube: FakeKube, *, force: bool = False, seconds: float = 0.0) -> list[str]:
    said: list[str] = []
    annotations = {"lethe.dev/uninstall": "force"} if force else {}
    kube.put(NAMESPACE, {"metadata": {"name": "lethe-system", "annotations": annotations}})
    await tear_down(kube, seconds, said.append)  # type: ignore[arg-type]
    assert kube.objects[("namespaces", "", "lethe-system")]["metadata"]["annotations"] == {}
    return said


@pytest.mark.parametrize("phase", ["Assigned", "Draining", "Scrubbing"])
async def test_refused_while_a_node_is_held(phase: str) -> None:
    kube = cluster(node_phase=phase)
    with pytest.raises(InputError, match=f"gpu-1 is {phase}"):
        await run(kube)
    assert kube.writes == []


@pytest.mark.parametrize("phase", ["Admitted", "Running"])
async def test_refused_while_a_job_runs(phase: str) -> None:
    kube = cluster(job_phase=phase)
    with pytest.raises(InputError, match=f"acme/digits is {phase}"):
        await run(kube)
    assert kube.writes == []


async def test_policies_come_out_first_and_the_operator_stops_next() -> None:
    kube = cluster()
    await run(kube)
    assert kube.writes[:3] == [
        ("delete", "validatingadmissionpolicybindings", "lethe-bind"),
        ("delete", "validatingadmissionpolicies", "lethe-bind"),
        ("patch", "deployments", "lethe-operator"),
    ]
    assert kube.names(ADMISSION_POLICY) == ["of-somebody"]
    assert kube.objects[("deployments", "lethe-system", "lethe-operator")]["spec"]["replicas"] == 0


async def test_nothing_is_left_that_only_the_operator_could_undo() -> None:
    kube = cluster()
    await run(kube)
    node = kube.objects[("nodes", "", "gpu-1")]
    assert node["metadata"]["labels"] == {"a": "b"}
    assert node["spec"]["taints"] == [{"key": "other", "effect": "NoSchedule"}]
    assert kube.objects[("pods", "acme", "lethe-digits")]["metadata"]["finalizers"] == []
    assert kube.objects[("securetrainingjobs", "acme", "digits")]["metadata"]["finalizers"] == ["other/x"]
    assert kube.objects[("namespaces", "", "acme")]["metadata"]["labels"] == {}
    assert kube.names(ROLEBINDING) == []
    assert kube.names(ROLE) == ["lethe-operator", "their-own"]


async def test_a_node_is_not_taken_for_clean_by_the_next_installation() -> None:
    kube = cluster(node_phase="Free")
    await run(kube)
    node = kube.objects[("gpunodes", "", "gpu-1")]
    assert node["spec"]["managed"] is False
    assert node["status"]["phase"] == "Unmanaged"
    assert node["status"]["epoch"] == 4


@pytest.mark.parametrize(
    ("phase", "told"), [("Free", False), ("Unmanaged", False), ("Dirty", True), ("Quarantined", True)]
)
async def test_what_is_not_clean_is_named(phase: str, told: bool) -> None:
    said = await run(cluster(node_phase=phase))
    assert any("NOT CLEAN" in sentence and "gpu-1" in sentence for sentence in said) is told


async def test_forced_it_suspends_the_jobs_and_waits_for_the_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = cluster(node_phase="Assigned", job_phase="Running")

    async def operator_works(_: float) -> None:
        assert kube.objects[("securetrainingjobs", "acme", "digits")]["spec"]["suspend"] is True
        assert kube.names(ADMISSION_POLICY) == ["lethe-bind", "of-somebody"]
        kube.objects[("gpunodes", "", "gpu-1")]["status"] = {"phase": "Free", "epoch": 5}
        kube.objects[("securetrainingjobs", "acme", "digits")]["status"] = {"phase": "Suspended"}

    monkeypatch.setattr(teardown.asyncio, "sleep", operator_works)
    said = await run(kube, force=True, seconds=60)
    assert not [sentence for sentence in said if "NOT CLEAN" in sentence]
    assert kube.objects[("gpunodes", "", "gpu-1")]["status"]["phase"] == "Unmanaged"


def left_by_a_tenant(reason: str) -> FakeKube:
    kube = cluster()
    past = {"tenant": "acme", "jobs": ["digits"]}
    kube.objects[("gpunodes", "", "gpu-1")]["status"] = {"phase": "Dirty", "reason": reason, "previousHolder": past}
    return kube


async def test_refused_between_a_tenant_and_the_scrub() -> None:
    with pytest.raises(InputError, match="gpu-1 is Dirty"):
        await run(left_by_a_tenant("Settling"))


async def test_forced_it_waits_for_a_scrub_that_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = left_by_a_tenant("Settling")

    async def operator_works(_: float) -> None:
        kube.objects[("gpunodes", "", "gpu-1")]["status"] = {"phase": "Free"}

    monkeypatch.setattr(teardown.asyncio, "sleep", operator_works)
    said = await run(kube, force=True, seconds=60)
    assert not [sentence for sentence in said if "NOT CLEAN" in sentence]


async def test_it_does_not_wait_for_a_node_that_cannot_be_scrubbed() -> None:
    said = await run(left_by_a_tenant("NodeMissing"))
    assert any("NOT CLEAN: node gpu-1 was Dirty" in sentence for sentence in said)


async def test_forced_it_goes_on_in_the_end_and_says_who_was_there() -> None:
    kube = cluster(node_phase="Assigned", job_phase="Running")
    said = await run(kube, force=True)
    assert any("NOT CLEAN: node gpu-1 was Assigned" in sentence for sentence in said)
    status = kube.objects[("gpunodes", "", "gpu-1")]["status"]
    assert "holder" not in status
    assert status["previousHolder"]["jobUids"] == ["j"]


async def test_it_insists_until_the_policies_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = cluster()
    refusals = iter([True, True, False])
    yielding = asyncio.sleep

    def still_cached(verb: str, kind: Kind, name: str) -> str | None:
        if verb == "patch status" and kind is GPU_NODE and next(refusals, False):
            return "lethe: only the operator writes this part"
        return None

    kube.refuse = still_cached
    monkeypatch.setattr(teardown.asyncio, "sleep", lambda _: yielding(0))
    await run(kube)
    assert kube.objects[("gpunodes", "", "gpu-1")]["status"]["phase"] == "Unmanaged"


async def test_it_does_not_insist_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = cluster()
    kube.refuse = lambda verb, kind, name: "no" if kind is NODE else None
    monkeypatch.setattr(teardown, "_NOTICE_SECONDS", 0.0)
    with pytest.raises(RefusedError, match="no"):
        await run(kube)


def test_a_node_is_freed_only_as_it_was_seen() -> None:
    node = {"metadata": {"name": "n", "resourceVersion": "7"}, "spec": {}}
    assert free_node_patch(node)["metadata"]["resourceVersion"] == "7"
    assert free_node_patch(node)["spec"]["taints"] == []


def test_a_finalizer_that_is_not_there_needs_no_write() -> None:
    assert without_finalizer({"metadata": {"uid": "u", "finalizers": ["x"]}}, "y") is None
    assert without_finalizer({"metadata": {"uid": "u", "finalizers": ["x", "y"]}}, "y") == {
        "metadata": {"uid": "u", "finalizers": ["x"]}
    }


def test_the_past_holder_stays_where_nobody_held_it_since() -> None:
    assert "previousHolder" not in closed_status({"previousHolder": {"tenant": "a"}}, "now")
