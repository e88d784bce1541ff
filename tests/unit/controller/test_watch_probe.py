"""A watch that is open and tells nothing is found out."""

import pytest

from lethe.adapters import kube
from lethe.controller.watch import WatchProbe
from tests.common.clocks import Stopwatch


@pytest.fixture
def time() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def probe(time: Stopwatch) -> WatchProbe:
    return WatchProbe(time)


def test_a_watch_that_keeps_up_is_not_blind(probe: WatchProbe, time: Stopwatch) -> None:
    for version in range(1, 100):
        probe.read(kube.POD, version)
        probe.told(kube.POD, str(version))
        time.seconds += 60
    assert probe.blind() == []


def test_a_quiet_kind_is_not_blind(probe: WatchProbe, time: Stopwatch) -> None:
    probe.told(kube.POD, "7")
    for _ in range(100):
        probe.read(kube.POD, 7)
        probe.read(kube.NODE, 0)
        time.seconds += 60
    assert probe.blind() == []


def test_a_watch_that_tells_nothing_is_blind_after_a_while(probe: WatchProbe, time: Stopwatch) -> None:
    probe.told(kube.POD, "7")
    probe.told(kube.NODE, "9")
    probe.read(kube.POD, 8)
    probe.read(kube.NODE, 9)
    assert probe.blind() == []
    time.seconds += 91
    probe.read(kube.POD, 8)

    assert probe.blind() == ["Pod"]
    probe.told(kube.POD, "8")
    assert probe.blind() == []


def test_objects_that_keep_changing_do_not_hide_it(probe: WatchProbe, time: Stopwatch) -> None:
    for version in range(10):
        probe.read(kube.POD, version + 1)
        time.seconds += 10
    assert probe.blind() == ["Pod"]


def test_a_watch_that_is_behind_and_goes_on_is_not_blind(probe: WatchProbe, time: Stopwatch) -> None:
    for version in range(1, 50):
        probe.read(kube.POD, version + 3)
        probe.told(kube.POD, str(version))
        time.seconds += 20
        assert probe.blind() == []


def test_events_that_come_out_of_order_count_by_the_newest(probe: WatchProbe, time: Stopwatch) -> None:
    probe.told(kube.POD, "9")
    probe.told(kube.POD, "4")
    probe.read(kube.POD, 9)
    time.seconds += 1000
    assert probe.blind() == []
