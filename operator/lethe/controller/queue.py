"""What wakes the next cycle: one flag, whatever many events set it."""

import asyncio


class Wakeups:
    """Collects reasons to run a cycle. Events that come while a cycle runs cause one more, not many."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Ask for a cycle."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until somebody asks, at most this long; say whether somebody did."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True
