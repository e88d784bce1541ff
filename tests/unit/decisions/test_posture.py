"""What each check of a node's posture passes, and what is said of a node that does not."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.posture import find_unmet, judge, sentence
from lethe.model.config import CriticalityRule
from lethe.model.posture import POSTURE_CHECKS, Posture
from tests.common.scrubs import build_posture

BAD: list[tuple[str, dict[str, Any]]] = [
    ("swapOff", {"swap": "/dev/sda2"}),
    ("coreDumpsOff", {"core_dumps": "file core"}),
    ("coreDumpsOff", {"core_dumps": "file off"}),
    ("coreDumpsOff", {"core_dumps": "pipe /usr/share/apport/apport -p%p"}),
    ("coreDumpsOff", {"core_dumps": "file /bin/false"}),
    ("ksmOff", {"ksm": "on"}),
    ("ptraceRestricted", {"ptrace_scope": 0}),
    ("lockdown", {"lockdown": "none"}),
    ("iommuOn", {"iommu": "off"}),
    ("iommuOn", {"iommu": "identity"}),
    ("iommuOn", {"iommu": "DMA-FQ, identity"}),
    ("eccOn", {"ecc": False}),
    ("scrubOnFree", {"scrub_on_free": False}),
    ("persistenceOn", {"persistence": False}),
    ("profilingRestricted", {"driver_parameters": {"RmProfilingAdminOnly": "0"}}),
]
UNKNOWN: list[tuple[str, dict[str, Any]]] = [
    ("swapOff", {"swap": None}),
    ("coreDumpsOff", {"core_dumps": None}),
    ("ksmOff", {"ksm": None}),
    ("ptraceRestricted", {"ptrace_scope": None}),
    ("lockdown", {"lockdown": None}),
    ("iommuOn", {"iommu": None}),
    ("eccOn", {"ecc": None}),
    ("scrubOnFree", {"scrub_on_free": None}),
    ("persistenceOn", {"persistence": None}),
    ("profilingRestricted", {"driver_parameters": {}}),
]


def test_a_good_node_passes_every_check() -> None:
    assert [one.check for one in judge(build_posture())] == list(POSTURE_CHECKS)
    assert find_unmet(build_posture(), POSTURE_CHECKS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"core_dumps": "off"},
        {"core_dumps": "file /dev/null"},
        {"core_dumps": "pipe /usr/bin/true"},
        {"ksm": "unmerged"},
        {"ptrace_scope": 3},
        {"lockdown": "confidentiality"},
        {"iommu": "DMA"},
        {"iommu": "DMA, DMA-FQ"},
    ],
    ids=str,
)
def test_other_good_values_pass(changes: dict[str, Any]) -> None:
    assert find_unmet(build_posture(**changes), POSTURE_CHECKS) == []


@pytest.mark.parametrize(("check", "changes"), BAD, ids=str)
def test_a_bad_value_fails_its_check_alone(check: str, changes: dict[str, Any]) -> None:
    (unmet,) = find_unmet(build_posture(**changes), POSTURE_CHECKS)
    assert (unmet.check, unmet.passed) == (check, False)
    assert unmet.found != "unknown"


@pytest.mark.parametrize(("check", "changes"), UNKNOWN, ids=str)
def test_an_unknown_value_fails_its_check_alone(check: str, changes: dict[str, Any]) -> None:
    (unmet,) = find_unmet(build_posture(**changes), POSTURE_CHECKS)
    assert (unmet.check, unmet.found) == (check, "unknown")


def test_every_check_has_rows() -> None:
    assert {check for check, _ in BAD} == {check for check, _ in UNKNOWN} == set(POSTURE_CHECKS)


@pytest.mark.parametrize("posture", [None, Posture()], ids=["not recorded", "nothing could be read"])
def test_no_posture_passes_nothing(posture: Posture | None) -> None:
    assert [one.check for one in find_unmet(posture, POSTURE_CHECKS)] == list(POSTURE_CHECKS)


def test_nothing_is_demanded_of_a_node_by_default() -> None:
    assert find_unmet(None, CriticalityRule().posture) == []


def test_who_is_refused_is_told_what_was_found_what_was_expected_and_what_to_do() -> None:
    unmet = find_unmet(build_posture(swap="/dev/sda2", lockdown=None), ("lockdown", "swapOff"))
    assert sentence(unmet).startswith(
        "swapOff (found /dev/sda2, expected off: run `swapoff -a` and take swap out of /etc/fstab), "
        "lockdown (found unknown, expected integrity or confidentiality: "
    )


def test_a_long_value_is_cut() -> None:
    (unmet,) = find_unmet(build_posture(core_dumps="pipe /" + "x" * 200), ("coreDumpsOff",))
    assert len(unmet.found) < 80 and unmet.found.startswith("pipe /xx")


def test_a_check_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(
        msgspec.ValidationError, match=r"there is no posture check 'swapoff', expected one of swapOff, "
    ):
        msgspec.convert({"posture": ["eccOn", "swapoff"]}, CriticalityRule)
