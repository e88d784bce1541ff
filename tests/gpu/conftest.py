"""The GPU suite, `pytest -m gpu tests/gpu`: promises about real hardware, skipped with the reason where there is none.

It ends no process of others: GPUs that somebody uses are left alone. tests/unit/simgpu/test_gpu_suite.py runs the same
on the simulated driver, so that the suite itself is known to work before it meets a GPU.
"""

import os

import pytest

from lethe.adapters.nvml import Nvml
from lethe.model.errors import GpuError
from lethe.model.scrub import GpuFacts
from tests.simgpu.fixtures import Machine
from tests.simgpu.libraries import SOURCES


@pytest.fixture
def machine(gpus: list[GpuFacts]) -> Machine:
    """This machine, with all of its GPUs."""
    return Machine(gpus, {**os.environ, "PYTHONPATH": SOURCES})


@pytest.fixture
def gpus() -> list[GpuFacts]:
    """The GPUs of this machine, none of them in use."""
    try:
        with Nvml() as nvml:
            found = [nvml.read_facts(index) for index in range(nvml.gpu_count())]
    except GpuError as error:
        pytest.skip(f"no NVIDIA GPU can be used here: {error}")
    if not found:
        pytest.skip("the NVIDIA driver has no GPU")
    if busy := [gpu.uuid for gpu in found if gpu.processes]:
        pytest.skip(f"processes use {', '.join(busy)}, and a scrub would end them")
    return found
