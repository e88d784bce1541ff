"""Names for built things: a hash of all that goes into them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

LEFT_OUT = {"__pycache__", ".pytest_cache", "build", "dist"}


def content_files(path: Path) -> list[Path]:
    """Return the files below a folder (or the file itself) that are sources: no caches, no build results."""
    if path.is_file():
        return [path]
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file()
        and not LEFT_OUT.intersection(each.relative_to(path).parts)
        and not any(part.endswith(".egg-info") for part in each.relative_to(path).parts)
    )


def content_hash(*parts: str, paths: Iterable[Path] = ()) -> str:
    """Return a hash of some words and of the names and bytes of files; where the files lie does not matter."""
    digest = hashlib.sha256()
    for part in parts:
        _add(digest, part.encode())
    for path in paths:
        for file in content_files(path):
            _add(digest, (file.relative_to(path).as_posix() if file != path else file.name).encode())
            _add(digest, file.read_bytes())
    return digest.hexdigest()[:16]


def _add(digest: "hashlib._Hash", piece: bytes) -> None:
    # The length goes first, so that no two lists of pieces look alike.
    digest.update(len(piece).to_bytes(8, "big") + piece)
