"""Bounded waiting for what is away: one budget of time for everything that a process waits for.

Pauses double from half a second to fifteen. The time that attempts take counts too. What ends the waiting is told
apart by whom it was waited for, so that a pod's exit code says which side to look at.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

from lethe.model.errors import LetheError, ReleaseRefused, UnavailableError

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0

_Result = TypeVar("_Result")


class Side(Enum):
    """Who is waited for; the value is how sentences name it."""

    KEY_SERVICE = "the key service"
    STORAGE = "the storage"


class GaveUpError(LetheError):
    """The budget is spent."""

    def __init__(self, side: Side, seconds: int, last: LetheError) -> None:
        super().__init__(f"gave up after waiting {seconds} s for {side.value}: {last}")
        self.side = side


class Patience:
    """Tries again while somebody is away, until the budget is spent."""

    def __init__(
        self,
        seconds: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        tell: Callable[[str], None],
    ) -> None:
        """`tell` gets a sentence at each failed attempt."""
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._tell = tell
        self._end = clock() + seconds

    def keep_trying(self, side: Side, attempt: Callable[[], _Result]) -> _Result:
        """Return what `attempt` returns once it does; raise what cannot change, and GaveUpError."""
        pause = FIRST_PAUSE
        while True:
            try:
                return attempt()
            except (UnavailableError, ReleaseRefused) as error:
                if isinstance(error, ReleaseRefused) and not error.retryable:
                    raise
                left = self._end - self._clock()
                if left <= 0:
                    if isinstance(error, ReleaseRefused):
                        raise
                    raise GaveUpError(side, self._seconds, error) from error
                # The same words each time: the operator repeats them in the job's status.
                self._tell(f"waiting for {side.value}, {self._seconds} s at most: {error}")
                self._sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
