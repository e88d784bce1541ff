"""The command `lethe`, which is also the kubectl plugin `kubectl lethe`.

One module per noun; only that of the command that is run is loaded, for a client of the API server takes longer to load
than many a command takes. Processes that a command starts load this module too, and need nothing of it.

An error raised on purpose is printed as one sentence and ends with exit status 1; anything else is a defect and shows
its traceback.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from lethe.model.errors import LetheError

if TYPE_CHECKING:
    import typer

_NOUNS: Final = ("dataset", "key", "node", "receipt")


def build_app(words: list[str]) -> "typer.Typer":
    """Return the command line that these words need: one noun, or all of it, for help."""
    import typer

    app = typer.Typer(
        name="lethe",
        help="Encrypted datasets, keys, GPU nodes, scrubs and their receipts.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    wanted = words[0] if words else ""
    for noun in _NOUNS:
        if wanted == noun or wanted not in (*_NOUNS, "scrub"):
            app.add_typer(import_module(f"lethe.cli.{noun}").app, name=noun)
    if wanted not in _NOUNS:
        app.command("scrub")(import_module("lethe.cli.scrub").scrub)
    if wanted == "scrub":
        # A single command would lose its name.
        app.callback()(lambda: None)
    return app


def main() -> None:
    """Run the command line."""
    try:
        build_app(sys.argv[1:])()
    except LetheError as error:
        print(f"lethe: {error}", file=sys.stderr)
        sys.exit(1)
