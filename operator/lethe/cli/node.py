"""`lethe node`: which GPU nodes are under custody, who holds them, and what administrators want of them."""

import asyncio
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lethe.adapters import kube
from lethe.adapters.kube import Kube
from lethe.cli.posture import describe
from lethe.decisions.conditions import find_condition
from lethe.model.errors import LetheError, UsageError
from lethe.model.phases import NodePhase
from lethe.model.reasons import CONDITION_FENCED
from lethe.model.resources import GPUNode, NodeStatus

app = typer.Typer(
    help="GPU nodes: list them, put them under custody, drain them, end a quarantine, release them.",
    no_args_is_help=True,
)

_POLL_SECONDS = 1.0
_READY = (NodePhase.FREE, NodePhase.ASSIGNED)
_LEFT = (NodePhase.FREE, NodePhase.UNMANAGED)

_Name = Annotated[str, typer.Argument(help="Name of the Node.")]
_Limit = Annotated[int, typer.Option("--timeout", help="Seconds to wait at most.")]


@app.command("list")
def list_nodes() -> None:
    """List the GPU nodes that Lethe knows."""
    nodes = asyncio.run(_read_all())
    if not nodes:
        print("no GPU node is known: none has GPUs, or the operator has not seen it yet")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("NODE", "PHASE", "HELD BY", "EPOCH", "GPUS", "RECEIPT", "MESSAGE"):
        table.add_column(column, overflow="fold")
    for node in nodes:
        status = node.status
        holder = f"{status.holder.tenant} ({status.holder.namespace}/{status.holder.job})" if status.holder else "-"
        receipt = status.last_receipt.name if status.last_receipt else "-"
        table.add_row(
            node.metadata.name,
            status.phase.value,
            holder,
            str(status.epoch),
            str(status.gpu_count),
            receipt,
            status.message,
        )
    console = Console()
    console.print(table)
    for node in nodes:
        if unfenced := find_condition(node.status.conditions, CONDITION_FENCED):
            console.print(f"{node.metadata.name}: {unfenced.message}")


@app.command()
def show(node: _Name) -> None:
    """Tell all about one node: its phase and why, who holds it, what was seen, and what to do."""
    found = asyncio.run(_read(node))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for label, line in _describe(found):
        table.add_row(label, line)
    Console().print(table)


@app.command()
def enrol(
    node: _Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it was scrubbed.")] = False,
    timeout: _Limit = 600,
) -> None:
    """Put a node under custody: it is fenced now, and scrubbed once it is empty."""
    asyncio.run(_change(node, {"managed": True}))
    print(f"{node} is enrolled")
    if wait:
        asyncio.run(_await(node, _READY, timeout, "scrubbed"))


@app.command()
def drain(
    node: _Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until its job has ended and it was scrubbed.")] = False,
    timeout: _Limit = 600,
) -> None:
    """Give a node to no job any more, as before maintenance. A job that runs may end; then the node is scrubbed.

    Unlike `kubectl drain` it evicts nobody: suspend or delete the job to have it end now. `undrain` takes it back.
    """
    found = asyncio.run(_change(node, {"drain": True}))
    holder = found.status.holder
    print(f"{node} is drained" + (f"; job {holder.namespace}/{holder.job} may end" if holder is not None else ""))
    if wait:
        asyncio.run(_await(node, _LEFT, timeout, "left and scrubbed"))


@app.command()
def undrain(node: _Name) -> None:
    """Let jobs have a drained node again."""
    found = asyncio.run(_change(node, {"drain": False}))
    print(f"{node} is given to jobs again; it is {found.status.phase} now")


@app.command()
def override(
    node: _Name,
    reason: Annotated[str, typer.Option(help="Why it may be scrubbed although its quarantine was not cured.")],
) -> None:
    """End a quarantine in your own name: the node is scrubbed, and given to nobody before that. Its status keeps who
    did so, why and when."""
    if not reason.strip():
        raise UsageError("an override needs a reason, which stays in the node's status: --reason TEXT")
    by = asyncio.run(_override(node, reason))
    print(f"the quarantine of {node} is overridden by {by}: the node is scrubbed; `lethe node show {node}` follows it")


@app.command()
def release(node: _Name) -> None:
    """Give a node back to everybody, as soon as nobody holds it."""
    found = asyncio.run(_change(node, {"managed": False}))
    held = f"; it is {found.status.phase} now and opens when it is Free" if _is_held(found) else ""
    print(f"{node} is released{held}")


