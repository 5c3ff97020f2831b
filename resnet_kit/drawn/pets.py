"""What cats and dogs share: coats, bodies in four poses, and portraits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .backgrounds import mottle
from .outlines import Points, curve, ellipse, limb, mirrored, moved, smooth
from .paints import BLACK, COATS, WHITE, Colour, Rng, Swatch, mix, tint
from .pen import Paint, Pen, somewhere

PINK = (206, 140, 132)
EYES = ((150, 170, 70), (206, 160, 50), (110, 156, 180), (150, 92, 40), (92, 54, 30))


@dataclass(frozen=True)
class Coat:
    """The fur of one animal: a picture-size texture and the colours that go with it."""

    fur: np.ndarray
    base: Colour
    mark: Colour
    pale: Colour
    nose: Colour
    fluff: float


def _coat(pen: Pen, rng: Rng) -> Coat:
    """A plain, tabby, spotted or patched coat; cats and dogs draw from the same ones."""
    base, mark = tint(rng, COATS, 5), tint(rng, COATS, 5)
    kind = ("cloud", "stripes", "spots", "patches")[rng.choice(4, p=[0.3, 0.28, 0.12, 0.3])]
    if kind in ("stripes", "cloud"):
        mark = mix(base, BLACK, rng.uniform(0.35, 0.65))
    levels = np.arange(256)
    slope, middle = (60, 190) if kind == "cloud" else (14, rng.uniform(120, 165))
    share = 1 / (1 + np.exp((middle - levels) / slope))
    ramp = np.array(base) + (np.array(mark) - np.array(base)) * share[:, None]
    height, width = pen.pixels.shape[:2]
    pattern = Swatch.pick(rng, kind, rng.uniform(0.8, 1.5)).cut(width, height, pen.unit)
    fur = cv2.applyColorMap(pattern, np.clip(ramp, 0, 255).astype(np.uint8)[:, None])
    mottle(Pen.over(fur, pen.light), Swatch.pick(rng, "hair", rng.uniform(0.8, 1.3)), 0.55)
    pale = mix(base, WHITE, rng.choice([0.25, 0.8]))
    nose = PINK if rng.random() < 0.3 else mix(BLACK, base, 0.15)
    return Coat(fur, base, mark, pale, nose, rng.uniform(0.02, 0.09))


def furry(
    pen: Pen, rng: Rng, coat: Coat, outline: Points, *, fluff: float = 1, dim: float = 0
) -> None:
    """A body covered with the coat, hair standing out all around."""
    pen.fill(pen.tufted(outline, rng, coat.fluff * fluff), coat.fur, dim=dim)


def muzzle_lines(pen: Pen, x: float, y: float, size: float, coat: Coat) -> None:
    """The nose with its shine, and the mouth below it."""
    dark = mix(BLACK, coat.base, 0.2)
    for side in (-1, 1):
        lip = [
            (x, y + 0.3 * size),
            (x, y + 1.3 * size),
            (x + side * 0.7 * size, y + 1.9 * size),
            (x + side * 1.4 * size, y + 1.6 * size),
        ]
        pen.line(curve(lip, 4), 0.14 * size + 0.012, dark)
    tip = [(0, -0.5), (0.75, -0.5), (0.95, -0.1), (0.4, 0.5), (0, 0.65)]
    pen.fill(smooth(mirrored(tip), 4) * size + (x, y), coat.nose, gloss=0.5)


@dataclass(frozen=True)
class Build:
    """The proportions by which the body of a dog differs from that of a cat."""

    head: Callable
    head_size: float
    leg: float
    chest: float
    waist: float
    tail: Sequence[tuple[float, float]]
    tail_width: Sequence[float]


def _head_on(pen: Pen, rng: Rng, coat: Coat, build: Build, x: float, y: float) -> None:
    pen = pen.at(x, y, build.head_size, turn=rng.normal(0, 9))
    pen.veil(ellipse(0, 0.5, 0.8, 0.7), BLACK, 0.35, soft=0.25)
    build.head(pen, rng, coat, rng.normal(0.15, 0.3), rng.normal(0, 0.15))


def _tail(pen: Pen, rng: Rng, coat: Coat, build: Build, x: float, y: float) -> None:
    furry(pen, rng, coat, limb(moved(build.tail, x, y), build.tail_width))


def _paw(pen: Pen, coat: Coat, x: float, y: float, paint: Paint, dim: float = 0) -> None:
    pen.fill(ellipse(x, y, 0.13, 0.075), paint, dim=dim)
    toes = [np.array([(x + toe, y), (x + toe + 0.02, y + 0.06)]) for toe in (-0.01, 0.06)]
    pen.line(toes, 0.012, mix(coat.base, BLACK, 0.6))


def _leg(
    pen: Pen, rng: Rng, coat: Coat, x: float, foot: float, *, hind: bool, dim: float = 0
) -> None:
    """A leg from the belly down to the foot; hind legs have a thigh and a hock."""
    step = rng.normal(0, 0.07)
    if hind:
        joints = [(x, 0), (x + 0.1, foot * 0.5), (x - 0.1 + step, foot * 0.72), (x + step, foot)]
        widths = [0.2, 0.14, 0.075, 0.07]
    else:
        joints = [(x, 0.05), (x + step / 2, foot * 0.6), (x + step, foot)]
        widths = [0.14, 0.09, 0.075]
    furry(pen, rng, coat, limb(joints, widths), fluff=0.4, dim=dim)
    _paw(pen, coat, x + step + 0.05, foot, coat.fur, dim)


def _standing(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """The whole body from the side, on four legs, the head to the right."""
    foot = build.chest + build.leg * 0.8
    pen = pen.at(0, -0.1)
    _ground_shadow(pen, 0, foot + 0.04, 1.0)
    _tail(pen, rng, coat, build, -0.78, -0.08)
    _leg(pen, rng, coat, 0.38, foot - 0.04, hind=False, dim=0.3)
    _leg(pen, rng, coat, -0.48, foot - 0.04, hind=True, dim=0.3)
    spine = [(-0.68, 0.0), (-0.25, -0.02), (0.2, 0.02), (0.56, 0.0)]
    widths = [build.waist, build.waist, (build.chest + build.waist) / 2, build.chest]
    neck = limb([(0.45, 0.0), (0.72, -0.3), (0.85, -0.5)], [build.chest, 0.2, 0.17])
    furry(pen, rng, coat, neck)
    furry(pen, rng, coat, limb(spine, widths))
    _leg(pen, rng, coat, 0.54, foot, hind=False)
    _leg(pen, rng, coat, -0.6, foot, hind=True)
    _head_on(pen, rng, coat, build, 0.9, -0.62)


def _sitting(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Sitting upright and looking at the viewer."""
    _ground_shadow(pen, 0, 0.84, 0.75)
    _tail(pen, rng, coat, build, -0.35, 0.7)
    half = [(0, -0.62), (0.27, -0.42), (build.chest + 0.12, 0.1), (0.5, 0.6), (0.3, 0.8), (0, 0.82)]
    furry(pen, rng, coat, smooth(mirrored(half)))
    bib = [(0, -0.4), (0.16, -0.2), (0.13, 0.15), (0, 0.4)]
    pen.veil(smooth(mirrored(bib)), coat.pale, 0.75, soft=0.05)
    for side in (-1, 1):
        furry(pen, rng, coat, ellipse(side * 0.4, 0.6, 0.2, 0.24), fluff=0.5)
        _paw(pen, coat, side * 0.45, 0.82, coat.fur)
    for side in (-1, 1):
        leg = [(side * 0.16, 0.05), (side * 0.16, 0.5), (side * 0.15, 0.82)]
        furry(pen, rng, coat, limb(leg, [0.12, 0.1, 0.09]), fluff=0.4)
        _paw(pen, coat, side * 0.16, 0.85, coat.pale)
    _head_on(pen, rng, coat, build, rng.normal(0, 0.06), -0.72)


