"""The init container that fetches keys: `python3 -m lethe.keyfetch_main --config JSON`.

Exit statuses are listed in `lethe.agents.keyfetch`.
"""

import argparse
import logging
import signal
import sys
import time

import msgspec

from lethe.adapters.keyservice import KeyserviceClient
from lethe.agents.keyfetch import ExitStatus, Keyfetch, Places
from lethe.model.agentconfig import KeyfetchConfig
from lethe.model.errors import InputError


def main() -> int:
    """Fetch the keys and return the exit status."""
    parser = argparse.ArgumentParser(prog="lethe.keyfetch_main", description="Fetches the keys of a job's datasets.")
    parser.add_argument("--config", required=True, help="JSON of lethe.model.agentconfig.KeyfetchConfig")
    arguments = parser.parse_args()
    # Process 1 of a container ignores SIGTERM unless it asks for it: a deleted pod would wait its whole grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Plain sentences: the operator shows the last one in the job's status.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    places = Places()
    try:
        config = msgspec.json.decode(arguments.config, type=KeyfetchConfig)
        service = KeyserviceClient(config.service_url, config.ca_bundle)
    except (msgspec.DecodeError, InputError) as error:
        sentence = f"keyfetch's configuration is wrong: {error}; operator and image must be of one version"
        print(sentence, file=sys.stderr)
        places.termination_log.write_text(sentence, encoding="utf-8")
        return ExitStatus.CONFIGURATION
    return Keyfetch(config, service, places, time.monotonic, time.sleep).run()


if __name__ == "__main__":
    sys.exit(main())
