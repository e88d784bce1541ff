"""The image that runs the examples: PyTorch from Debian, which is small as it knows no CUDA, the rest as wheels.

1. Debian's PyTorch depends on far more than it loads; packages that no example needs are left out by name.
2. It was built for NumPy 1, and pyarrow has versions that want NumPy 2: hence the bounds.
3. Where there is no apt, there is no such image.
"""

from pathlib import Path

from tests.cluster import debian, images
from tests.cluster.builders import BASE_PACKAGES
from tests.cluster.folders import PROJECT

EXAMPLES = ("files", "images", "text")
IMAGE = "localhost/lethe-examples:dev"
UNUSED = (
    "gdal-data", "iso-codes", "libgl1-mesa-dri", "libllvm15", "libtorch-test", "libz3-4", "proj-data", "python3-future",
    "python3-hypothesis", "python3-mpmath", "python3-numpy", "python3-sympy",
)  # fmt: skip
RECIPE = images.Recipe(
    reference=IMAGE,
    containerfile=Path(__file__).with_name("examples") / "Containerfile",
    requirements=("lethe-operator[data]", "datasets", "numpy<2", "pillow", "pyarrow<25"),
    with_lethe=True,
    folders={f"examples/{name}": PROJECT / "examples" / name for name in EXAMPLES},
    compiles=lambda folder: debian.unpack("python3-torch", folder, there=BASE_PACKAGES, without=UNUSED),
)
