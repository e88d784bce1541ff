"""`lethe dataset` run in this process, on a small folder."""

from pathlib import Path

from typer.testing import CliRunner, Result

from lethe.cli import dataset

FILES = {"train/1.png": b"one", "train/2.png": b"two", "readme": b""}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(dataset.app, [str(argument) for argument in arguments], catch_exceptions=False)


def seal(home: Path, *more: object, url: str = "") -> Result:
    return run(
        "seal", home / "images", url or f"file://{home}/sealed", "--name", "digits", "--namespace", "acme",
        "--tenant", "acme", "--recipient", f"acme/default@4={home}/service.pub",
        "--recovery-key", home / "recovery.pub", "--criticality", "sensitive", *more,
    )  # fmt: skip
