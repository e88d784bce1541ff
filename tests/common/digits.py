"""scikit-learn's handwritten digits as image files, each with a secret in its description."""

import secrets
from pathlib import Path

CANARY_PREFIX = "LETHE-CANARY-"
TEST_SHARE = 5
"""Every fifth image belongs to the test split."""


def make_canary() -> str:
    """Return a secret that no other run has."""
    return CANARY_PREFIX + secrets.token_hex(16)


def write_digits(folder: Path, canary: str) -> int:
    """Write 1,797 PNG files of 8x8 pixels named `<split>/<label>/<number>.png` and return their count.

    The canary stands in each image's description, as a patient's name would in a medical image.
    """
    from PIL import Image, PngImagePlugin
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if number % TEST_SHARE == 0 else "train") / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        description = PngImagePlugin.PngInfo()
        description.add_text("Description", canary)
        Image.fromarray((pixels * 255 / 16).astype("uint8")).save(path, pnginfo=description)
    return len(digits.images)
