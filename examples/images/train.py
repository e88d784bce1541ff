"""Train a small convolutional network on pictures of an encrypted dataset: `python3 train.py --dataset shapes`.

Names are `<split>/<label>/<number>.png`. There is a checkpoint for each epoch; with `--previous`, the outputs of an
earlier job as plain files, training goes on from the last one there.
"""

import argparse
import io
import json
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lethe.data

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Pictures(Dataset):
    def __init__(self, files: lethe.data.EncryptedFiles, split: str) -> None:
        self.files = files
        self.names = [name for name in files.names if name.startswith(f"{split}/")]
        self.labels = sorted({name.split("/")[1] for name in self.names})

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        name = self.names[item]
        pixels = numpy.array(Image.open(io.BytesIO(self.files[name])), numpy.float32) / 255
        return torch.from_numpy(pixels)[None], self.labels.index(name.split("/")[1])


def build(classes: int) -> nn.Module:
    layers = [nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * 4, classes)).to(DEVICE)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--dataset", required=True, help="name of an encrypted dataset of this job")
parser.add_argument("--previous", type=Path, help="folder with the outputs of an earlier job")
parser.add_argument("--epochs", type=int, default=6)
arguments = parser.parse_args()

torch.manual_seed(0)
files = lethe.data.open(arguments.dataset)
train, test = Pictures(files, "train"), Pictures(files, "test")
network = build(len(train.labels))
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
begin = 1
if arguments.previous and (checkpoints := sorted(arguments.previous.glob("checkpoints/*.pt"))):
    state = torch.load(checkpoints[-1], map_location=DEVICE, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    begin = state["epoch"] + 1
    print(f"going on from {checkpoints[-1].name}", flush=True)

for epoch in range(begin, arguments.epochs + 1):
    for pixels, labels in DataLoader(train, batch_size=32, shuffle=True, num_workers=2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(pixels.to(DEVICE)), labels.to(DEVICE))
        loss.backward()
        optimizer.step()
    state = {"epoch": epoch, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, lethe.data.output(f"checkpoints/{epoch:04}.pt"))
    print(f"epoch {epoch}: loss {loss.item():.3f}", flush=True)

with torch.no_grad():
    right = sum(int((network(x.to(DEVICE)).argmax(1).cpu() == labels).sum()) for x, labels in DataLoader(test, 32))
torch.save(network.state_dict(), lethe.data.output("model.pt"))
with lethe.data.output("metrics.json") as file:
    file.write(json.dumps({"accuracy": right / len(test), "classes": len(train.labels)}).encode())
print(f"accuracy on {len(test)} pictures: {right / len(test):.3f}", flush=True)
