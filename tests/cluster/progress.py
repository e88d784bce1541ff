"""Plain sentences for the person who waits."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(sentence: str) -> None:
    """Print one sentence of progress at once."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def step(sentence: str) -> Iterator[None]:
    """Print the sentence when the step begins, and its duration when it has ended well."""
    say(f"{sentence} ...")
    started = time.monotonic()
    yield
    say(f"{sentence}: done in {time.monotonic() - started:.1f} s.")
