"""`/healthz`, `/readyz` and `/metrics` of the operator.

Healthy means that cycles succeed: the last one is not older than three resyncs. A process that runs and decides nothing
is restarted.
"""

from time import monotonic

from aiohttp import web

from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.cycle import Cycle
from lethe.model.config import OperatorConfig

_MISSED_RESYNCS = 3


async def serve_health(cycle: Cycle, metrics: OperatorMetrics, config: OperatorConfig) -> web.AppRunner:
    """Start the server; the caller cleans it up."""
    limit = _MISSED_RESYNCS * config.resync_seconds

    async def health(request: web.Request) -> web.Response:
        age = monotonic() - cycle.last_success
        return web.Response(
            status=200 if age < limit else 503,
            text=f"last successful cycle {age:.0f} s ago, at most {limit} s are allowed\n",
        )

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", health)
    app.router.add_get("/readyz", health)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=config.health_port).start()
    return runner
