from datetime import UTC, datetime, timedelta, timezone

import pytest

from lethe.formats.quantity import format_time, parse_duration, parse_quantity, parse_time, seconds_between
from lethe.model.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("2G", 2_000_000_000),
        ("1e9", 1_000_000_000),
        ("1E3", 1000),
        ("2E", 2 * 10**18),
        ("1Ei", 2**60),
        ("1500m", 2),
        (".5Ki", 512),
    ],
)
def test_quantities(text: str, value: int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "-1", "1KiB", "1ki", "0x10", "1e", "1e100000", "."])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(InputError, match="is not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("1h30m", 5400), ("2d", 172800), ("1m1s", 61)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1s1m", "1.5h", "-1s", "1w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        parse_duration(text)


def test_times_are_written_in_utc_with_whole_seconds() -> None:
    time = datetime(2030, 1, 2, 5, 4, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))

    assert format_time(time) == "2030-01-02T03:04:05Z"
    assert parse_time("2030-01-02T03:04:05Z") == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert seconds_between("2030-01-02T03:04:05Z", time) == pytest.approx(1.0, abs=0.001)


def test_what_is_no_time() -> None:
    with pytest.raises(InputError, match="RFC 3339"):
        parse_time("yesterday")
