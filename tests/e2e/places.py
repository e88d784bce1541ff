"""Every place in which a secret must not turn up, and how to look there."""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.cluster.commands import attempt, run
from tests.cluster.errors import ClusterError
from tests.common.objects import find_all
from tests.common.tenants import TrialTenant
from tests.common.world import World

CHUNK = 8 << 20
VIDEO_MEMORY = "simgpu"
PODS = "kubepods"
Finding = tuple[str, bytes]
"""Where, and which of the needles."""
Place = Callable[[list[bytes]], list[Finding]]


def places(world: World, tenants: Iterable[TrialTenant]) -> dict[str, Place]:
    """Return, by name, a search for each place: given needles, which were found where."""
    owners = list(tenants)
    return {
        "S3": lambda needles: list(_in_storage(owners, needles)),
        "API server": lambda needles: list(_in_api(world, needles)),
        "container logs": lambda needles: list(_in_container_logs(world, needles)),
        "container environments": lambda needles: list(_in_environments(needles)),
        "node disks and etcd": lambda needles: list(_on_disks(world, needles)),
    }


def forms(secret: bytes) -> list[bytes]:
    """Return a secret as it is, and as hex and base64 digits."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")]


def _look(where: str, data: bytes, needles: list[bytes]) -> Iterator[Finding]:
    return ((where, needle) for needle in needles if needle in data)


def _in_storage(owners: Iterable[TrialTenant], needles: list[bytes]) -> Iterator[Finding]:
    for owner in owners:
        for key, data in owner.stored_objects().items():
            yield from _look(f"s3://{owner.name}/{key}", key.encode() + data, needles)


def _in_api(world: World, needles: list[bytes]) -> Iterator[Finding]:
    kubectl = world.provider.kubectl()
    for kind in kubectl("api-resources", "--verbs=list", "--output=name").split():
        for found in find_all(kubectl, kind):
            metadata = found["metadata"]
            where = f"{kind} {metadata.get('namespace', '')}/{metadata['name']}"
            for text in _texts(found):
                yield from _look(where, text, needles)


def _texts(value: Any) -> Iterator[bytes]:
    """Yield every string of an object, and what it decodes to where it is base64."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key.encode()
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value.encode()
        try:
            yield base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return


def _in_container_logs(world: World, needles: list[bytes]) -> Iterator[Finding]:
    kubectl = world.provider.kubectl()
    for pod in find_all(kubectl, "pods"):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        statuses = pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
        for status in statuses:
            if "waiting" in status["state"]:
                continue
            try:
                log = kubectl("logs", name, f"--namespace={namespace}", f"--container={status['name']}")
            except ClusterError as error:
                if "NotFound" in str(error) or "not found" in str(error):
                    continue
                raise
            yield from _look(f"log of {namespace}/{name}/{status['name']}", log.encode(), needles)


def _in_environments(needles: list[bytes]) -> Iterator[Finding]:
    """Search the environment of every process of a pod: the nodes' cgroups are this machine's too."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if PODS in (process / "cgroup").read_text():
                yield from _look(f"environment of process {process.name}", (process / "environ").read_bytes(), needles)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _on_disks(world: World, needles: list[bytes]) -> Iterator[Finding]:
    shared = world.provider.shared_host_folder()
    if shared is None:
        yield from _on_containers_disks(world, needles)
        return
    for folder in (shared, shared.parent / "etcd", shared.parent / "logs"):
        for path in sorted(folder.rglob("*")):
            if VIDEO_MEMORY not in path.parts and path.is_file() and not path.is_symlink():
                yield from _in_file(path, needles)


def _in_file(path: Path, needles: list[bytes]) -> Iterator[Finding]:
    overlap = max(map(len, needles)) - 1
    tail = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield from _look(str(path), tail + chunk, needles)
                tail = chunk[-overlap:]
    except FileNotFoundError:
        return


def _on_containers_disks(world: World, needles: list[bytes]) -> Iterator[Finding]:
    """Search nodes that are containers of Docker, as kind's are: first for any needle, then for which one."""
    patterns = {needle: "".join(f"\\x{byte:02x}" for byte in needle) for needle in needles}
    files = f"find /var /etc /kind -xdev -type f -not -path '*{VIDEO_MEMORY}*' -print0"
    search = f"{files} | LC_ALL=C xargs -0 grep -alP '{'|'.join(patterns.values())}' || true"
    for node in world.provider.nodes():
        for path in run(["docker", "exec", node.name, "sh", "-c", search]).splitlines():
            for needle, pattern in patterns.items():
                look = ["docker", "exec", "--env=LC_ALL=C", node.name, "grep", "-aqP", pattern, path]
                if attempt(look).returncode == 0:
                    yield f"{node.name}:{path}", needle
