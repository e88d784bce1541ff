"""Groups of a node in both versions of cgroups, on a folder that looks like the kernel's."""

from pathlib import Path

from tests.cluster import cgroups


def v1(mount: Path) -> None:
    for name in ("cpu", "cpuset", "memory"):
        (mount / name).mkdir()
        (mount / name / "cgroup.procs").touch()
    (mount / "cpuacct").symlink_to("cpu")
    (mount / "unified").mkdir()
    (mount / "unified" / "cgroup.procs").touch()


def v2(mount: Path) -> None:
    (mount / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (mount / "cgroup.subtree_control").write_text("cpu cpuset memory pids\n")
    (mount / "cgroup.procs").touch()


def test_v1_has_a_group_in_each_hierarchy_once(tmp_path: Path) -> None:
    v1(tmp_path)
    assert [path.name for path in cgroups.hierarchies(tmp_path)] == ["cpu", "cpuset", "memory"]
    cgroups.prepare("node", tmp_path)
    assert all((tmp_path / name / "node").is_dir() for name in ("cpu", "cpuset", "memory"))
    assert not (tmp_path / "unified" / "node").exists()


def test_v2_has_one_group(tmp_path: Path) -> None:
    v2(tmp_path)
    cgroups.prepare("node", tmp_path)
    assert cgroups.hierarchies(tmp_path) == [tmp_path]
    assert (tmp_path / "node").is_dir()


def test_v2_hands_down_only_what_is_there_and_not_handed_down_yet(tmp_path: Path) -> None:
    v2(tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    cgroups.prepare("node", tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"


def test_removal_takes_groups_below_too_and_leaves_others(tmp_path: Path) -> None:
    v1(tmp_path)
    cgroups.prepare("node", tmp_path)
    cgroups.prepare("another", tmp_path)
    (tmp_path / "cpu" / "node" / "kubepods" / "pod").mkdir(parents=True)
    (tmp_path / "unified" / "node" / "kubepods").mkdir(parents=True)
    cgroups.remove("node", tmp_path)
    assert not list(tmp_path.glob("*/node"))
    assert (tmp_path / "cpu" / "another").is_dir()
