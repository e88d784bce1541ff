"""Reads every file of a dataset of this pod, or of a folder, and prints how long that took: `read_all dataset NAME`."""

import os
import sys
from time import perf_counter


def main() -> None:
    """Time one pass over all files, imports and opening included."""
    what, where = sys.argv[1:]
    began, total = perf_counter(), 0
    if what == "dataset":
        import lethe.data

        files = lethe.data.open(where)
        for number in range(len(files)):
            total += len(files[number])
    else:
        for folder, _, names in os.walk(where):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    total += len(file.read())
    print(perf_counter() - began, total)


if __name__ == "__main__":
    main()
