"""Entry point of the outputs sidecar: `python3 -m lethe.outputs_main --config JSON`.

SIGTERM is blocked before anything else is loaded: as process 1 of its container it would otherwise be ignored, and a
training that ends at once would be waited for until the grace period is over.
"""

import argparse
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the sidecar until it exits the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    import logging

    import msgspec

    from lethe.agents.outputs import run
    from lethe.model.agentconfig import OutputsConfig
    from lethe.model.names import CREDENTIALS_PATH, OUTPUTS_CREDENTIALS, OUTPUTS_PATH, OUTPUTS_VARIABLE, TERMINATION_LOG

    parser = argparse.ArgumentParser(
        description="Seals a job's outputs while it runs, and when its training has ended."
    )
    parser.add_argument("--config", required=True, help="OutputsConfig as JSON")
    parser.add_argument("--credentials", default=f"{CREDENTIALS_PATH}/{OUTPUTS_CREDENTIALS}")
    parser.add_argument("--termination-log", default=TERMINATION_LOG)
    parser.add_argument("--state", default="/tmp/lethe-outputs", help="where a restarted container finds its state")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    try:
        config = msgspec.json.decode(arguments.config, type=OutputsConfig)
    except msgspec.MsgspecError as error:
        Path(arguments.termination_log).write_text(f"The sidecar's --config is wrong: {error}.", encoding="utf-8")
        sys.exit(2)
    sys.exit(
        run(
            config,
            folder=Path(os.environ.get(OUTPUTS_VARIABLE, OUTPUTS_PATH)),
            credentials=arguments.credentials if Path(arguments.credentials).is_dir() else None,
            termination_log=Path(arguments.termination_log),
            state_file=Path(arguments.state),
        )
    )


if __name__ == "__main__":
    main()
