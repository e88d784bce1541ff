import pytest

from lethe.keyservice.rates import RateLimit, RateLimitError
from tests.common.keyservice import Clock


def test_a_burst_passes_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit("pod", per_second=2, burst=3, clock=clock.seconds)
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RateLimitError, match="pod a"):
        limit.take("a")
    limit.take("b")
    clock.move(0.5)
    limit.take("a")
    with pytest.raises(RateLimitError):
        limit.take("a")


def test_waiting_long_gives_no_more_than_a_burst() -> None:
    clock = Clock()
    limit = RateLimit("pod", per_second=2, burst=3, clock=clock.seconds)
    limit.take("a")
    clock.move(1000)
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RateLimitError):
        limit.take("a")
