"""Rows of measured figures: a table for the person who waits, JSON for comparison, and a page for the docs.

1. Every part of a benchmark replaces its own rows and leaves those of other parts: a run may be continued.
2. A figure stands beside what it is compared with, from the same run; nothing fails for a goal that is missed.
3. The page names machine, load and versions, and neither a host nor a path.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from tests.cluster import tools

_PACKAGES = ("kopf", "kubernetes", "aiohttp", "msgspec")
_COLUMNS = ("measure", "value", "beside", "ratio", "goal", "met", "n", "spread")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. `compared` is the figure that the goal speaks of: `value` or `ratio`, at most `goal`."""

    measure: str
    value: float
    unit: str
    n: int
    spread: str = ""
    beside: float | None = None
    goal: float | None = None
    goal_of: str = "value"

    @property
    def ratio(self) -> float | None:
        """Return the figure as a multiple of what it stands beside."""
        return self.value / self.beside if self.beside else None

    @property
    def met(self) -> bool | None:
        """Say whether the goal is met; None when there is none."""
        judged = self.ratio if self.goal_of == "ratio" else self.value
        return None if self.goal is None or judged is None else judged <= self.goal

    def cells(self) -> list[str]:
        """Return what stands in the table's columns."""
        goal = "" if self.goal is None else f"≤ {self.goal:g}{'x' if self.goal_of == 'ratio' else ' ' + self.unit}"
        return [
            self.measure,
            _figure(self.value, self.unit),
            "" if self.beside is None else _figure(self.beside, self.unit),
            "" if self.ratio is None else f"{self.ratio:.2f}x",
            goal,
            {True: "met", False: "missed", None: ""}[self.met],
            str(self.n),
            self.spread,
        ]


@dataclass
class Part:
    """What one part of a benchmark has measured."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Report:
    """A benchmark's figures on disk: `<name>.json`, and `<name>.md` made from it."""

    def __init__(self, folder: Path, name: str, title: str) -> None:
        self._json, self._page = folder / f"{name}.json", folder / f"{name}.md"
        self._title = title

    @contextmanager
    def part(self, name: str, what: str) -> Iterator[Part]:
        """Collect the rows of one part; when it ends well, print and keep them."""
        part = Part()
        before, began = _processor_times(), time.monotonic()
        yield part
        busy = _busy_share(before, _processor_times())
        document = json.loads(self._json.read_text()) if self._json.exists() else {"parts": {}}
        document |= {"machine": _machine(), "versions": _versions()}
        document["parts"][name] = {
            "what": what,
            "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": round(time.monotonic() - began),
            "load": {"average": os.getloadavg()[0], "busyShare": round(busy, 2)},
            "notes": part.notes,
            "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in part.rows],
        }
        self._json.parent.mkdir(parents=True, exist_ok=True)
        self._json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        self._page.write_text(_page(self._title, document))
        _print(what, part)


def quieten() -> None:
    """Keep what the operator says out of a benchmark that runs it in its own process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(values: Sequence[float], unit: str) -> str:
    """Return least and greatest, for a table."""
    return f"{_figure(min(values), unit)} … {_figure(max(values), unit)}"


def median_row(measure: str, unit: str, values: Sequence[float], goal: float | None = None) -> Row:
    """Return the row of a figure that was taken several times."""
    return Row(
        measure=measure,
        value=quantile(values, 0.5),
        unit=unit,
        n=len(values),
        spread=spread(values, unit),
        goal=goal,
    )


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.3g} {unit}"


def _print(what: str, part: Part) -> None:
    table = Table(*_COLUMNS, title=what)
    for row in part.rows:
        table.add_row(*row.cells())
    console = Console(width=180)
    console.print(table)
    for note in part.notes:
        console.print(f"  {note}")


def _page(title: str, document: dict[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    lines = [
        f"# {title}",
        "",
        f"{machine['cores']} cores, {machine['memoryGiB']} GiB of memory, {machine['system']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ". The load average and the busy share of all cores are of the time that the part took, this benchmark "
        "included. Spread is least … greatest.",
        "",
    ]
    for part in document["parts"].values():
        load = part["load"]
        lines += [
            f"## {part['what']}",
            "",
            f"{part['taken']}, {part['seconds']} s; load average {load['average']:.1f}, cores {load['busyShare']:.0%} "
            "busy.",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|" + "---|" * len(_COLUMNS),
        ]
        for kept in part["rows"]:
            row = Row(**{key: value for key, value in kept.items() if key not in ("ratio", "met")})
            lines.append(f"| {' | '.join(row.cells())} |")
        lines += ["", *(f"- {note}" for note in part["notes"]), *([""] if part["notes"] else [])]
    return "\n".join(lines).rstrip() + "\n"


def _machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memoryGiB": round(pages / (1 << 30)),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict[str, str]:
    kubernetes = tools.kubernetes_version((tools.MODULE / "go.mod").read_text())
    packages = {name if name != "kubernetes" else "kubernetes (client)": version(name) for name in _PACKAGES}
    return {"Kubernetes": kubernetes, "Python": platform.python_version(), **packages}


def _processor_times() -> tuple[int, int]:
    """Return ticks of all processors together: busy, and all."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / max(after[1] - before[1], 1)
