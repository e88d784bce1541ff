"""Builders of scrub reports, summaries and receipts that clear a node with two GPUs; tests change one thing."""

from typing import Any

import msgspec

from lethe.crypto.derive import sha256
from lethe.crypto.sign import Signer
from lethe.formats.receipt import build_statement, encode_report, envelope_sha256, seal_receipt
from lethe.formats.receiptkeys import ReceiptKey, build_receipt_key
from lethe.model.agentconfig import ScrubConfig
from lethe.model.posture import Posture
from lethe.model.resources import Envelope, PastHolder
from lethe.model.scrub import (
    FIRST_STEPS,
    SECOND_STEPS,
    GpuFacts,
    GpuReport,
    Leapfrog,
    ReceiptPredicate,
    Residue,
    ScrubReport,
    ScrubSummary,
    SharedMemory,
)

TOTAL = 64 << 20
COVERED = TOTAL - (1 << 20)
CONTEXT = 512 << 10
LEFT_OVER = 4 << 10
GIVEN_UP = 2 << 20
HELD = COVERED - (CONTEXT - LEFT_OVER)
"""What each process held; the second's context lies in what the first had verified, but for what was left over."""


def build_facts(number: int = 0, **changes: Any) -> GpuFacts:
    facts = GpuFacts(
        uuid=f"GPU-0000000{number}",
        name="Test GPU",
        serial=f"165000000{number}",
        pci_bus_id=f"00000000:4{number}:00.0",
        vbios="96.00",
        mig_enabled=False,
        ecc_enabled=True,
        ecc_uncorrected=0,
        recovery_action="None",
        memory_total=TOTAL,
        memory_used=0,
        memory_free=TOTAL,
    )
    return msgspec.structs.replace(facts, **changes)


def build_gpu(number: int = 0, **changes: Any) -> GpuReport:
    gpu = GpuReport(
        facts=build_facts(number),
        after=build_facts(number),
        verdict="Cleared",
        bytes_total=TOTAL,
        bytes_covered=COVERED,
        coverage=COVERED / TOTAL,
        shared=SharedMemory(multiprocessors=4, seen="f", bytes_each=232448),
        leapfrog=build_leapfrog(),
        durations=dict.fromkeys(FIRST_STEPS, 0.01),
        **_over(HELD),
    )
    return msgspec.structs.replace(gpu, **changes)


def build_leapfrog(**changes: Any) -> Leapfrog:
    leapfrog = Leapfrog(
        bytes_given_up=GIVEN_UP,
        bytes_left_over=LEFT_OVER,
        bytes_free=GIVEN_UP + LEFT_OVER,
        bytes_context=CONTEXT,
        durations=dict.fromkeys(SECOND_STEPS, 0.01),
        **_over(HELD),
    )
    return msgspec.structs.replace(leapfrog, **changes)


def _over(length: int) -> dict[str, Any]:
    """What a process says that probed and verified all it held, and found nothing."""
    residue = Residue(nonzero_bytes=0, nonzero_pages=0, digest="00")
    return {"bytes_held": length, "bytes_probed": length, "bytes_verified": length, "residue": residue}


def build_config(**changes: Any) -> ScrubConfig:
    config = ScrubConfig(node="gpu-1", node_uid="node-uid", boot_id="boot-1", epoch=3, nonce="5a" * 32, gpu_count=2)
    return msgspec.structs.replace(config, **changes)


def build_posture(**changes: Any) -> Posture:
    """Return the posture of a node that passes every check; tests change one thing."""
    posture = Posture(
        kernel="6.8.0",
        driver="575.0",
        ksm="off",
        swap="off",
        core_dumps="pipe /bin/false",
        transparent_hugepages="madvise",
        hugepages=0,
        ptrace_scope=1,
        lockdown="integrity",
        iommu="DMA-FQ",
        driver_parameters={"RegistryDwords": "", "RmProfilingAdminOnly": "1"},
        scrub_on_free=True,
        persistence=True,
        ecc=True,
    )
    return msgspec.structs.replace(posture, **changes)


def build_report(config: ScrubConfig | None = None, **changes: Any) -> ScrubReport:
    config = config or build_config()
    report = ScrubReport(
        node=config.node,
        node_uid=config.node_uid,
        boot_id=config.boot_id,
        epoch=config.epoch,
        nonce=config.nonce,
        started_at="2030-01-02T03:04:05Z",
        finished_at="2030-01-02T03:04:09Z",
        driver="575.0",
        cuda=12090,
        driver_scrubs_on_free=False,
        posture=build_posture(),
        lethe_version="1.0",
        ptx_sha256="ab" * 32,
        gpus=[build_gpu(0), build_gpu(1)],
        exclusions=["registers"],
        verdict="Cleared",
    )
    return msgspec.structs.replace(report, **changes)


def build_summary(report: ScrubReport, **changes: Any) -> ScrubSummary:
    summary = ScrubSummary(
        verdict=report.verdict,
        nonce=report.nonce,
        report_sha256=report_sha256(report),
        reason=report.reason,
        message=report.message,
    )
    return msgspec.structs.replace(summary, **changes)


def report_sha256(report: ScrubReport) -> str:
    return sha256(encode_report(report)).hex()


def build_holder(**changes: Any) -> PastHolder:
    holder = PastHolder(
        tenant="acme",
        namespace="acme",
        jobs=["digits"],
        job_uids=["job-uid"],
        since="2030-01-01T00:00:00Z",
        until="2030-01-02T00:00:00Z",
    )
    return msgspec.structs.replace(holder, **changes)


def build_predicate(report: ScrubReport | None = None, **changes: Any) -> ReceiptPredicate:
    report = report or build_report()
    predicate = ReceiptPredicate(
        node=report.node,
        node_uid=report.node_uid,
        boot_id=report.boot_id,
        epoch=report.epoch,
        nonce=report.nonce,
        holder=build_holder(),
        image="localhost/lethe@sha256:" + "cd" * 32,
        report=report,
        report_sha256=report_sha256(report),
        verdict=report.verdict,
        issued_at="2030-01-02T03:04:10Z",
    )
    return msgspec.structs.replace(predicate, **changes)


def build_envelope(signer: Signer, predicate: ReceiptPredicate | None = None) -> Envelope:
    return seal_receipt(build_statement(predicate or build_predicate()), signer)


def trusted_keys(*signers: Signer) -> dict[str, ReceiptKey]:
    """Return a list of receipt keys, none of them retired."""
    keys = [build_receipt_key(signer.public_key, version) for version, signer in enumerate(signers, 1)]
    return {key.key_id: key for key in keys}


def build_chain(signer: Signer, node: str = "gpu-1", epochs: tuple[int, ...] = (1, 2, 4)) -> list[Envelope]:
    """Return the receipts of a node, the first without a known past."""
    chain: list[Envelope] = []
    for epoch in epochs:
        report = build_report(build_config(node=node, epoch=epoch))
        previous = envelope_sha256(chain[-1]) if chain else ""
        holder = build_holder() if chain else None
        chain.append(build_envelope(signer, build_predicate(report, previous=previous, holder=holder)))
    return chain
