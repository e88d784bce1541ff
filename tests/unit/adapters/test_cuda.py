"""The CUDA adapter on the simulated driver, through the real cuda-bindings."""

import pytest

from lethe.model import reasons
from tests.simgpu.fixtures import Machine

OPEN = """
    from lethe.adapters.cuda import Gpu
    from lethe.agents.kernels import load_ptx
    from lethe.model.errors import GpuError
    MIB = 1 << 20
    try:
        gpu = Gpu(sys.argv[1], load_ptx())
    except GpuError as error:
        answer(reason=error.reason, message=str(error))
        sys.exit()
"""


def test_takes_memory_until_there_is_none(machine: Machine) -> None:
    found = machine.run(
        OPEN
        + """
    first, second = gpu.take_mapped(8 * MIB), gpu.take_mapped(8 * MIB)
    pages = 0
    while gpu.take_classic(65536) is not None:
        pages += 1
    answer(granularity=gpu.granularity, first=first.length, second=second, pages=pages, left=gpu.free_bytes())
    """,
        machine.gpus[0].uuid,
    )
    assert found["granularity"] == 2 << 20
    assert (found["first"], found["second"]) == (8 << 20, None)
    assert found["pages"] == (8 << 10) // 64 - 12  # 12 pages are the driver's and the context's
    assert found["left"] == 0


def test_gives_a_piece_back(machine: Machine) -> None:
    found = machine.run(
        OPEN
        + """
    before = gpu.free_bytes(), gpu.used_bytes()
    piece = gpu.take_mapped(4 * MIB)
    taken = gpu.free_bytes(), gpu.used_bytes()
    gpu.give_back(piece)
    answer(before=before, taken=taken, after=[gpu.free_bytes(), gpu.used_bytes()])
    """,
        machine.gpus[0].uuid,
    )
    free, used = found["before"]
    assert used == 512 << 10  # the context
    assert found["taken"] == [free - (4 << 20), used + (4 << 20)]
    assert found["after"] == [free, used]


def test_reaches_all_shared_memory_of_every_multiprocessor(machine: Machine) -> None:
    found = machine.run(
        OPEN
        + """
    counters = gpu.take_classic(65536)
    gpu.write(counters, (0, 0, 0))
    gpu.launch_on_multiprocessors("lethe_shared", gpu.shared_bytes // 8, 5, 64, counters.address)
    answer(count=gpu.multiprocessors, each=gpu.shared_bytes, found=gpu.read(counters, 3))
    """,
        machine.gpus[0].uuid,
    )
    assert found == {"count": 4, "each": 227 << 10, "found": [0, 0, 0b1111]}


def test_runs_kernels_and_reads_their_counters(machine: Machine) -> None:
    found = machine.run(
        OPEN
        + """
    counters, memory = gpu.take_classic(65536), gpu.take_mapped(2 * MIB)
    words = memory.length // 16
    gpu.launch("lethe_fill", memory.address, words, 7, 1 << 63)
    gpu.write(counters, (0, 2**64 - 1))
    gpu.launch("lethe_verify", memory.address, words, 7, 1 << 63, counters.address)
    same = gpu.read(counters, 2)
    gpu.launch("lethe_verify", memory.address, words, 8, 1 << 63, counters.address)
    answer(same=same, shifted=gpu.read(counters, 2), words=words)
    """,
        machine.gpus[0].uuid,
    )
    assert found["same"] == [0, 2**64 - 1]
    assert found["shifted"] == [found["words"], 8]


def test_a_gpu_is_found_by_its_uuid_only(machine: Machine) -> None:
    found = machine.run(OPEN + "    answer(opened=True)", "GPU-00000000-0000-0000-0000-000000000000")
    assert found["reason"] == reasons.GPU_LOST
    assert "NO_DEVICE" in found["message"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("lost", reasons.DRIVER_ERROR), ("driver_mismatch", reasons.DRIVER_MISMATCH)],
)
def test_failures_have_reasons(machine: Machine, fault: str, reason: str) -> None:
    machine.set_faults(**{fault: 1})
    assert machine.run(OPEN + "    answer(opened=True)", machine.gpus[0].uuid)["reason"] == reason


def test_an_uncorrectable_error_is_called_so(machine: Machine) -> None:
    machine.set_faults(uncorrectable_ecc=1)
    found = machine.run(
        OPEN
        + """
    memory = gpu.take_classic(65536)
    try:
        gpu.launch("lethe_zero", memory.address, 1)
        gpu.synchronize()
    except GpuError as error:
        answer(reason=error.reason)
    """,
        machine.gpus[0].uuid,
    )
    assert found == {"reason": reasons.ECC_UNCORRECTABLE}


def test_without_a_driver_library_it_says_so(machine: Machine) -> None:
    machine.environment["LD_LIBRARY_PATH"] = ""
    found = machine.run(OPEN + "    answer(opened=True)", machine.gpus[0].uuid)
    assert found["reason"] == reasons.DRIVER_ERROR
    assert "does not load" in found["message"]
