"""Kopf as a watching shell: every event of a kind that matters asks for a cycle, and nothing else happens here.

1. Handlers are `on.event` only: Kopf writes nothing, neither finalizers nor annotations nor its own events.
2. What is watched is selected by label on the server (controller.selectors).
3. A watch that goes silent is reopened by Kopf, after 70 s without even a bookmark. What it missed, the resync finds.
4. Kubelets write their Nodes all day: only what decisions use of a Node asks for a cycle.
5. A watch that is open and tells nothing is found by comparing it with what the cycles read (WatchProbe). An error that
   Kopf does not survive ends the process.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import kopf
import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Kind, Object
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.facts import parse_node
from lethe.controller.queue import Wakeups
from lethe.controller.selectors import WATCHED
from lethe.decisions.snapshot import NodeFacts
from lethe.model.names import OPERATOR_ACCOUNT

_GRACE_SECONDS: Final = 90.0
"""Longer than Kopf takes to reopen a silent watch."""


class WatchProbe:
    """Knows, for each kind, the newest version that its watch told, and the newest that a cycle has read.

    Versions of one kind of object grow in the order of writes: the API server promises that they compare as numbers.
    """

    def __init__(self, time: Callable[[], float] = monotonic) -> None:
        self._time = time
        self._told: dict[Kind, int] = {}
        self._owed: dict[Kind, tuple[int, float]] = {}

    def told(self, kind: Kind, version: str) -> None:
        """Note an event of a watch."""
        self._told[kind] = max(int(version), self._told.get(kind, 0))

    def read(self, kind: Kind, newest: int) -> None:
        """Note the newest version that a live list has shown."""
        version, since = self._owed.get(kind, (0, 0.0))
        if version <= self._told.get(kind, 0):
            version, since = newest, self._time()
        self._owed[kind] = (version, since)

    def blind(self) -> list[str]:
        """Return the kinds whose watch has been owing an event for too long."""
        limit = self._time() - _GRACE_SECONDS
        return [
            kind.kind
            for kind, (version, since) in self._owed.items()
            if version > self._told.get(kind, 0) and since < limit
        ]


class NodeFilter:
    """Knows what decisions use of each Node, and says whether an event changes it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._known: dict[str, NodeFacts] = {}

    def is_news(self, event: str | None, node: Object) -> bool:
        """Say whether an event of a Node (its type, as Kubernetes calls it) tells something new."""
        name = node["metadata"]["name"]
        if event == "DELETED":
            self._known.pop(name, None)
            return True
        facts = msgspec.structs.replace(parse_node(node, self._label), resource_version="")
        is_news = self._known.get(name) != facts
        self._known[name] = facts
        return is_news


async def watch(
    wakeups: Wakeups, metrics: OperatorMetrics, probe: WatchProbe, nodes: NodeFilter, stop: asyncio.Event
) -> None:
    """Watch until `stop` is set; Kopf takes over the signals that end the process, and sets it then."""
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    for logger in ("kopf.objects", "kopf.activities"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    kopf.on.login(registry=registry)(kopf.login_via_client)
    for kind, selector in WATCHED.items():
        if selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
        _register(registry, kind, wakeups, metrics, probe, nodes)
    # Kopf would make an identity for its peering from the user's name, which a container's numeric user does not have.
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        identity=OPERATOR_ACCOUNT,  # type: ignore[arg-type]
    )
    stop.set()


def _register(
    registry: kopf.OperatorRegistry,
    kind: Kind,
    wakeups: Wakeups,
    metrics: OperatorMetrics,
    probe: WatchProbe,
    nodes: NodeFilter,
) -> None:
    last = metrics.last_event.labels(kind.kind)

    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)
    async def wake(type: str | None, body: kopf.Body, **_: Any) -> None:
        last.set_to_current_time()
        probe.told(kind, body.metadata["resourceVersion"])
        if kind != kube.NODE or nodes.is_news(type, dict(body)):
            wakeups.wake()
