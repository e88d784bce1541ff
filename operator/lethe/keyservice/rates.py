"""Rate limits: a token bucket for each address, pod or tenant.

They protect the API server and the disk from a pod that asks in a loop. The number of buckets is bounded: when there
are too many, the full ones, which limit nobody, are forgotten.
"""

from collections.abc import Callable
from typing import Final

from lethe.model.errors import LetheError

_MAX_BUCKETS: Final = 10_000


class RateLimitError(LetheError):
    """Too many requests from one side; the same request succeeds later."""


class RateLimit:
    """Lets `burst` requests of one caller pass at once and `per_second` in the long run."""

    def __init__(self, what: str, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._what = what
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> None:
        """Count a request; raise RateLimitError when the caller has none left."""
        now = self._clock()
        left = self._left(caller, now)
        if left < 1:
            raise RateLimitError(
                f"{self._what} {caller} asks more than {self._per_second:g} times a second: wait, then ask again"
            )
        if len(self._buckets) >= _MAX_BUCKETS:
            self._buckets = {name: old for name, old in self._buckets.items() if self._left(name, now) < self._burst}
        self._buckets[caller] = (left - 1, now)

    def _left(self, caller: str, now: float) -> float:
        left, since = self._buckets.get(caller, (float(self._burst), now))
        return min(float(self._burst), left + (now - since) * self._per_second)
