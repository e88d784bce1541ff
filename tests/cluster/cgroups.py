"""One cgroup for each node, in every hierarchy the machine has; the machine's other groups are left alone.

On a machine with cgroup v1 the group is made in each controller's hierarchy, and cpuset's values are copied in (a
group without them takes no process). With cgroup v2 the controllers are handed down from the root.
"""

import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")


def hierarchies(mount: Path = MOUNT) -> list[Path]:
    """Return the folder of each hierarchy in which a node's group must be."""
    if (mount / "cgroup.controllers").exists():
        return [mount]
    # v1: links (cpu -> cpu,cpuacct) name the same hierarchy again; `unified` is v2 without controllers.
    folders = (path for path in sorted(mount.iterdir()) if path.is_dir() and not path.is_symlink())
    return [path for path in folders if path.name != "unified" and (path / "cgroup.procs").exists()]


def prepare(name: str, mount: Path = MOUNT) -> None:
    """Make the group where it is missing."""
    for hierarchy in hierarchies(mount):
        group = hierarchy / name
        if (hierarchy / "cgroup.subtree_control").exists():
            available = (hierarchy / "cgroup.controllers").read_text().split()
            enabled = (hierarchy / "cgroup.subtree_control").read_text().split()
            for controller in NEEDED:
                if controller in available and controller not in enabled:
                    (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        group.mkdir(exist_ok=True)
        for value in ("cpuset.cpus", "cpuset.mems"):
            own, parent = group / value, hierarchy / value
            if own.exists() and parent.exists() and not own.read_text().strip():
                own.write_text(parent.read_text())


def remove(name: str, mount: Path = MOUNT) -> None:
    """Remove the group and all below it; its processes have ended before."""
    # `unified` too: container runtimes make groups there by themselves.
    for hierarchy in (*hierarchies(mount), mount / "unified"):
        group = hierarchy / name
        if group.exists():
            # cgroupfs shows files in a group's folder, but rmdir of the folder alone removes it.
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
