"""`lethe receipt`: check scrub receipts, show one, and tell who held which node when.

1. Nothing is shown that did not verify: every command checks signatures, and with several receipts their chain.
2. Receipts come from files, which needs no cluster once `--trust` names the list of public keys, or from the cluster.
3. From the cluster three more things are checked: that the plain copies beside an envelope say what the envelope says;
   that the receipt that the ledger names is there, so that a cut tail shows; and that a chain begins with the node's
   first receipt, or where the ledger says that retention has deleted what was before.
4. Names in receipts are whatever a tenant chose; they are printed as they are, never as markup.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from lethe.cli.posture import describe
from lethe.decisions.receipts import residue_bytes
from lethe.formats.receipt import envelope_sha256, parse_envelopes, verify_chain, verify_receipt
from lethe.formats.receiptkeys import ReceiptKeys, parse_receipt_keys
from lethe.model.errors import LetheError, ReceiptError, UsageError
from lethe.model.names import SYSTEM_NAMESPACE, TRUST_CONFIGMAP, TRUST_RECEIPT_KEYS
from lethe.model.resources import Envelope, GPUNode, Holder, PastHolder, ScrubReceipt
from lethe.model.scrub import GpuReport, ReceiptPredicate

app = typer.Typer(help="Scrub receipts: verify, show, timeline.", no_args_is_help=True)

_PIPE_COLUMNS: Final = 200

Trust = Annotated[
    Path | None,
    typer.Option(
        help=f"Public keys: {TRUST_RECEIPT_KEYS} of ConfigMap {SYSTEM_NAMESPACE}/{TRUST_CONFIGMAP}. "
        "Default: read from the cluster."
    ),
]
Files = Annotated[
    list[Path] | None, typer.Argument(help="Receipts as JSON: envelopes, or what kubectl -o json prints.")
]
Node = Annotated[str | None, typer.Option(help="All receipts of one node of the cluster.")]
AllNodes = Annotated[bool, typer.Option("--all", help="All receipts of the cluster.")]


@dataclass(frozen=True, kw_only=True)
class _Receipts:
    """Receipts with the keys to check them, wherever they come from."""

    envelopes: list[Envelope]
    keys: ReceiptKeys
    nodes: dict[str, GPUNode] = field(default_factory=dict)
    """The ledgers, when the receipts are the cluster's."""
    is_complete: bool = False
    """Whether these are all receipts of their nodes."""


@app.command()
def verify(files: Files = None, node: Node = None, all_nodes: AllNodes = False, trust: Trust = None) -> None:
    """Check signatures and chains, offline or against the cluster."""
    receipts = asyncio.run(_gather(files or [], node, all_nodes, trust))
    chains = _verify(receipts)
    console = _console()
    for chain in chains:
        for predicate in chain:
            holder = f"after {predicate.holder.tenant}" if predicate.holder else "no known holder before"
            console.print(
                f"{predicate.node} epoch {predicate.epoch}: verified, {predicate.verdict}, {holder}, "
                f"{residue_bytes(predicate.report)} bytes of residue found",
                highlight=False,
            )
        if chain[0].previous:
            console.print(
                f"{chain[0].node}: the receipts before epoch {chain[0].epoch} are not here; the last of them must have "
                f"SHA-256 {chain[0].previous}",
                highlight=False,
            )
    count = sum(len(chain) for chain in chains)
    console.print(f"{count} receipts of {len(chains)} nodes verify, each chained to the one before.", highlight=False)


@app.command()
def show(
    receipt: Annotated[str, typer.Argument(help="Name of a ScrubReceipt, or a file.")], trust: Trust = None
) -> None:
    """Print one receipt for an auditor, once it has verified."""
    path = Path(receipt)
    found = asyncio.run(_gather([path], None, False, trust) if path.exists() else _fetch_one(receipt, trust))
    console = _console()
    for envelope in found.envelopes:
        _print_receipt(console, envelope, verify_receipt(envelope, found.keys))


@app.command()
def timeline(files: Files = None, node: Node = None, trust: Trust = None) -> None:
    """Tell who held which node when, and what was found on it afterwards."""
    receipts = asyncio.run(_gather(files or [], node, node is None and not files, trust))
    table = Table("node", "epoch", "held by", "jobs", "from", "until", "scrubbed", "residue", "verdict", box=None)
    for chain in _verify(receipts):
        for predicate in chain:
            holder = _holder_cells(predicate.holder) if predicate.holder else ("(unknown past)", "", "", "")
            table.add_row(
                predicate.node,
                str(predicate.epoch),
                *holder,
                predicate.report.finished_at,
                decimal(residue_bytes(predicate.report)),
                predicate.verdict,
            )
        ledger = receipts.nodes.get(chain[-1].node)
        if ledger is not None and ledger.status.holder is not None:
            cells = _holder_cells(ledger.status.holder)
            table.add_row(ledger.metadata.name, str(ledger.status.epoch), *cells, "", "", ledger.status.phase)
    _console().print(table, markup=False, highlight=False)


