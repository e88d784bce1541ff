"""An operator's process that may be killed and started again, and that may sleep with a plan in its hands."""

from collections.abc import Callable
from typing import Any

from lethe.adapters.kube import Kind
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.cycle import Cycle
from lethe.controller.execute import Executor
from lethe.controller.observe import Observer
from lethe.controller.queue import Wakeups
from lethe.crypto.sign import Signer
from lethe.decisions.actions import Plan
from lethe.decisions.plan import decide
from lethe.decisions.snapshot import Snapshot
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.model.config import OperatorConfig
from lethe.model.errors import LetheError
from tests.common.scrubs import trusted_keys
from tests.simulation.faults import Faults, FaultyKube, Stopped

SIGNER = Signer.generate()
KEYS = trusted_keys(SIGNER)


class Leader:
    """What an operator has in the place of a Lease: no protection from another that acts too."""

    def require(self) -> None:
        """Let every write pass."""


class Operator:
    """One replica."""

    def __init__(self, connection: Any, clock: Any, config: OperatorConfig, faults: Faults) -> None:
        self.faults = faults
        self.restarts = 0
        self._api: Any = FaultyKube(connection, faults)
        self._clock = clock
        self._config = config
        self._plan: tuple[Plan, Snapshot] | None = None
        self.signer: Callable[[str], Signer] = lambda issued_at: SIGNER
        self.trusted: Callable[[], ReceiptKeys] = lambda: KEYS
        self._start()

    def _start(self) -> None:
        leader: Any = Leader()
        self.metrics = OperatorMetrics()
        self._observer = Observer(self._api, self._clock, self._config, lambda: self.trusted(), _note)
        self._executor = Executor(
            self._api, leader, self._clock, self._config, lambda issued_at: self.signer(issued_at), self.metrics
        )
        self._cycle = Cycle(self._observer, self._executor, Wakeups(), self._config, self._clock, self.metrics)
        self._plan = None

    def restart(self) -> None:
        """Kill the process, and start it again."""
        self.restarts += 1
        self._start()

    async def cycle(self) -> float:
        """Run one cycle; return after how many seconds the next is due. Who was killed is started again."""
        try:
            return await self._cycle.run_once()
        except Stopped:
            self.restart()
        except LetheError:
            return 0.0
        return 0.0

    async def observe(self) -> Snapshot:
        """Return what a cycle would know now."""
        return await self._observer.observe()

    async def plan(self) -> None:
        """Read and decide, and fall asleep before the first write."""
        try:
            snapshot = await self._observer.observe()
            self._plan = decide(snapshot), snapshot
        except Stopped:
            self.restart()
        except LetheError:
            self._plan = None

    async def execute(self) -> None:
        """Wake up, and carry out what was planned, however long ago."""
        if self._plan is None:
            return
        plan, snapshot = self._plan
        self._plan = None
        try:
            await self._executor.execute(plan, snapshot)
        except Stopped:
            self.restart()
        except LetheError:
            return

    @property
    def has_plan(self) -> bool:
        """Say whether it sleeps with a plan in its hands."""
        return self._plan is not None


def _note(kind: Kind, newest: int) -> None:
    """Nobody probes watches here."""
