"""Ten things; each painter paints one of them, upright, near the middle of the picture.

The shapes lie within about -1..1 around the place where the thing is put.
"""

import numpy as np

from .backgrounds import bloom, leaf
from .outlines import curve, ellipse, limb, moved, rectangle, smooth
from .paints import BLACK, BRIGHT, COATS, NATURAL, WHITE, Colour, Rng, mix, tint
from .pen import ROUND_EYE, Pen, eye, somewhere


def _placed(pen: Pen, rng: Rng) -> Pen:
    turn, mirror = rng.normal(0, 9), rng.random() < 0.5
    middle, scale = somewhere(pen, rng, 0.25), rng.uniform(0.28, 0.45)
    return pen.at(*middle, scale, turn=turn, mirror=mirror)


def _colours(rng: Rng) -> tuple[Colour, Colour, Colour]:
    """Three colours from one palette that all things share."""
    palette = BRIGHT + NATURAL[6:14]
    return tint(rng, palette), tint(rng, palette), tint(rng, palette)


def boat(pen: Pen, rng: Rng) -> None:
    """A sailing boat with two sails on three waves."""
    pen = _placed(pen, rng)
    hull, sail, trim = _colours(rng)
    tall, rake = rng.uniform(0.95, 1.25), rng.uniform(0.6, 0.95)
    pen.veil(ellipse(0, 0.78, 1.1, 0.1), BLACK, 0.4, soft=0.06)
    pen.fill(limb([(0, 0.3), (0, -tall)], [0.035, 0.025]), mix(trim, BLACK, 0.4))
    sail = mix(sail, WHITE, rng.uniform(0, 0.7))
    pen.fill(np.array([(0.06, -tall + 0.05), (0.42, -0.3), (rake, 0.18), (0.06, 0.18)]), sail)
    jib = [(-0.06, -tall + 0.2), (-0.06, 0.18), (-rake * 0.75, 0.18), (-0.3, -0.3)]
    pen.fill(np.array(jib), mix(sail, trim, 0.4))
    pen.fill(np.array([(-1, 0.28), (1.1, 0.25), (0.72, 0.75), (-0.7, 0.75)]), hull, gloss=0.3)
    pen.line(np.array([(-0.94, 0.36), (1.02, 0.34)]), 0.06, trim)
    for x in (-0.4, 0, 0.4):
        pen.flat(ellipse(x, 0.53, 0.07), mix(hull, WHITE, 0.7))
    water = mix(tint(rng, NATURAL), WHITE, 0.3)
    for k in range(3):
        end, low = 1.3 - 0.2 * k, 0.06 * k
        wave = [(-end, 0.78 + low), (-0.4, 0.74 + low), (0.4, 0.8 + low), (end, 0.76 + low)]
        pen.line(curve(wave), 0.05, mix(water, BLACK, 0.12 * k))


def butterfly(pen: Pen, rng: Rng) -> None:
    """A butterfly seen from above, its wings spread."""
    pen = _placed(pen, rng)
    wing, spot, edge = _colours(rng)
    wide = rng.uniform(0.7, 1.0)
    fore = [(0.04, -0.1), (0.3, -0.62), (0.95, -0.9), (1.05, -0.5), (0.75, -0.08), (0.3, 0.02)]
    hind = [(0.04, 0.0), (0.5, 0.02), (0.82, 0.3), (0.62, 0.78), (0.3, 0.66), (0.08, 0.25)]
    for side in (-1, 1):
        for outline in (hind, fore):
            shape = smooth(outline, 5) * (side * wide, 1)
            centre = shape.mean(0)
            pen.fill(shape, mix(edge, BLACK, 0.5), relief=0.6)
            pen.fill((shape - centre) * 0.8 + centre * 0.97, wing, relief=0.8)
            x, y = centre * (1.15, 1.05)
            pen.fill(ellipse(x, y, 0.16 * wide, 0.13), spot, relief=0.5)
            pen.flat(ellipse(x, y, 0.06), mix(edge, BLACK, 0.6))
        feeler = [(0.02 * side, -0.36), (0.14 * side, -0.66), (0.3 * side, -0.84)]
        pen.flat(limb(feeler, [0.016, 0.014, 0.035]), BLACK)
    pen.fill(limb([(0, -0.36), (0, -0.1), (0, 0.5)], [0.07, 0.09, 0.04]), mix(edge, BLACK, 0.75))


