"""Make up measurements of three kinds, as tables: `python3 make_data.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np

random = np.random.default_rng(0)
centers = random.normal(0, 1, (3, 6))
for name, count in {"train.csv": 600, "test.csv": 200}.items():
    kinds = random.integers(0, 3, count)
    table = np.column_stack([kinds, centers[kinds] + random.normal(0, 0.8, (count, 6))])
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    np.savetxt(Path(sys.argv[1], name), table, delimiter=",", fmt=["%d", *["%.4f"] * 6])