def _sitting_aside(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Sitting, seen from the side."""
    _ground_shadow(pen, 0, 0.84, 0.8)
    _tail(pen, rng, coat, build, -0.5, 0.66)
    far_leg = limb([(0.3, 0.0), (0.3, 0.5), (0.32, 0.8)], [0.13, 0.09, 0.08])
    near_leg = limb([(0.36, 0.0), (0.42, 0.5), (0.44, 0.8)], [0.14, 0.1, 0.085])
    front = [(0.3, -0.6), (0.2 + build.chest, -0.15), (0.46, 0.3), (0.25, 0.75)]
    back = [(-0.3, 0.82), (-0.62, 0.6), (-0.52, 0.1), (-0.2, -0.35), (0.02, -0.6)]
    furry(pen, rng, coat, far_leg, fluff=0.4, dim=0.3)
    furry(pen, rng, coat, smooth([*front, *back]))
    furry(pen, rng, coat, ellipse(-0.24, 0.52, 0.32, 0.29), fluff=0.5)
    _paw(pen, coat, 0.02, 0.82, coat.fur)
    furry(pen, rng, coat, near_leg, fluff=0.4)
    _paw(pen, coat, 0.48, 0.83, coat.pale)
    _head_on(pen, rng, coat, build, 0.26, -0.78)


def _lying(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Lying on the ground with the fore paws stretched out."""
    _ground_shadow(pen, 0.05, 0.4, 1.15)
    _tail(pen, rng, coat, build, -0.8, 0.2)
    reach = rng.uniform(0.9, 1.15)
    far_leg = limb([(0.5, 0.2), (0.8, 0.3), (reach, 0.33)], [0.12, 0.1, 0.08])
    near_leg = limb([(0.42, 0.25), (0.7, 0.37), (reach - 0.08, 0.39)], [0.13, 0.1, 0.085])
    ends = [(0.6, -0.3), (0.78, 0.1), (0.6, 0.38), (-0.7, 0.4), (-0.95, 0.15), (-0.8, -0.22)]
    back = [(-0.3, -0.15 - build.waist), (0.2, -0.08 - build.chest)]
    furry(pen, rng, coat, far_leg, fluff=0.4, dim=0.3)
    furry(pen, rng, coat, smooth([*ends, *back]))
    furry(pen, rng, coat, ellipse(-0.55, 0.12, 0.32, 0.27), fluff=0.5)
    _paw(pen, coat, -0.3, 0.39, coat.fur)
    furry(pen, rng, coat, near_leg, fluff=0.4)
    _paw(pen, coat, reach - 0.02, 0.4, coat.pale)
    _head_on(pen, rng, coat, build, 0.66, -0.36)


def _face(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """The face alone, filling the picture."""
    chest = [(0, 0.3), (0.7, 0.5), (1.1, 1.2), (1.2, 2.2), (0, 2.4)]
    furry(pen, rng, coat, smooth(mirrored(chest)), dim=0.15)
    pen.veil(ellipse(0, 0.75, 0.8, 0.4), BLACK, 0.35, soft=0.2)
    build.head(pen, rng, coat, rng.normal(0, 0.32), rng.normal(0, 0.2))


def _ground_shadow(pen: Pen, x: float, y: float, reach: float) -> None:
    pen.veil(ellipse(x - pen.light[0] * 0.15, y, reach, 0.1), BLACK, 0.5, soft=0.08)


POSES = (_standing, _sitting, _sitting_aside, _lying)


def pet(pen: Pen, rng: Rng, random_build: Callable[[Rng], Build]) -> None:
    """One animal: in every other picture its face alone, else its body in one of the poses."""
    coat, build = _coat(pen, rng), random_build(rng)
    mirror, turn = rng.random() < 0.5, rng.normal(0, 7)
    if rng.random() < 0.5:
        place = pen.at(*somewhere(pen, rng, 0.2), rng.uniform(0.28, 0.46), turn=turn * 1.5)
        _face(place, rng, coat, build)
    else:
        pose = POSES[rng.integers(len(POSES))]
        middle, scale = somewhere(pen, rng, 0.15), rng.uniform(0.34, 0.46)
        pose(pen.at(*middle, scale, turn=turn, mirror=mirror), rng, coat, build)
