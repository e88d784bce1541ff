"""A mutant: one defect, put into a copy of the package as an exact text in place of another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One defect. `old` stands exactly once in the module, else the mutant is stale."""

    name: str
    module: str
    """Path below `operator/lethe`."""
    old: str
    new: str
    tests: tuple[str, ...] = ("tests/unit/decisions", "tests/simulation")
    """Tests that should catch it, quickest first."""

    def apply(self, text: str) -> str:
        """Return the module with the defect in it."""
        found = text.count(self.old)
        if found != 1:
            raise StaleMutantError(f"mutant '{self.name}' is stale: its text stands {found} times in {self.module}")
        return text.replace(self.old, self.new)


class StaleMutantError(Exception):
    """The code has changed under a mutant: write it anew."""
