"""The demo: `python3 -m tests.demo` runs the main job, `python3 -m tests.demo leak` shows why it is needed."""

import sys

from tests.cluster.errors import ClusterError
from tests.demo import leak, story


def main() -> int:
    """Run the demo that the first argument names."""
    plays = {"": story.play, "leak": leak.play}
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    if chosen not in plays:
        print(f"demo: found {chosen!r}, expected nothing or: leak", file=sys.stderr)
        return 2
    try:
        plays[chosen]()
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
