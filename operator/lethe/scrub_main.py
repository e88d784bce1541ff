"""The scrub pod's process: `python3 -m lethe.scrub_main --config JSON`.

1. Progress goes to stderr; stdout gets one line, the report. The termination message gets the summary with the report's
   SHA-256, which ties the two together.
2. Exit status: 0 the node is clear; 1 it is not, and the report says why; 2 the arguments are wrong.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec

from lethe.agents.host import HostPaths
from lethe.agents.scrub import scrub_node
from lethe.crypto.derive import sha256
from lethe.formats.receipt import encode_report, encode_summary
from lethe.model.agentconfig import ScrubConfig
from lethe.model.names import TERMINATION_LOG
from lethe.model.scrub import ScrubSummary

_NONCE_BYTES = 32


def main() -> int:
    """Scrub the node; return the exit status."""
    parser = argparse.ArgumentParser(description="Scrub every GPU of this node and report.")
    parser.add_argument("--config", required=True, type=_parse_config, help="a ScrubConfig, as JSON")
    parser.add_argument(
        "--boot-id-file", type=Path, default=HostPaths.boot_id, help="where this container sees the node's boot id"
    )
    parser.add_argument(
        "--kernel-folder", type=Path, default=HostPaths.kernel, help="where this container sees the node's /sys/kernel"
    )
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    arguments = parser.parse_args()
    config: ScrubConfig = arguments.config

    paths = HostPaths.from_environment(arguments.boot_id_file, arguments.kernel_folder)
    report, have_ended = scrub_node(config, paths, _say)
    line = encode_report(report)
    summary = ScrubSummary(
        verdict=report.verdict,
        nonce=report.nonce,
        report_sha256=sha256(line).hex(),
        reason=report.reason,
        message=report.message,
    )
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
    arguments.termination_log.write_text(encode_summary(summary), encoding="utf-8")
    _say(f"{report.verdict}{f', {report.reason}: {report.message}' if report.reason else ''}")
    status = 0 if report.verdict == "Cleared" else 1
    if not have_ended:
        # A worker that hangs in the driver cannot be waited for, and an ordinary exit would.
        sys.stderr.flush()
        os._exit(status)
    return status


def _parse_config(text: str) -> ScrubConfig:
    try:
        config = msgspec.json.decode(text, type=ScrubConfig)
        if len(bytes.fromhex(config.nonce)) != _NONCE_BYTES:
            raise argparse.ArgumentTypeError(f"the nonce has {len(config.nonce)} characters, expected 64 hex digits")
    except (msgspec.DecodeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"not a scrub's configuration: {error}") from error
    return config


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
