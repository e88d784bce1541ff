import os
import socket
from pathlib import Path

import pytest

from lethe.data.tree import printable, scan_tree
from lethe.model.errors import InputError
from tests.common.datasets import write_tree


def test_files_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    write_tree(tmp_path, {"b": b"", "a/z": b"12", "a-b": b"", "B": b"", "é": b""})
    tree = scan_tree(tmp_path)
    assert [file.name for file in tree.files] == ["B", "a-b", "a/z", "b", "é"]
    assert [file.size for file in tree.files] == [0, 0, 2, 0, 0]


def test_a_link_is_refused_by_name_and_its_target_is_not_read(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"1"})
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="link is a symbolic link"):
        scan_tree(tmp_path)
    (tmp_path / "link").unlink()
    (tmp_path / "folder").symlink_to("/etc")
    with pytest.raises(InputError, match="folder is a symbolic link"):
        scan_tree(tmp_path)


def test_special_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is a named pipe"):
        scan_tree(tmp_path)
    (tmp_path / "pipe").unlink()
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("plug")
        with pytest.raises(InputError, match="plug is a socket"):
            scan_tree(tmp_path)


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    with pytest.raises(InputError, match=r"caf\\udce9.* is not UTF-8"):
        scan_tree(tmp_path)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}").symlink_to("x")
    with pytest.raises(InputError, match="and 4 more"):
        scan_tree(tmp_path)


def test_a_skipping_scan_names_what_it_leaves_out(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"1", ".cache/x": b"", "sub/.hidden": b"", "sub/b": b"2"})
    (tmp_path / "link").symlink_to("a")
    tree = scan_tree(tmp_path, skip=lambda name: name.startswith("."))
    assert [file.name for file in tree.files] == ["a", "sub/b"]
    assert tree.left_out == (".cache/", "link is a symbolic link", "sub/.hidden")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        scan_tree(tmp_path / "nothing")


def test_printable_names_hold_no_control_characters() -> None:
    assert printable("a\x1b[31m\nb\udce9é") == "a\\x1b[31m\\nb\\udce9é"
