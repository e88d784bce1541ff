"""What keyfetch leaves in the pod for a reader of a dataset, next to the keys."""

from lethe.model.resources import IndexPin, Resource, Storage


class DatasetSource(Resource, frozen=True, kw_only=True):
    """`/run/lethe/datasets/<name>/source.json`. The keys of each epoch lie beside it as `dek.<epoch>`, 32 raw bytes."""

    name: str
    dataset_id: str
    """32 hex digits."""
    index: IndexPin
    storage: Storage
    credentials: str = ""
    """Folder with a file per credential, such as AWS_ACCESS_KEY_ID; empty for storage without credentials."""
