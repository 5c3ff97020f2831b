"""Ants and bees: legs, feelers, wings and bodies, and what they sit on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .backgrounds import bloom, leaf
from .outlines import circle, curve, ellipse, limb, smooth
from .paints import BLACK, NATURAL, WHITE, Colour, Rng, mix, tint
from .pen import Pen, somewhere

SHELLS = ((30, 24, 24), (92, 44, 26), (150, 70, 30), (196, 136, 52), (60, 40, 30), (216, 170, 70))


@dataclass(frozen=True)
class Skin:
    """The colours of one insect."""

    body: Colour
    mark: Colour
    limb: Colour
    gloss: float


def _skin(rng: Rng) -> Skin:
    """Black, brown, red or yellow, with marks in another of these: for ants and bees alike."""
    body, mark = tint(rng, SHELLS, 8), tint(rng, SHELLS, 8)
    if abs(sum(body) - sum(mark)) < 120:
        mark = mix(mark, BLACK if sum(body) > 230 else SHELLS[5], 0.7)
    return Skin(body, mark, mix(BLACK, body, rng.uniform(0.1, 0.8)), rng.uniform(0.2, 0.9))


def _insect_legs(pen: Pen, rng: Rng, skin: Skin, reach: float, thick: float, aside: bool) -> None:
    """Six jointed legs: spread to both sides, or seen from the side all below the body."""
    spread = ((0.16, 0.46), (0.02, 0.04), (-0.1, -0.5))
    for side in (-1, 1):
        for root, foot in spread:
            foot = foot * reach + rng.normal(0, 0.06)
            out = reach * rng.uniform(0.42, 0.56)
            if aside:
                shift = 0.05 * side
                knee, toe = root * 0.4 + foot * 0.75 + shift, foot * 1.2 + shift
                joints = [(root, 0.03), (knee, -0.07 * reach), (toe, 0.36), (toe + 0.06, 0.38)]
            else:
                toe, tip = (foot, side * out), (foot * 1.15, side * out * 1.1)
                knee = ((root + foot * 1.1) / 2, side * out * 0.62)
                joints = [(root, side * 0.05), knee, toe, tip]
            tone = mix(skin.limb, BLACK, 0.4 if aside and side < 0 else 0)
            pen.flat(limb(joints, [thick, thick, thick * 0.6, thick * 0.4], steps=1), tone)


def _feelers(
    pen: Pen, skin: Skin, x: float, y: float, size: float, bend: float, aside: bool
) -> None:
    """Two elbowed antennae from (x, +-y)."""
    for side in (-1, 1):
        up = -1 if aside else side
        elbow = (x + 0.55 * size, up * (y + 0.5 * size) - 0.03 * side * aside)
        tip = (x + 1.5 * size, up * (y + (0.3 + bend) * size) + 0.1 * side * aside)
        pen.flat(limb([(x, up * y), elbow, tip], [0.012, 0.014, 0.017], steps=1), skin.limb)


def _ant(pen: Pen, rng: Rng, skin: Skin, aside: bool) -> None:
    """An ant about one unit long, heading right: a large head, a thin waist, elbowed feelers."""
    _insect_legs(pen, rng, skin, rng.uniform(0.85, 1.1), 0.024, aside)
    _feelers(pen, skin, 0.42, 0.05, 0.26, rng.uniform(-0.3, 0.6), aside)
    tail = pen.at(-0.14, 0, turn=rng.normal(-8 if aside else 0, 12))
    plump = rng.uniform(0.13, 0.19)
    upper, lower = [(-0.1, -plump), (-0.3, -plump * 1.05)], [(-0.3, plump * 1.05), (-0.1, plump)]
    tail.fill(smooth([(0.02, 0), *upper, (-0.5, 0), *lower]), skin.body, gloss=skin.gloss)
    for x in rng.uniform(0.0, 0.03) + np.array([-0.16, -0.26, -0.36]):
        bow = curve([(x + 0.03, -plump * 0.95), (x - 0.03, 0), (x + 0.03, plump * 0.95)], 4)
        tail.line(bow, 0.016, mix(skin.body, skin.mark, 0.45))
    pen.fill(ellipse(-0.13, 0, 0.05, 0.045), skin.limb, gloss=skin.gloss)
    chest = limb([(-0.1, 0), (0.05, -0.01), (0.22, 0)], [0.05, 0.075, 0.085])
    pen.fill(chest, mix(skin.body, skin.mark, rng.choice([0, 0.6])), gloss=skin.gloss)
    head = pen.at(0.36, 0, turn=rng.normal(18 if aside else 0, 9))
    for side in (-1, 1):
        jaw = [(0.1, side * 0.05), (0.19, side * 0.07), (0.2, side * 0.01)]
        head.flat(limb(jaw, [0.022, 0.018, 0.006], steps=3), skin.limb)
    upper, lower = [(0.04, -0.12), (-0.12, -0.12)], [(-0.12, 0.12), (0.04, 0.12)]
    face = [(0.13, -0.05), *upper, (-0.13, 0), *lower, (0.13, 0.05)]
    head.fill(smooth(face, 4), skin.body, gloss=skin.gloss)
    for side in (-1,) if aside else (-1, 1):
        head.flat(ellipse(0.02, side * 0.085, 0.03, 0.022), BLACK)


def _wing(pen: Pen, length: float, breadth: float, tone: Colour, alpha: float) -> None:
    """A clear wing with veins, from the origin upwards."""
    front = [(0, 0), (-breadth * 0.5, -0.5), (-breadth * 0.3, -0.95)]
    back = [(breadth * 0.3, -1), (breadth, -0.7), (breadth * 0.6, -0.25)]
    outline = smooth([*front, *back], 5) * length
    pen.veil(outline, tone, alpha)
    vein = mix(tone, BLACK, 0.55)
    veins = [np.concatenate([outline, outline[:1]])]
    for x, y in ((-0.1, -0.85), (0.35, -0.8), (0.6, -0.55)):
        bow = [(0, 0), (x * breadth * 0.3, y * 0.5), (x * breadth, y)]
        veins.append(curve(bow, 3) * length)
    pen.line(veins, 0.008, vein)


def _wings(pen: Pen, rng: Rng, aside: bool) -> None:
    """Four wings: spread to both sides, or seen from the side all above the body."""
    tone, alpha = mix(tint(rng, NATURAL[7:10]), WHITE, 0.5), rng.uniform(0.3, 0.6)
    spread, length = rng.uniform(25, 105), rng.uniform(0.55, 0.68)
    for side in (-1, 1):
        first = -20 - 0.4 * spread - 22 * side if aside else spread - 90
        root = pen.at(0.06, -0.1 if aside else 0)
        if not aside and side > 0:
            root = root.at(turn=180, mirror=True)  # upside down: the wings of the other side
        for turn, size, breadth in ((first, 1, 0.3), (first - 28, 0.7, 0.34)):
            _wing(root.at(0, 0 if aside else -0.1, turn=turn), length * size, breadth, tone, alpha)


def _bee(pen: Pen, rng: Rng, skin: Skin, aside: bool) -> None:
    """A bee about one unit long, heading right: a furry chest, a banded abdomen, four wings."""
    _insect_legs(pen.at(0.08), rng, skin, rng.uniform(0.6, 0.8), 0.03, aside)
    _feelers(pen, skin, 0.42, 0.04, 0.14, rng.uniform(0.2, 1), aside)
    tail = pen.at(-0.02, 0, turn=rng.normal(-16 if aside else 0, 9))
    plump = rng.uniform(0.17, 0.25)
    _abdomen(tail, rng, skin, plump, rng.uniform(0.46, 0.6))
    fuzz = mix(tint(rng, SHELLS, 10), skin.body, 0.5)
    head = [(0.46, 0), (0.42, -0.12), (0.32, -0.14), (0.26, 0), (0.32, 0.14), (0.42, 0.12)]
    pen.fill(smooth(head, 4), skin.limb, gloss=0.2)
    for side in (-1,) if aside else (-1, 1):
        pen.fill(ellipse(0.37, side * 0.1, 0.075, 0.045, side * 20), BLACK, gloss=0.3)
    chest = ellipse(0.12, 0, 0.2, plump * 0.92)
    pen.fill(pen.tufted(chest, rng, 0.06, 90), fuzz)
    middle = pen.tufted(ellipse(0.12, -0.02, 0.12, plump * 0.5), rng, 0.06, 50)
    pen.fill(middle, mix(fuzz, skin.mark, 0.35), relief=0.7)
    _wings(pen, rng, aside)


def _abdomen(pen: Pen, rng: Rng, skin: Skin, plump: float, length: float) -> None:
    """An egg of coloured rings with its thick end at the origin, pointing left."""
    at = np.linspace(0, 1, 12)
    half = plump * np.sqrt(np.clip(1 - (at * 1.15 - 0.15) ** 2, 0, 1)) * (1 - 0.25 * at)
    upper = np.stack([-at * length, -half], axis=1)
    outline = np.concatenate([upper, upper[::-1] * (1, -1)])
    pen.veil(outline * 1.03, BLACK, 0.3, soft=0.02)
    shape = pen.tufted(outline, rng, 0.02, 70)
    pen.flat(shape, skin.body)
    width = rng.uniform(0.08, 0.15)
    for start in np.array([0.12, 0.34, 0.56, 0.78]) + rng.uniform(-0.03, 0.04):
        front, rear = -start * length, -(start + width) * length
        a, b = np.interp([start, start + width], at, half)
        ring = [(front, -a), (rear, -b), (rear - 0.03, 0), (rear, b), (front, a), (front - 0.03, 0)]
        pen.flat(np.array(ring), skin.mark)
    pen.fill(shape, None, gloss=skin.gloss * 0.7)


def _perch(pen: Pen, rng: Rng) -> None:
    """What the insects sit on: a flower, a leaf, a twig, a stone, or nothing."""
    kind = rng.integers(8)
    place = pen.at(*somewhere(pen, rng, 0.3), turn=rng.uniform(0, 360))
    if kind == 0:
        bloom(place, rng, rng.uniform(0.3, 0.6))
    elif kind == 1:
        size = rng.uniform(0.9, 1.5)
        leaf(place.at(0, size * 0.45), rng, tint(rng, NATURAL[:6]), size)
    elif kind == 2:
        twig = [(-1.2, rng.normal(0, 0.2)), (0, 0), (1.2, rng.normal(0, 0.2))]
        place.fill(limb(twig, rng.uniform(0.03, 0.12, 3)), tint(rng, NATURAL[3:8]))
    elif kind == 3:
        stone = smooth(circle(8) * rng.uniform(0.3, 0.6, (8, 1)))
        place.fill(stone, tint(rng, NATURAL[3:10]))


def ants(pen: Pen, rng: Rng) -> None:
    """One to four ants of one colour."""
    _insects(pen, rng, _ant)


def bees(pen: Pen, rng: Rng) -> None:
    """One to four bees of one colour."""
    _insects(pen, rng, _bee)


def _insects(pen: Pen, rng: Rng, body: Callable[[Pen, Rng, Skin, bool], None]) -> None:
    _perch(pen, rng)
    count = rng.choice([1, 2, 3, 4], p=[0.6, 0.22, 0.12, 0.06])
    size = rng.uniform(0.62, 1.0) * (1, 1, 0.75, 0.62, 0.55)[count]
    skin, heading = _skin(rng), rng.uniform(0, 360)
    for _ in range(count):
        aside = rng.random() < 0.3
        turn = rng.normal(0, 15) if aside else heading + rng.normal(0, 60)
        spot = somewhere(pen, rng, 0.25 if count == 1 else 0.8)
        scale, mirror = size * rng.uniform(0.85, 1.15), rng.random() < 0.5
        place = pen.at(*spot, scale, turn=turn, mirror=mirror)
        _drop_shadow(place, rng, aside)
        body(place, rng, skin, aside)


def _drop_shadow(pen: Pen, rng: Rng, aside: bool) -> None:
    """The soft shadow of an insect on what it sits on."""
    shift = -0.05 * pen.unit
    x, y = pen.x + pen.light[0] * shift, pen.y + pen.light[1] * shift
    shadow = Pen(pen.pixels, pen.linear, x, y, pen.light)
    spot = ellipse(0, 0.36, 0.5, 0.05) if aside else ellipse(-0.05, 0, 0.46, 0.15)
    shadow.veil(spot, BLACK, rng.uniform(0.25, 0.5), soft=0.05)