def car(pen: Pen, rng: Rng) -> None:
    """A car from the side, heading right."""
    pen = _placed(pen, rng)
    paint, roof, trim = _colours(rng)
    roof = paint if rng.random() < 0.7 else roof
    tall, rear = rng.uniform(0.5, 0.7), rng.uniform(-0.8, -0.5)
    pen.veil(ellipse(0, 0.56, 1.1, 0.1), BLACK, 0.55, soft=0.05)
    back = [(rear - 0.1, 0), (rear, -tall + 0.08), (rear + 0.2, -tall)]
    front = [(0.2, -tall), (0.34, -tall + 0.06), (0.66, 0)]
    pen.fill(np.array([*back, *front]), roof, gloss=0.3)
    glass = mix((150, 180, 200), BLACK, rng.uniform(0, 0.6))
    top = -tall + 0.1
    rear_pane = [(rear + 0.02, -0.03), (rear + 0.08, top), (-0.14, top), (-0.14, -0.03)]
    front_pane = [(-0.08, -0.03), (-0.08, top), (0.22, top), (0.54, -0.03)]
    for pane in (rear_pane, front_pane):
        pen.fill(np.array(pane), glass, relief=0.4, gloss=0.4)
    bonnet = [(0.6, -0.06), (0.98, 0.08), (1.08, 0.25)]
    body = [(-1.02, 0.05), (-0.9, -0.06), *bonnet, (1.05, 0.45), (-1.03, 0.45)]
    pen.fill(np.array(body), paint, gloss=0.5)
    pen.line(np.array([(-1.0, 0.26), (1.04, 0.28)]), 0.035, mix(paint, BLACK, 0.5))
    pen.flat(ellipse(0.98, 0.2, 0.07, 0.09), (250, 240, 190))
    pen.flat(ellipse(-0.99, 0.2, 0.05, 0.08), (190, 40, 36))
    pen.line(np.array([(-0.12, 0), (-0.12, 0.4)]), 0.02, mix(paint, BLACK, 0.5))
    for x in (-0.58, 0.6):
        pen.flat(ellipse(x, 0.43, 0.27), mix(paint, BLACK, 0.7))
        pen.fill(ellipse(x, 0.45, 0.23), (44, 42, 44))
        pen.fill(ellipse(x, 0.45, 0.12), mix(trim, (190, 190, 194), 0.7), gloss=0.4)


