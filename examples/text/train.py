"""Learn the topic of messages that Hugging Face `datasets` streams: `python3 train.py --dataset messages`.

The dataset holds `train/*.jsonl` and `test/*.jsonl`, rows with `text` and `topic`, and `topics.txt`. Rows are decrypted
as they are read; none is written to a file.
"""

import argparse
import itertools
import json
import zlib

import datasets
import fsspec
import torch
from torch import nn
from torch.utils.data import DataLoader

import lethe.data

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BUCKETS = 5000  # words are told apart by a hash: no vocabulary has to be made first

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--dataset", required=True, help="name of an encrypted dataset of this job")
parser.add_argument("--epochs", type=int, default=4)
arguments = parser.parse_args()

with fsspec.open(f"lethe://{arguments.dataset}/topics.txt", "rt", encoding="utf-8") as lines:
    topics = lines.read().split()


def stream(split: str) -> datasets.IterableDataset:
    """Return the rows of a split."""
    files = f"lethe://{arguments.dataset}/{split}/*.jsonl"
    return datasets.load_dataset("json", data_files=files, split="train", streaming=True)


def collate(rows: list[dict[str, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the words of all rows, where each row begins, and the rows' topics."""
    words = [row["text"].split() for row in rows]
    begins = [0, *itertools.accumulate(len(row) for row in words[:-1])]
    hashes = [zlib.crc32(word.encode()) % BUCKETS for row in words for word in row]
    wanted = [topics.index(row["topic"]) for row in rows]
    return torch.tensor(hashes).to(DEVICE), torch.tensor(begins).to(DEVICE), torch.tensor(wanted).to(DEVICE)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(BUCKETS, 32)
        self.topics = nn.Linear(32, len(topics))

    def forward(self, words: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
        return self.topics(self.words(words, begins))


torch.manual_seed(0)
network = Classifier().to(DEVICE)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for epoch in range(1, arguments.epochs + 1):
    rows = stream("train").shuffle(seed=epoch, buffer_size=500)
    for words, begins, wanted in DataLoader(rows, batch_size=32, collate_fn=collate):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(words, begins), wanted)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}", flush=True)

with torch.no_grad():
    batches = DataLoader(stream("test"), batch_size=32, collate_fn=collate)
    hits = torch.cat([network(words, begins).argmax(1) == wanted for words, begins, wanted in batches])
accuracy = hits.float().mean().item()
torch.save(network.state_dict(), lethe.data.output("model.pt"))
with lethe.data.output("metrics.json") as file:
    file.write(json.dumps({"accuracy": accuracy, "classes": len(topics)}).encode())
print(f"accuracy on {len(hits)} messages: {accuracy:.3f}", flush=True)
