"""The scrub's passes, compiled for this processor, beside memset and memcmp of as many bytes.

1. The passes run as the product runs them: its CUDA adapter and kernels over the simulated driver, in a process of its
   own. That tells what they cost in tests; what they cost on a GPU is measured on a GPU.
2. memset stands beside the passes that write, memcmp beside those that read, in turn, in the same process.
"""

import ctypes
import json
import mmap
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.performance.report import Part, Row, quantile, spread
from tests.simgpu.gpus import make_gpus
from tests.simgpu.libraries import build_libraries, client_environment

MIB = 256
ROUNDS = 7
WRITING = ("lethe_fill", "lethe_zero")
READING = ("lethe_probe", "lethe_verify", "lethe_verify_zero")
_NODE = "bench"
_KEY = 0x0123456789ABCDEF


def measure(folder: Path, part: Part) -> None:
    """Time each pass in a process that sees a simulated GPU."""
    libraries = build_libraries(folder / "libraries")
    [gpu] = make_gpus(folder / "gpus", _NODE, 1, 2 * MIB)
    done = subprocess.run(
        [sys.executable, "-m", "tests.performance.passes", gpu.uuid],
        env=client_environment(libraries, folder / "gpus"),
        stdout=subprocess.PIPE,
        check=True,
    )
    times: dict[str, list[float]] = json.loads(done.stdout)
    for kernel in (*WRITING, *READING):
        beside = "memset" if kernel in WRITING else "memcmp"
        part.rows.append(
            Row(
                measure=f"{kernel} of {MIB} MiB, beside {beside}",
                value=quantile(times[kernel], 0.5),
                unit="ms",
                n=len(times[kernel]),
                spread=spread(times[kernel], "ms"),
                beside=quantile(times[beside], 0.5),
            )
        )
    part.notes.append(
        "One thread of this machine runs every thread of the grid, one after the other; a simulated GPU's memory is a "
        "mapped file, that of memset and memcmp is anonymous."
    )


def run(gpu_uuid: str) -> dict[str, list[float]]:
    """Time all of it in turn; return milliseconds of each round."""
    from lethe.adapters.cuda import Gpu
    from lethe.agents.kernels import load_ptx

    gpu = Gpu(gpu_uuid, load_ptx())
    length = MIB << 20
    piece, counters = gpu.take_mapped(length), gpu.take_classic(64 << 10)
    assert piece is not None and counters is not None
    words, first = length // 16, 0
    library = ctypes.CDLL(None)
    one, other = (mmap.mmap(-1, length) for _ in range(2))
    here, there = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (one, other))
    sized = ctypes.c_size_t(length)

    def launch(kernel: str, *arguments: int) -> Callable[[], object]:
        def work() -> None:
            gpu.launch(kernel, *arguments)
            gpu.synchronize()

        return work

    works: dict[str, Callable[[], object]] = {
        "memset": lambda: library.memset(ctypes.c_void_p(here), 0, sized),
        "memcmp": lambda: library.memcmp(ctypes.c_void_p(here), ctypes.c_void_p(there), sized),
        "lethe_probe": launch("lethe_probe", piece.address, words, counters.address),
        "lethe_fill": launch("lethe_fill", piece.address, words, first, _KEY),
        "lethe_verify": launch("lethe_verify", piece.address, words, first, _KEY, counters.address),
        "lethe_zero": launch("lethe_zero", piece.address, words),
        "lethe_verify_zero": launch("lethe_verify_zero", piece.address, words, first, counters.address),
    }
    library.memset(ctypes.c_void_p(there), 0, sized)
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - began))
    return times


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
