"""The policies as files of the API server itself (docs/fence.md), which nobody can delete through the API."""

import re
import subprocess
from pathlib import Path

import yaml

from lethe.adapters import kube as kinds
from tests.apiserver.chart import install, policy_files, program
from tests.apiserver.cluster import Scene, populate
from tests.apiserver.requests import is_refusal, wait_until_refused
from tests.apiserver.server import Object, serve
from tests.attacks.honest import honest
from tests.attacks.table import attacks
from tests.cluster.folders import PROJECT


def block(language: str, containing: str) -> str:
    """Return the code block of docs/fence.md in a language that contains some words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (PROJECT / "docs" / "fence.md").read_text(), re.DOTALL)
    [found] = [each for each in blocks if containing in each]
    return found


def as_manifests(chart: list[Object], folder: Path) -> str:
    """Return what the documented command makes of the ConfigMap, with a program in kubectl's place."""
    (folder / "policies").write_text("".join(f"---\n{text}" for text in policy_files(chart).values()))
    kubectl = folder / "kubectl"
    kubectl.write_text(f"#!/bin/sh\ncat {folder}/policies\n")
    kubectl.chmod(0o755)
    script = block("sh", "lethe-policies")
    done = subprocess.run(
        ["sh", "-ec", script], cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"}, check=True, capture_output=True
    )
    assert not done.stdout, done.stdout
    return (folder / "lethe.yaml").read_text()


def test_the_policies_as_files(chart: list[Object], tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    configuration = tmp_path / "admission.yaml"
    text = block("yaml", "staticManifestsDir").replace("/etc/kubernetes/lethe", str(manifests))
    assert str(manifests) in text
    configuration.write_text(text)
    with serve(program("lethe-kube"), tmp_path, f"--admission-control-config-file={configuration}") as (admin, _):
        install(admin, chart)
        populate(admin)
        (manifests / "lethe.yaml").write_text(as_manifests(chart, tmp_path))
        rows = attacks(Scene())
        wait_until_refused(rows, admin)
        for kind in (kinds.ADMISSION_BINDING, kinds.ADMISSION_POLICY):
            assert admin.send("GET", kind.path()).body["items"] == []
            assert admin.send("DELETE", kind.path()).ok
            assert admin.send("DELETE", kind.path("lethe-bind.static.k8s.io")).status == 404
        assert [row.name for row in rows if not is_refusal(row, row.attempt(admin))] == []
        assert [row.name for row in honest(Scene()) if not row.attempt(admin).ok] == []


def test_every_policy_gets_a_name_that_the_api_refuses(chart: list[Object], tmp_path: Path) -> None:
    for document in yaml.safe_load_all(as_manifests(chart, tmp_path)):
        if document is not None:
            assert document["metadata"]["name"].endswith(".static.k8s.io")
            assert "paramKind" not in document["spec"]
