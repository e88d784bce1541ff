"""The command line as a whole: what is there, and what is loaded for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from lethe.cli.main import main
try:
    main()
except SystemExit as end:
    print("loaded:", *sorted({"kubernetes", "aiohttp", "kopf"} & set(sys.modules)))
    sys.exit(end.code)
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `lethe`; its last line says which heavy packages it has loaded."""
    return subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)


def test_help_names_every_noun() -> None:
    done = run("--help")
    assert done.returncode == 0
    for noun in ("dataset", "key", "node", "receipt", "scrub"):
        assert f" {noun} " in done.stdout


@pytest.mark.parametrize("noun", ["dataset", "key", "receipt", "scrub"])
def test_a_command_that_may_need_no_cluster_loads_no_client_of_one(noun: str) -> None:
    done = run(noun, "--help")
    assert (done.returncode, done.stdout.splitlines()[-1].rstrip()) == (0, "loaded:")


def test_an_unknown_noun_is_refused() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
