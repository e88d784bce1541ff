"""Wait for a condition with a deadline, never for a fixed time."""

import time
from collections.abc import Callable

from .errors import ClusterError

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5


def until(condition: Callable[[], bool], *, what: str, seconds: float, hint: str = "") -> None:
    """Return when the condition holds; after `seconds`, say what was waited for and where to look."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"Waited {seconds:.0f} s in vain for {what}.{' ' + hint if hint else ''}")
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)
