"""Makes the test vectors again: python3 -m tests.vectors."""

from tests.vectors.scenarios import all_vectors
from tests.vectors.sealed_keys import FILE, SealedKeys
from tests.vectors.vector import FOLDER, encode


def main() -> None:
    """Write what the scenarios make, and remove what they no longer make."""
    keys = SealedKeys.load()
    made = {f"{name}.json": encode(vector) for name, vector in all_vectors(keys).items()}
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, data in made.items():
        (FOLDER / name).write_bytes(data)
    FILE.write_bytes(keys.encode())
    print(f"{len(made)} vectors, {sum(map(len, made.values()))} bytes, in {FOLDER}")


if __name__ == "__main__":
    main()