def fish(pen: Pen, rng: Rng) -> None:
    """A fish from the side, heading right."""
    pen = _placed(pen, rng)
    scales, fin, mark = _colours(rng)
    tall = rng.uniform(0.38, 0.6)
    sway = rng.normal(0, 0.1)
    upper = [(-0.82, -0.3 + sway), (-1.1, -0.46 + sway)]
    lower = [(-1.1, 0.46 + sway), (-0.82, 0.3 + sway)]
    tail = [(-0.5, 0), *upper, (-0.95, sway), *lower]
    pen.fill(smooth(tail, 5), fin, relief=0.8)
    front, rear = (0.35, -tall * 0.8), (-0.35, -tall * 0.4)
    back = np.array([front, (0, -tall - 0.32), (-0.45, -tall * 0.75 - 0.1), rear])
    pen.fill(smooth(back, 5), fin, relief=0.8)
    pen.fill(smooth(back * (0.7, -0.9), 5), fin, relief=0.8)
    upper = [(0.6, -tall * 0.72), (0.1, -tall), (-0.4, -tall * 0.55)]
    lower = [(-0.4, tall * 0.55), (0.1, tall), (0.6, tall * 0.72)]
    shape = smooth([(0.95, 0.02), *upper, (-0.68, 0), *lower])
    pen.fill(shape, scales, gloss=0.5)
    pen.veil(shape * (0.85, 0.35) + (0, tall * 0.55), WHITE, 0.35, soft=0.05)
    for k in range(rng.integers(0, 4)):
        x = 0.3 - 0.3 * k
        pen.line(curve([(x, -tall * 0.8), (x - 0.08, 0), (x, tall * 0.8)], 5), 0.1, mark)
    for x in (0.2, 0, -0.2):
        for row in (-0.2, 0, 0.2):
            y = row * tall * 2
            scale = curve([(x + 0.04, y - 0.07), (x - 0.03, y), (x + 0.04, y + 0.07)], 3)
            pen.line(scale, 0.018, mix(scales, BLACK, 0.3))
    pen.fill(smooth([(0.28, 0.08), (0, 0.02), (-0.12, 0.22), (0.08, 0.3)], 5), fin, relief=0.8)
    gill = curve([(0.46, -tall * 0.6), (0.36, 0), (0.46, tall * 0.6)], 5)
    pen.line(gill, 0.03, mix(scales, BLACK, 0.4))
    mouth = curve([(0.95, 0.05), (0.82, 0.12), (0.76, 0.1)], 4)
    pen.line(mouth, 0.03, mix(scales, BLACK, 0.6))
    eye(pen.at(0.64, -0.12, 0.1), ROUND_EYE, (240, 232, 200), (0.55, 0.6))


def flower(pen: Pen, rng: Rng) -> None:
    """A flower on its stalk with two leaves."""
    pen = _placed(pen, rng)
    petals, green = tint(rng, BRIGHT), tint(rng, NATURAL[:5])
    bend = rng.normal(0, 0.15)
    pen.fill(limb([(0, -0.3), (bend, 0.3), (0, 1.1)], [0.05, 0.05, 0.06]), green)
    for side in (-1, 1):
        twig = pen.at(bend * 0.5, 0.85 - 0.15 * side, turn=side * rng.uniform(35, 70))
        leaf(twig, rng, green, 0.62)
    bloom(pen.at(0, -0.4), rng, rng.uniform(0.5, 0.68), petals)


def house(pen: Pen, rng: Rng) -> None:
    """A house with a gable, a chimney, a door and windows."""
    pen = _placed(pen, rng)
    wall, roof, trim = _colours(rng)
    wide, tall = rng.uniform(0.6, 0.85), rng.uniform(0.0, 0.25)
    pen.veil(ellipse(0, 0.86, wide + 0.25, 0.1), BLACK, 0.45, soft=0.06)
    wall = mix(wall, WHITE, 0.3)
    chimney = rng.choice([-1, 1]) * wide * 0.5
    pen.fill(rectangle(chimney, -tall - 0.55, 0.1, 0.28), mix(roof, BLACK, 0.3), relief=0.5)
    pen.fill(rectangle(0, (0.85 - tall) / 2, wide, (0.85 + tall) / 2), wall, relief=0.35)
    peak = rng.uniform(0.75, 1.0)
    gable = [(-wide - 0.2, -tall + 0.04), (0, -tall - peak), (wide + 0.2, -tall + 0.04)]
    pen.fill(np.array(gable), roof, relief=0.5)
    for k in range(1, 5):
        half = (wide + 0.16) * k / 5
        y = -tall - peak + (peak + 0.04) * k / 5
        pen.line(np.array([(-half, y), (half, y)]), 0.018, mix(roof, BLACK, 0.35))
    door = rng.choice([-0.4, 0, 0.4]) * wide
    pen.fill(rectangle(door, 0.58, 0.14, 0.28), trim, relief=0.4)
    pen.flat(ellipse(door + 0.08, 0.6, 0.025), (240, 210, 110))
    glass = mix((170, 200, 220), (250, 220, 130), rng.choice([0, 0.8]))
    for x in (-0.6 * wide, 0, 0.6 * wide):
        if abs(x - door) < 0.26:
            continue
        pen.flat(rectangle(x, 0.3, 0.15, 0.17), WHITE)
        pen.fill(rectangle(x, 0.3, 0.12, 0.14), glass, relief=0.4)
        pen.line(np.array([(x, 0.16), (x, 0.44)]), 0.025, WHITE)
        pen.line(np.array([(x - 0.12, 0.3), (x + 0.12, 0.3)]), 0.025, WHITE)


