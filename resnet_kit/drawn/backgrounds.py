"""Backgrounds, and what lies about in them and elsewhere: leaves, flower heads, oddments.

Each painter of a background covers the whole picture. All classes use all of them.
"""

from collections.abc import Callable

import cv2
import numpy as np

from .outlines import circle, curve, ellipse, limb, mirrored, rectangle, smooth, turned
from .paints import BLACK, BRIGHT, COATS, NATURAL, WHITE, Colour, Rng, Swatch, mix, tint
from .pen import Pen, half_size, somewhere

RIBS = [np.array([(0, y), (0.75 * side, y - 0.16)]) for y in (-0.2, -0.4, -0.6) for side in (-1, 1)]


def leaf(pen: Pen, rng: Rng, colour: Colour, length: float = 1.0) -> None:
    """One leaf from its stalk at the origin upwards, with veins."""
    breadth = rng.uniform(0.22, 0.42)
    half = [(0, 0), (breadth * 0.6, -0.15), (breadth, -0.45), (breadth * 0.6, -0.8), (0, -1)]
    pen.fill(smooth(mirrored(half), 4) * length, colour, relief=0.8, gloss=0.15)
    vein = mix(colour, WHITE, 0.25)
    pen.line(np.array([(0, 0.1), (0, -0.95)]) * length, 0.025 * length, vein)
    pen.line([rib * (breadth * length, length) for rib in RIBS], 0.012 * length, vein)


def bloom(pen: Pen, rng: Rng, radius: float, colour: Colour | None = None) -> None:
    """A flower head seen from above: one or two rings of petals around a disc."""
    colour = colour or mix(tint(rng, BRIGHT), WHITE, rng.uniform(0, 0.5))
    count, start = int(rng.integers(5, 13)), rng.uniform(0, 360)
    angles = np.linspace(0, 2 * np.pi, 12 * count, endpoint=False)
    reach = 0.55 + 0.45 * np.abs(np.sin(angles * count / 2)) ** rng.uniform(0.4, 0.8)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (reach * radius)[:, None]
    pen.fill(turned(ring, start + 180 / count), mix(colour, BLACK, 0.25))
    pen.fill(turned(ring, start) * 0.94, colour)
    seams = [turned(seam, start) for seam in ring[::12, None] * [[[0.3], [0.95]]]]
    pen.line(seams, 0.03 * radius, mix(colour, BLACK, 0.3))
    disc = ellipse(0, 0, radius * rng.uniform(0.2, 0.34))
    pen.fill(disc, tint(rng, (BRIGHT[2], BRIGHT[1], BRIGHT[9])), relief=1.3)


def oddment(pen: Pen, rng: Rng) -> None:
    """A thing without a name: a ball, a lump, a stick, a cushion or a tuft, in any colour."""
    colour = tint(rng, NATURAL + BRIGHT + COATS)
    kind = rng.integers(5)
    lump = smooth(circle(7) * rng.uniform(0.5, 1.1, (7, 1)))
    bent = [(-1, 0), (0, rng.normal(0, 0.4)), (1, 0)]
    tuft = pen.tufted(lump, rng, 0.15)
    stick = limb(bent, [0.12, 0.15, 0.1])
    shape = (ellipse(0, 0, 0.8), lump, stick, rectangle(0, 0, 0.8, 0.6), tuft)[kind]
    pen = pen.at(turn=rng.uniform(0, 360))
    pen.veil(shape * 1.05, BLACK, 0.3, soft=0.12)
    pen.fill(shape, colour, relief=rng.uniform(0.6, 1.3), gloss=rng.choice([0, 0.4]))
    if rng.random() < 0.4:
        pen.veil(shape * (0.9, 0.25), tint(rng, BRIGHT + COATS), 0.6)


