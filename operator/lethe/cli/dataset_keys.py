"""`lethe dataset recipients`, `rotate`, `prune`: who can open a dataset, and with which keys it is encrypted.

1. Changing recipients rewrites the keyring only. Whoever could open the dataset before may have kept its key, and a
   bucket with versions keeps the old keyring: only `rotate --dek` shuts them out, of what is read from then on.
2. `rotate --dek` prints a manifest; the old one works until `prune --yes` removes what only it needs.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from lethe.cli.dataset_manifest import check_output, dump_manifest, write_manifest
from lethe.cli.dataset_seal import Recipients, RecoveryKeys, parse_recipients
from lethe.cli.dataset_target import Identity, OptionalIdentity, OutputFormat, Target, Workers, say, takes_dataset
from lethe.cli.key import PIPE_COLUMNS, read_identity
from lethe.cli.progress import ProgressReport
from lethe.data.access import Access
from lethe.data.journal import journal_path, open_journal
from lethe.data.recipients import (
    OpenKeyring,
    add_recipients,
    list_recipients,
    open_for_change,
    opened_by,
    read_keyring,
    remove_recipients,
    replace_recipients,
)
from lethe.data.rotation import abandon_rotation, find_unneeded, prune, rotate_key
from lethe.data.seal import mention
from lethe.formats.keyring import open_keyring
from lethe.model.errors import UsageError

recipients = typer.Typer(help="Who can open a dataset: list, add, remove.", no_args_is_help=True)


@takes_dataset
def list_all(target: Target, identity: OptionalIdentity = None, output_format: OutputFormat = "text") -> None:
    """List the recipients; with --identity, check the keyring and say which of them the private key is."""
    keyring, _ = read_keyring(target.place.store, target.dataset_id)
    mine: set[str] = set()
    if identity is not None:
        private_key = read_identity(identity)
        open_keyring(keyring, private_key)
        mine = opened_by(keyring, private_key)
    found = list_recipients(keyring)
    if output_format == "json":
        rows = [
            {
                "name": item.name,
                "suite": item.suite,
                "tenant": item.tenant,
                "criticality": item.criticality,
                "epochs": item.epochs,
                "recovery": item.is_recovery,
                "opensWithIdentity": item.name in mine if identity else None,
            }
            for item in found
        ]
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    table = Table(box=None, pad_edge=False)
    for column in ("RECIPIENT", "SUITE", "EPOCHS", "THIS KEY"):
        table.add_column(column)
    for item in found:
        table.add_row(item.name, item.suite, ", ".join(map(str, item.epochs)), "yes" if item.name in mine else "")
    console = Console(markup=False)
    (console if console.is_terminal else Console(markup=False, width=PIPE_COLUMNS)).print(table)
    if identity is None:
        say("not checked: only a recipient's private key (--identity) tells whether this keyring is genuine")


@takes_dataset
def add(
    target: Target,
    identity: Identity,
    recipient: Recipients = [],  # noqa: B006
    recovery_key: RecoveryKeys = [],  # noqa: B006
) -> None:
    """Let more recipients open the dataset."""
    if not recipient and not recovery_key:
        raise UsageError("say whom to add: --recipient NAMESPACE/NAME[@VERSION][=FILE] or --recovery-key FILE")
    opened = _open(target, identity)
    namespace = opened.keyring.stanzas[0].namespace
    added = add_recipients(target.place.store, opened, parse_recipients(recipient, recovery_key, namespace))
    print(f"added {', '.join(added)} to the recipients of dataset {target.dataset_id}")


@takes_dataset
def remove(
    target: Target,
    names: Annotated[list[str], typer.Argument(help="As `list` names them: acme/default@4, recovery:2.")],
    identity: Identity,
    force: Annotated[bool, typer.Option("--force", help="Remove the last recovery key, too.")] = False,
) -> None:
    """Take recipients out of the keyring."""
    opened = _open(target, identity)
    remove_recipients(target.place.store, opened, names, is_last_recovery_key_expendable=force)
    print(f"removed {', '.join(names)} from the recipients of dataset {target.dataset_id}")
    say("whoever could open it may have kept its key: `lethe dataset rotate --dek` encrypts it anew")


@takes_dataset
def rotate(
    target: Target,
    identity: Identity,
    recipient: Recipients,
    recovery_key: RecoveryKeys,
    dek: Annotated[bool, typer.Option("--dek", help="Encrypt all objects anew, with a new key.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the new manifest, with --dek.")
    ] = None,
    workers: Workers = None,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Remove what a rotation that did not end has written.")
    ] = False,
) -> None:
    """Seal a dataset to these recipients and nobody else; with --dek, encrypt it anew and print the new manifest."""
    if (abandon or output) and not dek:
        raise UsageError("--abandon and --output go with --dek: without it, only the keyring is rewritten")
    if not dek:
        opened = _open(target, identity)
        namespace = opened.keyring.stanzas[0].namespace
        replace_recipients(target.place.store, opened, parse_recipients(recipient, recovery_key, namespace))
        names = [item.name for item in list_recipients(read_keyring(target.place.store, target.dataset_id)[0])]
        print(f"dataset {target.dataset_id} is sealed to {', '.join(names)}")
        return
    if target.manifest is None:
        raise UsageError("--dek makes a new manifest from the old one: name that with --manifest FILE")
    check_output(output)
    with open_journal(journal_path("rotate", target.storage)) as journal:
        opened = _open(target, identity)
        access = _access(target, opened)
        if abandon:
            say(f"removed {abandon_rotation(access, journal)} objects from {target.storage.url}")
            return
        namespace = opened.keyring.stanzas[0].namespace
        chosen = parse_recipients(recipient, recovery_key, namespace)
        with ProgressReport("rotating") as progress:
            pin = rotate_key(access, opened, chosen, journal, workers=workers, progress=progress, say=say)
        document = yaml.safe_load(yaml.safe_dump(target.manifest))
        document["spec"]["index"] = msgspec.to_builtins(pin)
        write_manifest(dump_manifest(document), output)
        journal.remove()
    say("apply this manifest; jobs that read the old version go on until `lethe dataset prune --yes` with the new one")


@takes_dataset
def prune_dataset(
    target: Target,
    identity: Identity,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only counted.")] = False,
) -> None:
    """Remove objects and keys that this version of the dataset does not need: other versions stop working."""
    opened = _open(target, identity)
    access = _access(target, opened)
    unneeded = find_unneeded(access, opened.keyring)
    if unneeded.strange:
        say(f"left alone, because no dataset has such names: {mention(unneeded.strange)}")
    epochs = f" and the keys of epochs {', '.join(map(str, unneeded.epochs))}" if unneeded.epochs else ""
    what = f"{len(unneeded.objects)} objects of {decimal(unneeded.bytes)}{epochs}"
    if not yes:
        print(f"{what} are not needed by this version: --yes removes them, and no other manifest works then")
        return
    prune(access, opened, unneeded)
    print(f"removed {what}")


def _open(target: Target, identity: Path) -> OpenKeyring:
    return open_for_change(target.place.store, target.dataset_id, read_identity(identity))


def _access(target: Target, opened: OpenKeyring) -> Access:
    return Access(target.place, target.dataset_id, target.require_pin(), opened.deks)


recipients.command("list")(list_all)
recipients.command("add")(add)
recipients.command("remove")(remove)
