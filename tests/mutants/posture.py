"""Mutants of the posture that a node must have: each gives a node, or a key, to a job that demanded more of it."""

from tests.mutants.mutant import Mutant

_POSTURE = "decisions/posture.py"

MUTANTS = [
    Mutant("take unknown for good", _POSTURE, "passed=found is not None and", "passed=found is None or"),
    Mutant(
        "demand nothing of a silent scrub",
        _POSTURE,
        "    return [_judge(posture or Posture(), name)",
        "    if posture is None:\n        return []\n    return [_judge(posture, name)",
    ),
    Mutant(
        "give a node whatever its posture",
        "decisions/admission.py",
        "if not fleet.unmet(node, demanded)",
        "if True",
    ),
    Mutant(
        "ask one dataset only",
        "decisions/validation.py",
        "for dataset in self.datasets\n            if (rule",
        "for dataset in self.datasets[:1]\n            if (rule",
    ),
    Mutant(
        "release whatever the posture",
        "decisions/release_ground.py",
        "if not unmet:\n        return None",
        "if True:\n        return None",
    ),
    Mutant(
        "believe the ledger's posture",
        "decisions/release_ground.py",
        "find_unmet(predicate_of(evidence).report.posture,",
        "find_unmet(present(evidence.gpu_node).status.posture,",
    ),
]
