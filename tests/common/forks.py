"""Runs a function in a forked child; the child never returns into the test run, whatever happens in it."""

import os
from collections.abc import Callable


def holds_after_fork(check: Callable[[], bool]) -> bool:
    """Say whether `check` returns true in a child made by fork; an exception there counts as false."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