def mushroom(pen: Pen, rng: Rng) -> None:
    """A mushroom with a spotted cap."""
    pen = _placed(pen, rng)
    cap, spots, stalk = _colours(rng)
    stalk = mix(stalk, WHITE, 0.65)
    wide, foot = rng.uniform(0.75, 1.0), rng.uniform(0.16, 0.26)
    pen.veil(ellipse(0, 0.88, 0.5, 0.09), BLACK, 0.5, soft=0.06)
    stem = [(0, -0.1), (rng.normal(0, 0.06), 0.4), (0, 0.78)]
    pen.fill(limb(stem, [0.17, 0.18, foot + 0.05]), stalk)
    pen.fill(ellipse(0, -0.02, wide * 0.86, 0.17), mix(stalk, BLACK, 0.35), relief=0.6)
    skirt = smooth([(-0.2, 0.16), (0.2, 0.16), (0.3, 0.34), (0, 0.3), (-0.3, 0.34)], 4)
    pen.fill(skirt, mix(stalk, WHITE, 0.3))
    high = rng.uniform(0.75, 1.0)
    right = [(wide, -0.02), (wide * 0.9, -high * 0.4), (wide * 0.5, -high * 0.85)]
    left = [(-x, y) for x, y in reversed(right)]
    dome = [*right, (0, -high), *left, (-wide * 0.4, 0.06), (wide * 0.4, 0.06)]
    pen.fill(smooth(dome), cap, gloss=0.35)
    some = [(-0.5, -0.3, 0.11), (0.05, -0.72, 0.12), (0.5, -0.42, 0.1)]
    more = [(-0.08, -0.3, 0.13), (-0.4, -0.62, 0.08), (0.3, -0.14, 0.08)]
    for x, y, r in [*some, *more]:
        pen.fill(ellipse(x * wide, y * high, r, r * 0.8), mix(spots, WHITE, 0.5), relief=0.8)


def snail(pen: Pen, rng: Rng) -> None:
    """A snail with a coiled shell, creeping to the right."""
    pen = _placed(pen, rng)
    shell, line, body = _colours(rng)
    body = mix(body, COATS[1], 0.4)
    pen.veil(ellipse(0, 0.66, 1.1, 0.08), BLACK, 0.5, soft=0.05)
    lift = rng.uniform(0.1, 0.4)
    foot = [(-1.15, 0.6), (-0.5, 0.5), (0.3, 0.5), (0.72, 0.32), (0.9, 0.1 - lift)]
    pen.fill(limb(foot, [0.02, 0.13, 0.17, 0.17, 0.17]), body, gloss=0.3)
    for k in (0, 1):
        tip = (1 + 0.24 * k, -0.42 - lift)
        pen.flat(limb([(0.9 + 0.06 * k, -lift), tip], [0.04, 0.028]), mix(body, BLACK, 0.15))
        pen.fill(ellipse(*tip, 0.06), mix(body, BLACK, 0.6))
    mouth = curve([(0.98, 0.16 - lift), (0.92, 0.2 - lift), (0.84, 0.18 - lift)], 4)
    pen.line(mouth, 0.025, mix(body, BLACK, 0.5))
    big = rng.uniform(0.58, 0.72)
    pen.fill(ellipse(-0.2, -0.05, big, big * 0.95), shell, gloss=0.4)
    turns = np.linspace(0.2, 1, 44)
    angles = turns * 2 * np.pi * rng.uniform(2.0, 2.7) + 0.9
    spiral = np.stack([np.cos(angles), np.sin(angles) * 0.95], axis=1)
    spiral = spiral * turns[:, None] ** 1.2 * big * 0.93
    pen.line(moved(spiral, -0.2, -0.05), 0.07, mix(line, BLACK, 0.45))


