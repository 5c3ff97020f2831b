"""Forty-eight kinds of flower: so many petals, of a shape, in a colour.

Everything else about a flower is random and shared by all kinds: size, turn, tilt, disc, leaves.
"""

from functools import partial
from itertools import product

import numpy as np

from .backgrounds import leaf
from .outlines import ellipse, limb, mirrored, smooth, turned
from .paints import BLACK, BRIGHT, NATURAL, WHITE, Rng, mix, tint
from .pen import Pen, somewhere

PETALS = (4, 5, 8, 13)
# The right half of a petal that is 1 long and 2 wide, from its tip down to the disc.
SHAPES = {
    "round": [(0, -1), (0.65, -0.95), (1, -0.66), (0.7, -0.3), (0, 0)],
    "pointed": [(0, -1.12), (0.3, -0.86), (0.9, -0.5), (0.7, -0.24), (0, 0)],
    "notched": [(0, -0.78), (0.5, -1.02), (1, -0.78), (0.6, -0.34), (0, 0)],
}
COLOURS = {"red": BRIGHT[0], "yellow": BRIGHT[2], "blue": BRIGHT[5], "white": BRIGHT[8]}


def flower(pen: Pen, rng: Rng, *, petals: int, shape: str, colour: str) -> None:
    """A flower seen from above or a little from the side, on its stalk."""
    pen = pen.at(*somewhere(pen, rng, 0.3), rng.uniform(0.26, 0.46), turn=rng.normal(0, 15))
    green, hue = tint(rng, NATURAL[:5]), tint(rng, (COLOURS[colour],))
    bend = rng.normal(0, 0.2)
    pen.fill(limb([(0, 0), (bend, 0.8), (0.5 * bend, 1.7)], [0.05, 0.05, 0.07]), green)
    for side in rng.choice([-1, 1], rng.integers(1, 3)):
        leaf(pen.at(bend, 1.1, turn=side * rng.uniform(35, 75)), rng, green, 0.7)
    breadth = min(0.48, 2.5 / petals) * rng.uniform(0.85, 1.1)
    tilt, start = rng.uniform(0.7, 1), rng.uniform(0, 360)
    outline = smooth(np.array(mirrored(SHAPES[shape])) * (breadth, 1), 4)
    for k in rng.permutation(petals):
        petal = turned(
            outline * rng.uniform(0.92, 1.05), start + (k + rng.normal(0, 0.05)) * 360 / petals
        )
        shade = mix(hue, BLACK if rng.random() < 0.5 else WHITE, rng.uniform(0, 0.12))
        pen.fill(petal * (1, tilt) * 1.04, mix(hue, BLACK, 0.35), relief=0.2)
        pen.fill(petal * (1, tilt), shade, relief=0.7)
    disc = tint(rng, (BRIGHT[1], BRIGHT[2], BRIGHT[9]))
    pen.fill(ellipse(0, 0, 0.2, 0.2 * tilt), disc, relief=1.2)


KINDS = {
    f"{petals} {shape} {colour}": partial(flower, petals=petals, shape=shape, colour=colour)
    for petals, shape, colour in product(PETALS, SHAPES, COLOURS)
}
