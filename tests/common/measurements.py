"""Writes measurements and proofs into docs/measurements/, one page each, made of parts that are measured apart."""

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "measurements"


def report(page: str, part: str, title: str, lines: list[str]) -> None:
    """Write one part of a page; the other parts stay as they are."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{page}.md"
    parts = _parts(path.read_text()) if path.exists() else {}
    tools = f"Python {platform.python_version()}, hypothesis {version('hypothesis')}"
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {tools}"
    parts[part] = "\n".join([made, "", *lines]).strip()
    text = [f"# {title}"]
    for name in sorted(parts):
        text += ["", f"## {name}", "", parts[name]]
    path.write_text("\n".join(text) + "\n")


def _parts(text: str) -> dict[str, str]:
    found = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(found[::2], found[1::2], strict=True)}