def tree(pen: Pen, rng: Rng) -> None:
    """A broad tree, or now and then a fir."""
    pen = _placed(pen, rng)
    green = tint(rng, NATURAL[:4] + BRIGHT[:4] + BRIGHT[7:8] + NATURAL[16:17])
    bark = tint(rng, NATURAL[4:9])
    pen.veil(ellipse(0, 0.98, 0.6, 0.08), BLACK, 0.45, soft=0.06)
    pen.fill(limb([(0, -0.3), (rng.normal(0, 0.05), 0.4), (0, 0.98)], [0.09, 0.12, 0.19]), bark)
    for side in (-1, 1):
        pen.fill(limb([(0, 0.35), (side * 0.3, -0.05)], [0.07, 0.05]), bark)
    if rng.random() < 0.3:
        _fir_tiers(pen, rng, green)
    else:
        _crown(pen, rng, green)


def _fir_tiers(pen: Pen, rng: Rng, green: Colour) -> None:
    for k in range(4):
        wide, y = 0.75 - 0.14 * k, 0.4 - 0.4 * k
        tier = pen.tufted(np.array([(-wide, y), (0, y - 0.75), (wide, y)]), rng, 0.1, 60)
        pen.fill(tier, mix(green, WHITE, 0.06 * k))


def _crown(pen: Pen, rng: Rng, green: Colour) -> None:
    """A heap of tufts, the four at the back dark."""
    for k in range(rng.integers(7, 12)):
        angle, away = rng.uniform(0, 2 * np.pi), 0.5 * np.sqrt(rng.random())
        x, y = np.cos(angle) * away, -0.45 + np.sin(angle) * away * 0.8
        tone = mix(green, BLACK, 0.3) if k < 4 else mix(green, WHITE, rng.uniform(0, 0.15))
        tuft = pen.tufted(ellipse(x, y, *rng.uniform(0.26, 0.42, 2)), rng, 0.07, 90)
        pen.fill(tuft, tone, relief=0.8)


def umbrella(pen: Pen, rng: Rng) -> None:
    """An open umbrella of five panels."""
    pen = _placed(pen, rng)
    first, second, wood = _colours(rng)
    second = first if rng.random() < 0.3 else second
    wide, high = rng.uniform(0.9, 1.1), rng.uniform(0.6, 0.85)
    wood = mix(wood, BLACK, 0.5)
    stick = [(0, -0.3), (0, 0.75), (0.06, 0.92), (0.2, 0.92), (0.25, 0.78)]
    pen.fill(limb(stick, [0.035, 0.035, 0.05, 0.05, 0.04]), wood, gloss=0.3)
    pen.fill(limb([(0, -high - 0.1), (0, -high + 0.1)], [0.02, 0.04]), wood)
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 6)) * wide
    along = np.linspace(0, 1, 7) * np.pi / 2
    rib = np.stack([np.sin(along), -high * np.cos(along)], axis=1)  # from the tip to x = 1
    for k in range(5):
        left, right = rib * (edges[k], 1), rib * (edges[k + 1], 1)
        sag = ((edges[k] + edges[k + 1]) / 2, -0.12)
        panel = np.concatenate([left, [sag], right[::-1]])
        light = 0.2 - 0.12 * k if pen.light[0] < 0 else 0.12 * k - 0.28
        tone = mix(first if k % 2 else second, WHITE if light > 0 else BLACK, abs(light))
        pen.fill(panel, tone, relief=0.5, gloss=0.2)
        pen.line(left, 0.014, mix(tone, BLACK, 0.4))