def _holder_cells(holder: Holder | PastHolder) -> tuple[str, str, str, str]:
    name = f"{holder.tenant} ({holder.namespace})"
    if isinstance(holder, Holder):
        return name, holder.job, holder.since, "now"
    return name, ", ".join(holder.jobs), holder.since, holder.until


def _verify(receipts: _Receipts) -> list[list[ReceiptPredicate]]:
    """Check everything there is to check; return the receipts of each node, by epoch."""
    if not receipts.envelopes:
        raise ReceiptError("there are no receipts: has any node been scrubbed? See kubectl get gpunodes")
    signed = sorted(
        ((verify_receipt(envelope, receipts.keys).node, envelope) for envelope in receipts.envelopes),
        key=lambda pair: pair[0],
    )
    chains = []
    for name, pairs in groupby(signed, key=lambda pair: pair[0]):
        envelopes = [envelope for _, envelope in pairs]
        ledger = receipts.nodes.get(name)
        pruned = ledger.status.pruned_receipt if ledger is not None else None
        chain = verify_chain(envelopes, receipts.keys, complete=receipts.is_complete, pruned=pruned)
        if ledger is not None:
            _check_end(chain[-1], envelopes, ledger)
        chains.append(chain)
    for name, ledger in receipts.nodes.items():
        if ledger.status.last_receipt is not None and name not in {chain[0].node for chain in chains}:
            raise ReceiptError(f"the ledger of node {name} names receipt {ledger.status.last_receipt.name}: it is gone")
    return chains


def _check_end(last: ReceiptPredicate, envelopes: list[Envelope], ledger: GPUNode) -> None:
    recorded = ledger.status.last_receipt
    if recorded is None or recorded.sha256 in {envelope_sha256(envelope) for envelope in envelopes}:
        return
    raise ReceiptError(
        f"the ledger of node {last.node} names receipt {recorded.name} with SHA-256 {recorded.sha256}, but the chain, "
        f"which ends with epoch {last.epoch}, lacks it: the receipt was removed or replaced"
    )


async def _gather(files: Sequence[Path], node: str | None, all_nodes: bool, trust: Path | None) -> _Receipts:
    """Read the receipts that the arguments name, and the keys."""
    if sum((bool(files), node is not None, all_nodes)) != 1:
        raise UsageError("name the receipts in one way: files, --node NODE, or --all")
    if files:
        # Exports may overlap: a receipt that is in two files is one receipt.
        found = {envelope_sha256(envelope): envelope for path in files for envelope in _read_file(path)}
        return _Receipts(envelopes=[*found.values()], keys=await _read_keys(trust))
    return await _fetch(node, trust)


def _read_file(path: Path) -> list[Envelope]:
    try:
        return parse_envelopes(_read_bytes(path))
    except ReceiptError as error:
        raise ReceiptError(f"{path}: {error}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


async def _read_keys(trust: Path | None) -> ReceiptKeys:
    """Return the trusted keys, from a file or from the cluster."""
    if trust is not None:
        return parse_receipt_keys(_read_bytes(trust))
    from lethe.adapters.kube import CONFIGMAP, Kube

    where = f"ConfigMap {SYSTEM_NAMESPACE}/{TRUST_CONFIGMAP}"
    try:
        async with await Kube.connect() as kube:
            found = await kube.get(CONFIGMAP, TRUST_CONFIGMAP, SYSTEM_NAMESPACE)
    except LetheError as error:
        raise UsageError(
            f"the public keys cannot be read from {where}: {error}. Or name a file with --trust"
        ) from error
    if found is None or TRUST_RECEIPT_KEYS not in found.get("data", {}):
        raise UsageError(f"{where} holds no {TRUST_RECEIPT_KEYS}: is Lethe installed? Or name a file with --trust")
    return parse_receipt_keys(found["data"][TRUST_RECEIPT_KEYS].encode())


async def _fetch(node: str | None, trust: Path | None) -> _Receipts:
    """Return the receipts of one node of the cluster, or of all, with the ledgers."""
    from lethe.adapters.kube import GPU_NODE, RECEIPT, Kube

    async with await Kube.connect() as kube:
        ledgers = [msgspec.convert(found, GPUNode) for found in await kube.list(GPU_NODE)]
        receipts = [msgspec.convert(found, ScrubReceipt) for found in await kube.list(RECEIPT)]
    if node is not None and node not in {ledger.metadata.name for ledger in ledgers} | {r.spec.node for r in receipts}:
        raise UsageError(f"there is no GPU node {node}: see lethe node list")
    keys = await _read_keys(trust)
    chosen = [receipt for receipt in receipts if node in (None, receipt.spec.node)]
    for receipt in chosen:
        _check_copies(receipt, keys)
    return _Receipts(
        envelopes=[receipt.spec.envelope for receipt in chosen],
        keys=keys,
        nodes={ledger.metadata.name: ledger for ledger in ledgers if node in (None, ledger.metadata.name)},
        is_complete=True,
    )


async def _fetch_one(name: str, trust: Path | None) -> _Receipts:
    from lethe.adapters.kube import RECEIPT, Kube

    async with await Kube.connect() as kube:
        found = await kube.get(RECEIPT, name)
    if found is None:
        raise UsageError(f"there is neither a ScrubReceipt nor a file {name}: see kubectl get scrubreceipts")
    receipt = msgspec.convert(found, ScrubReceipt)
    keys = await _read_keys(trust)
    _check_copies(receipt, keys)
    return _Receipts(envelopes=[receipt.spec.envelope], keys=keys)


def _check_copies(receipt: ScrubReceipt, keys: ReceiptKeys) -> None:
    """Compare what an object says in plain with its envelope."""
    spec, predicate = receipt.spec, verify_receipt(receipt.spec.envelope, keys)
    for name, stated, signed in (
        ("node", spec.node, predicate.node),
        ("epoch", spec.epoch, predicate.epoch),
        ("tenant", spec.tenant, predicate.holder.tenant if predicate.holder else ""),
        ("residueBytes", spec.residue_bytes, residue_bytes(predicate.report)),
        ("sha256", spec.sha256, envelope_sha256(spec.envelope)),
    ):
        if stated != signed:
            raise ReceiptError(
                f"ScrubReceipt {receipt.metadata.name} says {name} {stated!r}, its signed envelope {signed!r}: the "
                "object was tampered with; the envelope is the evidence"
            )


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, soft_wrap=False)


