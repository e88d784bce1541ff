"""Train a small classifier of handwritten digits.

    python3 train.py --dataset digits          an encrypted dataset of this job, through `lethe.data`
    python3 train.py --folder /data/digits     the same files in the clear

Names are `<split>/<label>/<number>.png`. Every batch goes through video memory: the files' bytes are copied to the GPU
and decoded from what comes back, and so are the weights after each epoch. (The arithmetic itself is numpy's, so that
the example runs on any driver.) The model and its metrics are written to the job's outputs.

Exit status: 0, or 1 when the accuracy on the test split stays below `--require-accuracy`.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from video_memory import Gpu, open_gpus

HIDDEN = 64
BATCH = 64
RATE = 0.2


def read_files(arguments: argparse.Namespace) -> list[tuple[str, bytes]]:
    """Return names and contents of all images."""
    if arguments.folder:
        root = Path(arguments.folder)
        return [("/".join(path.parts[-3:]), path.read_bytes()) for path in sorted(root.rglob("*.png"))]
    import lethe.data

    dataset = lethe.data.open(arguments.dataset)
    return list(zip(dataset.names, dataset.__getitems__(range(len(dataset))), strict=True))


def through_gpu(gpu: Gpu, files: Sequence[bytes]) -> list[bytes]:
    """Copy files to video memory and return what comes back from it."""
    address = gpu.upload(b"".join(files))
    returned = gpu.download(address, sum(map(len, files)))
    ends = np.cumsum([len(file) for file in files])
    return [returned[end - len(file) : end] for file, end in zip(files, ends, strict=True)]


def decode(files: Iterable[bytes]) -> np.ndarray:
    """Return pixels in 0..1, shape (files, 64)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)), np.float32).ravel() / 255 for file in files])


class Network:
    """64 pixels, one hidden layer, ten classes; plain gradient descent with cross entropy."""

    def __init__(self, random: np.random.Generator) -> None:
        self.w1 = random.normal(0, 0.2, (64, HIDDEN)).astype(np.float32)
        self.b1 = np.zeros(HIDDEN, np.float32)
        self.w2 = random.normal(0, 0.2, (HIDDEN, 10)).astype(np.float32)
        self.b2 = np.zeros(10, np.float32)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return hidden activations and class probabilities."""
        hidden = np.maximum(x @ self.w1 + self.b1, 0)
        logits = hidden @ self.w2 + self.b2
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return hidden, exponentials / exponentials.sum(axis=1, keepdims=True)

    def step(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Descend once."""
        hidden, error = self.forward(x)
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        back = (error @ self.w2.T) * (hidden > 0)
        self.w2 -= RATE * hidden.T @ error
        self.b2 -= RATE * error.sum(axis=0)
        self.w1 -= RATE * x.T @ back
        self.b1 -= RATE * back.sum(axis=0)

    def to_bytes(self) -> bytes:
        """Return all weights as they lie in memory."""
        return b"".join(array.tobytes() for array in (self.w1, self.b1, self.w2, self.b2))

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of labels that are predicted right."""
        return float((self.forward(x)[1].argmax(axis=1) == labels).mean())


def main() -> int:
    """Train, say how it goes, write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", help="name of an encrypted dataset of this job")
    source.add_argument("--folder", help="folder of plain files")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--require-accuracy", type=float, default=0.0)
    arguments = parser.parse_args()

    files = read_files(arguments)
    print(f"read {len(files)} images", flush=True)
    gpus = open_gpus()
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split in ("train", "test"):
        chosen = [(name, data) for name, data in files if name.startswith(split + "/")]
        pixels = []
        for number, start in enumerate(range(0, len(chosen), BATCH)):
            gpu = gpus[number % len(gpus)]
            gpu.activate()
            pixels.append(decode(through_gpu(gpu, [data for _, data in chosen[start : start + BATCH]])))
        splits[split] = np.concatenate(pixels), np.array([int(name.split("/")[1]) for name, _ in chosen])

    random = np.random.default_rng(0)
    network = Network(random)
    gpus[0].activate()
    weights = gpus[0].upload(network.to_bytes())
    x, labels = splits["train"]
    for epoch in range(arguments.epochs):
        for chosen in np.array_split(random.permutation(len(x)), max(1, len(x) // BATCH)):
            network.step(x[chosen], labels[chosen])
        gpus[0].overwrite(weights, network.to_bytes())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: accuracy {network.accuracy(*splits['test']):.3f}", flush=True)
    accuracy = network.accuracy(*splits["test"])
    print(f"accuracy on {len(splits['test'][0])} test images: {accuracy:.3f}", flush=True)

    if outputs := os.environ.get("LETHE_OUTPUTS"):
        np.savez(Path(outputs) / "model.npz", w1=network.w1, b1=network.b1, w2=network.w2, b2=network.b2)
        (Path(outputs) / "metrics.json").write_text(json.dumps({"accuracy": accuracy, "images": len(files)}))
        print("wrote model.npz and metrics.json to the outputs", flush=True)
    return 0 if accuracy >= arguments.require_accuracy else 1


if __name__ == "__main__":
    sys.exit(main())
