"""The chart's hooks: `python3 -m lethe.setup_main keys|policies|teardown`.

Each step says in a sentence what it did, on standard output. Exit status 1 when a step is refused or cannot be done;
Helm then stops and shows the last words.
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from lethe.adapters.kube import Kube
from lethe.controller.setup.keys import make_keys
from lethe.controller.setup.policies import apply_policies
from lethe.controller.setup.teardown import tear_down
from lethe.model.errors import LetheError
from lethe.model.names import GPU_PRESENT_LABEL, SYSTEM_NAMESPACE


def main(arguments: list[str] | None = None) -> int:
    """Run one step and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except LetheError as error:
        print(f"lethe-setup: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lethe-setup", description="Steps that the chart's hooks take.")
    steps = parser.add_subparsers(dest="step", required=True)
    keys = steps.add_parser("keys", help="make CA, the key service's certificate and receipt key; keep what exists")
    keys.add_argument("--receipt-key-version", type=int, default=1, help="replace a receipt key of an earlier version")
    policies = steps.add_parser("policies", help="apply the admission policies once every node is classified")
    policies.add_argument("--folder", type=Path, required=True, help="folder of YAML files")
    policies.add_argument("--timeout", type=float, default=180, help="seconds to wait for the operator")
    policies.add_argument("--gpu-nodes", default=f"{GPU_PRESENT_LABEL}=true", help="label of GPU nodes")
    policies.add_argument("--system-namespace", action="append", default=[], help="may be repeated")
    teardown = steps.add_parser("teardown", help="refuse while nodes are held; remove policies, then finalizers")
    teardown.add_argument("--timeout", type=float, default=240, help="seconds to wait for scrubs and for the operator")
    return parser


async def _run(options: argparse.Namespace) -> None:
    async with await Kube.connect() as kube:
        match options.step:
            case "keys":
                await make_keys(kube, datetime.now(UTC), _say, options.receipt_key_version)
            case "policies":
                namespaces = (*options.system_namespace, SYSTEM_NAMESPACE)
                await apply_policies(kube, options.folder, namespaces, options.gpu_nodes, options.timeout, _say)
            case "teardown":
                await tear_down(kube, options.timeout, _say)


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
