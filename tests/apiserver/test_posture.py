"""What a real API server makes of a node's posture: its schema, its columns, and the pod that reads it."""

from pathlib import Path

import msgspec
import pytest

from lethe.adapters import kube as kinds
from lethe.model.agentconfig import ScrubConfig
from lethe.model.config import OperatorConfig
from lethe.specs.scrub import build_scrub_pod
from tests.apiserver.chart import program
from tests.apiserver.requests import OPERATOR
from tests.apiserver.server import Client
from tests.cluster.commands import run
from tests.common.scrubs import build_posture

NODE = "posture-1"
EXPECTED = {
    "KERNEL": "6.8.0",
    "DRIVER": "575.0",
    "SWAP": "/dev/sda2",
    "COREDUMPS": "pipe",
    "KSM": "off",
    "HUGEPAGES": "madvise",
    "PTRACE": "1",
    "LOCKDOWN": "integrity",
    "IOMMU": "DMA-FQ",
    "ECC": "false",
    "SCRUBONFREE": "true",
    "PERSISTENCE": "true",
    "ADMINPROFILING": "1",
}


@pytest.fixture
def operator(fenced: Client) -> Client:
    """The operator's account: with the policies in, nobody else writes ledgers or makes scrub pods."""
    return fenced.acting(OPERATOR[0], "system:masters")


def test_the_posture_stands_in_the_wide_table(operator: Client, server: tuple[Client, Path]) -> None:
    posture = msgspec.to_builtins(build_posture(swap="/dev/sda2", ecc=False))
    operator.create(kinds.GPU_NODE, {"metadata": {"name": NODE}, "spec": {}})
    try:
        written = operator.write_status(kinds.GPU_NODE, NODE, {"phase": "Free", "posture": posture})
        assert written["status"]["posture"] == posture
        words = [program("kubectl"), f"--kubeconfig={server[1]}", "get", "gpunodes", NODE]
        heading, row = run([*words, "--output=wide"]).splitlines()
        assert "SWAP" not in run(words)
    finally:
        operator.delete(kinds.GPU_NODE, NODE)

    def shown(column: str) -> str:
        """Return what stands below a heading."""
        return row[heading.index(f" {column} ") + 1 :].split()[0]

    assert {column: shown(column) for column in heading.split() if column in EXPECTED} == EXPECTED


def test_the_pod_that_reads_it_is_taken_as_it_is(operator: Client) -> None:
    scrub = ScrubConfig(node=NODE, node_uid="n", boot_id="b", epoch=1, nonce="00" * 32, gpu_count=1)
    pod = build_scrub_pod("lethe-scrub-posture-1-1", scrub, OperatorConfig(image="lethe:1"))
    answer = operator.send("POST", f"{kinds.POD.path(namespace='lethe-system')}?dryRun=All", pod)
    assert answer.ok, answer.message
    made = answer.body["spec"]
    for part in ("volumes", "hostPID"):
        assert made[part] == pod["spec"][part]
    assert made["containers"][0]["volumeMounts"] == pod["spec"]["containers"][0]["volumeMounts"]
