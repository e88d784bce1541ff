"""The shared memory of every multiprocessor: probed, wiped and verified by one kernel (scrub.md, step 7).

1. A block that takes all shared memory of a multiprocessor has it to itself, so as many blocks as multiprocessors
   usually reach them all at once. Where they went is what the kernel says (`%smid`), and not assumed.
2. Launched again until every multiprocessor was seen, a bounded number of times. One that was not seen is a failure:
   what lies there is unknown.
3. Which numbers the multiprocessors have is the GPU's affair; how many there are is what counts.
"""

from typing import Final

from lethe.agents.passes import COUNTER_BYTES
from lethe.model.ports import DeviceMemory, VideoMemory
from lethe.model.scrub import SharedMemory

LAUNCHES: Final = 64
"""At most so many; the first is enough on a GPU that nobody else uses."""

_WORD_BYTES: Final = 8
_COUNTERS: Final = COUNTER_BYTES // _WORD_BYTES
_BITS: Final = (_COUNTERS - 2) * 64
"""Room for the numbers of multiprocessors; the largest GPUs have less than 200."""


def scrub_shared_memory(gpu: VideoMemory, counters: DeviceMemory, key: int) -> SharedMemory:
    """Probe, wipe and verify it all; `counters` are overwritten."""
    bitmap = residue = mismatches = launches = 0
    gpu.write(counters, (0,) * _COUNTERS)
    while bitmap.bit_count() < gpu.multiprocessors and launches < LAUNCHES:
        words = gpu.shared_bytes // _WORD_BYTES
        gpu.launch_on_multiprocessors("lethe_shared", words, key, _BITS, counters.address)
        residue, mismatches, *seen = gpu.read(counters, _COUNTERS)
        bitmap = sum(word << 64 * number for number, word in enumerate(seen))
        launches += 1
    return SharedMemory(
        multiprocessors=gpu.multiprocessors,
        seen=f"{bitmap:x}",
        bytes_each=gpu.shared_bytes // _WORD_BYTES * _WORD_BYTES,
        residue_bytes=residue * _WORD_BYTES,
        mismatches=mismatches,
    )
