"""Built programs are found again by a hash of everything that they are made of."""

import shutil
from pathlib import Path

import pytest

from tests.cluster import tools
from tests.cluster.errors import ClusterError


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "kube"
    (folder / "cmd").mkdir(parents=True)
    (folder / "go.mod").write_text("module x\n\nrequire (\n\tk8s.io/kubernetes v1.37.2\n)\n")
    (folder / "go.sum").write_text("sums\n")
    (folder / "cmd" / "main.go").write_text("package main\n")
    return folder


def test_the_same_sources_elsewhere_have_the_same_hash(module: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(module, tmp_path / "elsewhere")
    assert tools.source_hash(copy) == tools.source_hash(module)


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "cmd/main.go"])
def test_any_changed_source_changes_the_hash(module: Path, changed: str) -> None:
    before = tools.source_hash(module)
    (module / changed).write_text((module / changed).read_text() + "\n// more\n")
    assert tools.source_hash(module) != before


def test_a_renamed_source_changes_the_hash(module: Path) -> None:
    before = tools.source_hash(module)
    (module / "cmd" / "main.go").rename(module / "cmd" / "other.go")
    assert tools.source_hash(module) != before


def test_the_version_is_the_one_that_go_mod_pins(module: Path) -> None:
    assert tools.kubernetes_version((module / "go.mod").read_text()) == "v1.37.2"


def test_a_go_mod_without_kubernetes_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"names no version of k8s\.io/kubernetes"):
        tools.kubernetes_version("module x\n")


def test_the_build_stamps_the_version_that_clients_see() -> None:
    flags = " ".join(tools.flags("v1.37.2"))
    assert "version.gitVersion=v1.37.2" in flags
    assert "version.gitMajor=1 " in flags
    assert "version.gitMinor=37 " in flags


def test_only_absent_programs_are_missing(tmp_path: Path) -> None:
    for name in ("helm", "lethe-kube", "kubectl"):
        (tmp_path / name).touch()
    assert tools.missing(tmp_path, ["helm", "lethe-kube", "kind"]) == ["kind"]


def test_a_program_without_its_link_is_missing(tmp_path: Path) -> None:
    (tmp_path / "lethe-kube").touch()
    assert tools.missing(tmp_path, ["lethe-kube"]) == ["lethe-kube"]


def test_every_set_of_programs_can_be_built() -> None:
    assert set(tools.FOR_EMBEDDED) | set(tools.FOR_KIND) == set(tools.PACKAGES)
    assert set(tools.LINKS.values()) <= set(tools.EVERYWHERE)
