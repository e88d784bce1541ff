"""How the demo speaks: scenes with a title, and what objects say of themselves while they change."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster.progress import say
from tests.common.objects import Object, message, phase


@contextmanager
def scene(number: int, title: str) -> Iterator[None]:
    """Print the title of a scene, and how long it took."""
    say(f"\n=== {number}. {title}")
    started = time.monotonic()
    yield
    say(f"    ({time.monotonic() - started:.0f} s)")


def tell(subject: str) -> Callable[[Object], None]:
    """Return a listener that prints an object's phase and sentence whenever they change."""
    last = [""]

    def listen(found: Object) -> None:
        sentence = f"{phase(found)}: {message(found)}"
        if phase(found) and sentence != last[0]:
            last[0] = sentence
            say(f"    {subject} is {sentence}")

    return listen


def quote(text: str) -> None:
    """Print what a program said."""
    for line in text.rstrip().splitlines():
        say(f"    | {line.rstrip()}")