def _print_receipt(console: Console, envelope: Envelope, predicate: ReceiptPredicate) -> None:
    report = predicate.report
    facts = Table(
        box=None, show_header=False, title=f"Scrub receipt {predicate.node}-{predicate.epoch}", title_justify="left"
    )
    for name, value in (
        ("verdict", f"{predicate.verdict}{f' ({report.reason}: {report.message})' if report.reason else ''}"),
        ("grade", f"NIST SP 800-88 {predicate.grade}" if predicate.verdict == "Cleared" else "none"),
        ("node", f"{predicate.node}, uid {predicate.node_uid}, boot {predicate.boot_id}"),
        ("epoch", str(predicate.epoch)),
        *_holder_facts(predicate.holder),
        ("scrubbed", f"{report.started_at} to {report.finished_at}"),
        ("driver", f"{_known(report.driver)}, CUDA {_known(report.cuda)}"),
        ("driver clears on free", _known(report.driver_scrubs_on_free)),
        ("scrubber", f"{predicate.image}, Lethe {report.lethe_version}, kernels {report.ptx_sha256}"),
        *(("posture", line) for line in describe(report.posture)),
        ("nonce", predicate.nonce),
        ("report SHA-256", predicate.report_sha256),
        ("issued", predicate.issued_at),
        ("signature", f"verified, Ed25519 key {envelope.signatures[0].keyid}"),
        ("envelope SHA-256", envelope_sha256(envelope)),
        ("follows envelope", predicate.previous or "none: the node's first receipt"),
    ):
        facts.add_row(name, value)
    console.print(facts, highlight=False, markup=False)
    sizes = ("total", "verified", "coverage", "residue", "shared memory")
    gpus = Table("GPU", "serial, PCI", *sizes, "mismatches", "killed", box=None)
    for gpu in report.gpus:
        gpus.add_row(*_gpu_cells(gpu))
    console.print(gpus, highlight=False, markup=False)
    console.print("not covered:", *(f"\n  - {exclusion}" for exclusion in report.exclusions), highlight=False, sep="")
    console.print(
        "The receipt proves what the scrub reported; it does not prove the node's integrity.", highlight=False
    )


def _holder_facts(holder: PastHolder | None) -> list[tuple[str, str]]:
    if holder is None:
        return [("held before by", "nobody known: a new, rebooted or rejoined node")]
    jobs = ", ".join(f"{job} ({uid})" for job, uid in zip(holder.jobs, holder.job_uids, strict=False))
    return [
        ("held before by", f"tenant {holder.tenant}, namespace {holder.namespace}"),
        ("jobs", jobs),
        ("window", f"{holder.since} to {holder.until}"),
    ]


def _gpu_cells(gpu: GpuReport) -> tuple[str, ...]:
    residue = "not probed"
    if gpu.residue is not None:
        residue = f"{decimal(gpu.residue.nonzero_bytes)} in {gpu.residue.nonzero_pages} pages"
    shared = "not wiped"
    if gpu.shared is not None:
        shared = f"{gpu.shared.seen_count()} of {gpu.shared.multiprocessors} SMs"
        if gpu.shared.residue_bytes:
            shared += f", {decimal(gpu.shared.residue_bytes)} of residue"
    killed = ", ".join(f"{process.name} (pod {process.pod_uid or 'none'})" for process in gpu.killed)
    return (
        f"{gpu.facts.uuid} {gpu.facts.name}",
        f"{_known(gpu.facts.serial)}, {_known(gpu.facts.pci_bus_id)}",
        decimal(gpu.bytes_total),
        decimal(gpu.bytes_covered),
        f"{gpu.coverage:.2%}",
        residue,
        shared,
        str(gpu.mismatches + (gpu.leapfrog.mismatches if gpu.leapfrog else 0)),
        killed or "none",
    )


def _known(value: object) -> str:
    """Return a value for people; what the driver does not tell must not look like no."""
    if value is None:
        return "not told"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
