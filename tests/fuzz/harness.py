"""One target under Atheris: python -m tests.fuzz.harness TARGET [libFuzzer's arguments, or a file to try again]."""

import sys

import atheris

with atheris.instrument_imports(include=["lethe.formats", "lethe.crypto"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
