"""Cats: their proportions and their heads."""

import numpy as np

from .outlines import curve, ellipse, mirrored, moved, smooth
from .paints import BLACK, WHITE, Rng, mix, tint
from .pen import Pen, eye
from .pets import EYES, PINK, Build, Coat, furry, muzzle_lines, pet

CAT_EYE = smooth([(-1, 0.2), (-0.4, -0.62), (0.35, -0.75), (1, -0.3), (0.45, 0.6), (-0.35, 0.68)])


def cat(pen: Pen, rng: Rng) -> None:
    """A cat, painted near the middle of the picture."""
    pet(pen, rng, _build)


def _build(rng: Rng) -> Build:
    sway = rng.normal(0, 0.12, 4)
    tail = [
        (0, 0),
        (-0.3, -0.1 + sway[0]),
        (-0.45, -0.5 + sway[1]),
        (-0.35 + sway[2], -0.9),
        (-0.6 + sway[3], -1.1),
    ]
    head_size, leg = rng.uniform(0.38, 0.48), rng.uniform(0.46, 0.58)
    return Build(_head, head_size, leg, 0.25, 0.24, tail, [0.085, 0.08, 0.075, 0.065, 0.05])


def _head(pen: Pen, rng: Rng, coat: Coat, yaw: float, pitch: float) -> None:
    """A cat's face: pointed ears, slit pupils, a small muzzle and whiskers. Radius about 1."""
    _ears(pen, rng, coat, yaw)
    wide = rng.uniform(0.9, 1.02)
    skull = [(0, -0.8), (0.5, -0.72), (0.86, -0.3), (wide, 0.2), (0.6, 0.62), (0, 0.8)]
    furry(pen, rng, coat, smooth(mirrored(skull)))
    for x in (-0.2, 0, 0.2):
        mark = [(x * 1.3, -0.74), (x * 0.8 + yaw * 0.2, -0.42)]
        pen.line(moved(mark, 0, pitch * 0.3), 0.05, coat.mark)
    x, y = yaw * 0.45, 0.34 + pitch * 0.4
    for side in (-1, 1):
        pen.fill(ellipse(x + side * 0.18, y, 0.25, 0.2, side * 12), coat.pale, relief=0.8)
    pen.fill(ellipse(x, y + 0.22, 0.17, 0.12), coat.pale, relief=0.6)
    iris, slit = tint(rng, EYES, 8), rng.uniform(0.12, 0.4)
    size = rng.uniform(0.2, 0.26)
    for side in (-1, 1):
        place = pen.at(x * 0.8 + side * 0.42, -0.1 + pitch * 0.4, size, turn=-side * 4)
        eye(place, CAT_EYE * (side * (1 - side * yaw * 0.3), 1), iris, (slit, 0.66))
    muzzle_lines(pen, x * 1.08, y - 0.1, 0.14, coat)
    _whiskers(pen, rng, coat, x, y)


def _ears(pen: Pen, rng: Rng, coat: Coat, yaw: float) -> None:
    """Two pointed ears, pink inside."""
    tip = rng.uniform(1.15, 1.4)
    flap = [(0.14, -0.6), (0.3, -0.92), (0.66, -tip), (0.86, -0.95), (0.93, -0.25)]
    for side in (-1, 1):
        reach = side * (1 - side * yaw * 0.25)
        outline = smooth(np.array(flap) * (reach, 1), 4)
        furry(pen, rng, coat, outline, fluff=0.5)
        centre = moved(outline.mean(0), 0, 0.08)
        pen.fill((outline - centre) * 0.6 + centre, mix(PINK, coat.base, 0.4), relief=0.6)


def _whiskers(pen: Pen, rng: Rng, coat: Coat, x: float, y: float) -> None:
    """Four hairs on each side of a muzzle at (x, y), pale before a dark coat and the reverse."""
    droops, hairs = rng.normal(0, 0.06, (2, 4)), []
    for side, row in zip((-1, 1), droops, strict=True):
        for k, droop in enumerate(row):
            start = (x + side * 0.26, y - 0.04 + 0.05 * k)
            end = (x + side * 1.15, y - 0.24 + 0.17 * k + droop)
            middle = (x + side * 0.7, (start[1] + end[1]) / 2 - 0.05)
            hairs.append(curve([start, middle, end], 4))
    dark = sum(coat.base) < 560
    pen.line(hairs, 0.012, mix(coat.pale, WHITE, 0.8) if dark else mix(coat.base, BLACK, 0.5))
