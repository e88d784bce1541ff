"""Jobs in the end-to-end tests: apply one, follow it, look at what became of it."""

from tests.cluster.kubectl import Kubectl
from tests.common.installation import SYSTEM
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


def held_job(tenant: TrialTenant, name: str) -> Object:
    """Return a job that trains until `let_go`: it watches the annotations of its own pod."""
    job = tenant.job(
        name,
        ("trap 'exit 1' TERM; until grep -q ^go= /pod/annotations; do sleep 0.2; done",),
        ("touch", "/outputs/done"),
        gpus=1,
    )
    spec = job["spec"]["template"]["spec"]
    shown = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
    spec["volumes"] = [{"name": "pod", "downwardAPI": {"items": [shown]}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "pod", "mountPath": "/pod"}]
    return job


def run_held(tenant: TrialTenant, name: str) -> Object:
    """Start a job that trains until `let_go`, wait until it does, and return it."""
    return reach(tenant, start(tenant, held_job(tenant, name)), "Running")


def let_go(tenant: TrialTenant, job: Object) -> None:
    """Let the training of a held job end."""
    tenant.kubectl("annotate", "pod", job["status"]["pods"][0]["name"], "go=now", f"--namespace={tenant.name}")


def releases(kubectl: Kubectl, job: Object) -> int:
    """Return how often the key service has released keys to a job, whichever of its pods asked."""
    program = (
        "import sqlite3, sys; "
        "store = sqlite3.connect('file:/var/lib/lethe/keyservice.sqlite?mode=ro', uri=True); "
        "print(store.execute('SELECT count(*) FROM releases WHERE job_uid = ?', sys.argv[1:]).fetchone()[0])"
    )
    service = ("--namespace", SYSTEM, "exec", "deployment/lethe-keyservice", "--")
    return int(kubectl(*service, "python3", "-c", program, job["metadata"]["uid"]))


def training_log(tenant: TrialTenant, name: str) -> str:
    """Return what the training container of a job printed."""
    job = find(tenant.kubectl, "stj", name, tenant.name)
    assert job is not None
    return logs(tenant.kubectl, job["status"]["pods"][0]["name"], tenant.name, "train")
