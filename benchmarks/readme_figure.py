"""Draw the README's figure from drawn pictures: `python benchmarks/readme_figure.py`."""

from pathlib import Path

import resnet_kit as rk
from resnet_kit.drawn import ANIMALS, draw

PICTURES = [(name, index) for index in (2, 5, 9) for name in ANIMALS]

figure = rk.picture_grid([draw(name, index) for name, index in PICTURES], columns=6)
figure.savefig(Path(__file__).resolve().parent.parent / "results" / "readme.png", dpi=110)
