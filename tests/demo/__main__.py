"""The demo: `python3 -m tests.demo` runs the main job, `leak` shows why that is needed, `down` cleans up."""

import sys

from tests.cluster.bring_up import is_up
from tests.cluster.choice import choose
from tests.cluster.errors import ClusterError
from tests.common.world import World
from tests.demo import leak, story


def main() -> int:
    """Run the demo that the first argument names."""
    plays = {"": story.play, "leak": leak.play, "down": take_down}
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    if chosen not in plays:
        print(f"demo: found {chosen!r}, expected nothing or one of: leak, down", file=sys.stderr)
        return 2
    try:
        plays[chosen]()
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def take_down() -> None:
    """Remove the cluster, or, from one that goes on, all that was put there."""
    provider = choose()
    if is_up(provider):
        World(provider).remove()
    provider.down()


if __name__ == "__main__":
    sys.exit(main())
