"""`/healthz`, `/readyz` and `/metrics` of the operator.

1. A replica that holds the Lease is healthy while its cycles succeed (the last one is not older than three resyncs) and
   its watches tell what the cycles read. A process that runs and decides nothing, or sees nothing, is restarted.
2. One that waits for the Lease is healthy while the API server answers it.
3. Both are ready when they are healthy: a rolling update need not wait for the Lease.
"""

from time import monotonic

from aiohttp import web

from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.cycle import Cycle
from lethe.controller.leader import Leadership
from lethe.controller.watch import WatchProbe
from lethe.model.config import OperatorConfig

_MISSED_RESYNCS = 3


def find_illness(
    cycle: Cycle, leadership: Leadership, probe: WatchProbe, config: OperatorConfig, now: float
) -> str | None:
    """Return what keeps a replica from its work, or None; `now` is on the monotonic clock."""
    limit = _MISSED_RESYNCS * config.resync_seconds
    if not leadership.is_held:
        age = now - leadership.last_contact
        return f"the API server has not answered about the Lease for {age:.0f} s" if age > limit else None
    age = now - max(cycle.last_success, leadership.since)
    if age > limit:
        return f"the last cycle that succeeded was {age:.0f} s ago, at most {limit} s are allowed"
    if blind := probe.blind():
        return f"the watches of these kinds tell nothing of what has changed: {', '.join(blind)}"
    return None


async def serve_health(
    cycle: Cycle, leadership: Leadership, probe: WatchProbe, metrics: OperatorMetrics, config: OperatorConfig
) -> web.AppRunner:
    """Start the server; the caller cleans it up."""

    async def health(request: web.Request) -> web.Response:
        illness = find_illness(cycle, leadership, probe, config, monotonic())
        role = "holds the Lease" if leadership.is_held else "waits for the Lease"
        return web.Response(status=503 if illness else 200, text=f"{illness or role}\n")

    async def show_metrics(request: web.Request) -> web.Response:
        metrics.leader.set(leadership.is_held)
        metrics.blind_watches.set(len(probe.blind()))
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", health)
    app.router.add_get("/readyz", health)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=config.health_port).start()
    return runner
