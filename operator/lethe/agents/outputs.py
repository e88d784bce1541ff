"""Native sidecar of a training pod: seals and uploads what the job leaves in its outputs folder.

1. While the training runs, what is complete is sealed every `snapshot_seconds`. What goes wrong is told in the
   log, and tried again the next time: the training does not notice.
2. The kubelet sends SIGTERM when the training containers have ended; then everything finished is sealed. A file
   `.lethe-seal` in the folder asks for the same earlier; what is written after it is not sealed.
3. While storage is away, or refuses, it tries again with growing pauses, until `timeout_seconds` after the end are
   nearly over: a later repair of storage or Secret still saves the results. Anything else is tried three times.
4. On success the termination message is an `OutputsMessage` as JSON, and the exit status 0. Otherwise the message is
   one sentence and the exit status 1; the operator then reports OutputsLost.
5. It has no token and no private key; the recipients' public keys are in its argument. The outputs' own key lies beside
   it, in memory, for the case that this container is restarted.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from lethe.data.output_writer import OutputsWriter, Sealing
from lethe.model.agentconfig import OutputsConfig, OutputsMessage
from lethe.model.errors import LetheError, StorageError, UnavailableError

MARKER = ".lethe-seal"
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
OTHER_ATTEMPTS = 3
POLL_SECONDS = 1.0
MESSAGE_BYTES = 4096

log = logging.getLogger("lethe.outputs")


def wait_for_end(folder: Path, seconds: float) -> Literal["signal", "marker"] | None:
    """Return when SIGTERM has come, which must be blocked in this process, or the marker is there; or time is up."""
    end = time.monotonic() + seconds
    while True:
        if (folder / MARKER).exists():
            return "marker"
        left = end - time.monotonic()
        if signal.sigtimedwait({signal.SIGTERM}, max(0.0, min(POLL_SECONDS, left))):
            return "signal"
        if left <= 0:
            return None


def open_writer(folder: Path, config: OutputsConfig, credentials: str | None, state_file: Path) -> OutputsWriter:
    """Return the writer, which goes on where a killed container has left its state."""

    def save(state: Sealing) -> None:
        draft = state_file.with_name(f"{state_file.name}.draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.msgpack.encode(state))
        os.replace(draft, state_file)

    state = msgspec.msgpack.decode(state_file.read_bytes(), type=Sealing) if state_file.exists() else None
    if state is not None:
        log.info("going on after a restart: %r", state)
    return OutputsWriter(folder, config, credentials, state=state, save=save)


def take_snapshot(writer: OutputsWriter) -> None:
    """Seal what is complete; log what hinders it."""
    try:
        result = writer.snapshot()
    except (LetheError, OSError) as error:
        log.warning("no snapshot of the outputs, the next look comes later: %s", error)
    else:
        if result is not None:
            log.info("snapshot: %d files, %d bytes", result.message.files, result.message.bytes)


def seal_with_patience(
    writer: OutputsWriter,
    timeout_seconds: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> OutputsMessage:
    """Seal the outputs, trying again as rule 3 says; raise the last error when time is up."""
    deadline = clock() + timeout_seconds - min(15.0, timeout_seconds * 0.1)
    pause, others = FIRST_PAUSE, 0
    while True:
        try:
            result = writer.finish()
        except (StorageError, UnavailableError) as error:
            failure: LetheError = error
        except LetheError as error:
            failure = error
            others += 1
        else:
            for name in result.left_out:
                if name != MARKER:
                    log.warning("left out: %s", name)
            return result.message
        if others >= OTHER_ATTEMPTS or clock() + pause >= deadline:
            raise failure
        log.warning("outputs are not sealed yet, next try in %.0f s: %s", pause, failure)
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def run(
    config: OutputsConfig,
    *,
    folder: Path,
    credentials: str | None,
    termination_log: Path,
    state_file: Path,
    wait: Callable[[Path, float], Literal["signal", "marker"] | None] = wait_for_end,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Seal until the end, report; return the exit status."""
    log.info("sealing what is complete every %d s, until the training ends", config.snapshot_seconds)
    try:
        writer = open_writer(folder, config, credentials, state_file)
        while (cause := wait(folder, config.snapshot_seconds)) is None:
            take_snapshot(writer)
        log.info("sealing %s, asked by %s", folder, cause)
        message = seal_with_patience(writer, config.timeout_seconds, sleep=sleep)
    except LetheError as error:
        sentence = f"The outputs are lost: {error}."
        log.error(sentence)
        termination_log.write_text(sentence.encode()[:MESSAGE_BYTES].decode(errors="ignore"), encoding="utf-8")
        return 1
    termination_log.write_bytes(msgspec.json.encode(message))
    log.info("sealed %d files, %d bytes, as dataset %s", message.files, message.bytes, message.dataset_id)
    if cause == "marker":
        signal.sigwait({signal.SIGTERM})
    return 0