def _wash(pen: Pen, rng: Rng, top: Colour, bottom: Colour, spread: float = 14) -> None:
    """Covers the picture with a soft, uneven run from one colour to another."""
    share = np.linspace(0, 1, 4)[:, None, None]
    coarse = np.array(top) * (1 - share) + np.array(bottom) * share
    coarse = coarse + rng.normal(0, spread, (4, 4, 1)) + rng.normal(0, spread * 0.4, (4, 4, 3))
    height, width = pen.pixels.shape[:2]
    coarse = np.clip(coarse, 0, 255).astype(np.uint8)
    pen.pixels[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def mottle(pen: Pen, swatch: Swatch, strength: float, from_row: int = 0) -> None:
    """Darkens and lightens the picture by a texture, from this row down."""
    rows = pen.pixels[from_row:]
    height, width = rows.shape[:2]
    cv2.multiply(rows, swatch.cut_rgb(width, height, pen.unit, strength), dst=rows, scale=1 / 128)


def _haze(pen: Pen, rng: Rng) -> None:
    """A plain wall or sky: two near colours and hardly any texture."""
    colour = tint(rng, NATURAL)
    _wash(pen, rng, colour, mix(colour, tint(rng, NATURAL), 0.5), 18)
    mottle(pen, Swatch.pick(rng, "cloud", rng.uniform(1, 4)), rng.uniform(0.1, 0.4))


def _bokeh(pen: Pen, rng: Rng) -> None:
    """Blurred lights and leaves far behind."""
    _wash(pen, rng, tint(rng, NATURAL), tint(rng, NATURAL), 26)
    palette = [tint(rng, NATURAL + BRIGHT) for _ in range(4)]
    for _ in range(rng.integers(7, 14)):
        spot = ellipse(*somewhere(pen, rng, 1.1), rng.uniform(0.04, 0.2))
        pen.veil(spot, palette[rng.integers(4)], rng.uniform(0.2, 0.7), soft=rng.uniform(0, 0.03))


def _blades(pen: Pen, rng: Rng) -> None:
    """Grass, straw or reeds: hundreds of blades over an earthy ground."""
    colour = tint(rng, NATURAL[:7])
    _wash(pen, rng, mix(colour, BLACK, 0.3), mix(colour, BLACK, 0.5), 20)
    length, lean, count = rng.uniform(0.12, 0.35), rng.normal(0, 0.2), rng.integers(110, 200)
    hx, hy = half_size(pen)
    root = np.stack([rng.uniform(-hx, hx, count), np.sort(rng.uniform(-hy, hy + 0.2, count))], 1)
    bend = rng.normal(lean, 0.2, (count, 2))
    middle = root + np.stack([bend[:, 0] * 0.3, np.full(count, -0.6)], 1) * length
    tip = root + np.stack([bend[:, 1], np.full(count, -1)], 1) * length
    half = (0.01, 0)
    blades = np.stack([root - half, middle - half, tip, middle + half, root + half], axis=1)
    for some in np.array_split(blades, 8):
        tone = rng.normal(0, 0.22)
        shade = mix(colour, WHITE if tone > 0 else BLACK, min(0.5, abs(tone)))
        for blade in some:
            pen.flat(blade, shade)


def _foliage(pen: Pen, rng: Rng) -> None:
    """Leaves upon leaves: a hedge in summer or litter in autumn."""
    palette = [tint(rng, NATURAL[:6] if rng.random() < 0.7 else NATURAL) for _ in range(3)]
    _wash(pen, rng, *(mix(c, BLACK, 0.55) for c in palette[:2]))
    size = rng.uniform(0.2, 0.5)
    for _ in range(int(rng.uniform(3, 5) / size)):
        colour = mix(palette[rng.integers(3)], BLACK, rng.uniform(0, 0.3))
        place = pen.at(*somewhere(pen, rng, 1.2), turn=rng.uniform(0, 360))
        leaf(place, rng, colour, size * rng.uniform(0.6, 1.2))


def _ground(pen: Pen, rng: Rng) -> None:
    """Sand, soil, gravel or concrete from above, with pebbles."""
    colour = tint(rng, NATURAL[3:10])
    _wash(pen, rng, colour, mix(colour, BLACK, 0.15), 16)
    mottle(pen, Swatch.pick(rng, "cloud", rng.uniform(0.8, 2)), rng.uniform(0.4, 0.9))
    mottle(pen, Swatch.pick(rng, "grain", rng.uniform(0.8, 1.6)), rng.uniform(0.1, 0.4))
    size = rng.uniform(0.01, 0.05)
    for _ in range(rng.integers(0, 40)):
        x, y = somewhere(pen, rng)
        rx, ry = size * rng.uniform(0.4, 2, 2)
        pen.veil(ellipse(x, y + ry * 0.5, rx * 1.2, ry), BLACK, 0.4)
        pen.fill(ellipse(x, y, rx, ry, rng.uniform(0, 180)), tint(rng, NATURAL[3:10]))


def _boards(pen: Pen, rng: Rng) -> None:
    """Boards or tiles: bands with a grain and dark joints between them."""
    colour = tint(rng, NATURAL[3:])
    _wash(pen, rng, colour, colour, 10)
    board = pen.at(*somewhere(pen, rng, 0.4), turn=rng.choice([0, 90]) + rng.normal(0, 12))
    width = rng.uniform(0.12, 0.35)
    for k in range(-6, 7):
        tone = mix(colour, WHITE if k % 2 else BLACK, rng.uniform(0, 0.14))
        left, right = k * width, (k + 1) * width
        board.flat(np.array([(left, -2), (right, -2), (right, 2), (left, 2)]), tone)
        board.line(np.array([(left, -2), (left, 2)]), 0.008, mix(colour, BLACK, 0.55))
    mottle(pen, Swatch.pick(rng, "hair", rng.uniform(1, 2.5)), rng.uniform(0.2, 0.6))


def _cloth(pen: Pen, rng: Rng) -> None:
    """A blanket or curtain: checks or stripes over soft folds."""
    first, second = tint(rng, BRIGHT + NATURAL), tint(rng, BRIGHT + NATURAL)
    first = mix(first, NATURAL[7], 0.3)
    _wash(pen, rng, first, first, 8)
    weave = pen.at(turn=rng.uniform(0, 180))
    gap = rng.uniform(0.08, 0.25)
    bands = [rectangle(k * gap, 0, gap / 4, 1.2) for k in range(-9, 10)]
    weave.veil(bands, second, 0.5)
    if rng.random() < 0.5:
        weave.veil([band[:, ::-1] for band in bands], second, 0.4)
    mottle(pen, Swatch.pick(rng, "stripes", rng.uniform(3, 6)), rng.uniform(0.2, 0.5))


def _horizon(pen: Pen, rng: Rng) -> None:
    """A landscape: sky with clouds or hills, and below it grass, water, sand or a road."""
    hx, hy = half_size(pen)
    sky = mix(tint(rng, (NATURAL[9], NATURAL[10], NATURAL[13], NATURAL[16])), WHITE, 0.2)
    _wash(pen, rng, sky, mix(sky, WHITE, rng.uniform(0, 0.5)), 8)
    level = rng.uniform(-0.5, 0.45) * hy
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(-hx, hx), rng.uniform(-hy, level)
        cloud = ellipse(x, y, rng.uniform(0.1, 0.3), rng.uniform(0.03, 0.08))
        pen.veil(cloud, WHITE, 0.6, soft=0.03)
    for depth in range(rng.integers(0, 3)):
        hill = tint(rng, NATURAL)
        top = rng.uniform(0.05, 0.3, 6)
        ridge = [(-1.8 + 0.72 * k, level - h) for k, h in enumerate(top)]
        shape = np.concatenate([curve(ridge), [(1.8, level), (-1.8, level)]])
        pen.flat(shape, mix(hill, sky, 0.6 - 0.2 * depth))
    _floor(pen, rng, level, tint(rng, NATURAL))


def _floor(pen: Pen, rng: Rng, level: float, colour: Colour) -> None:
    """Covers everything below `level` with ground that grows darker towards the viewer."""
    hx, hy = half_size(pen)
    for k in range(5):
        top = level + (hy - level) * k / 5
        band = np.array([(-hx, top), (hx, top), (hx, hy), (-hx, hy)]) * (1.05, 1)
        pen.flat(band, mix(colour, BLACK, 0.06 * k))
    row = int(np.clip((level + hy) * pen.unit, 0, pen.pixels.shape[0] - 2))
    kind = ("cloud", "hair", "stripes", "grain")[rng.integers(4)]
    mottle(pen, Swatch.pick(rng, kind, rng.uniform(1, 3)), rng.uniform(0.2, 0.6), from_row=row)


def _room(pen: Pen, rng: Rng) -> None:
    """A wall with paper or paint, a floor, and some furniture out of focus."""
    hx, hy = half_size(pen)
    wall, level = mix(tint(rng, NATURAL), WHITE, rng.uniform(0, 0.4)), rng.uniform(0, 0.7) * hy
    _wash(pen, rng, wall, mix(wall, BLACK, 0.1), 8)
    if rng.random() < 0.5:
        gap = rng.uniform(0.06, 0.2)
        strips = [rectangle(k * gap, 0, gap / 4, 1.5) for k in range(-8, 9)]
        pen.veil(strips, mix(wall, WHITE, 0.4), 0.5)
    for _ in range(rng.integers(0, 4)):
        w, h = rng.uniform(0.06, 0.3, 2)
        x = rng.uniform(-hx, hx)
        y = rng.uniform(-hy, level - h * 0.5) if rng.random() < 0.5 else level - h + 0.04
        pen.veil(rectangle(x + 0.02, y + 0.02, w, h), BLACK, 0.3, soft=0.02)
        pen.fill(rectangle(x, y, w, h), tint(rng, NATURAL + BRIGHT), relief=0.3)
    _floor(pen, rng, level, tint(rng, NATURAL))
    pen.flat(rectangle(0, level, 2, 0.012), mix(wall, WHITE, 0.5))


def _petals(pen: Pen, rng: Rng) -> None:
    """A bed of flowers between leaves."""
    _foliage(pen, rng)
    for _ in range(rng.integers(3, 9)):
        bloom(pen.at(*somewhere(pen, rng, 1.1)), rng, rng.uniform(0.06, 0.22))


def _clutter(pen: Pen, rng: Rng) -> None:
    """Balls, boxes and cushions of all colours: a toy shelf out of focus."""
    _wash(pen, rng, tint(rng, NATURAL), tint(rng, NATURAL), 12)
    for _ in range(rng.integers(5, 11)):
        oddment(pen.at(*somewhere(pen, rng, 1.1), rng.uniform(0.08, 0.3)), rng)


BACKGROUNDS: tuple[Callable[[Pen, Rng], None], ...] = (
    _haze,
    _bokeh,
    _blades,
    _foliage,
    _ground,
    _boards,
    _cloth,
    _horizon,
    _room,
    _petals,
    _clutter,
)
