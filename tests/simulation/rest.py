"""What must be true when everything has come to rest: nobody waits without a reason."""

from collections.abc import Collection

from lethe.adapters import kube
from lethe.model import names
from tests.simulation.api_server import ApiServer

_ENDED = ("Succeeded", "Failed", "Suspended")
_PASSING = ("Scrubbing", "Draining")


def check_rest(server: ApiServer, tenants: Collection[str]) -> None:
    """Check jobs, nodes and pods."""
    nodes = {item["metadata"]["name"]: item.get("status") or {} for item in server.all(kube.GPU_NODE)}
    for name, status in nodes.items():
        phase = status.get("phase")
        assert phase is not None and status.get("message"), f"{name} does not explain its phase {phase}"
        assert phase not in _PASSING, f"{name} stays {phase}: {status['message']}"
    free = max((status["gpuCount"] for status in nodes.values() if status["phase"] == "Free"), default=0)
    for job in server.all(kube.JOB_CR):
        status, name = job.get("status") or {}, job["metadata"]["name"]
        assert status.get("message"), f"job {name} says nothing in phase {status.get('phase')}"
        waits = status["reason"] == "WaitingForNode" and "deletionTimestamp" not in job["metadata"]
        if status["phase"] == "Queued" and waits:
            assert job["spec"]["gpusPerReplica"] > free, f"job {name} waits beside a free node: {status['message']}"
        elif status["phase"] not in (*_ENDED, "Queued"):
            assert any(
                node["phase"] == "Quarantined"
                and (node.get("holder") or {}).get("jobUid") == job["metadata"]["uid"]
                and held_by in status["message"]
                for held_by, node in nodes.items()
            ), f"job {name} stays {status['phase']}: {status['message']}"
    held = {uid for status in nodes.values() for uid in (status.get("holder") or {}).get("podUids", ())}
    for pod in server.all(kube.POD, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}"):
        metadata = pod["metadata"]
        kept = "deletionTimestamp" in metadata and metadata["uid"] not in held
        assert not kept, f"pod {metadata['name']} is kept for nothing"
