"""Mutants of the scrub: each leaves something of a tenant on a GPU, or clears a GPU for want of evidence."""

from tests.mutants.mutant import Mutant

_PASSES = "agents/passes.py"
_GPU_SCRUB = "agents/gpu_scrub.py"
_SHARED = "agents/shared_memory.py"
_WORKERS = "agents/workers.py"
_RECEIPTS = "decisions/receipts.py"

_UNIT = ("tests/unit/agents/test_passes.py", "tests/unit/agents/test_gpu_scrub.py")
_PROCESSES = ("tests/unit/agents/test_scrub_faults.py::test_a_worker_that_dies_fails_its_gpu",)
_DECISIONS = ("tests/unit/decisions/test_receipts.py",)

_WORK = "(self._probe, self._fill, self._verify, self._zero, self._verify_zero)"


def _pass(name: str) -> Mutant:
    """Return a mutant that does nothing in one of the passes."""
    return Mutant(
        f"scrub: skip the pass {name}",
        _PASSES,
        _WORK,
        _WORK.replace(f"self._{name},", "int,").replace(f"self._{name})", "int)"),
        _UNIT,
    )


def _without(check: str) -> Mutant:
    """Return a mutant that does not ask for one kind of evidence."""
    return Mutant(f"scrub: skip {check}", _RECEIPTS, f"\n    {check},", "\n", _DECISIONS)


MUTANTS = [
    Mutant(
        "scrub: hold no more than a page",
        _PASSES,
        "(self._rest, *pieces, *take_all(self._gpu))",
        "(self._rest, *pieces)",
        _UNIT,
    ),
    Mutant("scrub: leave the tail", _PASSES, "        pieces.append(page)", "        break", _UNIT),
    *(_pass(name) for name in ("probe", "fill", "verify", "zero", "verify_zero")),
    Mutant(
        "scrub: forget the counters",
        _PASSES,
        '        self._gpu.launch("lethe_zero", self.counters.address, self.counters.length // WORD_BYTES)\n',
        "",
        _UNIT,
    ),
    Mutant("scrub: one key for both processes", _PASSES, 'b"%d" % process', 'b"1"', _UNIT),
    Mutant(
        "scrub: skip shared memory",
        _GPU_SCRUB,
        '        self._passes.step("shared", self._wipe_shared_memory)\n',
        "",
        _UNIT,
    ),
    Mutant("scrub: look at shared memory once", _SHARED, "launches < LAUNCHES", "launches < 1", _UNIT),
    Mutant(
        "scrub: accept a multiprocessor missed",
        _GPU_SCRUB,
        "shared.seen_count() != shared.multiprocessors",
        "shared.seen_count() == 0",
        _UNIT,
    ),
    Mutant(
        "scrub: accept a mismatch in shared memory",
        _GPU_SCRUB,
        "shared is not None and shared.mismatches",
        "False",
        _UNIT,
    ),
    Mutant(
        "scrub: skip the leapfrog",
        _GPU_SCRUB,
        "        self._passes.run()\n        self._note",
        "        self._note",
        _UNIT,
    ),
    Mutant(
        "scrub: give up memory that is not verified",
        _GPU_SCRUB,
        "self._passes.hold(self._spare)",
        "self._passes.hold()",
        _UNIT,
    ),
    Mutant("scrub: accept less than came free", _GPU_SCRUB, "leapfrog.bytes_held < self._returned", "False", _UNIT),
    Mutant("scrub: accept the second process's mismatch", _GPU_SCRUB, "if leapfrog.mismatches:", "if False:", _UNIT),
    Mutant(
        "scrub: count twice",
        _RECEIPTS,
        "second.bytes_verified + only_first",
        "second.bytes_verified + second.bytes_given_up",
        _DECISIONS,
    ),
    Mutant(
        "scrub: open the second context anywhere",
        _WORKERS,
        "if scrub.first.process.is_alive():",
        "if True:",
        _PROCESSES,
    ),
    *(
        _without(check)
        for check in ("_check_passes", "_check_mismatches", "_check_shared", "_check_leapfrog", "_check_coverage")
    ),
    Mutant(
        "scrub: ask for the first process's passes only",
        _RECEIPTS,
        '_missing_from(second, SECOND_STEPS, "second")',
        "None",
        _DECISIONS,
    ),
]
