"""The key service's process: `python3 -m lethe.keyservice_main --config FILE`.

Exit status 2 for a configuration that is wrong, 1 when a loop of the service ends, 0 after SIGTERM.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from lethe.adapters.kube import Kube
from lethe.keyservice.server import Keyservice
from lethe.model.config import KeyserviceConfig
from lethe.model.errors import InputError, LetheError, UsageError


def main() -> int:
    """Run until SIGTERM and return the exit status."""
    parser = argparse.ArgumentParser(prog="lethe.keyservice_main", description="Key service of Lethe.")
    parser.add_argument("--config", required=True, type=Path, help="YAML file of lethe.model.config.KeyserviceConfig")
    arguments = parser.parse_args()
    _set_up_logging()
    try:
        asyncio.run(_serve(_read_config(arguments.config)))
    except InputError as error:
        print(f"keyservice: {error}", file=sys.stderr)
        return 2
    except LetheError as error:
        print(f"keyservice: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: KeyserviceConfig) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with await Kube.connect() as kube:
        service = Keyservice(config, kube, now=lambda: datetime.now(UTC), clock=time.monotonic)
        async with service:
            waiting = [asyncio.create_task(stopped.wait()), asyncio.create_task(service.wait())]
            done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for task in done:
                task.result()


def _read_config(file: Path) -> KeyserviceConfig:
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=KeyserviceConfig)
    except OSError as error:
        raise UsageError(f"--config: {file} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--config: {file}: {error}") from error


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
