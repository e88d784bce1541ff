"""The operator's loop: observe, decide, execute; again when something happens, when time is due, or at the resync.

1. No state is kept between cycles: the operator may be stopped after any write and goes on from what is there.
2. After a cycle that wrote something comes another, until there is nothing to do: no writes at rest.
3. An API server that is away is waited for with growing pauses. Any other error of a cycle is logged and tried again at
   the same pace; the error stays visible in metrics and in `/healthz`. Only a lost Lease ends the loop.
"""

import asyncio
from time import monotonic
from typing import Final

import structlog

from lethe.adapters.clock import Clock
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.counts import count_world
from lethe.controller.execute import Executor
from lethe.controller.observe import Observer
from lethe.controller.queue import Wakeups
from lethe.decisions.plan import decide
from lethe.model.config import OperatorConfig
from lethe.model.errors import LeadershipError, LetheError

_log = structlog.get_logger()
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_GATHERING: Final = 0.02
"""Events come in bursts: a cycle starts this much after the first."""


class Cycle:
    """Runs cycles until it is cancelled."""

    def __init__(
        self,
        observer: Observer,
        executor: Executor,
        wakeups: Wakeups,
        config: OperatorConfig,
        clock: Clock,
        metrics: OperatorMetrics,
    ) -> None:
        self._observer = observer
        self._executor = executor
        self._wakeups = wakeups
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self.last_success = monotonic()

    async def run(self) -> None:
        """Run cycles forever."""
        pause = _FIRST_PAUSE
        while True:
            try:
                wait = await self.run_once()
            except LeadershipError:
                raise
            except LetheError as error:
                self._metrics.errors.labels(type(error).__name__).inc()
                _log.warning("a cycle failed and is tried again", error=str(error), pause=pause)
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE)
                await asyncio.sleep(wait)
                continue
            pause = _FIRST_PAUSE
            if wait > 0 and await self._wakeups.wait(wait):
                await asyncio.sleep(_GATHERING)

    async def run_once(self) -> float:
        """Run one cycle; return after how many seconds the next is due."""
        with self._metrics.cycle_seconds.time():
            snapshot = await self._observer.observe()
            plan = decide(snapshot)
            failed = await self._executor.execute(plan, snapshot)
        count_world(self._metrics, snapshot, plan)
        self.last_success = monotonic()
        self._metrics.last_cycle.set(self._clock.now().timestamp())
        if failed:
            return _FIRST_PAUSE
        if plan.actions:
            return 0.0
        resync = float(self._config.resync_seconds)
        return min(resync, plan.again_in) if plan.again_in is not None else resync
