"""GPU folders, driver parameters and the CDI spec."""

import json
from pathlib import Path

import pytest

from tests.simgpu import cdi
from tests.simgpu.driver_root import write_parameters
from tests.simgpu.faults import write_faults
from tests.simgpu.gpus import GpuFolderError, make_gpus


def test_gpus_made_again_keep_identity_and_memory(tmp_path: Path) -> None:
    first = make_gpus(tmp_path, "gpu-1", 2, 16)
    (tmp_path / "gpu0" / "mem").write_bytes(b"residue".ljust(16 << 20, b"\0"))
    write_faults(tmp_path / "gpu0", lost=1)
    assert make_gpus(tmp_path, "gpu-1", 2, 16) == first
    assert (tmp_path / "gpu0" / "mem").read_bytes().startswith(b"residue")
    assert (tmp_path / "gpu0" / "faults").read_text() == "lost=1\n"


def test_every_gpu_has_an_identity_of_its_own(tmp_path: Path) -> None:
    gpus = [*make_gpus(tmp_path / "a", "gpu-1", 2, 1), *make_gpus(tmp_path / "b", "gpu-2", 2, 1)]
    assert len({gpu.uuid for gpu in gpus}) == 4


def test_clients_of_any_user_may_use_them(tmp_path: Path) -> None:
    [gpu] = make_gpus(tmp_path, "node", 1, 1)
    assert {(gpu.folder / name).stat().st_mode & 0o777 for name in ("mem", "shared", "state", "pids")} == {0o666}


def test_another_size_is_refused(tmp_path: Path) -> None:
    make_gpus(tmp_path, "node", 1, 16)
    with pytest.raises(GpuFolderError, match="16 MiB of memory, expected 32"):
        make_gpus(tmp_path, "node", 1, 32)


def test_the_parameters_say_that_scrubbing_is_off_unless_all_gpus_claim_it(tmp_path: Path) -> None:
    folders = [gpu.folder for gpu in make_gpus(tmp_path, "node", 2, 1)]

    def registry() -> str:
        write_parameters(tmp_path / "driver", folders)
        [line] = [
            line
            for line in (tmp_path / "driver" / "params").read_text().splitlines()
            if line.startswith("RegistryDwords:")
        ]
        return line

    assert registry() == 'RegistryDwords: "RMDisableScrubOnFree=1"'
    write_faults(folders[0], scrub_on_free=1)
    assert registry() == 'RegistryDwords: "RMDisableScrubOnFree=1"'
    write_faults(folders[1], claims_scrub=1)
    assert registry() == 'RegistryDwords: ""'


def test_the_spec_gives_a_container_its_gpu_and_the_libraries(tmp_path: Path) -> None:
    gpus = make_gpus(tmp_path, "node", 2, 1)
    spec = cdi.build_spec(Path("/on-the-node"), gpus, machine="x86_64")
    devices = {
        device["name"]: [(mount["hostPath"], mount["containerPath"]) for mount in device["containerEdits"]["mounts"]]
        for device in spec["devices"]
    }
    first, second = [(f"/on-the-node/gpu{number}", f"/run/simgpu/gpu{number}") for number in range(2)]
    assert devices == {gpus[0].uuid: [first], gpus[1].uuid: [second], "all": [first, second]}
    assert [
        (mount["hostPath"], mount["containerPath"], mount["options"][0]) for mount in spec["containerEdits"]["mounts"]
    ] == [
        ("/on-the-node/lib/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "ro"),
        ("/on-the-node/lib/libnvidia-ml.so.1", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "ro"),
        ("/on-the-node/driver", "/run/simgpu/driver", "ro"),
    ]
    assert spec["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void", "LETHE_DRIVER_ROOT=/run/simgpu/driver"]
    assert cdi.device_name(gpus[0].uuid) == f"{spec['kind']}={gpus[0].uuid}"


def test_the_spec_is_written_at_once(tmp_path: Path) -> None:
    cdi.write_spec(tmp_path / "cdi", {"kind": "nvidia.com/gpu"})
    assert [file.name for file in (tmp_path / "cdi").iterdir()] == [cdi.SPEC_NAME]
    assert json.loads((tmp_path / "cdi" / cdi.SPEC_NAME).read_text()) == {"kind": "nvidia.com/gpu"}
