"""`lethe dataset`: everything that its owner does with a dataset.

1. `seal` prints the manifest to apply. The key of the key service comes from the cluster, or from a file; the recovery
   key is always a file, so that its owner can open the dataset without anybody's help.
2. The others need what pins the dataset: its manifest, the job whose outputs it is, or storage URL, dataset id and
   index; and whatever reads or rewrites keys needs a private key (`--identity`).
3. Storage credentials are `--credentials-dir`, or those of the environment, by the names in
   `lethe.adapters.objectstore`.
"""

import typer

from lethe.cli import dataset_keys, dataset_manifest, dataset_read, dataset_seal

app = typer.Typer(
    help="Encrypted datasets: seal, info, ls, cat, verify, unseal, manifest; recipients, rotate, prune.",
    no_args_is_help=True,
)
app.command()(dataset_seal.seal)
app.command()(dataset_read.info)
app.command("ls")(dataset_read.list_files)
app.command()(dataset_read.cat)
app.command()(dataset_read.verify)
app.command()(dataset_read.unseal)
app.command()(dataset_manifest.manifest)
app.add_typer(dataset_keys.recipients, name="recipients")
app.command()(dataset_keys.rotate)
app.command("prune")(dataset_keys.prune_dataset)
