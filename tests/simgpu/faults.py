"""Make a simulated GPU go wrong, or change what its driver says.

    python3 -m tests.simgpu.faults <GPU folder> stuck_offset=4096 stuck_value=0xff
    python3 -m tests.simgpu.faults <GPU folder>                                     puts everything right again

1. The `faults` file of the GPU's folder holds what was written last, whole; running clients see it at their next call.
2. Unknown names are refused here: the driver would not miss them.
3. With `strike_after` the faults wait: that many events of the kind `strike_at` go well, counted over all clients since
   the file was written, and with the next one everything in the file is in force.
"""

import argparse
import os
from pathlib import Path

FAULTS: dict[str, str] = {
    "bit_flip_offset": "byte of video memory whose bits change after it was written",
    "bit_flip_mask": "which bits change (1)",
    "bit_flip_after": "fill: after lethe_fill wrote it (default); zero: after lethe_zero or a memset to 0 did",
    "stuck_offset": "byte of video memory that keeps its value whatever is written",
    "stuck_value": "that value (0xff)",
    "out_of_memory_after": "bytes that clients of this GPU can hold together",
    "shared_stuck_offset": "byte of shared memory, counted over all multiprocessors, that keeps its value",
    "shared_stuck_value": "that value (0xff)",
    "missed_multiprocessor": "number of a multiprocessor that gets no block",
    "strike_after": "how many events go well before the faults of this file are in force (without it: from the start)",
    "strike_at": "which events: the name of a kernel, allocation, or context (without it: all of them)",
    "lost": "1: the GPU fell off the bus; NVML says GPU_IS_LOST, CUDA says UNKNOWN, to every call",
    "uncorrectable_ecc": "1: kernel launches fail with ECC_UNCORRECTABLE and break their context",
    "hang": "1: kernel launches do not return until this is taken away; 2: neither do allocations and new contexts",
    "driver_mismatch": "1: nvmlInit says LIB_RM_VERSION_MISMATCH, cuInit says SYSTEM_DRIVER_MISMATCH",
    "scrub_on_free": "1: the driver clears pages when they are freed (as NVIDIA's does unless told otherwise)",
    "claims_scrub": "1: the driver's parameters say that it does so, whatever it does",
    "mig": "1: NVML says that MIG is enabled",
    "ecc": "0: NVML says that ECC is off",
    "ecc_corrected": "corrected errors that NVML has counted",
    "ecc_uncorrected": "uncorrected errors that NVML has counted (1 with uncorrectable_ecc)",
    "remapped_correctable": "rows remapped after correctable errors",
    "remapped_uncorrectable": "rows remapped after uncorrectable errors",
    "remap_pending": "1: a remapping waits for a reset",
    "remap_failure": "1: a remapping failed",
    "recovery_action": "what NVML wants done: 0 nothing, 1 reset (default with uncorrectable_ecc), 2 reboot",
    "compute_mode": "0 default, 2 prohibited, 3 one process only; reported, not enforced",
    "persistence": "0: NVML says that persistence mode is off",
    "accounting": "1: NVML says that accounting is on",
    "bar1_used": "bytes of BAR1 in use",
    "unhealthy": "1: the device plugin reports the GPU as unhealthy (as it does for a lost one)",
}


class UnknownFaultError(Exception):
    """A fault of that name does not exist."""


def write_faults(folder: Path, **faults: int | str) -> None:
    """Replace the faults of the GPU in `folder` by these; none puts everything right."""
    unknown = sorted(set(faults) - set(FAULTS))
    if unknown:
        raise UnknownFaultError(f"No fault is called {', '.join(unknown)}; there are: {', '.join(FAULTS)}.")
    new = folder / "faults.new"
    new.write_text("".join(f"{name}={value}\n" for name, value in faults.items()))
    (folder / "events").unlink(missing_ok=True)
    os.replace(new, folder / "faults")


def events_counted(folder: Path) -> int:
    """Return how many events the faults in force have waited for."""
    events = folder / "events"
    return events.stat().st_size if events.exists() else 0


def read_faults(folder: Path) -> dict[str, str]:
    """Return the faults of the GPU in `folder`, as they were written."""
    try:
        text = (folder / "faults").read_text()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def are_in_force(folder: Path) -> bool:
    """Whether the faults of a GPU no longer wait for anything."""
    awaited = read_faults(folder).get("strike_after")
    return awaited is None or events_counted(folder) > int(awaited)


def is_healthy(folder: Path) -> bool:
    """Whether a device plugin would offer this GPU."""
    return not (_has_any(folder, "lost", "unhealthy") and are_in_force(folder))


def claims_to_scrub(folder: Path) -> bool:
    """Whether this GPU's driver says that it clears memory when it is freed."""
    return _has_any(folder, "scrub_on_free", "claims_scrub")


def _has_any(folder: Path, *names: str) -> bool:
    faults = read_faults(folder)
    return any(faults.get(name, "0") != "0" for name in names)


def main() -> None:
    described = "\n".join(f"  {name:24}{meaning}" for name, meaning in FAULTS.items())
    parser = argparse.ArgumentParser(
        description="Replace the faults of a simulated GPU.",
        epilog=f"faults:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("fault", nargs="*", help="NAME=VALUE; none: nothing is wrong any more")
    arguments = parser.parse_args()
    try:
        write_faults(arguments.folder, **dict(fault.split("=", 1) for fault in arguments.fault))
    except (UnknownFaultError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
