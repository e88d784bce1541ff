"""Kopf as a watching shell: every event of a kind that matters asks for a cycle, and nothing else happens here.

1. Handlers are `on.event` only: Kopf writes nothing, neither finalizers nor annotations nor its own events.
2. Pods and RoleBindings are selected by label on the server.
3. A watch that goes silent is reopened by Kopf (`inactivity_timeout`); what it missed, the resync finds. If Kopf itself
   stops, the process ends.
"""

import asyncio
import logging
from typing import Any, Final

import kopf

from lethe.adapters import kube
from lethe.adapters.kube import Kind
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.queue import Wakeups
from lethe.model.names import LABEL_ROLE, OPERATOR_ACCOUNT, ROLE_SCRUB, ROLE_TRAIN
from lethe.specs.fence import ROLE_GRANT

_KINDS: Final[dict[Kind, str | None]] = {
    kube.JOB_CR: None,
    kube.DATASET: None,
    kube.TENANT: None,
    kube.TENANT_KEY: None,
    kube.GPU_NODE: None,
    kube.NODE: None,
    kube.POD: f"{LABEL_ROLE} in ({ROLE_TRAIN},{ROLE_SCRUB})",
    kube.ROLEBINDING: f"{LABEL_ROLE}={ROLE_GRANT}",
}


async def watch(wakeups: Wakeups, metrics: OperatorMetrics, stop: asyncio.Event) -> None:
    """Watch until `stop` is set."""
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
    for kind, selector in _KINDS.items():
        if selector is not None:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
        _register(registry, kind, wakeups, metrics)
    # Kopf would make an identity for its peering from the user's name, which a container's numeric user does not have.
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        identity=OPERATOR_ACCOUNT,  # type: ignore[arg-type]
    )


def _register(registry: kopf.OperatorRegistry, kind: Kind, wakeups: Wakeups, metrics: OperatorMetrics) -> None:
    last = metrics.last_event.labels(kind.kind)

    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)
    async def wake(**_: Any) -> None:
        last.set_to_current_time()
        wakeups.wake()
