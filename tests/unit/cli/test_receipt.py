"""`lethe receipt` on files, and on a cluster that is a dict."""

import json
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from lethe.adapters import kube
from lethe.cli.receipt import app
from lethe.crypto.sign import Signer
from lethe.decisions.receipts import residue_bytes
from lethe.formats.receipt import envelope_sha256, verify_receipt
from lethe.formats.receiptkeys import encode_receipt_keys
from lethe.model.errors import LetheError, ReceiptError, SignatureError, UsageError
from lethe.model.resources import Envelope
from lethe.model.scrub import KilledProcess, Residue
from tests.common.scrubs import (
    build_chain,
    build_config,
    build_envelope,
    build_gpu,
    build_posture,
    build_predicate,
    build_report,
    trusted_keys,
)

SIGNER = Signer.generate()
KEYS = trusted_keys(SIGNER)
TRUST = encode_receipt_keys([*KEYS.values()])


@pytest.fixture
def trust(tmp_path: Path) -> str:
    (tmp_path / "receipt-keys.json").write_text(TRUST)
    return f"--trust={tmp_path / 'receipt-keys.json'}"


def write_file(path: Path, *envelopes: Envelope) -> str:
    items = [{"kind": "ScrubReceipt", "spec": {"envelope": msgspec.to_builtins(envelope)}} for envelope in envelopes]
    path.write_text(json.dumps({"kind": "List", "items": items}))
    return str(path)


