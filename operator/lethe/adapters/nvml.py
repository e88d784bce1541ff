"""What NVIDIA's management library says about the GPUs of this node: the one importer of `pynvml`.

1. What a GPU or its driver does not offer is None, never zero: "not supported" must not read as "none found".
2. Every other failure is a GpuError with a reason fit for quarantine.
3. It only reads. NVML shows processes only as the caller's PID namespace sees them, so without the host's PID namespace
   an empty list means nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import pynvml

from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import GpuFacts

_REASONS: Final = {
    pynvml.NVML_ERROR_GPU_IS_LOST: reasons.GPU_LOST,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: reasons.GPU_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: reasons.RECOVERY_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: reasons.DRIVER_MISMATCH,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: reasons.DRIVER_MISMATCH,
}
_ABSENT: Final = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
_COMPUTE_MODES: Final = {0: "Default", 1: "ExclusiveThread", 2: "Prohibited", 3: "ExclusiveProcess"}
EXCLUSIVE_COMPUTE_MODES: Final = ("ExclusiveThread", "Prohibited", "ExclusiveProcess")
"""Those in which two processes cannot have contexts at a time."""
_RECOVERY_ACTIONS: Final = {
    0: "None",
    1: "GpuReset",
    2: "NodeReboot",
    3: "DrainP2P",
    4: "DrainAndReset",
    5: "RecoverImexDomain",
    6: "BusReset",
    7: "SystemReboot",
}
_FAULTLESS: Final = "None"


class Nvml:
    """A session with the library. Use as a context manager."""

    def __enter__(self) -> Self:
        with _translated("NVML does not start"):
            pynvml.nvmlInit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _translated("NVML does not stop"):
            pynvml.nvmlShutdown()

    def driver_version(self) -> str | None:
        """Return the version of the kernel driver."""
        found: str | None = _optional(pynvml.nvmlSystemGetDriverVersion)
        return found

    def cuda_version(self) -> int | None:
        """Return the newest CUDA version that the driver serves, as 1000 × major + 10 × minor."""
        found: int | None = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return found

    def gpu_count(self) -> int:
        """Return how many GPUs the driver has."""
        with _translated("the driver does not say how many GPUs it has"):
            return int(pynvml.nvmlDeviceGetCount())

    def read_facts(self, index: int) -> GpuFacts:
        """Return everything that a receipt says about a GPU; raise GpuError."""
        with _translated("the GPU does not answer"):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
            mig = _optional(pynvml.nvmlDeviceGetMigMode, handle)
            ecc = _optional(pynvml.nvmlDeviceGetEccMode, handle)
            persistence = _optional(pynvml.nvmlDeviceGetPersistenceMode, handle)
            compute_mode = _optional(pynvml.nvmlDeviceGetComputeMode, handle)
            # Of the whole machine: there is no such state of one GPU.
            confidential = _optional(pynvml.nvmlSystemGetConfComputeState)
            pci = _optional(pynvml.nvmlDeviceGetPciInfo, handle)
            bar1 = _optional(pynvml.nvmlDeviceGetBAR1MemoryInfo, handle)
            remapped = _optional(pynvml.nvmlDeviceGetRemappedRows, handle)
            return GpuFacts(
                uuid=pynvml.nvmlDeviceGetUUID(handle),
                name=pynvml.nvmlDeviceGetName(handle),
                serial=_optional(pynvml.nvmlDeviceGetSerial, handle),
                pci_bus_id=None if pci is None else _text(pci.busId),
                vbios=_optional(pynvml.nvmlDeviceGetVbiosVersion, handle),
                # Pending counts as enabled: it takes effect at the next reset, under whoever comes then.
                mig_enabled=None if mig is None else any(mig),
                ecc_enabled=None if ecc is None else bool(ecc[0]),
                ecc_uncorrected=_optional(
                    pynvml.nvmlDeviceGetTotalEccErrors,
                    handle,
                    pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    pynvml.NVML_VOLATILE_ECC,
                ),
                compute_mode=None if compute_mode is None else _COMPUTE_MODES.get(compute_mode, str(compute_mode)),
                persistence=None if persistence is None else bool(persistence),
                confidential_computing=None if confidential is None else bool(confidential.ccFeature),
                recovery_action=_recovery_action(handle),
                memory_total=memory.total,
                memory_reserved=memory.reserved,
                memory_used=memory.used,
                memory_free=memory.free,
                bar1_used=None if bar1 is None else bar1.bar1Used,
                remapped_rows=None if remapped is None else remapped[0] + remapped[1],
                remap_pending=None if remapped is None else bool(remapped[2]),
                processes=len(_processes(handle)),
            )

    def processes(self, index: int) -> list[int]:
        """Return the ids of the processes that hold a GPU, whatever for, ascending."""
        with _translated("the GPU does not say who uses it"):
            return _processes(pynvml.nvmlDeviceGetHandleByIndex(index))


def needs_recovery(facts: GpuFacts) -> str | None:
    """Say what the driver demands before this GPU can be relied on again, or None."""
    if facts.recovery_action not in (None, _FAULTLESS):
        return f"the driver demands the recovery action {facts.recovery_action}"
    return "a memory row waits for a reset to be remapped" if facts.remap_pending else None


def _processes(handle: Any) -> list[int]:
    found: set[int] = set()
    for read in (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        found.update(process.pid for process in _optional(read, handle) or [])
    return sorted(found)


def _recovery_action(handle: Any) -> str | None:
    values = _optional(pynvml.nvmlDeviceGetFieldValues, handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return _RECOVERY_ACTIONS.get(values[0].value.uiVal, str(values[0].value.uiVal))


def _optional(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `read` says, or None where the GPU or the driver does not offer it."""
    try:
        return read(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return None
        raise


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def _translated(sentence: str) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        raise GpuError(_REASONS.get(error.value, reasons.DRIVER_ERROR), f"{sentence}: {error}") from error