async def _read_all() -> list[GPUNode]:
    async with await Kube.connect() as api:
        objects = await api.list(kube.GPU_NODE)
    return sorted((msgspec.convert(item, GPUNode) for item in objects), key=lambda node: node.metadata.name)


async def _read(name: str) -> GPUNode:
    async with await Kube.connect() as api:
        return await _find(api, name)


async def _find(api: Kube, name: str) -> GPUNode:
    found = await api.get(kube.GPU_NODE, name)
    if found is None:
        raise UsageError(
            f"there is no GPUNode {name}: the operator makes one for every Node with GPUs; see `lethe node list`"
        )
    return msgspec.convert(found, GPUNode)


async def _change(name: str, spec: dict[str, Any]) -> GPUNode:
    async with await Kube.connect() as api:
        await _find(api, name)
        return msgspec.convert(await api.patch(kube.GPU_NODE, name, "", {"spec": spec}), GPUNode)


async def _override(name: str, reason: str) -> str:
    async with await Kube.connect() as api:
        found = await _find(api, name)
        if found.status.phase != NodePhase.QUARANTINED:
            raise UsageError(f"{name} is {found.status.phase}, not quarantined: there is nothing to override")
        by = await api.own_name()
        await api.patch(kube.GPU_NODE, name, "", {"spec": {"override": {"reason": reason, "by": by}}})
    return by


def _describe(node: GPUNode) -> list[tuple[str, str]]:
    status, lines = node.status, []
    lines.append(("Node", node.metadata.name + (f", before: {status.former_name}" if status.former_name else "")))
    wishes = ["enrolled" if node.spec.managed else "not enrolled", *(["drained"] if node.spec.drain else [])]
    lines.append(("Wanted", ", ".join(wishes)))
    lines.append(("Phase", f"{status.phase} since {status.since or 'never'}"))
    lines.append(("Why", f"{status.reason}: {status.message}"))
    lines += _people(status)
    if status.quarantine is not None:
        lines += [("Evidence", line) for line in status.quarantine.evidence]
        lines.append(("To do", status.quarantine.advice))
    if (past := status.override) is not None:
        effect = f"ended {past.over}" if past.over else "had no effect"
        lines.append(("Override", f"by {past.by} at {past.at}, {effect}: {past.reason}"))
    lines.append(("Epoch", f"{status.epoch}; GPUs {status.gpu_count}; boot {status.boot_id or 'unknown'}"))
    if status.last_receipt is not None:
        lines.append(("Receipt", f"{status.last_receipt.name} of epoch {status.last_receipt.epoch}"))
    lines += [("Posture", line) for line in describe(status.posture)]
    return lines + [("Condition", f"{entry.type} {entry.status}: {entry.message}") for entry in status.conditions]


def _people(status: NodeStatus) -> list[tuple[str, str]]:
    lines = []
    if (holder := status.holder) is not None:
        who = f"tenant {holder.tenant}, job {holder.namespace}/{holder.job}, pods {', '.join(holder.pod_uids)}"
        lines.append(("Held by", f"{who}, since {holder.since}"))
    if (before := status.previous_holder) is not None:
        who = f"tenant {before.tenant}, jobs {', '.join(before.jobs)}"
        lines.append(("Held before", f"{who}, {before.since} to {before.until}"))
    return lines


async def _await(name: str, ends: tuple[NodePhase, ...], limit: int, what: str) -> None:
    try:
        async with asyncio.timeout(limit):
            await _follow(name, ends)
    except TimeoutError as error:
        raise LetheError(f"{name} was not {what} within {limit} s; `lethe node show {name}` says why") from error


async def _follow(name: str, ends: tuple[NodePhase, ...]) -> None:
    """Print what happens to a node until it is in one of these phases."""
    said = ""
    async with await Kube.connect() as api:
        while True:
            found = await api.get(kube.GPU_NODE, name)
            if found is None:
                raise LetheError(f"GPUNode {name} was deleted")
            status = msgspec.convert(found, GPUNode).status
            line = f"{status.phase}: {status.message}"
            if line != said:
                print(line, flush=True)
                said = line
            if status.phase == NodePhase.QUARANTINED:
                raise LetheError(f"{name} is quarantined ({status.reason}): {status.message}")
            if status.phase in ends:
                return
            await asyncio.sleep(_POLL_SECONDS)


def _is_held(node: GPUNode) -> bool:
    return node.status.phase not in (NodePhase.UNMANAGED, NodePhase.FREE, NodePhase.QUARANTINED)