def run(*arguments: str) -> str:
    """Return what the command prints; raise what it raises."""
    result: Result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and isinstance(result.exception, LetheError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


class TestFiles:
    def test_verify(self, tmp_path: Path, trust: str) -> None:
        file = write_file(tmp_path / "all.json", *build_chain(SIGNER), *build_chain(SIGNER, node="gpu-2"))
        output = run("verify", file, trust)
        assert "gpu-1 epoch 4: verified, Cleared, after acme" in output
        assert "6 receipts of 2 nodes verify" in output

    def test_verify_says_what_was_not_given(self, tmp_path: Path, trust: str) -> None:
        chain = build_chain(SIGNER)
        output = run("verify", write_file(tmp_path / "end.json", *chain[1:]), trust)
        assert f"before epoch 2 are not here; the last of them must have SHA-256 {envelope_sha256(chain[0])}" in output

    def test_verify_of_overlapping_exports(self, tmp_path: Path, trust: str) -> None:
        chain = build_chain(SIGNER)
        files = write_file(tmp_path / "a.json", *chain[:2]), write_file(tmp_path / "b.json", *chain[1:])
        assert "3 receipts of 1 nodes verify" in run("verify", *files, trust)

    def test_verify_refuses_a_second_receipt_of_an_epoch(self, tmp_path: Path, trust: str) -> None:
        chain = build_chain(SIGNER)
        other = build_envelope(SIGNER, build_predicate(build_report(build_config(epoch=2)), image="another"))
        with pytest.raises(ReceiptError, match="two receipts"):
            run("verify", write_file(tmp_path / "two.json", *chain, other), trust)

    def test_verify_refuses_a_gap(self, tmp_path: Path, trust: str) -> None:
        chain = build_chain(SIGNER)
        with pytest.raises(ReceiptError, match="broken"):
            run("verify", write_file(tmp_path / "gap.json", chain[0], chain[2]), trust)

    def test_verify_refuses_another_key(self, tmp_path: Path, trust: str) -> None:
        with pytest.raises(SignatureError):
            run("verify", write_file(tmp_path / "x.json", build_envelope(Signer.generate())), trust)

    def test_show_refuses_another_key(self, tmp_path: Path, trust: str) -> None:
        with pytest.raises(SignatureError):
            run("show", write_file(tmp_path / "x.json", build_envelope(Signer.generate())), trust)

    def test_show(self, tmp_path: Path, trust: str) -> None:
        residue = Residue(nonzero_bytes=327680, nonzero_pages=5, digest="ab")
        killed = [KilledProcess(pid=7, name="[bold]train[/bold]", pod_uid="pod-uid")]
        gpus = [build_gpu(0, residue=residue, killed=killed), build_gpu(1)]
        report = build_report(gpus=gpus, driver_scrubs_on_free=None, posture=build_posture(swap="/dev/sda2"))
        output = run("show", write_file(tmp_path / "one.json", build_envelope(SIGNER, build_predicate(report))), trust)
        for expected in (
            "NIST SP 800-88 Clear",
            "tenant acme, namespace acme",
            "digits (job-uid)",
            "2030-01-01T00:00:00Z to 2030-01-02T00:00:00Z",
            "GPU-00000000",
            "98.44%",
            "327.7 kB in 5 pages",
            "[bold]train[/bold] (pod pod-uid)",
            "- registers",
            f"verified, Ed25519 key {SIGNER.key_id}",
            "not told",
            "swapOff: /dev/sda2, not good, expected off",
        ):
            assert expected in output

    def test_show_of_a_failed_scrub_gives_no_grade(self, tmp_path: Path, trust: str) -> None:
        report = build_report(verdict="Failed", reason="GPULost", message="the GPU does not answer")
        output = run("show", write_file(tmp_path / "one.json", build_envelope(SIGNER, build_predicate(report))), trust)
        assert "Failed (GPULost: the GPU does not answer)" in output
        assert "800-88" not in output

    def test_timeline(self, tmp_path: Path, trust: str) -> None:
        output = run("timeline", write_file(tmp_path / "all.json", *build_chain(SIGNER)), trust)
        rows = output.splitlines()
        assert "(unknown past)" in rows[1]
        assert "acme (acme)" in rows[2] and "2030-01-02T00:00:00Z" in rows[2]

    @pytest.mark.parametrize("arguments", [(), ("--all", "--node=x"), ("missing.json",)])
    def test_wrong_arguments_are_refused(self, trust: str, arguments: tuple[str, ...]) -> None:
        with pytest.raises(UsageError):
            run("verify", *arguments, trust)

    def test_a_file_that_holds_something_else_is_named(self, tmp_path: Path, trust: str) -> None:
        (tmp_path / "x.json").write_text("{}")
        with pytest.raises(ReceiptError, match=r"x\.json"):
            run("verify", str(tmp_path / "x.json"), trust)


class DictKube:
    """The methods of Kube that this command uses, over lists of objects."""

    def __init__(self, objects: dict[kube.Kind, list[dict[str, Any]]]) -> None:
        self.objects = objects

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def list(self, kind: kube.Kind) -> list[dict[str, Any]]:
        return self.objects.get(kind, [])

    async def get(self, kind: kube.Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        return next((found for found in self.objects.get(kind, []) if found["metadata"]["name"] == name), None)


def receipt_object(envelope: Envelope, **changes: Any) -> dict[str, Any]:
    predicate = verify_receipt(envelope, KEYS)
    spec = {
        "node": predicate.node,
        "epoch": predicate.epoch,
        "tenant": predicate.holder.tenant if predicate.holder else "",
        "residueBytes": residue_bytes(predicate.report),
        "sha256": envelope_sha256(envelope),
        "envelope": msgspec.to_builtins(envelope),
    }
    return {"metadata": {"name": f"{predicate.node}-{predicate.epoch}"}, "spec": {**spec, **changes}}


class TestCluster:
    @pytest.fixture
    def chain(self) -> list[Envelope]:
        return build_chain(SIGNER)

    @pytest.fixture
    def cluster(self, monkeypatch: pytest.MonkeyPatch, chain: list[Envelope]) -> DictKube:
        last = {"name": "gpu-1-4", "sha256": envelope_sha256(chain[-1]), "epoch": 4, "bootId": "boot-1"}
        holder = {
            "tenant": "globex",
            "namespace": "globex",
            "job": "next",
            "jobUid": "u",
            "podUids": ["p"],
            "since": "2030-01-03T00:00:00Z",
        }
        node = {"metadata": {"name": "gpu-1"}, "status": {"phase": "Assigned", "lastReceipt": last, "holder": holder}}
        connected = DictKube(
            {
                kube.CONFIGMAP: [{"metadata": {"name": "lethe-trust"}, "data": {"receipt-keys.json": TRUST}}],
                kube.GPU_NODE: [node, {"metadata": {"name": "gpu-2"}}],
                kube.RECEIPT: [receipt_object(envelope) for envelope in chain],
            }
        )

        async def connect() -> DictKube:
            return connected

        monkeypatch.setattr(kube.Kube, "connect", connect)
        return connected

    @pytest.mark.parametrize("arguments", [["--all"], ["--node", "gpu-1"]])
    def test_verify(self, cluster: DictKube, arguments: list[str]) -> None:
        assert "3 receipts of 1 nodes verify" in run("verify", *arguments)

    def test_show_by_name(self, cluster: DictKube) -> None:
        assert "gpu-1, uid node-uid, boot boot-1" in run("show", "gpu-1-2")

    def test_timeline_ends_with_who_is_there_now(self, cluster: DictKube) -> None:
        last = run("timeline").splitlines()[-1]
        assert "globex (globex)" in last and "now" in last and "Assigned" in last

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_a_missing_receipt_is_found(self, cluster: DictKube, position: int) -> None:
        del cluster.objects[kube.RECEIPT][position]
        with pytest.raises(ReceiptError):
            run("verify", "--all")

    def rotate(self, cluster: DictKube, chain: list[Envelope], new: Signer, latest: Signer) -> None:
        """Retire the key and let one of the two sign another receipt half a year later."""
        old_key, new_key = trusted_keys(SIGNER, new).values()
        keys = [msgspec.structs.replace(old_key, retired_at="2030-06-01T00:00:00Z"), new_key]
        cluster.objects[kube.CONFIGMAP][0]["data"]["receipt-keys.json"] = encode_receipt_keys(keys)
        report, previous = build_report(build_config(epoch=5)), envelope_sha256(chain[-1])
        predicate = build_predicate(report, previous=previous, issued_at="2031-01-01T00:00:00Z")
        envelope = build_envelope(latest, predicate)
        copies = {"epoch": 5, "sha256": envelope_sha256(envelope), "envelope": msgspec.to_builtins(envelope)}
        spec = {**receipt_object(chain[-1])["spec"], **copies}
        cluster.objects[kube.RECEIPT].append({"metadata": {"name": "gpu-1-5"}, "spec": spec})

    def test_verify_across_a_rotation(self, cluster: DictKube, chain: list[Envelope]) -> None:
        new = Signer.generate()
        self.rotate(cluster, chain, new, latest=new)
        assert "4 receipts of 1 nodes verify" in run("verify", "--all")

    def test_a_receipt_by_the_retired_key_is_found(self, cluster: DictKube, chain: list[Envelope]) -> None:
        self.rotate(cluster, chain, Signer.generate(), latest=SIGNER)
        with pytest.raises(SignatureError, match="retired"):
            run("verify", "--all")

    def prune(self, cluster: DictKube, chain: list[Envelope], last: int) -> None:
        """Record in the ledger that retention has deleted the chain up to one."""
        sha256, predicate = envelope_sha256(chain[last]), verify_receipt(chain[last], KEYS)
        name = f"gpu-1-{predicate.epoch}"
        pruned = {"name": name, "sha256": sha256, "epoch": predicate.epoch, "bootId": predicate.boot_id}
        cluster.objects[kube.GPU_NODE][0]["status"]["prunedReceipt"] = pruned

    @pytest.mark.parametrize("left", [0, 1, 2])
    def test_a_beginning_that_retention_has_deleted_is_not_missed(
        self, cluster: DictKube, chain: list[Envelope], left: int
    ) -> None:
        """Also when the operator was stopped before it had deleted them all."""
        self.prune(cluster, chain, 1)
        del cluster.objects[kube.RECEIPT][:left]
        assert f"{3 - left} receipts of 1 nodes verify" in run("verify", "--all")

    def test_retention_explains_no_more_than_it_deleted(self, cluster: DictKube, chain: list[Envelope]) -> None:
        self.prune(cluster, chain, 0)
        del cluster.objects[kube.RECEIPT][:2]
        with pytest.raises(ReceiptError, match="the receipts before it are missing"):
            run("verify", "--all")

    def test_all_receipts_gone_is_found(self, cluster: DictKube) -> None:
        other = build_envelope(SIGNER, build_predicate(build_report(build_config(node="gpu-2", epoch=1))))
        cluster.objects[kube.RECEIPT] = [receipt_object(other)]
        with pytest.raises(ReceiptError, match="gpu-1-4: it is gone"):
            run("verify", "--all")

    @pytest.mark.parametrize(
        "change",
        [{"node": "gpu-2"}, {"epoch": 9}, {"tenant": "globex"}, {"residueBytes": 1}, {"sha256": "00"}],
        ids=str,
    )
    def test_a_changed_copy_is_found(self, cluster: DictKube, chain: list[Envelope], change: dict[str, Any]) -> None:
        cluster.objects[kube.RECEIPT][1] = receipt_object(chain[1], **change)
        with pytest.raises(ReceiptError, match="tampered"):
            run("verify", "--all")
        with pytest.raises(ReceiptError, match="tampered"):
            run("show", "gpu-1-2")

    @pytest.mark.parametrize("arguments", [("verify", "--node", "gpu-9"), ("show", "gpu-1-9")], ids=str)
    def test_unknown_names_are_refused(self, cluster: DictKube, arguments: tuple[str, ...]) -> None:
        with pytest.raises(UsageError):
            run(*arguments)

    def test_without_keys_nothing_is_shown(self, cluster: DictKube) -> None:
        cluster.objects[kube.CONFIGMAP] = []
        with pytest.raises(UsageError, match="--trust"):
            run("show", "gpu-1-2")

    def test_no_receipts_yet_is_said(self, cluster: DictKube) -> None:
        with pytest.raises(ReceiptError, match="there are no receipts"):
            run("verify", "--node", "gpu-2")
