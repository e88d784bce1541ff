"""The command `lethe`, which is also the kubectl plugin `kubectl lethe`.

One module per noun. An error raised on purpose is printed as one sentence and ends with exit status 1; anything else
is a defect and shows its traceback.
"""

import sys

import typer

from lethe.cli import dataset, key, node, receipt, scrub
from lethe.model.errors import LetheError

app = typer.Typer(
    name="lethe",
    help="Encrypted datasets, keys, GPU nodes, scrubs and their receipts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(key.app, name="key")
app.add_typer(node.app, name="node")
app.add_typer(receipt.app, name="receipt")
app.command("scrub")(scrub.scrub)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except LetheError as error:
        print(f"lethe: {error}", file=sys.stderr)
        sys.exit(1)
