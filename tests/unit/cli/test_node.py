"""`lethe node` against the API server of the simulation."""

from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from lethe.adapters import kube
from lethe.cli import node
from lethe.model.errors import LetheError, UsageError
from lethe.model.posture import POSTURE_CHECKS
from tests.common.scrubs import build_posture
from tests.simulation.api_server import ApiServer, ManualClock

STATUS = {
    "phase": "Assigned",
    "epoch": 4,
    "gpuCount": 8,
    "message": "held",
    "holder": {
        "tenant": "acme",
        "namespace": "acme-a",
        "job": "digits",
        "jobUid": "j",
        "podUids": ["p"],
        "since": "2030-01-01T00:00:00Z",
    },
}


class Connection:
    """An open connection to a server in memory."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def __aenter__(self) -> Any:
        return self._server.client()

    async def __aexit__(self, *error: object) -> None:
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    server = ApiServer(ManualClock())

    async def connect() -> Connection:
        return Connection(server)

    monkeypatch.setattr(node.Kube, "connect", connect)
    monkeypatch.setenv("COLUMNS", "200")
    server.create(kube.GPU_NODE, {"metadata": {"name": "gpu-1"}, "spec": {}})
    return server


def run(*arguments: str) -> Any:
    return CliRunner().invoke(node.app, arguments)


def set_status(server: ApiServer, **changes: Any) -> None:
    server.patch(kube.GPU_NODE, "gpu-1", "", {"status": {**STATUS, **changes}}, "status")


def test_list_tells_who_holds_a_node(server: ApiServer) -> None:
    set_status(server)
    result = run("list")

    assert result.exit_code == 0
    for word in ("gpu-1", "Assigned", "acme (acme-a/digits)", "4", "8", "held"):
        assert word in result.output


def test_enrol_and_release_set_the_administrators_wish(server: ApiServer) -> None:
    assert run("enrol", "gpu-1").exit_code == 0
    assert server.get(kube.GPU_NODE, "gpu-1")["spec"] == {"managed": True}
    set_status(server)
    released = run("release", "gpu-1")
    assert "Assigned now and opens when it is Free" in released.output
    assert server.get(kube.GPU_NODE, "gpu-1")["spec"] == {"managed": False}


def test_enrol_waits_until_the_node_was_scrubbed(server: ApiServer) -> None:
    set_status(server, phase="Free", message="2 GPUs were scrubbed", holder=None)
    result = run("enrol", "gpu-1", "--wait")

    assert "Free: 2 GPUs were scrubbed" in result.output


def test_enrol_ends_when_the_node_is_quarantined(server: ApiServer) -> None:
    set_status(server, phase="Quarantined", reason="GPULost", message="a GPU fell off the bus", holder=None)
    result = run("enrol", "gpu-1", "--wait")

    assert isinstance(result.exception, LetheError)
    assert "quarantined (GPULost): a GPU fell off the bus" in str(result.exception)


def test_drain_and_undrain(server: ApiServer) -> None:
    set_status(server)
    assert "job acme-a/digits may end" in run("drain", "gpu-1").output
    assert server.get(kube.GPU_NODE, "gpu-1")["spec"] == {"drain": True}
    assert "Assigned now" in run("undrain", "gpu-1").output
    assert server.get(kube.GPU_NODE, "gpu-1")["spec"] == {"drain": False}


def test_drain_waits_until_the_node_is_clean(server: ApiServer) -> None:
    set_status(server, phase="Free", message="clean and drained", holder=None)
    assert "Free: clean and drained" in run("drain", "gpu-1", "--wait").output


def test_an_override_carries_the_own_name(server: ApiServer) -> None:
    set_status(server, phase="Quarantined", reason="GPULost", message="a GPU fell off the bus", holder=None)
    result = run("override", "gpu-1", "--reason", "the GPU was replaced")

    assert "overridden by somebody" in result.output
    assert server.get(kube.GPU_NODE, "gpu-1")["spec"]["override"] == {
        "reason": "the GPU was replaced",
        "by": "somebody",
    }


@pytest.mark.parametrize(("phase", "reason"), [("Free", "why not"), ("Quarantined", " ")], ids=["phase", "reason"])
def test_an_override_needs_a_quarantine_and_a_reason(server: ApiServer, phase: str, reason: str) -> None:
    set_status(server, phase=phase, holder=None)
    result = run("override", "gpu-1", "--reason", reason)

    assert isinstance(result.exception, UsageError)
    assert "override" not in server.get(kube.GPU_NODE, "gpu-1")["spec"]


def test_show_tells_what_was_seen_and_what_to_do(server: ApiServer) -> None:
    set_status(
        server,
        phase="Quarantined",
        reason="ProofTimedOut",
        quarantine={
            "reason": "ProofTimedOut",
            "since": "2030-01-01T00:00:00Z",
            "evidence": ["pod acme-a/lethe-digits (p): Failed"],
            "advice": "reboot the node",
        },
        override={"reason": "was looked at", "by": "jo", "at": "2029-01-01T00:00:00Z", "over": "GPULost"},
        conditions=[
            {
                "type": "PastUnknown",
                "status": "True",
                "reason": "PastUnknown",
                "message": "nobody knows",
                "lastTransitionTime": "2030-01-01T00:00:00Z",
            }
        ],
    )
    output = run("show", "gpu-1").output
    for words in (
        "Quarantined since",
        "ProofTimedOut",
        "tenant acme, job acme-a/digits, pods p",
        "pod acme-a/lethe-digits (p): Failed",
        "reboot the node",
        "by jo at 2029-01-01T00:00:00Z, ended GPULost: was looked at",
        "PastUnknown True: nobody knows",
    ):
        assert words in output


def test_show_tells_each_check_its_value_and_whether_it_is_good(server: ApiServer) -> None:
    posture = build_posture(swap="/dev/sda2", lockdown=None)
    set_status(server, posture=msgspec.to_builtins(posture))
    lines = run("show", "gpu-1").output.splitlines()

    def told(check: str) -> str:
        (line,) = [line for line in lines if f" {check}: " in line]
        return line.split(": ", 1)[1].strip()

    assert told("eccOn") == "on, good"
    assert told("coreDumpsOff") == "pipe /bin/false, good"
    assert told("swapOff").startswith("/dev/sda2, not good, expected off: run `swapoff -a`")
    assert told("lockdown").startswith("unknown, not good, expected integrity or confidentiality: ")
    assert all(told(check) for check in POSTURE_CHECKS)
    assert any("kernel 6.8.0, driver 575.0, transparent huge pages madvise" in line for line in lines)
    assert any("RmProfilingAdminOnly=1" in line for line in lines)


def test_show_says_where_no_posture_is_known(server: ApiServer) -> None:
    set_status(server)
    assert "unknown: no scrub has recorded it" in run("show", "gpu-1").output


def test_an_unknown_node_is_named(server: ApiServer) -> None:
    result = run("enrol", "gpu-9")

    assert isinstance(result.exception, UsageError)
    assert "there is no GPUNode gpu-9" in str(result.exception)
