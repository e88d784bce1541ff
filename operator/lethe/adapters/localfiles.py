"""Which files may be decrypted in place, from a mapping.

A mapping shows every later change of its file. Whoever could change a record between the check of its tag and the end
of its decryption could change plaintext; and whoever cuts a mapped file off ends its reader. So a file is mapped only
where no one but this process's user and root, who can do worse, may write to it, and no other machine serves it.
"""

import os
import stat
from functools import cache
from pathlib import Path
from typing import Final

_LOCAL: Final = frozenset({"tmpfs", "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "overlay", "zfs"})
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def is_unchanging(status: os.stat_result) -> bool:
    """Say whether a file is this user's or root's, writable by nobody else, and lies on this machine."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid in (0, os.geteuid())
        and not status.st_mode & _OTHERS_WRITE
        and _file_system(status.st_dev) in _LOCAL
    )


@cache
def _file_system(device: int) -> str:
    """Return the type of the file system with this device number; empty when no mount of this process shows it."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split(" ", 3)[2] == wanted:
            return source.partition(" ")[0]
    return ""
