"""`python3 -m lethe.operator_main --config FILE`: the operator.

One process: health, the Lease and, for its holder, watches and cycles. It ends with an error when any of them ends, and
is then started again by the cluster; every moment is a good one to stop it.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from lethe.adapters.clock import SystemClock
from lethe.adapters.kube import Kube
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.cycle import Cycle
from lethe.controller.execute import Executor
from lethe.controller.health import serve_health
from lethe.controller.leader import Leadership
from lethe.controller.observe import Observer
from lethe.controller.queue import Wakeups
from lethe.controller.signing import SigningFiles
from lethe.controller.watch import NodeFilter, WatchProbe, watch
from lethe.crypto.derive import random_bytes
from lethe.model.config import OperatorConfig
from lethe.model.errors import LetheError, UsageError
from lethe.model.names import TRUST_RECEIPT_KEYS

_RECEIPT_KEY = Path("/etc/lethe/receipt/private.pem")
_TRUST = Path("/etc/lethe/trust") / TRUST_RECEIPT_KEYS
_log = structlog.get_logger()


def main() -> None:
    """Run the operator until it is told to stop."""
    parser = argparse.ArgumentParser(description="Lethe's operator: custody of GPU nodes and secure training jobs.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the operator's configuration")
    parser.add_argument("--receipt-key", type=Path, default=_RECEIPT_KEY, help="Ed25519 key (PEM) that signs receipts")
    parser.add_argument("--receipt-trust", type=Path, default=_TRUST, help="list of the public keys of receipts")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(arguments.log_level)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
    try:
        config = _read_config(arguments.config)
        signing = SigningFiles(arguments.receipt_key, arguments.receipt_trust)
        signing.check()
        asyncio.run(_run(config, signing))
    except LetheError as error:
        print(f"lethe operator: {error}", file=sys.stderr)
        sys.exit(1)


async def _run(config: OperatorConfig, signing: SigningFiles) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    metrics, wakeups, clock, probe = OperatorMetrics(), Wakeups(), SystemClock(), WatchProbe()
    async with await Kube.connect() as api:
        identity = f"{socket.gethostname()}-{os.getpid()}-{random_bytes(4).hex()}"
        leadership = Leadership(api, identity, config.lease_seconds)
        observer = Observer(api, clock, config, signing.trusted, probe.read)
        executor = Executor(api, leadership, clock, config, signing.signer, metrics)
        cycle = Cycle(observer, executor, wakeups, config, clock, metrics)
        nodes = NodeFilter(config.gpu_node_label)
        health = await serve_health(cycle, leadership, probe, metrics, config)
        try:
            await _together(
                stop.wait(), _lead(leadership, cycle.run, partial(watch, wakeups, metrics, probe, nodes, stop))
            )
        finally:
            await leadership.release()
            await health.cleanup()
    if not stop.is_set():
        raise LetheError("a part of the operator ended by itself: restart it")
    _log.info("stopped")


async def _lead(leadership: Leadership, *parts: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait for the Lease, then do the work while it is held."""
    await leadership.acquire()
    await _together(leadership.keep(), *(part() for part in parts))


async def _together(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run these until one ends, then end the others; raise the error that it ended with."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read_config(path: Path) -> OperatorConfig:
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=OperatorConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path} is no configuration of the operator: {error}") from error


if __name__ == "__main__":
    main()
