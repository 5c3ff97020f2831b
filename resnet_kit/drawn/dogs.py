"""Dogs: their proportions and their heads."""

import numpy as np

from .outlines import ellipse, mirrored, moved, smooth
from .paints import BLACK, Rng, mix, tint
from .pen import ROUND_EYE, Pen, eye
from .pets import EYES, PINK, Build, Coat, furry, muzzle_lines, pet


def dog(pen: Pen, rng: Rng) -> None:
    """A dog, painted near the middle of the picture."""
    pet(pen, rng, _build)


def _build(rng: Rng) -> Build:
    sway = rng.normal(0, 0.12, 4)
    tail = [(0, 0), (-0.22, -0.2 + sway[0]), (-0.34 + sway[1], -0.5), (-0.2 + sway[2], -0.7)]
    plume = rng.uniform(0.05, 0.13)
    proportions = rng.uniform((0.4, 0.5, 0.28, 0.2), (0.5, 0.74, 0.36, 0.26))
    return Build(_head, *proportions, tail, [0.07, plume, plume * 0.9, 0.02])


def _head(pen: Pen, rng: Rng, coat: Coat, yaw: float, pitch: float) -> None:
    """A dog's face: floppy or pricked ears and a long muzzle with a large nose. Radius about 1."""
    pricked = rng.random() < 0.22
    ear_dim = rng.uniform(0, 0.45)
    wide, long = rng.uniform(0.66, 0.82), rng.uniform(0.85, 1.1)
    if pricked:
        _ears(pen, rng, coat, ear_dim, yaw, pricked)
    skull = [(0, -0.82), (0.42, -0.78), (wide, -0.36), (wide * 0.98, 0.12), (0.5, 0.6), (0, long)]
    furry(pen, rng, coat, smooth(mirrored(skull)))
    if not pricked:
        _ears(pen, rng, coat, ear_dim, yaw, pricked)
    x, y = yaw * 0.8, 0.42 + pitch * 0.5
    if rng.random() < 0.4:
        blaze = [(0, -0.75), (0.1, -0.4), (0.16, 0), (0.34, 0.3), (0, 0.5)]
        blaze = moved(smooth(mirrored(blaze)), x * 0.6, 0)
        pen.veil(blaze, coat.pale, 0.85, soft=0.03)
    if rng.random() < 0.65:
        pen.fill(ellipse(x, y + 0.36, 0.26, 0.2), mix(BLACK, PINK, 0.25))
        tongue = [(0, 0.3), (0.16, 0.34), (0.17, 0.62), (0, 0.8)]
        tongue = moved(smooth(mirrored(tongue), 4), x, y)
        pen.fill(tongue, mix(PINK, (220, 90, 90), 0.5), gloss=0.2)
    _snout(pen, rng, coat, x, y)
    iris, size = tint(rng, EYES[1:2] + EYES[3:] * 2, 8), rng.uniform(0.12, 0.16)
    for side in (-1, 1):
        place = pen.at(yaw * 0.4 + side * 0.34, -0.2 + pitch * 0.4, size)
        eye(place, ROUND_EYE, iris, (0.7, 0.74))
        brow = ellipse(yaw * 0.4 + side * 0.32, -0.42 + pitch * 0.4, 0.13, 0.06, side * 15)
        pen.veil(brow, coat.pale, 0.5, soft=0.03)
    muzzle_lines(pen, x * 1.12, y - 0.17, 0.23, coat)


def _snout(pen: Pen, rng: Rng, coat: Coat, x: float, y: float) -> None:
    """The long muzzle of a dog, often paler or darker than the coat."""
    colour = coat.pale if rng.random() < 0.6 else mix(coat.base, BLACK, rng.uniform(0.1, 0.6))
    half = [(0, -0.46), (0.28, -0.37), (0.48, 0.02), (0.46, 0.3), (0.22, 0.43), (0, 0.39)]
    outline = pen.tufted(moved(smooth(mirrored(half)), x, y), rng, coat.fluff * 0.4)
    pen.fill(outline, coat.fur)
    pen.veil(outline, colour, 0.8)
    pen.fill(outline, None)


def _ears(pen: Pen, rng: Rng, coat: Coat, dim: float, yaw: float, pricked: bool) -> None:
    """Two ears: pricked and wide apart, or folded down beside the cheeks."""
    hang, out = rng.uniform(0.2, 0.75), rng.uniform(0.95, 1.2)
    for side in (-1, 1):
        reach = side * (1 - side * yaw * 0.25)
        if pricked:
            flap = [(0.2, -0.62), (0.34, -1.1), (0.58, -1.5), (0.72, -1.1), (0.72, -0.4)]
        else:
            outer = [(0.38, -0.78), (0.74, -0.8), (out, -0.3), (out * 0.98, hang)]
            flap = [*outer, (0.8, hang + 0.12), (0.64, hang - 0.2), (0.58, -0.3)]
        outline = smooth(np.array(flap) * (reach, 1), 4)
        if not pricked:
            pen.veil(moved(outline, -side * 0.05, 0.06), BLACK, 0.35, soft=0.06)
        furry(pen, rng, coat, outline, dim=dim)
        if pricked:
            centre = moved(outline.mean(0), 0, 0.06)
            pen.fill((outline - centre) * 0.58 + centre, mix(PINK, coat.base, 0.55), relief=0.6)
