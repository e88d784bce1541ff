"""`lethe node`: which GPU nodes are under custody, and who holds them."""

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lethe.adapters import kube
from lethe.adapters.kube import Kube
from lethe.model.errors import LetheError, UsageError
from lethe.model.phases import NodePhase
from lethe.model.resources import GPUNode

app = typer.Typer(help="GPU nodes: list them, put them under custody, release them.", no_args_is_help=True)

_POLL_SECONDS = 1.0
_ENDS = (NodePhase.FREE, NodePhase.ASSIGNED, NodePhase.QUARANTINED)


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
    Console().print(table)


@app.command()
def enrol(
    node: Annotated[str, typer.Argument(help="Name of the Node.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it was scrubbed.")] = False,
    timeout: Annotated[int, typer.Option(help="Seconds to wait at most.")] = 600,
) -> None:
    """Put a node under custody: it is fenced now, and scrubbed once it is empty."""
    asyncio.run(_enrol(node, wait=wait, limit=timeout))


@app.command()
def release(node: Annotated[str, typer.Argument(help="Name of the Node.")]) -> None:
    """Give a node back to everybody, as soon as nobody holds it."""
    found = asyncio.run(_set_managed(node, managed=False))
    held = f"; it is {found.status.phase} now and opens when it is Free" if _is_held(found) else ""
    print(f"{node} is released{held}")


async def _read_all() -> list[GPUNode]:
    async with await Kube.connect() as api:
        objects = await api.list(kube.GPU_NODE)
    return sorted((msgspec.convert(item, GPUNode) for item in objects), key=lambda node: node.metadata.name)


async def _set_managed(name: str, *, managed: bool) -> GPUNode:
    async with await Kube.connect() as api:
        if await api.get(kube.GPU_NODE, name) is None:
            raise UsageError(
                f"there is no GPUNode {name}: the operator makes one for every Node with GPUs; see `lethe node list`"
            )
        changed = await api.patch(kube.GPU_NODE, name, "", {"spec": {"managed": managed}})
    return msgspec.convert(changed, GPUNode)


async def _enrol(name: str, *, wait: bool, limit: int) -> None:
    await _set_managed(name, managed=True)
    print(f"{name} is enrolled")
    if not wait:
        return
    try:
        async with asyncio.timeout(limit):
            await _follow(name)
    except TimeoutError as error:
        raise LetheError(f"{name} was not scrubbed within {limit} s; `lethe node list` says why") from error


async def _follow(name: str) -> None:
    """Print what happens to a node until it is ready for a tenant."""
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
            if status.phase in _ENDS:
                return
            await asyncio.sleep(_POLL_SECONDS)


def _is_held(node: GPUNode) -> bool:
    return node.status.phase not in (NodePhase.UNMANAGED, NodePhase.FREE, NodePhase.QUARANTINED)
