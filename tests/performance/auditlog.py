"""Writes to the API server as its audit log tells them: its times are finer than those of Kubernetes' objects."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lethe.model import names
from tests.cluster.bring_up import bring_up
from tests.cluster.choice import choose
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until
from tests.common.world import World, enrol

OPERATOR = f"system:serviceaccount:{names.SYSTEM_NAMESPACE}:{names.OPERATOR_ACCOUNT}"
_WRITES = ("create", "update", "patch", "delete")


@dataclass(frozen=True)
class Entry:
    """One request that was carried out."""

    time: datetime
    user: str
    verb: str
    resource: str
    name: str
    body: Any

    @property
    def phase(self) -> str:
        """Return the phase that a patch of a status sets."""
        changes = self.body if isinstance(self.body, list) else []
        statuses = [change["value"] for change in changes if change.get("path") == "/status"]
        return str(statuses[0].get("phase", "")) if statuses else ""


def open_world() -> tuple[World, Path]:
    """Bring the cluster up with Lethe and Free nodes; return it and its audit log, or raise ClusterError."""
    provider = choose()
    bring_up(provider)
    log = provider.logs() / "audit.log"
    if not log.exists():
        raise ClusterError(f"This part reads the API server's audit log, which cluster {provider.name} does not show.")
    world = World(provider)
    world.installation.install()
    enrol(world)
    return world, log


def read_entries(log: Path, begin: datetime | None = None) -> Iterator[Entry]:
    """Read the writes that were carried out, dry runs left out, in the order of their end."""
    with log.open() as lines:
        for line in lines:
            # The last line may be half written.
            if '"ResponseComplete"' not in line or not line.endswith("\n"):
                continue
            event = json.loads(line)
            time = parse_time(event["stageTimestamp"])
            if begin is not None and time < begin:
                continue
            code = event["responseStatus"].get("code", 0)
            if event["verb"] not in _WRITES or not 200 <= code < 300 or "dryRun=" in event["requestURI"]:
                continue
            target = event["objectRef"]
            body = event.get("requestObject")
            yield Entry(
                time=time,
                user=event["user"]["username"],
                verb=event["verb"],
                resource="/".join(filter(None, (target["resource"], target.get("subresource")))),
                name=target.get("name") or ((body or {}).get("metadata") or {}).get("name", ""),
                body=body,
            )


def parse_time(text: str) -> datetime:
    """Return a time of an audit log or of a container's log."""
    return datetime.fromisoformat(text)


def first_time(found: Iterable[Entry], resource: str, name: str, phase: str = "", text: str = "") -> datetime | None:
    """Return when an object was first written, or first with this phase, or with this text in what was sent."""
    times = (
        entry.time
        for entry in found
        if (entry.resource, entry.name) == (resource, name)
        and phase in ("", entry.phase)
        and text in json.dumps(entry.body)
    )
    return next(times, None)


def wait_for_rest(log: Path) -> None:
    """Wait until the operator has written nothing for a while."""
    quiet = 5.0

    def rests() -> bool:
        times = [entry.time for entry in read_entries(log) if entry.user == OPERATOR]
        return not times or (datetime.now(UTC) - times[-1]).total_seconds() > quiet

    until(rests, what="the operator to rest", seconds=120)
