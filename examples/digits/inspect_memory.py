"""Read all fresh video memory of this container's GPUs, before anything is written to it.

    python3 inspect_memory.py                 say what is there
    python3 inspect_memory.py --expect-zeros  and fail when anything is

Exit status: 0, or 1 when zeros were expected and something else was found.
"""

import argparse
import re
import sys

from video_memory import open_gpus

SECRET = re.compile(rb"LETHE-CANARY-[0-9a-f]{32}")


def main() -> int:
    """Read, count, search, and say it in plain sentences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect-zeros", action="store_true", help="fail when a byte is not zero")
    arguments = parser.parse_args()
    gpus = open_gpus()
    total = residue = 0
    secrets: dict[bytes, int] = {}
    for gpu in gpus:
        gpu.activate()
        for address, size in gpu.take_everything():
            data = gpu.download(address, size)
            total += size
            residue += size - data.count(0)
            for secret in SECRET.findall(data):
                secrets[secret] = secrets.get(secret, 0) + 1
    print(f"fresh video memory: read {total:,} bytes on {len(gpus)} GPUs, {residue:,} of them not zero", flush=True)
    for secret, count in sorted(secrets.items()):
        print(f"somebody's secret, {count} times: {secret.decode()}", flush=True)
    return 1 if arguments.expect_zeros and residue else 0


if __name__ == "__main__":
    sys.exit(main())
