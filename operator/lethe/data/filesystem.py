"""The datasets of a job as an fsspec filesystem, `lethe://NAME/path`: what pandas, pyarrow and others read through.

1. Read-only: results go to the outputs folder. Every operation that would write is refused, and says so.
2. A range costs the records that hold it, and each of them is verified before one byte of it is returned. A file that
   is read in small steps is opened record by record.
3. What cannot be read raises its own error. Only a name that is not there is "not found": storage that is away never
   looks like a file that does not exist.
4. Folders follow from the names of files. `info` carries the version of the dataset as ETag, so what others keep of one
   version is not taken for another's.
5. fsspec makes one filesystem a thread; they share one reader for each dataset, which keeps one cache and goes on after
   `fork`. A filesystem pickles without keys.

fsspec finds this module by the entry point `fsspec.specs`; `lethe.data` does not import it.
"""

import errno
import functools
import io
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem

from lethe.data.reader import EncryptedFiles, dataset_names, datasets_folder, open_dataset
from lethe.model.dataset import DatasetSource
from lethe.model.errors import InputError
from lethe.model.names import OUTPUTS_PATH

Keys = Path | tuple[tuple[int, bytes], ...] | None
Info = dict[str, Any]


class LetheFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of the datasets of this job; outside a pod, those of the one dataset that `source` and `keys` open."""

    protocol = "lethe"

    def __init__(
        self,
        source: DatasetSource | None = None,
        keys: str | Path | Mapping[int, bytes] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._source = source
        self._keys: Keys = tuple(sorted(keys.items())) if isinstance(keys, Mapping) else Path(keys) if keys else None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if isinstance(self._keys, tuple):
            raise TypeError("a filesystem with keys in memory does not pickle: keys never go through a pipe or a file")
        made: tuple[Callable[..., Any], tuple[Any, ...]] = super().__reduce__()
        return made

    def info(self, path: str, **kwargs: Any) -> Info:
        """Return name, size and type of a file or folder; raise FileNotFoundError."""
        name, below = _split(self._strip_protocol(path))
        if not name:
            return _folder("")
        files, number = self._find(name, below)
        if number is None:
            return _folder(f"{name}/{below}".rstrip("/"))
        return _file(name, files, number)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Say whether there is such a file or folder; storage that is away is an error, not a no."""
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        """Say whether this is a file."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Say whether this is a folder."""
        return self._kind(path) == "directory"

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Info] | list[str]:
        """Return what is in a folder, or the one file."""
        found = self.info(path)
        if found["type"] == "file":
            entries = [found]
        elif not found["name"]:
            entries = [_folder(name) for name in self._names()]
        else:
            name, below = _split(found["name"])
            files = self._files(name)
            entries = [
                _folder(f"{name}/{child}") if isinstance(child, str) else _file(name, files, child)
                for child in _children(files.names, f"{below}/" if below else "")
            ]
        return entries if detail else [entry["name"] for entry in entries]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return a file's bytes from `start` to before `end`; negative ones count from its end, as in a slice."""
        files, number = self._open_number(path)
        if start is None and end is None:
            return files[number]
        first, after, _ = slice(start, end).indices(files.sizes[number])
        return files.read_range(number, first, max(after - first, 0))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> "EncryptedFile":
        if mode != "rb":
            self._refuse(path)
        files, number = self._open_number(path)
        return EncryptedFile(files, number, self._strip_protocol(path), block_size)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        outputs = os.environ.get("LETHE_OUTPUTS", OUTPUTS_PATH)
        raise InputError(
            f"lethe:// is read-only: write results into the outputs folder {outputs}, which is sealed and uploaded"
        )

    mkdir = makedirs = rmdir = pipe_file = put_file = cp_file = mv = rm = rm_file = _rm = touch = _refuse

    def _kind(self, path: str) -> str | None:
        try:
            kind: str = self.info(path)["type"]
        except FileNotFoundError:
            return None
        return kind

    def _open_number(self, path: str) -> tuple[EncryptedFiles, int]:
        name, below = _split(self._strip_protocol(path))
        files, number = self._find(name, below)
        if number is None:
            raise IsADirectoryError(errno.EISDIR, "a folder has no bytes", path)
        return files, number

    def _find(self, name: str, below: str) -> tuple[EncryptedFiles, int | None]:
        """Return a dataset and the number of its file `below`, None for a folder; raise FileNotFoundError."""
        files = self._files(name)
        number = bisect_left(files.names, below)
        if number < len(files) and files.names[number] == below:
            return files, number
        if below and next(_children(files.names, f"{below}/"), None) is None:
            raise FileNotFoundError(errno.ENOENT, f"dataset {name!r} has no such file", below)
        return files, None

    def _names(self) -> list[str]:
        return dataset_names() if self._source is None else [self._source.name]

    def _files(self, name: str) -> EncryptedFiles:
        if self._source is not None:
            if name != self._source.name:
                raise FileNotFoundError(errno.ENOENT, f"this filesystem has dataset {self._source.name!r} only", name)
            return _share(self._source, self._keys, "")
        try:
            return _share(name, self._keys, str(datasets_folder()))
        except InputError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), name) from error


class EncryptedFile(io.BufferedReader):
    """One file, open for reading; it keeps one block of plaintext, which is never smaller than a record."""

    def __init__(self, files: EncryptedFiles, number: int, path: str, block_size: int | None) -> None:
        super().__init__(_Records(files, number), max(block_size or 0, files.record_size))
        self.path = path
        self.size = files.sizes[number]


class _Records(io.RawIOBase):
    """A file's bytes, read in steps that end where a record ends, so that the next step opens none again."""

    def __init__(self, files: EncryptedFiles, number: int) -> None:
        self._files = files
        self._number = number
        self._size = files.sizes[number]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"seek to {position}, before the beginning of the file")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = self._position + len(view)
        whole = end - end % self._files.record_size
        length = (whole if self._position < whole else end) - self._position
        count = self._files.read_into(self._number, view[:length], self._position)
        self._position += count
        return count

    def readall(self) -> bytes:
        data = self._files.read_range(self._number, self._position, max(self._size - self._position, 0))
        self._position += len(data)
        return data


@functools.cache
def _share(dataset: str | DatasetSource, keys: Keys, root: str) -> EncryptedFiles:
    """Return this process's reader of a dataset; `root` is where its name is looked up."""
    return open_dataset(dataset, keys=dict(keys) if isinstance(keys, tuple) else keys)


def _children(names: Sequence[str], folder: str) -> Iterator[str | int]:
    """Yield what is in a folder (empty, or with a slash at its end): paths of folders, numbers of files."""
    number = bisect_left(names, folder)
    while number < len(names) and names[number].startswith(folder):
        below = names[number].find("/", len(folder))
        if below < 0:
            yield number
            number += 1
        else:
            child = names[number][:below]
            yield child
            # The character after "/" in the order of names: the first name that is not in that folder any more.
            number = bisect_left(names, child + "0", number)


def _split(path: str) -> tuple[str, str]:
    name, _, below = path.strip("/").partition("/")
    return name, below


def _folder(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


def _file(name: str, files: EncryptedFiles, number: int) -> Info:
    return {
        "name": f"{name}/{files.names[number]}",
        "size": files.sizes[number],
        "type": "file",
        "ETag": files.version,
    }
