"""Quantities, durations and times as Kubernetes writes them.

1. `parse_quantity` reads whole bytes: `1Gi`, `500M`, `1e9`; a fraction of a byte is rounded up.
2. `parse_duration` reads `90s`, `10m`, `1h30m`, `2d` as seconds.
3. Times are RFC 3339 in UTC with whole seconds.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from lethe.model.errors import InputError

_UNITS: Final[dict[str, Decimal | int]] = {
    "": 1,
    "m": Decimal("0.001"),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2}|[KMGTPE]i|[mkMGTPE]?)")
_DURATION: Final = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?")
_SECONDS: Final = (86400, 3600, 60, 1)


def parse_quantity(text: str) -> int:
    """Return a Kubernetes quantity as a whole number, rounded up; raise InputError."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a quantity; write for example 500Mi, 2Gi or 1000000")
    number, unit = match.groups()
    try:
        value = Decimal(number + unit) if unit[:1] in ("e", "E") and unit != "E" and unit != "Ei" else Decimal(number)
    except InvalidOperation as error:
        raise InputError(f"{text!r} is not a quantity") from error
    return math.ceil(value * _UNITS.get(unit, 1))


def parse_duration(text: str) -> int:
    """Return a duration in seconds; raise InputError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise InputError(f"{text!r} is not a duration; write for example 90s, 10m, 1h30m or 2d")
    return sum(int(count) * size for count, size in zip(match.groups(), _SECONDS, strict=True) if count)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; raise InputError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not an RFC 3339 time") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def format_time(time: datetime) -> str:
    """Write a time as the API server does: UTC, whole seconds, `Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_between(earlier: str, later: datetime) -> float:
    """Return how long ago `earlier` was at `later`."""
    return (later - parse_time(earlier)) / timedelta(seconds=1)
