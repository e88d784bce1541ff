"""Draw small pictures of four shapes: `python3 make_data.py FOLDER`."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square", "triangle")
COUNTS = {"train": 100, "test": 25}
"""Pictures of each shape."""


def draw(shape: str, noise: random.Random) -> Image.Image:
    """Return one picture, the shape anywhere in it and of any size, with noise."""
    image = Image.new("L", (32, 32))
    canvas = ImageDraw.Draw(image)
    size = noise.randint(10, 20)
    left, top = noise.randint(1, 30 - size), noise.randint(1, 30 - size)
    right, bottom = left + size, top + size
    if shape == "circle":
        canvas.ellipse((left, top, right, bottom), fill=255)
    elif shape == "square":
        canvas.rectangle((left, top, right, bottom), fill=255)
    elif shape == "triangle":
        canvas.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=255)
    else:
        canvas.line((left, top, right, bottom), fill=255, width=4)
        canvas.line((left, bottom, right, top), fill=255, width=4)
    image.putdata([max(0, min(255, value + noise.randint(-40, 40))) for value in image.tobytes()])
    return image


noise = random.Random(0)
for split, count in COUNTS.items():
    for shape in SHAPES:
        folder = Path(sys.argv[1], split, shape)
        folder.mkdir(parents=True)
        for number in range(count):
            draw(shape, noise).save(folder / f"{number:04}.png")
