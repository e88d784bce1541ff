from pathlib import Path

import pytest

from lethe.agents.host import HostPaths, read_boot_id, read_scrubs_on_free
from lethe.model.errors import GpuError


def write_params(folder: Path, registry: str) -> HostPaths:
    (folder / "params").write_text(f'ResmanDebugLevel: 4294967295\n{registry}\nRegistryDwordsPerDevice: ""\n')
    return HostPaths(driver=folder)


@pytest.mark.parametrize(
    ("registry", "driver", "expected"),
    [
        ('RegistryDwords: ""', "575.57.08", True),
        ('RegistryDwords: "RMDisableScrubOnFree=1"', "575.57.08", False),
        ('RegistryDwords: "RMOther=1;RMDisableScrubOnFree=0x1;RMMore=2"', "575.57.08", False),
        ('RegistryDwords: "RMDisableScrubOnFree=0"', "575.57.08", True),
        ('RegistryDwords: "RMDisableScrubOnFree=0x10"', "575.57.08", False),
        ('RegistryDwords: "NotRMDisableScrubOnFree=1"', "575.57.08", True),
        ('RegistryDwords: ""', "470.256.02", False),
        ('RegistryDwords: ""', None, None),
        ("", "575.57.08", None),
    ],
)
def test_the_driver_says_whether_it_clears_freed_memory(
    tmp_path: Path, registry: str, driver: str | None, expected: bool | None
) -> None:
    assert read_scrubs_on_free(write_params(tmp_path, registry), driver) is expected


def test_off_for_one_device_is_off(tmp_path: Path) -> None:
    paths = HostPaths(driver=tmp_path)
    (tmp_path / "params").write_text(
        'RegistryDwords: ""\nRegistryDwordsPerDevice: "pci=0000:41:00.0;RMDisableScrubOnFree=1"\n'
    )
    assert read_scrubs_on_free(paths, "575.57.08") is False


def test_without_parameters_nothing_is_claimed(tmp_path: Path) -> None:
    assert read_scrubs_on_free(HostPaths(driver=tmp_path / "missing"), "575.57.08") is None


def test_the_boot_id_is_read(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("boot-7\n")
    assert read_boot_id(HostPaths(boot_id=tmp_path / "boot_id")) == "boot-7"


def test_without_a_boot_id_there_is_no_scrub(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match="boot id"):
        read_boot_id(HostPaths(boot_id=tmp_path / "missing"))


def test_the_installation_may_move_the_drivers_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LETHE_DRIVER_ROOT", raising=False)
    assert HostPaths.from_environment(Path("/b"), Path("/k")).driver == Path("/proc/driver/nvidia")
    monkeypatch.setenv("LETHE_DRIVER_ROOT", "/elsewhere")
    assert HostPaths.from_environment(Path("/b"), Path("/k")).driver == Path("/elsewhere")
