"""Jobs in the end-to-end tests: apply one, follow it, look at what became of it."""

from tests.common.objects import Object, find, logs, phase, wait_until
from tests.common.tenants import TrialTenant

SECONDS = 240
ENDED = ("Succeeded", "Failed")


def start(tenant: TrialTenant, job: Object) -> str:
    """Apply a job and return its name."""
    tenant.kubectl.apply([job])
    return job["metadata"]["name"]


def reach(tenant: TrialTenant, name: str, *wanted: str, seconds: float = SECONDS) -> Object:
    """Wait until a job is in one of the phases, or has ended, and return it."""
    return wait_until(
        tenant.kubectl,
        "stj",
        name,
        lambda job: phase(job) in (*wanted, *ENDED),
        tenant.name,
        what=f"job {tenant.name}/{name} to be {' or '.join(wanted or ENDED)}",
        seconds=seconds,
    )


def end(tenant: TrialTenant, name: str, *, seconds: float = SECONDS) -> Object:
    """Wait until a job has ended and return it."""
    return reach(tenant, name, seconds=seconds)


def say_reason(tenant: TrialTenant, name: str, reason: str, *, seconds: float = 60) -> Object:
    """Wait until a job gives this reason and return it."""
    return wait_until(
        tenant.kubectl,
        "stj",
        name,
        lambda job: job.get("status", {}).get("reason") == reason,
        tenant.name,
        what=f"job {tenant.name}/{name} to say {reason}",
        seconds=seconds,
    )


def training_log(tenant: TrialTenant, name: str) -> str:
    """Return what the training container of a job printed."""
    job = find(tenant.kubectl, "stj", name, tenant.name)
    assert job is not None
    return logs(tenant.kubectl, job["status"]["pods"][0]["name"], tenant.name, "train")
