"""Native sidecar of a training pod: seals and uploads what the job leaves in its outputs folder.

1. The kubelet sends SIGTERM when the training containers have ended; then everything finished is sealed, the index
   last. A file `.lethe-seal` in the folder asks for the same earlier; what is written after it is not sealed.
2. While storage is away, or refuses, it tries again with growing pauses, until `timeout_seconds` after the first try
   are nearly over: a later repair of storage or Secret still saves the results. Anything else is tried three times.
3. On success the termination message is an `OutputsMessage` as JSON, and the exit status 0. Otherwise the message is
   one sentence and the exit status 1; the operator then reports OutputsLost.
4. It has no token and no private key; the recipients' public keys are in its argument.
"""

import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from lethe.data.output_writer import seal_outputs
from lethe.model.agentconfig import OutputsConfig, OutputsMessage
from lethe.model.errors import LetheError, StorageError, UnavailableError

MARKER = ".lethe-seal"
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
OTHER_ATTEMPTS = 3
POLL_SECONDS = 1.0
MESSAGE_BYTES = 4096

log = logging.getLogger("lethe.outputs")


def wait_for_end(folder: Path) -> Literal["signal", "marker"]:
    """Return when SIGTERM has come, which must be blocked in this process, or the marker file is there."""
    while True:
        if (folder / MARKER).exists():
            return "marker"
        if signal.sigtimedwait({signal.SIGTERM}, POLL_SECONDS):
            return "signal"


def seal_with_patience(
    folder: Path,
    config: OutputsConfig,
    credentials: str | Mapping[str, str] | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> OutputsMessage:
    """Seal the outputs, trying again as rule 2 says; raise the last error when time is up."""
    deadline = clock() + config.timeout_seconds - min(15.0, config.timeout_seconds * 0.1)
    pause, others = FIRST_PAUSE, 0
    while True:
        try:
            result = seal_outputs(folder, config.storage, credentials, config)
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
    wait: Callable[[Path], Literal["signal", "marker"]] = wait_for_end,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait, seal, report; return the exit status."""
    log.info("waiting for the end of the training")
    cause = wait(folder)
    log.info("sealing %s, asked by %s", folder, cause)
    try:
        message = seal_with_patience(folder, config, credentials, sleep=sleep)
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
