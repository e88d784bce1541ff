"""The main job of Lethe, from an empty machine to the auditor's view. Each scene checks what it tells."""

import time
from pathlib import Path

from tests.cluster.bring_up import bring_up
from tests.cluster.choice import choose
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say
from tests.cluster.provider import Provider
from tests.common.digits import make_canary, write_digits
from tests.common.objects import Object, find, find_all, logs, message, phase, remove, wait_until
from tests.common.tenants import INSPECT, TrialTenant, train
from tests.common.world import World, enrol
from tests.demo.stage import quote, scene, tell

JOB_SECONDS = 240


def play() -> None:
    """Play all scenes."""
    started = time.monotonic()
    with scene(1, "A real Kubernetes cluster with simulated GPUs, and Lethe on it"):
        world = raise_curtain(choose())
    with scene(2, "Two tenants, each with a namespace, S3 credentials, a key and an offline recovery key"):
        acme, globex = world.tenant("acme"), world.tenant("globex")
        for tenant in (acme, globex):
            tenant.set_up()
            say(f"    {tenant.name} has the key {tenant.name}/default and keeps its recovery key at home")
    with scene(3, "Each tenant seals its images on its own machine and uploads them"):
        canaries = {tenant.name: seal_digits(world, tenant) for tenant in (acme, globex)}
    with scene(4, "acme trains: its two jobs take both GPU nodes"):
        names = ["digits-a", "digits-b"]
        clear_jobs(acme, *names)
        clear_jobs(globex, "digits")
        apply(acme, *(acme.job(name) for name in names))
        for name in names:
            wait_for_phase(acme, name, "Admitted", "Running", "Succeeded")
    with scene(5, "globex applies a job, and is told why it waits"):
        apply(globex, globex.job("digits", INSPECT, train()))
        wait_until(
            globex.kubectl,
            "stj",
            "digits",
            lambda job: bool(message(job)),
            globex.name,
            what="globex's job to say where it is",
            seconds=30,
        )
        quote(globex.kubectl("get", "stj", "--namespace=globex"))
        for name in names:
            wait_for_phase(acme, name, "Succeeded")
        show_training(acme, names[0])
        show_outputs(world, acme, names[0])
    with scene(6, "acme's nodes are closed, scrubbed and accounted for"):
        finished = wait_for_phase(globex, "digits", "Admitted", "Running", "Succeeded")
        node = finished["status"]["node"]
        quote(world.installation.cli("receipt", "show", last_receipt(globex, node)))
    with scene(7, f"globex gets {node}, reads only zeros from its video memory, and trains"):
        wait_for_phase(globex, "digits", "Succeeded")
        show_training(globex, "digits")
    with scene(8, "The auditor checks every receipt and who held which node"):
        for each in world.installation.gpu_nodes():
            world.installation.wait_for_node(each.name, "Free")
        quote(world.installation.cli("receipt", "verify", "--all"))
        quote(world.installation.cli("receipt", "timeline"))
    for canary in canaries.values():
        if canary in globex.kubectl(
            "get", "events,stj,eds,gpunodes,scrubreceipts", "--all-namespaces", "--output=json"
        ):
            raise ClusterError("A tenant's secret stands in the API server.")
    say(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    say("Next: `make demo-leak` shows the same programs without Lethe; `make down` removes everything.")


def raise_curtain(provider: Provider) -> World:
    """Bring everything up, install Lethe, and have the GPU nodes scrubbed."""
    bring_up(provider)
    world = World(provider)
    say("    Installing the chart with Helm ...")
    world.installation.install()
    say("    Enrolling the GPU nodes: nobody gets them before their first scrub ...")
    enrol(world)
    quote(provider.kubectl()("get", "gpunodes"))
    return world


def seal_digits(world: World, tenant: TrialTenant) -> str:
    """Seal the tenant's images, look at what the S3 server holds, and return the tenant's secret."""
    canary = make_canary()
    source = tenant.images
    count = write_digits(source, canary)
    dataset = tenant.apply_dataset(tenant.seal(source))
    held = tenant.stored_objects()
    plain = [key for key, data in held.items() if canary.encode() in data or ".png" in key]
    if plain:
        raise ClusterError(f"The S3 server holds plaintext in {plain}.")
    say(
        f"    {tenant.name} sealed {count} images; the S3 server holds {len(held)} objects without a name, size or byte"
    )
    say(f"    of theirs, and dataset {dataset['spec']['datasetId'][:8]}… is pinned to its index")
    return canary


def apply(tenant: TrialTenant, *jobs: Object) -> None:
    """Apply jobs and say so."""
    tenant.kubectl.apply(jobs)
    for job in jobs:
        say(f"    {tenant.name} applied SecureTrainingJob {job['metadata']['name']}")


def clear_jobs(tenant: TrialTenant, *names: str) -> None:
    """Remove jobs of an earlier run."""
    for name in names:
        remove(tenant.kubectl, "stj", name, tenant.name)


def wait_for_phase(tenant: TrialTenant, name: str, *wanted: str) -> Object:
    """Wait for one of the phases, telling the story on the way; a failed job ends the demo."""
    job = wait_until(
        tenant.kubectl,
        "stj",
        name,
        lambda found: phase(found) in (*wanted, "Failed"),
        tenant.name,
        what=f"job {tenant.name}/{name} to be {' or '.join(wanted)}",
        seconds=JOB_SECONDS,
        on_change=tell(f"{tenant.name}/{name}"),
    )
    if phase(job) == "Failed" and "Failed" not in wanted:
        raise ClusterError(f"Job {tenant.name}/{name} failed: {message(job)}")
    return job


def show_training(tenant: TrialTenant, name: str) -> None:
    """Print what the training program said."""
    job = find(tenant.kubectl, "stj", name, tenant.name) or {}
    quote(logs(tenant.kubectl, job["status"]["pods"][0]["name"], tenant.name, "train"))


def show_outputs(world: World, tenant: TrialTenant, name: str) -> None:
    """Open the sealed model as its owner does: with the recovery key, outside the cluster."""
    target = tenant.folder / f"{name}-model-{time.time_ns()}"
    tenant.unseal_outputs(name, target)
    files = sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())
    if Path("metrics.json") not in files or Path("model.npz") not in files:
        raise ClusterError(f"The outputs of {tenant.name}/{name} hold {files}, expected metrics.json and model.npz.")
    say(f"    {tenant.name} opened its model at home: {(target / 'metrics.json').read_text()}")


def last_receipt(tenant: TrialTenant, node: str) -> str:
    """Return the name of a node's newest receipt, which must tell of acme's memory."""
    receipts = [found for found in find_all(tenant.kubectl, "scrubreceipts") if found["spec"]["node"] == node]
    newest = max(receipts, key=lambda found: found["spec"]["epoch"])
    if newest["spec"].get("tenant") != "acme" or not newest["spec"].get("residueBytes"):
        raise ClusterError(f"The newest receipt of {node} is {newest['spec']}, expected residue of acme's memory.")
    return newest["metadata"]["name"]
