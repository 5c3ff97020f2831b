"""Pictures drawn with OpenCV that stand in for photographs on a machine without internet.

Every picture is a scene: a background, a ground shadow, the subject, now and then something in
front of it, and a camera with its light, blur and noise. All classes share the same backgrounds,
coats, colours and sizes, so only the shape of the subject tells them apart.

How a picture comes about, from top to bottom of this file: outlines (plain arrays of points),
textures, the `Pen` that paints an outline as a softly lit body, backgrounds, animals, things, the
camera, and at the end the three functions for users: `draw`, `draw_arrays` and `draw_folder`.

Units: the short side of the picture is 1, the origin is its centre, y points down.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

ANIMALS = ("cat", "dog", "ants", "bees")
THINGS = (
    "boat",
    "butterfly",
    "car",
    "fish",
    "flower",
    "house",
    "mushroom",
    "snail",
    "tree",
    "umbrella",
)
VERSION = 1  # raised whenever the pictures change, so that stale folders are drawn again

Points = np.ndarray  # (N, 2) float: x, y
Colour = tuple[float, float, float]  # red, green, blue in 0..255
Rng = np.random.Generator
Paint = Colour | np.ndarray | None

# --- outlines ------------------------------------------------------------------------------------


@lru_cache
def _circle(corners: int) -> Points:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _turned(points: Points, degrees: float) -> Points:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(points, float) @ np.array([[c, s], [-s, c]])


def _moved(points: Points, x: float, y: float) -> Points:
    return np.asarray(points, float) + np.array((x, y))


def _ellipse(x: float, y: float, rx: float, ry: float | None = None, tilt: float = 0) -> Points:
    """The outline of an ellipse around (x, y), turned by `tilt` degrees (clockwise on screen)."""
    return _moved(_turned(_circle(28) * (rx, rx if ry is None else ry), tilt), x, y)


@lru_cache
def _spline(count: int, steps: int, closed: bool) -> np.ndarray:
    """The matrix that turns control points into a Catmull-Rom spline through them."""
    t = np.linspace(0, 1, steps, endpoint=False)
    basis = np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2],
        axis=1,
    )
    unit = np.eye(count)
    if closed:
        padded = np.concatenate([unit[-1:], unit, unit[:2]])
    else:
        padded = np.concatenate([2 * unit[:1] - unit[1:2], unit, 2 * unit[-1:] - unit[-2:-1]])
    rows = [basis @ padded[k : k + 4] / 2 for k in range(count if closed else count - 1)]
    return np.concatenate(rows if closed else [*rows, unit[-1:]])


@lru_cache
def _limb_matrices(count: int, steps: int, widths: int) -> tuple[np.ndarray, ...]:
    """For `_limb`: the matrices of the spine, of its direction and of the half-widths."""
    spine = _spline(count, steps, False)
    share = np.linspace(0, widths - 1, len(spine))
    half = np.stack([np.interp(share, range(widths), unit) for unit in np.eye(widths)], axis=1)
    return spine, np.gradient(spine, axis=0), half


def _smooth(points: Sequence, steps: int = 6) -> Points:
    """A closed smooth outline through the points."""
    return _spline(len(points), steps, True) @ np.asarray(points, float)


def _curve(points: Sequence, steps: int = 6) -> Points:
    """An open smooth curve through the points."""
    return _spline(len(points), steps, False) @ np.asarray(points, float)


def _mirrored(right: Sequence) -> Points:
    """A symmetric outline from its right half, listed from the top to the bottom."""
    left = [(-x, y) for x, y in reversed(right) if x]
    return np.array([*right, *left], float)


def _limb(points: Sequence, widths: Sequence[float], *, steps: int = 6) -> Points:
    """The outline of a tube along a curve, with half-widths and round ends."""
    points = np.asarray(points, float)
    spine, slope, half = _limb_matrices(len(points), steps, len(widths))
    spine, along, half = spine @ points, slope @ points, half @ np.asarray(widths, float)
    along *= (half / (np.hypot(along[:, 0], along[:, 1]) + 1e-9))[:, None]
    side = along[:, ::-1] * (-1, 1)
    ends = spine[[0, -1]] + along[[0, -1]] * [[-0.8], [0.8]]
    return np.concatenate([ends[:1], spine + side, ends[1:], (spine - side)[::-1]])


def _box_shape(x: float, y: float, rx: float, ry: float) -> Points:
    return np.array([(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)])


# --- colours and textures ------------------------------------------------------------------------

TILE = 1024
TILE_UNIT = 512  # pixels of a tile that cover one unit at zoom 1


def _noise(rng: Rng, sigma_x: float, sigma_y: float) -> np.ndarray:
    """Smooth noise with mean 0 and deviation 1, enlarged from a coarse grid where very smooth."""
    factor = max(1, int(min(sigma_x, sigma_y) / 2))
    coarse = rng.standard_normal((TILE // factor + 1, TILE // factor + 1), np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma_x / factor, sigmaY=sigma_y / factor)
    noise = cv2.resize(coarse, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / noise.std()


def _warped(image: np.ndarray, rng: Rng, reach: float) -> np.ndarray:
    ys, xs = np.mgrid[:TILE, :TILE].astype(np.float32)
    dx, dy = (_noise(rng, 40, 40) * reach for _ in range(2))
    return cv2.remap(image, xs + dx, ys + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _tile_values(kind: str) -> np.ndarray:
    rng = np.random.default_rng(sum(kind.encode()))
    if kind == "cloud":
        return sum(_noise(rng, s, s) * s**0.6 for s in (2, 6, 18, 50)) / 14
    if kind == "spots":
        return _noise(rng, 9, 9) * 0.8 + _noise(rng, 3, 3) * 0.15
    if kind == "patches":
        return _warped(_noise(rng, 55, 55), rng, 14)
    if kind == "stripes":
        rows = np.sin(np.arange(TILE, dtype=np.float32) * 2 * np.pi / 46)[:, None]
        bands = np.broadcast_to(rows, (TILE, TILE)).copy()
        return _warped(bands, rng, 16) * 1.1 + _noise(rng, 14, 5) * 0.45
    if kind == "hair":
        return _warped(_noise(rng, 1.1, 9) * 0.7 + _noise(rng, 3, 16) * 0.5, rng, 22)
    return _noise(rng, 0.6, 0.6)  # grain


@cache
def _tile(kind: str, halvings: int = 0) -> np.ndarray:
    """A large grey texture around 128, made once and then cut up for all pictures."""
    if halvings:
        finer = _tile(kind, halvings - 1)
        side = len(finer) // 2
        return cv2.resize(finer, (side, side), interpolation=cv2.INTER_AREA)
    return np.clip(128 + 48 * _tile_values(kind), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Swatch:
    """A piece of a texture, chosen before the size of the picture is known."""

    kind: str
    left: float
    top: float
    zoom: float
    flip: int

    def cut(self, width: int, height: int, unit: float) -> np.ndarray:
        """The texture for a picture of `unit` pixels per unit: uint8 (height, width)."""
        step = TILE_UNIT / self.zoom / unit
        halvings = min(5, max(0, int(math.log2(step))))
        tile, step = _tile(self.kind, halvings), step / 2**halvings
        w, h = (max(2, min(len(tile), round(n * step))) for n in (width, height))
        x, y = round(self.left * (len(tile) - w)), round(self.top * (len(tile) - h))
        piece = cv2.resize(tile[y : y + h, x : x + w], (width, height))
        return cv2.flip(piece, self.flip)


def _swatch(rng: Rng, kind: str, zoom: float = 1) -> Swatch:
    return Swatch(kind, rng.random(), rng.random(), zoom, int(rng.integers(-1, 2)))


NATURAL = (  # one palette for the backgrounds, clutter and things of every class
    (96, 128, 62), (142, 158, 88), (58, 92, 58), (178, 160, 118), (206, 190, 150), (132, 104, 76),
    (92, 70, 54), (150, 148, 140), (98, 102, 108), (196, 200, 204), (128, 164, 196), (84, 122, 158),
    (186, 120, 92), (168, 92, 80), (206, 170, 92), (160, 134, 164), (210, 160, 160), (70, 66, 72),
)  # fmt: skip
BRIGHT = (
    (196, 52, 44), (226, 122, 40), (238, 194, 60), (110, 160, 66), (52, 134, 132), (60, 104, 176),
    (122, 84, 160), (214, 112, 150), (238, 232, 220), (132, 90, 60), (78, 82, 92), (176, 206, 222),
)  # fmt: skip


def _tint(rng: Rng, palette: Sequence[Colour], spread: float = 10) -> Colour:
    """A colour of the palette, moved a little in brightness and in hue."""
    base, gain = palette[rng.integers(len(palette))], rng.uniform(0.8, 1.2)
    shift = rng.normal(0, spread, 3).tolist()
    return tuple(min(250.0, max(8.0, c * gain + s)) for c, s in zip(base, shift, strict=True))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of it replaced by `b`."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


BLACK, WHITE = (14, 12, 12), (250, 248, 242)

# --- the pen -------------------------------------------------------------------------------------

CELLS = 28  # the long side of the coarse grid on which the light on a body is worked out
MARGIN = 6


class Pen:
    """Paints outlines, given in its own units, onto a picture that it shares with other pens."""

    def __init__(self, pixels: np.ndarray, linear: np.ndarray, x: float, y: float, light: tuple):
        self.pixels, self.linear, self.x, self.y, self.light = pixels, linear, x, y, light
        (a, b), (c, d) = linear.tolist()
        self.unit = abs(a * d - b * c) ** 0.5  # pixels per unit of this pen
        self._fine, self._origin = linear * 16, np.array((x * 16 + 0.5, y * 16 + 0.5))

    @classmethod
    def over(cls, pixels: np.ndarray, light: tuple[float, float]) -> "Pen":
        """A pen with the units of a scene: short side 1, the origin in the centre."""
        height, width = pixels.shape[:2]
        unit = min(height, width)
        return cls(pixels, np.eye(2) * unit, width / 2 - 0.5, height / 2 - 0.5, light)

    def at(self, x=0.0, y=0.0, scale=1.0, *, turn=0.0, mirror=False) -> "Pen":
        """A pen on the same picture with its origin at (x, y), turned, scaled and mirrored."""
        c, s = math.cos(math.radians(turn)) * scale, math.sin(math.radians(turn)) * scale
        inner = np.array([(-c, -s) if mirror else (c, s), (-s, c)])  # applied from the right
        x, y = (np.array((x, y)) @ self.linear).tolist()
        return Pen(self.pixels, inner @ self.linear, self.x + x, self.y + y, self.light)

    def _fixed(self, outline: Points) -> np.ndarray:
        """Places in the picture in sixteenths of a pixel, the unit of OpenCV's fine drawing."""
        return (outline @ self._fine + self._origin).astype(np.int32)

    def _box(self, fixed: np.ndarray, grow: int) -> tuple[int, int, int, int] | None:
        """The pixels x0, y0, x1, y1 around an outline, `grow` more on each side, or None."""
        height, width = self.pixels.shape[:2]
        x, y, w, h = cv2.boundingRect(fixed)
        x0, y0 = max(0, (x >> 4) - grow), max(0, (y >> 4) - grow)
        x1 = min(width, ((x + w) >> 4) + 2 + grow)
        y1 = min(height, ((y + h) >> 4) + 2 + grow)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def flat(self, outline: Points, colour: Colour) -> None:
        """Paints the outline in one colour without light on it: for small and thin parts."""
        cv2.fillPoly(self.pixels, [self._fixed(outline)], colour, cv2.LINE_AA, 4)

    def line(self, points: Points | list[Points], width: float, colour: Colour) -> None:
        """Draws an open line, or a list of them, of the given width in units."""
        lines = points if isinstance(points, list) else [points]
        pixels = [self._fixed(line) for line in lines]
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.pixels, pixels, False, colour, thickness, cv2.LINE_AA, 4)

    def fill(
        self, outline: Points, paint: Paint, *, relief: float = 1, gloss: float = 0, dim: float = 0
    ) -> None:
        """Paints the outline as a rounded body in the light.

        `paint` is a colour, or a picture-size coat, or None: lights what is there already.
        `relief` is the strength of light and shadow, `gloss` of the shine, `dim` darkens it all.
        """
        fixed = self._fixed(outline)
        box = self._box(fixed, 0)
        if box is None:
            return
        x0, y0, x1, y1 = box
        region = self.pixels[y0:y1, x0:x1]
        mask = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed - (x0 << 4, y0 << 4)], 255, 8, 4)
        shade, shine, place = _light_on(fixed, self.light, relief, gloss, 1 - dim)
        lit = _spread(shade, place, box)
        if isinstance(paint, tuple):
            lit = cv2.multiply(lit, (*paint, 0), scale=1 / 128)
        else:
            lit = cv2.multiply(lit, region if paint is None else paint[y0:y1, x0:x1], scale=1 / 128)
        if shine is not None:
            lit = cv2.add(lit, _spread(shine, place, box))
        cv2.copyTo(lit, mask, region)

    def tufted(self, outline: Points, rng: Rng, amount: float, hairs: int = 110) -> Points:
        """The outline with tufts of hair that stand out by up to `amount` units."""
        height = rng.random(hairs) * (np.arange(hairs) % 2) - 0.15
        if amount * self.unit < 2.5:  # too small to be seen
            return outline
        steps = np.diff(outline, axis=0, append=outline[:1])
        length = np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))
        at = np.linspace(0, length[-1], hairs, endpoint=False)
        length = np.concatenate([[0], length[:-1]])
        points = [np.interp(at, length, outline[:, k]) for k in (0, 1)]
        points = np.stack(points, axis=1)
        along = points[np.arange(1, hairs + 1) % hairs] - points[np.arange(-1, hairs - 1)]
        along *= (amount / (np.hypot(along[:, 0], along[:, 1]) + 1e-9))[:, None]
        sense = 1 if cv2.contourArea(outline.astype(np.float32), True) > 0 else -1
        normal = along[:, ::-1] * (sense, -sense)
        return points + height[:, None] * (normal + 0.5 * along)

    def veil(
        self, outline: Points | list[Points], colour: Colour, alpha: float, *, soft: float = 0
    ) -> None:
        """Lays a see-through colour over an outline, or over a list of outlines that do not meet.

        `soft` blurs the edge by that many units.
        """
        outlines = outline if isinstance(outline, list) else [outline]
        outlines = [self._fixed(points) for points in outlines]
        blur = soft * self.unit
        box = self._box(np.concatenate(outlines), int(2 * blur))
        if box is None:
            return
        x0, y0, x1, y1 = box
        step = max(1.0, blur / 2.5)
        w, h = max(1, round((x1 - x0) / step)), max(1, round((y1 - y0) / step))
        mask, scale = np.zeros((h, w), np.uint8), (w / (x1 - x0), h / (y1 - y0))
        inside = [((fixed - (x0 << 4, y0 << 4)) * scale).astype(np.int32) for fixed in outlines]
        cv2.fillPoly(mask, inside, round(255 * alpha), cv2.LINE_AA, 4)
        if blur > 0.5:
            mask = cv2.GaussianBlur(mask, (0, 0), blur / step, borderType=cv2.BORDER_REPLICATE)
        weight = cv2.cvtColor(cv2.resize(mask, (x1 - x0, y1 - y0)), cv2.COLOR_GRAY2RGB)
        region = self.pixels[y0:y1, x0:x1]
        cv2.multiply(region, cv2.bitwise_not(weight), dst=region, scale=1 / 255)
        if colour is not BLACK:  # a shadow only takes light away
            cv2.add(region, cv2.multiply(weight, (*colour, 0), scale=1 / 255), dst=region)


def _light_on(fixed, light, relief, gloss, level):
    """The light on a body, on a coarse grid: shade (128 is neutral), shine, and left, top, step.

    The outline, filled and blurred, is taken for the height of the body; the side on which the
    height falls off towards the light is bright, the other side dark.
    """
    x, y, w, h = cv2.boundingRect(fixed)
    step = max(max(w, h) / CELLS, 8)  # in sixteenths of a pixel
    cells = ((fixed - (x, y)) * (1 / step) + (MARGIN + 0.5)).astype(np.int32)
    mask = np.zeros((int(h / step) + 2 * MARGIN + 1, int(w / step) + 2 * MARGIN + 1), np.uint8)
    cv2.fillPoly(mask, [cells], 255)
    breadth = cv2.countNonZero(mask) / CELLS
    side = 2 * min(5, max(1, int(0.4 * breadth))) + 1
    body = cv2.blur(cv2.blur(mask, (side, side)), (side, side))
    dx, dy = round(light[0] * side * 0.45), round(light[1] * side * 0.45)
    inner, outer = _shifted(body, -dx, -dy), _shifted(body, dx, dy)
    body = _shifted(body, 0, 0)
    strength = 0.5 * relief * level
    slope = cv2.addWeighted(inner, 0.5, outer, -0.5, 128)
    base = 128 * level - 0.375 * 255 * strength - 128 * strength
    shade = cv2.addWeighted(slope, strength, body, 0.5 * strength, base)
    place = (x / 16 - step / 4, y / 16 - step / 4, step / 16)
    if not gloss:
        return shade, None, place
    return shade, cv2.multiply(cv2.subtract(slope, 158), body, scale=gloss / 44), place


def _shifted(grid: np.ndarray, x: int, y: int) -> np.ndarray:
    """A grid without all but one cell of its margin, displaced by x and y cells."""
    keep = MARGIN - 1
    height, width = grid.shape
    return grid[keep + y : height - keep + y, keep + x : width - keep + x]


def _spread(coarse: np.ndarray, place: tuple[float, float, float], box) -> np.ndarray:
    """The part of a coarse grid that lies in a box of pixels, as RGB at full resolution."""
    left, top, step = round(place[0]), round(place[1]), place[2]
    (h, w), (x0, y0, x1, y1) = coarse.shape, box
    size = max(x1 - left, round(w * step)), max(y1 - top, round(h * step))
    part = cv2.resize(coarse, size)[y0 - top : y1 - top, x0 - left : x1 - left]
    return cv2.cvtColor(part, cv2.COLOR_GRAY2RGB)


# --- backgrounds ---------------------------------------------------------------------------------
# Each painter covers the whole picture. All classes use all of them.


def _half(pen: Pen) -> tuple[float, float]:
    """Half the width and half the height of the picture, in units of the scene."""
    height, width = pen.pixels.shape[:2]
    return width / min(height, width) / 2, height / min(height, width) / 2


def _somewhere(pen: Pen, rng: Rng, reach: float = 1.0) -> tuple[float, float]:
    hx, hy = _half(pen)
    return rng.uniform(-hx, hx) * reach, rng.uniform(-hy, hy) * reach


def _wash(pen: Pen, rng: Rng, top: Colour, bottom: Colour, spread: float = 14) -> None:
    """Covers the picture with a soft, uneven run from one colour to another."""
    share = np.linspace(0, 1, 4)[:, None, None]
    coarse = np.array(top) * (1 - share) + np.array(bottom) * share + np.zeros((4, 4, 1))
    coarse = coarse + rng.normal(0, spread, (4, 4, 1)) + rng.normal(0, spread * 0.4, (4, 4, 3))
    height, width = pen.pixels.shape[:2]
    coarse = np.clip(coarse, 0, 255).astype(np.uint8)
    pen.pixels[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _mottle(pen: Pen, swatch: Swatch, strength: float, region: slice = slice(None)) -> None:
    """Darkens and lightens the picture (or some of its rows) by a texture."""
    rows = pen.pixels[region]
    grey = swatch.cut(rows.shape[1], rows.shape[0], pen.unit)
    grey = cv2.convertScaleAbs(grey, alpha=strength, beta=128 * (1 - strength))
    cv2.multiply(rows, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dst=rows, scale=1 / 128)


def _haze(pen: Pen, rng: Rng) -> None:
    """A plain wall or sky: two near colours and hardly any texture."""
    colour = _tint(rng, NATURAL)
    _wash(pen, rng, colour, _mix(colour, _tint(rng, NATURAL), 0.5), 18)
    _mottle(pen, _swatch(rng, "cloud", rng.uniform(1, 4)), rng.uniform(0.1, 0.4))


def _bokeh(pen: Pen, rng: Rng) -> None:
    """Blurred lights and leaves far behind."""
    _wash(pen, rng, _tint(rng, NATURAL), _tint(rng, NATURAL), 26)
    palette = [_tint(rng, NATURAL + BRIGHT) for _ in range(4)]
    for _ in range(rng.integers(7, 14)):
        spot = _ellipse(*_somewhere(pen, rng, 1.1), rng.uniform(0.04, 0.2))
        pen.veil(spot, palette[rng.integers(4)], rng.uniform(0.2, 0.7), soft=rng.uniform(0, 0.03))


def _blades(pen: Pen, rng: Rng) -> None:
    """Grass, straw or reeds: hundreds of blades over an earthy ground."""
    colour = _tint(rng, NATURAL[:7])
    _wash(pen, rng, _mix(colour, BLACK, 0.3), _mix(colour, BLACK, 0.5), 20)
    length, lean, count = rng.uniform(0.12, 0.35), rng.normal(0, 0.2), rng.integers(110, 200)
    hx, hy = _half(pen)
    root = np.stack([rng.uniform(-hx, hx, count), np.sort(rng.uniform(-hy, hy + 0.2, count))], 1)
    bend = rng.normal(lean, 0.2, (count, 2))
    middle = root + np.stack([bend[:, 0] * 0.3, np.full(count, -0.6)], 1) * length
    tip = root + np.stack([bend[:, 1], np.full(count, -1)], 1) * length
    half = (0.01, 0)
    blades = np.stack([root - half, middle - half, tip, middle + half, root + half], axis=1)
    for some in np.array_split(blades, 8):
        tone = rng.normal(0, 0.22)
        shade = _mix(colour, WHITE if tone > 0 else BLACK, min(0.5, abs(tone)))
        for blade in some:
            pen.flat(blade, shade)


def _leaf_shape(length: float, breadth: float) -> Points:
    half = [(0, 0), (breadth * 0.6, -0.15), (breadth, -0.45), (breadth * 0.6, -0.8), (0, -1)]
    return _smooth(_mirrored(half), 4) * length


def _leaf(pen: Pen, rng: Rng, colour: Colour, length: float = 1.0) -> None:
    """One leaf from its stalk at the origin upwards, with veins."""
    breadth = rng.uniform(0.22, 0.42)
    pen.fill(_leaf_shape(length, breadth), colour, relief=0.8, gloss=0.15)
    vein = _mix(colour, WHITE, 0.25)
    pen.line(np.array([(0, 0.1), (0, -0.95)]) * length, 0.025 * length, vein)
    pen.line([rib * (breadth * length, length) for rib in LEAF_RIBS], 0.012 * length, vein)


LEAF_RIBS = [
    np.array([(0, y), (0.75 * side, y - 0.16)]) for y in (-0.2, -0.4, -0.6) for side in (-1, 1)
]


def _foliage(pen: Pen, rng: Rng) -> None:
    """Leaves upon leaves: a hedge in summer or litter in autumn."""
    palette = [_tint(rng, NATURAL[:6] if rng.random() < 0.7 else NATURAL) for _ in range(3)]
    _wash(pen, rng, *(_mix(c, BLACK, 0.55) for c in palette[:2]))
    size = rng.uniform(0.2, 0.5)
    for _ in range(int(rng.uniform(3, 5) / size)):
        colour = _mix(palette[rng.integers(3)], BLACK, rng.uniform(0, 0.3))
        place = pen.at(*_somewhere(pen, rng, 1.2), turn=rng.uniform(0, 360))
        _leaf(place, rng, colour, size * rng.uniform(0.6, 1.2))


def _ground(pen: Pen, rng: Rng) -> None:
    """Sand, soil, gravel or concrete from above, with pebbles."""
    colour = _tint(rng, NATURAL[3:10])
    _wash(pen, rng, colour, _mix(colour, BLACK, 0.15), 16)
    _mottle(pen, _swatch(rng, "cloud", rng.uniform(0.8, 2)), rng.uniform(0.4, 0.9))
    _mottle(pen, _swatch(rng, "grain", rng.uniform(0.8, 1.6)), rng.uniform(0.1, 0.4))
    size = rng.uniform(0.01, 0.05)
    for _ in range(rng.integers(0, 40)):
        x, y = _somewhere(pen, rng)
        rx, ry = size * rng.uniform(0.4, 2, 2)
        pen.veil(_ellipse(x, y + ry * 0.5, rx * 1.2, ry), BLACK, 0.4)
        pen.fill(_ellipse(x, y, rx, ry, rng.uniform(0, 180)), _tint(rng, NATURAL[3:10]))


def _stripes_of_wood(pen: Pen, rng: Rng) -> None:
    """Boards or tiles: bands with grain, with dark joints between them."""
    colour = _tint(rng, NATURAL[3:])
    _wash(pen, rng, colour, colour, 10)
    board = pen.at(*_somewhere(pen, rng, 0.4), turn=rng.choice([0, 90]) + rng.normal(0, 12))
    width = rng.uniform(0.12, 0.35)
    for k in range(-6, 7):
        tone = _mix(colour, WHITE if k % 2 else BLACK, rng.uniform(0, 0.14))
        band = [(k * width, -2), ((k + 1) * width, -2), ((k + 1) * width, 2), (k * width, 2)]
        board.flat(np.array(band), tone)
        board.line(np.array(band)[[0, 3]], 0.008, _mix(colour, BLACK, 0.55))
    _mottle(pen, _swatch(rng, "hair", rng.uniform(1, 2.5)), rng.uniform(0.2, 0.6))


def _cloth(pen: Pen, rng: Rng) -> None:
    """A blanket or curtain: checks or stripes over soft folds."""
    first, second = _tint(rng, BRIGHT + NATURAL), _tint(rng, BRIGHT + NATURAL)
    first = _mix(first, NATURAL[7], 0.3)
    _wash(pen, rng, first, first, 8)
    weave = pen.at(turn=rng.uniform(0, 180))
    gap = rng.uniform(0.08, 0.25)
    bands = [_box_shape(k * gap, 0, gap / 4, 1.2) for k in range(-9, 10)]
    weave.veil(bands, second, 0.5)
    if rng.random() < 0.5:
        weave.veil([band[:, ::-1] for band in bands], second, 0.4)
    _mottle(pen, _swatch(rng, "stripes", rng.uniform(3, 6)), rng.uniform(0.2, 0.5))


def _horizon(pen: Pen, rng: Rng) -> None:
    """A landscape: sky with clouds or hills, and below it grass, water, sand or a road."""
    hx, hy = _half(pen)
    sky = _mix(_tint(rng, (NATURAL[9], NATURAL[10], NATURAL[13], NATURAL[16])), WHITE, 0.2)
    _wash(pen, rng, sky, _mix(sky, WHITE, rng.uniform(0, 0.5)), 8)
    level = rng.uniform(-0.5, 0.45) * hy
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(-hx, hx), rng.uniform(-hy, level)
        cloud = _ellipse(x, y, rng.uniform(0.1, 0.3), rng.uniform(0.03, 0.08))
        pen.veil(cloud, WHITE, 0.6, soft=0.03)
    for depth in range(rng.integers(0, 3)):
        hill = _tint(rng, NATURAL)
        top = rng.uniform(0.05, 0.3, 6)
        ridge = [(-1.8 + 0.72 * k, level - h) for k, h in enumerate(top)]
        shape = np.concatenate([_curve(ridge), [(1.8, level), (-1.8, level)]])
        pen.flat(shape, _mix(hill, sky, 0.6 - 0.2 * depth))
    _floor(pen, rng, level, _tint(rng, NATURAL))


def _floor(pen: Pen, rng: Rng, level: float, colour: Colour) -> None:
    """Covers everything below `level` with ground that grows darker towards the viewer."""
    hx, hy = _half(pen)
    steps = 5
    for k in range(steps):
        top = level + (hy - level) * k / steps
        band = np.array([(-hx, top), (hx, top), (hx, hy), (-hx, hy)]) * (1.05, 1)
        pen.flat(band, _mix(colour, BLACK, 0.06 * k))
    row = int(np.clip((level + hy) * pen.unit, 0, pen.pixels.shape[0] - 2))
    kind = ("cloud", "hair", "stripes", "grain")[rng.integers(4)]
    _mottle(pen, _swatch(rng, kind, rng.uniform(1, 3)), rng.uniform(0.2, 0.6), slice(row, None))


def _room(pen: Pen, rng: Rng) -> None:
    """A wall with paper or paint, a floor, and some furniture out of focus."""
    hx, hy = _half(pen)
    wall, level = _mix(_tint(rng, NATURAL), WHITE, rng.uniform(0, 0.4)), rng.uniform(0, 0.7) * hy
    _wash(pen, rng, wall, _mix(wall, BLACK, 0.1), 8)
    if rng.random() < 0.5:
        gap = rng.uniform(0.06, 0.2)
        strips = [_box_shape(k * gap, 0, gap / 4, 1.5) for k in range(-8, 9)]
        pen.veil(strips, _mix(wall, WHITE, 0.4), 0.5)
    for _ in range(rng.integers(0, 4)):
        w, h = rng.uniform(0.06, 0.3, 2)
        x = rng.uniform(-hx, hx)
        y = rng.uniform(-hy, level - h * 0.5) if rng.random() < 0.5 else level - h + 0.04
        pen.veil(_box_shape(x + 0.02, y + 0.02, w, h), BLACK, 0.3, soft=0.02)
        pen.fill(_box_shape(x, y, w, h), _tint(rng, NATURAL + BRIGHT), relief=0.3)
    _floor(pen, rng, level, _tint(rng, NATURAL))
    pen.flat(_box_shape(0, level, 2, 0.012), _mix(wall, WHITE, 0.5))


def _petals(pen: Pen, rng: Rng) -> None:
    """A bed of flowers between leaves."""
    _foliage(pen, rng)
    for _ in range(rng.integers(3, 9)):
        _bloom(pen.at(*_somewhere(pen, rng, 1.1)), rng, rng.uniform(0.06, 0.22))


def _clutter(pen: Pen, rng: Rng) -> None:
    """Balls, boxes and cushions of all colours: a toy shelf out of focus."""
    _wash(pen, rng, _tint(rng, NATURAL), _tint(rng, NATURAL), 12)
    for _ in range(rng.integers(5, 11)):
        _oddment(pen.at(*_somewhere(pen, rng, 1.1), rng.uniform(0.08, 0.3)), rng)


BACKGROUNDS: tuple[Callable[[Pen, Rng], None], ...] = (
    _haze, _bokeh, _blades, _foliage, _ground, _stripes_of_wood, _cloth, _horizon, _room, _petals,
    _clutter,
)  # fmt: skip


def _bloom(pen: Pen, rng: Rng, radius: float, colour: Colour | None = None) -> None:
    """A flower head seen from above: one or two rings of petals around a disc."""
    colour = colour or _mix(_tint(rng, BRIGHT), WHITE, rng.uniform(0, 0.5))
    count, start = int(rng.integers(5, 13)), rng.uniform(0, 360)
    angles = np.linspace(0, 2 * np.pi, 12 * count, endpoint=False)
    reach = 0.55 + 0.45 * np.abs(np.sin(angles * count / 2)) ** rng.uniform(0.4, 0.8)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (reach * radius)[:, None]
    pen.fill(_turned(ring, start + 180 / count), _mix(colour, BLACK, 0.25))
    pen.fill(_turned(ring, start) * 0.94, colour)
    pen.line([_turned(seam, start) for seam in ring[::12, None] * [[[0.3], [0.95]]]],
             0.03 * radius, _mix(colour, BLACK, 0.3))  # fmt: skip
    disc = _ellipse(0, 0, radius * rng.uniform(0.2, 0.34))
    pen.fill(disc, _tint(rng, (BRIGHT[2], BRIGHT[1], BRIGHT[9])), relief=1.3)


def _oddment(pen: Pen, rng: Rng) -> None:
    """A thing without a name: a ball, a lump, a stick, a cushion or a tuft, in any colour."""
    colour = _tint(rng, NATURAL + BRIGHT + COATS)
    kind = rng.integers(5)
    lump = _smooth(_circle(7) * rng.uniform(0.5, 1.1, (7, 1)))
    bent = [(-1, 0), (0, rng.normal(0, 0.4)), (1, 0)]
    shapes = (_ellipse(0, 0, 0.8), lump, _limb(bent, [0.12, 0.15, 0.1]), _box_shape(0, 0, 0.8, 0.6),
              pen.tufted(lump, rng, 0.15))  # fmt: skip
    pen = pen.at(turn=rng.uniform(0, 360))
    pen.veil(shapes[kind] * 1.05, BLACK, 0.3, soft=0.12)
    pen.fill(shapes[kind], colour, relief=rng.uniform(0.6, 1.3), gloss=rng.choice([0, 0.4]))
    if rng.random() < 0.4:
        pen.veil(shapes[kind] * (0.9, 0.25), _tint(rng, BRIGHT + COATS), 0.6)


# --- cats and dogs -------------------------------------------------------------------------------

COATS = (  # fur of cats and dogs, and the bodies of insects, come from one palette
    (196, 128, 66), (222, 196, 156), (128, 88, 56), (136, 132, 128), (52, 48, 48), (226, 222, 214),
    (176, 142, 104), (88, 58, 42), (168, 170, 174), (206, 160, 98),
)  # fmt: skip
PINK = (206, 140, 132)


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
    base, mark = _tint(rng, COATS, 5), _tint(rng, COATS, 5)
    kind = ("cloud", "stripes", "spots", "patches")[rng.choice(4, p=[0.3, 0.28, 0.12, 0.3])]
    if kind in ("stripes", "cloud"):
        mark = _mix(base, BLACK, rng.uniform(0.35, 0.65))
    levels = np.arange(256)
    slope, middle = (60, 190) if kind == "cloud" else (14, rng.uniform(120, 165))
    share = 1 / (1 + np.exp((middle - levels) / slope))
    ramp = np.array(base) + (np.array(mark) - np.array(base)) * share[:, None]
    height, width = pen.pixels.shape[:2]
    pattern = _swatch(rng, kind, rng.uniform(0.8, 1.5)).cut(width, height, pen.unit)
    fur = cv2.applyColorMap(pattern, np.clip(ramp, 0, 255).astype(np.uint8)[:, None])
    _mottle(Pen.over(fur, pen.light), _swatch(rng, "hair", rng.uniform(0.8, 1.3)), 0.55)
    pale = _mix(base, WHITE, rng.choice([0.25, 0.8]))
    nose = PINK if rng.random() < 0.3 else _mix(BLACK, base, 0.15)
    return Coat(fur, base, mark, pale, nose, rng.uniform(0.02, 0.09))


def _furry(
    pen: Pen, rng: Rng, coat: Coat, outline: Points, *, fluff: float = 1, dim: float = 0
) -> None:
    """A body covered with the coat, hair standing out all around."""
    pen.fill(pen.tufted(outline, rng, coat.fluff * fluff), coat.fur, dim=dim)


def _eye(pen: Pen, shape: Points, iris: Colour, pupil: tuple[float, float]) -> None:
    """An eye of unit size: dark rim, iris, pupil and the light mirrored in it."""
    pen.flat(shape * 1.25, _mix(BLACK, iris, 0.08))
    pen.fill(shape, iris, relief=0.5)
    pen.flat(_ellipse(0, 0, *pupil), BLACK)
    pen.flat(_ellipse(-0.28, -0.32, 0.2), WHITE)


CAT_EYE = _smooth([(-1, 0.2), (-0.4, -0.62), (0.35, -0.75), (1, -0.3), (0.45, 0.6), (-0.35, 0.68)])
DOG_EYE = _smooth([(-0.95, 0.05), (-0.35, -0.8), (0.4, -0.8), (0.95, 0), (0.4, 0.75), (-0.4, 0.75)])
EYES = ((150, 170, 70), (206, 160, 50), (110, 156, 180), (150, 92, 40), (92, 54, 30))


def _cat_head(pen: Pen, rng: Rng, coat: Coat, yaw: float, pitch: float) -> None:
    """A cat's face: pointed ears, slit pupils, a small muzzle and whiskers. Radius about 1."""
    ear = rng.uniform(1.15, 1.4)
    for side in (-1, 1):
        reach = 1 - side * yaw * 0.25
        flap = [(0.14, -0.6), (0.3, -0.92), (0.66, -ear), (0.86, -0.95), (0.93, -0.25)]
        outline = _smooth(np.array(flap) * (side * reach, 1), 4)
        _furry(pen, rng, coat, outline, fluff=0.5)
        centre = _moved(outline.mean(0), 0, 0.08)
        pen.fill((outline - centre) * 0.6 + centre, _mix(PINK, coat.base, 0.4), relief=0.6)
    wide = rng.uniform(0.9, 1.02)
    skull = [(0, -0.8), (0.5, -0.72), (0.86, -0.3), (wide, 0.2), (0.6, 0.62), (0, 0.8)]
    _furry(pen, rng, coat, _smooth(_mirrored(skull)))
    for x in (-0.2, 0, 0.2):
        mark = [(x * 1.3, -0.74), (x * 0.8 + yaw * 0.2, -0.42)]
        pen.line(_moved(mark, 0, pitch * 0.3), 0.05, coat.mark)
    x, y = yaw * 0.45, 0.34 + pitch * 0.4
    for side in (-1, 1):
        pen.fill(_ellipse(x + side * 0.18, y, 0.25, 0.2, side * 12), coat.pale, relief=0.8)
    pen.fill(_ellipse(x, y + 0.22, 0.17, 0.12), coat.pale, relief=0.6)
    iris, slit = _tint(rng, EYES, 8), rng.uniform(0.12, 0.4)
    size = rng.uniform(0.2, 0.26)
    for side in (-1, 1):
        place = pen.at(x * 0.8 + side * 0.42, -0.1 + pitch * 0.4, size, turn=-side * 4)
        _eye(place, CAT_EYE * (side * (1 - side * yaw * 0.3), 1), iris, (slit, 0.66))
    _muzzle_lines(pen, x * 1.08, y - 0.1, 0.14, coat)
    whisker = _mix(coat.pale, WHITE, 0.8) if sum(coat.base) < 560 else _mix(coat.base, BLACK, 0.5)
    droops, hairs = rng.normal(0, 0.06, (2, 4)), []
    for side, row in zip((-1, 1), droops, strict=True):
        for k, droop in enumerate(row):
            start = (x + side * 0.26, y - 0.04 + 0.05 * k)
            end = (x + side * 1.15, y - 0.24 + 0.17 * k + droop)
            middle = (x + side * 0.7, (start[1] + end[1]) / 2 - 0.05)
            hairs.append(_curve([start, middle, end], 4))
    pen.line(hairs, 0.012, whisker)


def _muzzle_lines(pen: Pen, x: float, y: float, size: float, coat: Coat) -> None:
    """The nose with its shine, and the mouth below it."""
    dark = _mix(BLACK, coat.base, 0.2)
    for side in (-1, 1):
        lip = [(x, y + 0.3 * size), (x, y + 1.3 * size), (x + side * 0.7 * size, y + 1.9 * size),
               (x + side * 1.4 * size, y + 1.6 * size)]  # fmt: skip
        pen.line(_curve(lip, 4), 0.14 * size + 0.012, dark)
    tip = [(0, -0.5), (0.75, -0.5), (0.95, -0.1), (0.4, 0.5), (0, 0.65)]
    pen.fill(_smooth(_mirrored(tip), 4) * size + (x, y), coat.nose, gloss=0.5)


def _dog_head(pen: Pen, rng: Rng, coat: Coat, yaw: float, pitch: float) -> None:
    """A dog's face: floppy or pricked ears and a long muzzle with a large nose. Radius about 1."""
    pricked = rng.random() < 0.22
    ear_dim = rng.uniform(0, 0.45)
    wide, long = rng.uniform(0.66, 0.82), rng.uniform(0.85, 1.1)
    if pricked:
        _dog_ears(pen, rng, coat, ear_dim, yaw, pricked)
    skull = [(0, -0.82), (0.42, -0.78), (wide, -0.36), (wide * 0.98, 0.12), (0.5, 0.6), (0, long)]
    _furry(pen, rng, coat, _smooth(_mirrored(skull)))
    if not pricked:
        _dog_ears(pen, rng, coat, ear_dim, yaw, pricked)
    x, y = yaw * 0.8, 0.42 + pitch * 0.5
    if rng.random() < 0.4:
        blaze = [(0, -0.75), (0.1, -0.4), (0.16, 0), (0.34, 0.3), (0, 0.5)]
        blaze = _moved(_smooth(_mirrored(blaze)), x * 0.6, 0)
        pen.veil(blaze, coat.pale, 0.85, soft=0.03)
    if rng.random() < 0.65:
        tongue = [(0, 0.3), (0.16, 0.34), (0.17, 0.62), (0, 0.8)]
        pen.fill(_ellipse(x, y + 0.36, 0.26, 0.2), _mix(BLACK, PINK, 0.25))
        tongue = _moved(_smooth(_mirrored(tongue), 4), x, y)
        pen.fill(tongue, _mix(PINK, (220, 90, 90), 0.5), gloss=0.2)
    muzzle = coat.pale if rng.random() < 0.6 else _mix(coat.base, BLACK, rng.uniform(0.1, 0.6))
    snout = [(0, -0.46), (0.28, -0.37), (0.48, 0.02), (0.46, 0.3), (0.22, 0.43), (0, 0.39)]
    snout = pen.tufted(_moved(_smooth(_mirrored(snout)), x, y), rng, coat.fluff * 0.4)
    pen.fill(snout, coat.fur)
    pen.veil(snout, muzzle, 0.8)
    pen.fill(snout, None)
    iris, size = _tint(rng, EYES[1:2] + EYES[3:] * 2, 8), rng.uniform(0.12, 0.16)
    for side in (-1, 1):
        place = pen.at(yaw * 0.4 + side * 0.34, -0.2 + pitch * 0.4, size)
        _eye(place, DOG_EYE, iris, (0.7, 0.74))
        brow = _ellipse(yaw * 0.4 + side * 0.32, -0.42 + pitch * 0.4, 0.13, 0.06, side * 15)
        pen.veil(brow, coat.pale, 0.5, soft=0.03)
    _muzzle_lines(pen, x * 1.12, y - 0.17, 0.23, coat)


def _dog_ears(pen: Pen, rng: Rng, coat: Coat, dim: float, yaw: float, pricked: bool) -> None:
    """Two ears: pricked and wide apart, or folded down beside the cheeks."""
    hang, out = rng.uniform(0.2, 0.75), rng.uniform(0.95, 1.2)
    for side in (-1, 1):
        reach = side * (1 - side * yaw * 0.25)
        if pricked:
            flap = [(0.2, -0.62), (0.34, -1.1), (0.58, -1.5), (0.72, -1.1), (0.72, -0.4)]
        else:
            flap = [(0.38, -0.78), (0.74, -0.8), (out, -0.3), (out * 0.98, hang),
                    (0.8, hang + 0.12), (0.64, hang - 0.2), (0.58, -0.3)]  # fmt: skip
        outline = _smooth(np.array(flap) * (reach, 1), 4)
        if not pricked:
            pen.veil(_moved(outline, -side * 0.05, 0.06), BLACK, 0.35, soft=0.06)
        _furry(pen, rng, coat, outline, dim=dim)
        if pricked:
            centre = _moved(outline.mean(0), 0, 0.06)
            pen.fill((outline - centre) * 0.58 + centre, _mix(PINK, coat.base, 0.55), relief=0.6)


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


def _build(kind: str, rng: Rng) -> Build:
    sway = rng.normal(0, 0.12, 4)
    if kind == "cat":
        tail = [(0, 0), (-0.3, -0.1 + sway[0]), (-0.45, -0.5 + sway[1]), (-0.35 + sway[2], -0.9),
                (-0.6 + sway[3], -1.1)]  # fmt: skip
        width = [0.085, 0.08, 0.075, 0.065, 0.05]
        return Build(_cat_head, rng.uniform(0.38, 0.48), rng.uniform(0.46, 0.58), 0.25, 0.24, tail,
                     width)  # fmt: skip
    tail = [(0, 0), (-0.22, -0.2 + sway[0]), (-0.34 + sway[1], -0.5), (-0.2 + sway[2], -0.7)]
    plume = rng.uniform(0.05, 0.13)
    width = [0.07, plume, plume * 0.9, 0.02]
    return Build(
        _dog_head, *rng.uniform((0.4, 0.5, 0.28, 0.2), (0.5, 0.74, 0.36, 0.26)), tail, width
    )


def _head_on(pen: Pen, rng: Rng, coat: Coat, build: Build, x: float, y: float) -> None:
    pen = pen.at(x, y, build.head_size, turn=rng.normal(0, 9))
    pen.veil(_ellipse(0, 0.5, 0.8, 0.7), BLACK, 0.35, soft=0.25)
    build.head(pen, rng, coat, rng.normal(0.15, 0.3), rng.normal(0, 0.15))


def _tail(pen: Pen, rng: Rng, coat: Coat, build: Build, x: float, y: float) -> None:
    _furry(pen, rng, coat, _limb(_moved(build.tail, x, y), build.tail_width))


def _paw(pen: Pen, coat: Coat, x: float, y: float, paint: Paint, dim: float = 0) -> None:
    pen.fill(_ellipse(x, y, 0.13, 0.075), paint, dim=dim)
    toes = [np.array([(x + toe, y), (x + toe + 0.02, y + 0.06)]) for toe in (-0.01, 0.06)]
    pen.line(toes, 0.012, _mix(coat.base, BLACK, 0.6))


def _leg(
    pen: Pen, rng: Rng, coat: Coat, x: float, foot: float, *, hind: bool, dim: float = 0
) -> None:
    """A leg from the belly down to the foot; hind legs have a thigh and a hock."""
    step = rng.normal(0, 0.07)
    if hind:
        joints = [(x, 0), (x + 0.1, foot * 0.5), (x - 0.1 + step, foot * 0.72), (x + step, foot)]
        widths = [0.2, 0.14, 0.075, 0.07]
    else:
        joints, widths = (
            [(x, 0.05), (x + step / 2, foot * 0.6), (x + step, foot)],
            [0.14, 0.09, 0.075],
        )
    _furry(pen, rng, coat, _limb(joints, widths), fluff=0.4, dim=dim)
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
    neck = _limb([(0.45, 0.0), (0.72, -0.3), (0.85, -0.5)], [build.chest, 0.2, 0.17])
    _furry(pen, rng, coat, neck)
    _furry(pen, rng, coat, _limb(spine, widths))
    _leg(pen, rng, coat, 0.54, foot, hind=False)
    _leg(pen, rng, coat, -0.6, foot, hind=True)
    _head_on(pen, rng, coat, build, 0.9, -0.62)


def _sitting(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Sitting upright and looking at the viewer."""
    _ground_shadow(pen, 0, 0.84, 0.75)
    _tail(pen, rng, coat, build, -0.35, 0.7)
    half = [(0, -0.62), (0.27, -0.42), (build.chest + 0.12, 0.1), (0.5, 0.6), (0.3, 0.8), (0, 0.82)]
    _furry(pen, rng, coat, _smooth(_mirrored(half)))
    bib = [(0, -0.4), (0.16, -0.2), (0.13, 0.15), (0, 0.4)]
    pen.veil(_smooth(_mirrored(bib)), coat.pale, 0.75, soft=0.05)
    for side in (-1, 1):
        _furry(pen, rng, coat, _ellipse(side * 0.4, 0.6, 0.2, 0.24), fluff=0.5)
        _paw(pen, coat, side * 0.45, 0.82, coat.fur)
    for side in (-1, 1):
        leg = _limb(
            [(side * 0.16, 0.05), (side * 0.16, 0.5), (side * 0.15, 0.82)], [0.12, 0.1, 0.09]
        )
        _furry(pen, rng, coat, leg, fluff=0.4)
        _paw(pen, coat, side * 0.16, 0.85, coat.pale)
    _head_on(pen, rng, coat, build, rng.normal(0, 0.06), -0.72)


def _sitting_aside(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Sitting, seen from the side."""
    _ground_shadow(pen, 0, 0.84, 0.8)
    _tail(pen, rng, coat, build, -0.5, 0.66)
    body = [(0.3, -0.6), (0.2 + build.chest, -0.15), (0.46, 0.3), (0.25, 0.75), (-0.3, 0.82),
            (-0.62, 0.6), (-0.52, 0.1), (-0.2, -0.35), (0.02, -0.6)]  # fmt: skip
    _furry(pen, rng, coat, _limb([(0.3, 0.0), (0.3, 0.5), (0.32, 0.8)], [0.13, 0.09, 0.08]),
           fluff=0.4, dim=0.3)  # fmt: skip
    _furry(pen, rng, coat, _smooth(body))
    _furry(pen, rng, coat, _ellipse(-0.24, 0.52, 0.32, 0.29), fluff=0.5)
    _paw(pen, coat, 0.02, 0.82, coat.fur)
    _furry(pen, rng, coat, _limb([(0.36, 0.0), (0.42, 0.5), (0.44, 0.8)], [0.14, 0.1, 0.085]),
           fluff=0.4)  # fmt: skip
    _paw(pen, coat, 0.48, 0.83, coat.pale)
    _head_on(pen, rng, coat, build, 0.26, -0.78)


def _lying(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """Lying on the ground with the fore paws stretched out."""
    _ground_shadow(pen, 0.05, 0.4, 1.15)
    _tail(pen, rng, coat, build, -0.8, 0.2)
    body = [(0.6, -0.3), (0.78, 0.1), (0.6, 0.38), (-0.7, 0.4), (-0.95, 0.15), (-0.8, -0.22),
            (-0.3, -0.15 - build.waist), (0.2, -0.08 - build.chest)]  # fmt: skip
    reach = rng.uniform(0.9, 1.15)
    _furry(pen, rng, coat, _limb([(0.5, 0.2), (0.8, 0.3), (reach, 0.33)], [0.12, 0.1, 0.08]),
           fluff=0.4, dim=0.3)  # fmt: skip
    _furry(pen, rng, coat, _smooth(body))
    _furry(pen, rng, coat, _ellipse(-0.55, 0.12, 0.32, 0.27), fluff=0.5)
    _paw(pen, coat, -0.3, 0.39, coat.fur)
    near = [(0.42, 0.25), (0.7, 0.37), (reach - 0.08, 0.39)]
    _furry(pen, rng, coat, _limb(near, [0.13, 0.1, 0.085]), fluff=0.4)
    _paw(pen, coat, reach - 0.02, 0.4, coat.pale)
    _head_on(pen, rng, coat, build, 0.66, -0.36)


def _face(pen: Pen, rng: Rng, coat: Coat, build: Build) -> None:
    """The face alone, filling the picture."""
    chest = [(0, 0.3), (0.7, 0.5), (1.1, 1.2), (1.2, 2.2), (0, 2.4)]
    _furry(pen, rng, coat, _smooth(_mirrored(chest)), dim=0.15)
    pen.veil(_ellipse(0, 0.75, 0.8, 0.4), BLACK, 0.35, soft=0.2)
    build.head(pen, rng, coat, rng.normal(0, 0.32), rng.normal(0, 0.2))


def _ground_shadow(pen: Pen, x: float, y: float, reach: float) -> None:
    pen.veil(_ellipse(x - pen.light[0] * 0.15, y, reach, 0.1), BLACK, 0.5, soft=0.08)


POSES = (_standing, _sitting, _sitting_aside, _lying)


def _pet(kind: str) -> Callable[[Pen, Rng], None]:
    def paint(pen: Pen, rng: Rng) -> None:
        coat, build = _coat(pen, rng), _build(kind, rng)
        mirror, turn = rng.random() < 0.5, rng.normal(0, 7)
        if rng.random() < 0.5:
            place = pen.at(*_somewhere(pen, rng, 0.2), rng.uniform(0.28, 0.46), turn=turn * 1.5)
            _face(place, rng, coat, build)
            return
        pose = POSES[rng.integers(len(POSES))]
        place = pen.at(
            *_somewhere(pen, rng, 0.15), rng.uniform(0.34, 0.46), turn=turn, mirror=mirror
        )
        pose(place, rng, coat, build)

    return paint


# --- ants and bees -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skin:
    """The colours of one insect."""

    body: Colour
    mark: Colour
    limb: Colour
    gloss: float


SHELLS = ((30, 24, 24), (92, 44, 26), (150, 70, 30), (196, 136, 52), (60, 40, 30), (216, 170, 70))


def _skin(rng: Rng) -> Skin:
    """Black, brown, red or yellow, with marks in another of these: for ants and bees alike."""
    body, mark = _tint(rng, SHELLS, 8), _tint(rng, SHELLS, 8)
    if abs(sum(body) - sum(mark)) < 120:
        mark = _mix(mark, BLACK if sum(body) > 230 else SHELLS[5], 0.7)
    limb = _mix(BLACK, body, rng.uniform(0.1, 0.8))
    return Skin(body, mark, limb, rng.uniform(0.2, 0.9))


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
                knee = ((root + foot * 1.1) / 2, side * out * 0.62)
                joints = [
                    (root, side * 0.05),
                    knee,
                    (foot, side * out),
                    (foot * 1.15, side * out * 1.1),
                ]
            tone = _mix(skin.limb, BLACK, 0.4 if aside and side < 0 else 0)
            pen.flat(_limb(joints, [thick, thick, thick * 0.6, thick * 0.4], steps=1), tone)


def _feelers(
    pen: Pen, skin: Skin, x: float, y: float, size: float, bend: float, aside: bool
) -> None:
    """Two elbowed antennae from (x, +-y)."""
    for side in (-1, 1):
        up = -1 if aside else side
        elbow = (x + 0.55 * size, up * (y + 0.5 * size) - 0.03 * side * aside)
        tip = (x + 1.5 * size, up * (y + (0.3 + bend) * size) + 0.1 * side * aside)
        pen.flat(_limb([(x, up * y), elbow, tip], [0.012, 0.014, 0.017], steps=1), skin.limb)


def _ant(pen: Pen, rng: Rng, skin: Skin, aside: bool) -> None:
    """An ant about one unit long, heading right: a large head, a thin waist, elbowed feelers."""
    _insect_legs(pen, rng, skin, rng.uniform(0.85, 1.1), 0.024, aside)
    _feelers(pen, skin, 0.42, 0.05, 0.26, rng.uniform(-0.3, 0.6), aside)
    tail = pen.at(-0.14, 0, turn=rng.normal(-8 if aside else 0, 12))
    plump = rng.uniform(0.13, 0.19)
    drop = np.array([(0.02, 0), (-0.1, -plump), (-0.3, -plump * 1.05), (-0.5, 0),
                     (-0.3, plump * 1.05), (-0.1, plump)])  # fmt: skip
    tail.fill(_smooth(drop), skin.body, gloss=skin.gloss)
    for x in rng.uniform(0.0, 0.03) + np.array([-0.16, -0.26, -0.36]):
        bow = _curve([(x + 0.03, -plump * 0.95), (x - 0.03, 0), (x + 0.03, plump * 0.95)], 4)
        tail.line(bow, 0.016, _mix(skin.body, skin.mark, 0.45))
    pen.fill(_ellipse(-0.13, 0, 0.05, 0.045), skin.limb, gloss=skin.gloss)
    chest = _limb([(-0.1, 0), (0.05, -0.01), (0.22, 0)], [0.05, 0.075, 0.085])
    pen.fill(chest, _mix(skin.body, skin.mark, rng.choice([0, 0.6])), gloss=skin.gloss)
    head = pen.at(0.36, 0, turn=rng.normal(18 if aside else 0, 9))
    for side in (-1, 1):
        jaw = [(0.1, side * 0.05), (0.19, side * 0.07), (0.2, side * 0.01)]
        head.flat(_limb(jaw, [0.022, 0.018, 0.006], steps=3), skin.limb)
    face = [(0.13, -0.05), (0.04, -0.12), (-0.12, -0.12), (-0.13, 0), (-0.12, 0.12), (0.04, 0.12),
            (0.13, 0.05)]  # fmt: skip
    head.fill(_smooth(face, 4), skin.body, gloss=skin.gloss)
    for side in (-1,) if aside else (-1, 1):
        head.flat(_ellipse(0.02, side * 0.085, 0.03, 0.022), BLACK)


def _wing(pen: Pen, length: float, breadth: float, tone: Colour, alpha: float) -> None:
    """A clear wing with veins, from the origin upwards."""
    outline = _smooth([(0, 0), (-breadth * 0.5, -0.5), (-breadth * 0.3, -0.95), (breadth * 0.3, -1),
                       (breadth, -0.7), (breadth * 0.6, -0.25)], 5) * length  # fmt: skip
    pen.veil(outline, tone, alpha)
    vein = _mix(tone, BLACK, 0.55)
    veins = [np.concatenate([outline, outline[:1]])]
    for x, y in ((-0.1, -0.85), (0.35, -0.8), (0.6, -0.55)):
        bow = [(0, 0), (x * breadth * 0.3, y * 0.5), (x * breadth, y)]
        veins.append(_curve(bow, 3) * length)
    pen.line(veins, 0.008, vein)


def _wings(pen: Pen, rng: Rng, aside: bool) -> None:
    tone, alpha = _mix(_tint(rng, NATURAL[7:10]), WHITE, 0.5), rng.uniform(0.3, 0.6)
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
    fuzz = _mix(_tint(rng, SHELLS, 10), skin.body, 0.5)
    head = [(0.46, 0), (0.42, -0.12), (0.32, -0.14), (0.26, 0), (0.32, 0.14), (0.42, 0.12)]
    pen.fill(_smooth(head, 4), skin.limb, gloss=0.2)
    for side in (-1,) if aside else (-1, 1):
        pen.fill(_ellipse(0.37, side * 0.1, 0.075, 0.045, side * 20), BLACK, gloss=0.3)
    chest = _ellipse(0.12, 0, 0.2, plump * 0.92)
    pen.fill(pen.tufted(chest, rng, 0.06, 90), fuzz)
    pen.fill(pen.tufted(_ellipse(0.12, -0.02, 0.12, plump * 0.5), rng, 0.06, 50),
             _mix(fuzz, skin.mark, 0.35), relief=0.7)  # fmt: skip
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
        across = np.array([start, start + width, start + width, start])
        wide = np.interp(across, at, half) * (-1, -1, 1, 1)
        ring = np.stack([-across * length, wide], axis=1)
        ring = np.insert(ring, [2, 4], [(ring[1, 0] - 0.03, 0), (ring[0, 0] - 0.03, 0)], axis=0)
        pen.flat(ring, skin.mark)
    pen.fill(shape, None, gloss=skin.gloss * 0.7)


def _perch(pen: Pen, rng: Rng) -> None:
    """What the insects sit on: a flower, a leaf, a twig, a stone, or nothing."""
    kind, place = rng.integers(8), pen.at(*_somewhere(pen, rng, 0.3), turn=rng.uniform(0, 360))
    if kind == 0:
        _bloom(place, rng, rng.uniform(0.3, 0.6))
    elif kind == 1:
        size = rng.uniform(0.9, 1.5)
        _leaf(place.at(0, size * 0.45), rng, _tint(rng, NATURAL[:6]), size)
    elif kind == 2:
        twig = [(-1.2, rng.normal(0, 0.2)), (0, 0), (1.2, rng.normal(0, 0.2))]
        place.fill(_limb(twig, rng.uniform(0.03, 0.12, 3)), _tint(rng, NATURAL[3:8]))
    elif kind == 3:
        stone = _smooth(_circle(8) * rng.uniform(0.3, 0.6, (8, 1)))
        place.fill(stone, _tint(rng, NATURAL[3:10]))


def _insects(body: Callable[[Pen, Rng, Skin, bool], None]) -> Callable[[Pen, Rng], None]:
    def paint(pen: Pen, rng: Rng) -> None:
        _perch(pen, rng)
        count = rng.choice([1, 2, 3, 4], p=[0.6, 0.22, 0.12, 0.06])
        size = rng.uniform(0.62, 1.0) * (1, 1, 0.75, 0.62, 0.55)[count]
        skin, heading = _skin(rng), rng.uniform(0, 360)
        for _ in range(count):
            aside = rng.random() < 0.3
            turn = rng.normal(0, 15) if aside else heading + rng.normal(0, 60)
            spot = _somewhere(pen, rng, 0.25 if count == 1 else 0.8)
            place = pen.at(*spot, size * rng.uniform(0.85, 1.15), turn=turn,
                           mirror=rng.random() < 0.5)  # fmt: skip
            _drop_shadow(place, rng, aside)
            body(place, rng, skin, aside)

    return paint


def _drop_shadow(pen: Pen, rng: Rng, aside: bool) -> None:
    """The soft shadow of an insect on what it sits on."""
    shift = -0.05 * pen.unit
    x, y = pen.x + pen.light[0] * shift, pen.y + pen.light[1] * shift
    shadow = Pen(pen.pixels, pen.linear, x, y, pen.light)
    spot = _ellipse(0, 0.36, 0.5, 0.05) if aside else _ellipse(-0.05, 0, 0.46, 0.15)
    shadow.veil(spot, BLACK, rng.uniform(0.25, 0.5), soft=0.05)


# --- ten further things --------------------------------------------------------------------------
# Each is painted within about -1..1, upright, and returns nothing.


def _colours(rng: Rng) -> tuple[Colour, Colour, Colour]:
    """Three colours from one palette that all things share."""
    a, b, c = (_tint(rng, BRIGHT + NATURAL[6:14]) for _ in range(3))
    return a, b, c


def _boat(pen: Pen, rng: Rng) -> None:
    hull, sail, trim = _colours(rng)
    tall, rake = rng.uniform(0.95, 1.25), rng.uniform(0.6, 0.95)
    pen.veil(_ellipse(0, 0.78, 1.1, 0.1), BLACK, 0.4, soft=0.06)
    pen.fill(_limb([(0, 0.3), (0, -tall)], [0.035, 0.025]), _mix(trim, BLACK, 0.4))
    sail = _mix(sail, WHITE, rng.uniform(0, 0.7))
    pen.fill(np.array([(0.06, -tall + 0.05), (0.42, -0.3), (rake, 0.18), (0.06, 0.18)]), sail)
    jib = _mix(sail, trim, 0.4)
    pen.fill(
        np.array([(-0.06, -tall + 0.2), (-0.06, 0.18), (-rake * 0.75, 0.18), (-0.3, -0.3)]), jib
    )
    pen.fill(np.array([(-1, 0.28), (1.1, 0.25), (0.72, 0.75), (-0.7, 0.75)]), hull, gloss=0.3)
    pen.line(np.array([(-0.94, 0.36), (1.02, 0.34)]), 0.06, trim)
    for x in (-0.4, 0, 0.4):
        pen.flat(_ellipse(x, 0.53, 0.07), _mix(hull, WHITE, 0.7))
    water = _mix(_tint(rng, NATURAL), WHITE, 0.3)
    for k in range(3):
        wave = [(-1.3 + 0.2 * k, 0.78 + 0.06 * k), (-0.4, 0.74 + 0.06 * k), (0.4, 0.8 + 0.06 * k),
                (1.3 - 0.2 * k, 0.76 + 0.06 * k)]  # fmt: skip
        pen.line(_curve(wave), 0.05, _mix(water, BLACK, 0.12 * k))


def _butterfly(pen: Pen, rng: Rng) -> None:
    wing, spot, edge = _colours(rng)
    wide = rng.uniform(0.7, 1.0)
    fore = [(0.04, -0.1), (0.3, -0.62), (0.95, -0.9), (1.05, -0.5), (0.75, -0.08), (0.3, 0.02)]
    hind = [(0.04, 0.0), (0.5, 0.02), (0.82, 0.3), (0.62, 0.78), (0.3, 0.66), (0.08, 0.25)]
    for side in (-1, 1):
        for outline in (hind, fore):
            shape = _smooth(outline, 5) * (side * wide, 1)
            centre = shape.mean(0)
            pen.fill(shape, _mix(edge, BLACK, 0.5), relief=0.6)
            pen.fill((shape - centre) * 0.8 + centre * 0.97, wing, relief=0.8)
            pen.fill(_ellipse(*centre * (1.15, 1.05), 0.16 * wide, 0.13), spot, relief=0.5)
            pen.flat(_ellipse(*centre * (1.15, 1.05), 0.06), _mix(edge, BLACK, 0.6))
        feeler = [(0.02 * side, -0.36), (0.14 * side, -0.66), (0.3 * side, -0.84)]
        pen.flat(_limb(feeler, [0.016, 0.014, 0.035]), BLACK)
    pen.fill(_limb([(0, -0.36), (0, -0.1), (0, 0.5)], [0.07, 0.09, 0.04]), _mix(edge, BLACK, 0.75))


def _car(pen: Pen, rng: Rng) -> None:
    paint, roof, trim = _colours(rng)
    roof = paint if rng.random() < 0.7 else roof
    tall, rear = rng.uniform(0.5, 0.7), rng.uniform(-0.8, -0.5)
    pen.veil(_ellipse(0, 0.56, 1.1, 0.1), BLACK, 0.55, soft=0.05)
    cabin = [(rear - 0.1, 0), (rear, -tall + 0.08), (rear + 0.2, -tall), (0.2, -tall),
             (0.34, -tall + 0.06), (0.66, 0)]  # fmt: skip
    pen.fill(np.array(cabin), roof, gloss=0.3)
    glass = _mix((150, 180, 200), BLACK, rng.uniform(0, 0.6))
    for x0, x1, s0, s1 in ((rear, -0.16, 0.02, 0.06), (-0.08, 0.54, 0.0, -0.32)):
        pane = [(x0, -0.03), (x0 + s1, -tall + 0.1) if x0 < -0.1 else (x0, -tall + 0.1),
                (x1 + (s1 if x0 > -0.1 else 0), -tall + 0.1), (x1, -0.03)]  # fmt: skip
        pen.fill(_moved(pane, s0, 0), glass, relief=0.4, gloss=0.4)
    body = [(-1.02, 0.05), (-0.9, -0.06), (0.6, -0.06), (0.98, 0.08), (1.08, 0.25), (1.05, 0.45),
            (-1.03, 0.45)]  # fmt: skip
    pen.fill(np.array(body), paint, gloss=0.5)
    pen.line(np.array([(-1.0, 0.26), (1.04, 0.28)]), 0.035, _mix(paint, BLACK, 0.5))
    pen.flat(_ellipse(0.98, 0.2, 0.07, 0.09), (250, 240, 190))
    pen.flat(_ellipse(-0.99, 0.2, 0.05, 0.08), (190, 40, 36))
    pen.line(np.array([(-0.12, 0), (-0.12, 0.4)]), 0.02, _mix(paint, BLACK, 0.5))
    for x in (-0.58, 0.6):
        pen.flat(_ellipse(x, 0.43, 0.27), _mix(paint, BLACK, 0.7))
        pen.fill(_ellipse(x, 0.45, 0.23), (44, 42, 44))
        pen.fill(_ellipse(x, 0.45, 0.12), _mix(trim, (190, 190, 194), 0.7), gloss=0.4)


def _fish(pen: Pen, rng: Rng) -> None:
    scales, fin, mark = _colours(rng)
    tall = rng.uniform(0.38, 0.6)
    sway = rng.normal(0, 0.1)
    tail = [(-0.5, 0), (-0.82, -0.3 + sway), (-1.1, -0.46 + sway), (-0.95, sway),
            (-1.1, 0.46 + sway), (-0.82, 0.3 + sway)]  # fmt: skip
    pen.fill(_smooth(tail, 5), fin, relief=0.8)
    top = [
        (0.35, -tall * 0.8),
        (0.0, -tall - 0.32),
        (-0.45, -tall * 0.75 - 0.1),
        (-0.35, -tall * 0.4),
    ]
    pen.fill(_smooth(top, 5), fin, relief=0.8)
    pen.fill(_smooth(np.array(top) * (0.7, -0.9), 5), fin, relief=0.8)
    body = [(0.95, 0.02), (0.6, -tall * 0.72), (0.1, -tall), (-0.4, -tall * 0.55), (-0.68, 0),
            (-0.4, tall * 0.55), (0.1, tall), (0.6, tall * 0.72)]  # fmt: skip
    shape = _smooth(body)
    pen.fill(shape, scales, gloss=0.5)
    pen.veil(shape * (0.85, 0.35) + (0, tall * 0.55), WHITE, 0.35, soft=0.05)
    for k in range(rng.integers(0, 4)):
        x = 0.3 - 0.3 * k
        band = _curve([(x, -tall * 0.8), (x - 0.08, 0), (x, tall * 0.8)], 5)
        pen.line(band, 0.1, mark)
    for x in (0.2, 0.0, -0.2):
        for y in (-0.2, 0, 0.2):
            arc = _curve(
                [
                    (x + 0.04, y * tall * 2 - 0.07),
                    (x - 0.03, y * tall * 2),
                    (x + 0.04, y * tall * 2 + 0.07),
                ],
                3,
            )
            pen.line(arc, 0.018, _mix(scales, BLACK, 0.3))
    pen.fill(_smooth([(0.28, 0.08), (0.0, 0.02), (-0.12, 0.22), (0.08, 0.3)], 5), fin, relief=0.8)
    pen.line(
        _curve([(0.46, -tall * 0.6), (0.36, 0), (0.46, tall * 0.6)], 5),
        0.03,
        _mix(scales, BLACK, 0.4),
    )
    pen.line(_curve([(0.95, 0.05), (0.82, 0.12), (0.76, 0.1)], 4), 0.03, _mix(scales, BLACK, 0.6))
    _eye(pen.at(0.64, -0.12, 0.1), DOG_EYE, (240, 232, 200), (0.55, 0.6))


def _flower(pen: Pen, rng: Rng) -> None:
    petals, leaf = _tint(rng, BRIGHT), _tint(rng, NATURAL[:5])
    bend = rng.normal(0, 0.15)
    pen.fill(_limb([(0, -0.3), (bend, 0.3), (0, 1.1)], [0.05, 0.05, 0.06]), leaf)
    for side in (-1, 1):
        _leaf(
            pen.at(bend * 0.5, 0.85 - 0.15 * side, turn=side * rng.uniform(35, 70)), rng, leaf, 0.62
        )
    _bloom(pen.at(0, -0.4), rng, rng.uniform(0.5, 0.68), petals)


def _house(pen: Pen, rng: Rng) -> None:
    wall, roof, trim = _colours(rng)
    wide, tall = rng.uniform(0.6, 0.85), rng.uniform(0.0, 0.25)
    pen.veil(_ellipse(0, 0.86, wide + 0.25, 0.1), BLACK, 0.45, soft=0.06)
    wall = _mix(wall, WHITE, 0.3)
    chimney = rng.choice([-1, 1]) * wide * 0.5
    pen.fill(_box_shape(chimney, -tall - 0.55, 0.1, 0.28), _mix(roof, BLACK, 0.3), relief=0.5)
    pen.fill(_box_shape(0, (0.85 - tall) / 2, wide, (0.85 + tall) / 2), wall, relief=0.35)
    peak = rng.uniform(0.75, 1.0)
    gable = [(-wide - 0.2, -tall + 0.04), (0, -tall - peak), (wide + 0.2, -tall + 0.04)]
    pen.fill(np.array(gable), roof, relief=0.5)
    for k in range(1, 5):
        half = (wide + 0.16) * k / 5
        y = -tall - peak + (peak + 0.04) * k / 5
        pen.line(np.array([(-half, y), (half, y)]), 0.018, _mix(roof, BLACK, 0.35))
    door = rng.choice([-0.4, 0, 0.4]) * wide
    pen.fill(_box_shape(door, 0.58, 0.14, 0.28), trim, relief=0.4)
    pen.flat(_ellipse(door + 0.08, 0.6, 0.025), (240, 210, 110))
    glass = _mix((170, 200, 220), (250, 220, 130), rng.choice([0, 0.8]))
    for x in (-0.6, 0, 0.6):
        if abs(x * wide - door) < 0.26:
            continue
        pen.flat(_box_shape(x * wide, 0.3, 0.15, 0.17), WHITE)
        pen.fill(_box_shape(x * wide, 0.3, 0.12, 0.14), glass, relief=0.4)
        pen.line(np.array([(x * wide, 0.16), (x * wide, 0.44)]), 0.025, WHITE)
        pen.line(np.array([(x * wide - 0.12, 0.3), (x * wide + 0.12, 0.3)]), 0.025, WHITE)


def _mushroom(pen: Pen, rng: Rng) -> None:
    cap, spots, stalk = _colours(rng)
    stalk = _mix(stalk, WHITE, 0.65)
    wide, foot = rng.uniform(0.75, 1.0), rng.uniform(0.16, 0.26)
    pen.veil(_ellipse(0, 0.88, 0.5, 0.09), BLACK, 0.5, soft=0.06)
    stem = [(0, -0.1), (rng.normal(0, 0.06), 0.4), (0, 0.78)]
    pen.fill(_limb(stem, [0.17, 0.18, foot + 0.05]), stalk)
    pen.fill(_ellipse(0, -0.02, wide * 0.86, 0.17), _mix(stalk, BLACK, 0.35), relief=0.6)
    skirt = _smooth([(-0.2, 0.16), (0.2, 0.16), (0.3, 0.34), (0, 0.3), (-0.3, 0.34)], 4)
    pen.fill(skirt, _mix(stalk, WHITE, 0.3))
    high = rng.uniform(0.75, 1.0)
    dome = [(wide, -0.02), (wide * 0.9, -high * 0.4), (wide * 0.5, -high * 0.85), (0, -high),
            (-wide * 0.5, -high * 0.85), (-wide * 0.9, -high * 0.4), (-wide, -0.02),
            (-wide * 0.4, 0.06), (wide * 0.4, 0.06)]  # fmt: skip
    pen.fill(_smooth(dome), cap, gloss=0.35)
    for x, y, r in ((-0.5, -0.3, 0.11), (0.05, -0.72, 0.12), (0.5, -0.42, 0.1), (-0.08, -0.3, 0.13),
                    (-0.4, -0.62, 0.08), (0.3, -0.14, 0.08)):  # fmt: skip
        pen.fill(_ellipse(x * wide, y * high, r, r * 0.8), _mix(spots, WHITE, 0.5), relief=0.8)


def _snail(pen: Pen, rng: Rng) -> None:
    shell, line, body = _colours(rng)
    body = _mix(body, COATS[1], 0.4)
    pen.veil(_ellipse(0, 0.66, 1.1, 0.08), BLACK, 0.5, soft=0.05)
    lift = rng.uniform(0.1, 0.4)
    foot = [(-1.15, 0.6), (-0.5, 0.5), (0.3, 0.5), (0.72, 0.32), (0.9, 0.1 - lift)]
    pen.fill(_limb(foot, [0.02, 0.13, 0.17, 0.17, 0.17]), body, gloss=0.3)
    for side in (0, 1):
        tip = (1.0 + 0.24 * side, -0.42 - lift)
        pen.flat(
            _limb([(0.9 + 0.06 * side, 0.0 - lift), tip], [0.04, 0.028]), _mix(body, BLACK, 0.15)
        )
        pen.fill(_ellipse(*tip, 0.06), _mix(body, BLACK, 0.6))
    pen.line(
        _curve([(0.98, 0.16 - lift), (0.92, 0.2 - lift), (0.84, 0.18 - lift)], 4),
        0.025,
        _mix(body, BLACK, 0.5),
    )
    big = rng.uniform(0.58, 0.72)
    pen.fill(_ellipse(-0.2, -0.05, big, big * 0.95), shell, gloss=0.4)
    turns = np.linspace(0.2, 1, 44)
    angles = turns * 2 * np.pi * rng.uniform(2.0, 2.7) + 0.9
    spiral = (
        np.stack([np.cos(angles), np.sin(angles) * 0.95], 1) * turns[:, None] ** 1.2 * big * 0.93
    )
    pen.line(_moved(spiral, -0.2, -0.05), 0.07, _mix(line, BLACK, 0.45))


def _tree(pen: Pen, rng: Rng) -> None:
    leaf = _tint(rng, NATURAL[:4] + BRIGHT[:4] + BRIGHT[7:8] + NATURAL[16:17])
    bark = _tint(rng, NATURAL[4:9])
    pen.veil(_ellipse(0, 0.98, 0.6, 0.08), BLACK, 0.45, soft=0.06)
    pen.fill(_limb([(0, -0.3), (rng.normal(0, 0.05), 0.4), (0, 0.98)], [0.09, 0.12, 0.19]), bark)
    for side in (-1, 1):
        pen.fill(_limb([(0, 0.35), (side * 0.3, -0.05)], [0.07, 0.05]), bark)
    if rng.random() < 0.3:
        for k in range(4):
            wide, y = 0.75 - 0.14 * k, 0.4 - 0.4 * k
            tier = pen.tufted(np.array([(-wide, y), (0, y - 0.75), (wide, y)]), rng, 0.1, 60)
            pen.fill(tier, _mix(leaf, WHITE, 0.06 * k))
        return
    for k in range(rng.integers(7, 12)):
        angle, away = rng.uniform(0, 2 * np.pi), 0.5 * np.sqrt(rng.random())
        x, y = np.cos(angle) * away, -0.45 + np.sin(angle) * away * 0.8
        tone = _mix(leaf, BLACK if k < 4 else WHITE, 0.3 if k < 4 else rng.uniform(0, 0.15))
        tuft = pen.tufted(_ellipse(x, y, *rng.uniform(0.26, 0.42, 2)), rng, 0.07, 90)
        pen.fill(tuft, tone, relief=0.8)


def _umbrella(pen: Pen, rng: Rng) -> None:
    first, second, wood = _colours(rng)
    second = first if rng.random() < 0.3 else second
    wide, high = rng.uniform(0.9, 1.1), rng.uniform(0.6, 0.85)
    wood = _mix(wood, BLACK, 0.5)
    stick = [(0, -0.3), (0, 0.75), (0.06, 0.92), (0.2, 0.92), (0.25, 0.78)]
    pen.fill(_limb(stick, [0.035, 0.035, 0.05, 0.05, 0.04]), wood, gloss=0.3)
    pen.fill(_limb([(0, -high - 0.1), (0, -high + 0.1)], [0.02, 0.04]), wood)
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 6)) * wide
    ribs = np.linspace(0, 1, 7)
    for k in range(5):
        left, right = edges[k], edges[k + 1]
        sides = [np.stack([x * np.sin(ribs * np.pi / 2), -high * np.cos(ribs * np.pi / 2)], 1)
                 for x in (left, right)]  # fmt: skip
        sag = np.array([((left + right) / 2, -0.12)])
        panel = np.concatenate([sides[0], sag, sides[1][::-1]])
        light = 0.2 - 0.12 * k if pen.light[0] < 0 else 0.12 * k - 0.28
        tone = _mix(first if k % 2 else second, WHITE if light > 0 else BLACK, abs(light))
        pen.fill(panel, tone, relief=0.5, gloss=0.2)
        pen.line(sides[0], 0.014, _mix(tone, BLACK, 0.4))


def _thing(body: Callable[[Pen, Rng], None]) -> Callable[[Pen, Rng], None]:
    def paint(pen: Pen, rng: Rng) -> None:
        turn, mirror = rng.normal(0, 9), rng.random() < 0.5
        place = pen.at(
            *_somewhere(pen, rng, 0.25), rng.uniform(0.28, 0.45), turn=turn, mirror=mirror
        )
        body(place, rng)

    return paint


SUBJECTS: dict[str, Callable[[Pen, Rng], None]] = {
    "cat": _pet("cat"),
    "dog": _pet("dog"),
    "ants": _insects(_ant),
    "bees": _insects(_bee),
    "boat": _thing(_boat),
    "butterfly": _thing(_butterfly),
    "car": _thing(_car),
    "fish": _thing(_fish),
    "flower": _thing(_flower),
    "house": _thing(_house),
    "mushroom": _thing(_mushroom),
    "snail": _thing(_snail),
    "tree": _thing(_tree),
    "umbrella": _thing(_umbrella),
}

# --- the scene and the camera --------------------------------------------------------------------


def _distractors(pen: Pen, rng: Rng) -> None:
    """Things that lie about, behind the subject."""
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.6, 0.25, 0.1, 0.05])):
        _oddment(pen.at(*_somewhere(pen, rng, 1.1), rng.uniform(0.04, 0.18)), rng)


def _in_front(pen: Pen, rng: Rng) -> None:
    """Now and then a blade, a leaf, a twig or a blurred shape between camera and subject."""
    hx, hy = _half(pen)
    kind = rng.choice(5, p=[0.76, 0.1, 0.06, 0.02, 0.06])
    colour = _tint(rng, NATURAL)
    if kind == 1:
        for x, lean, high in zip(rng.uniform(-hx, hx, 9), rng.normal(0, 0.15, 9),
                                 rng.uniform(0.1, 0.5, 9), strict=True):  # fmt: skip
            blade = [(x, hy + 0.05), (x + lean * 0.3, hy - high * 0.5), (x + lean, hy - high)]
            pen.fill(_limb(blade, [0.02, 0.016, 0.002]), _mix(colour, BLACK, rng.uniform(0, 0.4)))
    elif kind == 2:
        side = rng.choice([-1, 1])
        place = pen.at(
            side * (hx + 0.15), rng.uniform(-hy, hy), turn=-90 * side + rng.normal(0, 25)
        )
        _leaf(place, rng, colour, rng.uniform(0.4, 0.7))
    elif kind == 3:
        ends = rng.uniform(-hy, hy, 2)
        twig = [(-hx - 0.1, ends[0]), (0, ends.mean() + rng.normal(0, 0.08)), (hx + 0.1, ends[1])]
        pen.fill(_limb(twig, [0.02, 0.03, 0.02]), colour)
    elif kind == 4:
        angle = rng.uniform(0, 2 * np.pi)
        blot = _ellipse(np.cos(angle) * hx, np.sin(angle) * hy, *rng.uniform(0.12, 0.35, 2))
        pen.veil(blot, colour, rng.uniform(0.5, 0.9), soft=0.05)


def _background(height: int, width: int, light: tuple[float, float], rng: Rng) -> np.ndarray:
    """A background out of one of the painters, mostly out of focus and paler than the subject."""
    pixels = np.empty((height // 2, width // 2, 3), np.uint8)
    pen = Pen.over(pixels, light)
    BACKGROUNDS[rng.integers(len(BACKGROUNDS))](pen, rng)
    blur = rng.choice([0, 1, 1, 1]) * rng.uniform(0.01, 0.045) * pen.unit
    calm = rng.uniform(0, 0.55)
    if blur > 0.4:
        factor = max(1, int(blur / 1.5))
        size = (width // 2 // factor, height // 2 // factor)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), blur / factor)
        mean = (calm * small.mean((0, 1))).tolist()
        pixels = cv2.add(cv2.multiply(small, (1 - calm,) * 4), (*mean, 0))
    return cv2.resize(pixels, (width, height))


def _camera(pixels: np.ndarray, height: int, width: int, rng: Rng) -> np.ndarray:
    """The photograph of a scene: light and vignette, exposure, colour cast, blur and noise."""
    unit = min(height, width)
    blur = rng.choice([0, 0.002, 0.005], p=[0.5, 0.4, 0.1]) * rng.uniform(0.5, 1.3)
    lamp = rng.uniform(0.75, 1.05, (4, 4)) + rng.uniform(0, 0.35) * np.outer(
        [0, 1, 1, 0], [0, 1, 1, 0]
    )
    gain = rng.uniform(0.82, 1.15) * (1 + rng.normal(0, 0.03, 3))
    gamma, contrast = np.exp(rng.normal(0, 0.13)), rng.uniform(0.82, 1.2)
    grain, strength = _swatch(rng, "grain"), rng.choice([0.02, 0.03, 0.05, 0.08])
    photo = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if blur * unit > 0.3:
        photo = cv2.GaussianBlur(photo, (0, 0), blur * unit)
    lamp = cv2.resize(
        np.clip(lamp * 105, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    photo = cv2.multiply(photo, cv2.cvtColor(lamp, cv2.COLOR_GRAY2RGB), scale=1 / 110)
    tones = (np.arange(256)[:, None] / 255) ** gamma * gain
    tones = np.clip(((tones - 0.45) * contrast + 0.45) * 255, 0, 255).astype(np.uint8)
    photo = cv2.LUT(photo, tones[:, None])
    noise = cv2.convertScaleAbs(
        grain.cut(width, height, TILE_UNIT), alpha=strength, beta=128 * (1 - strength)
    )
    return cv2.addWeighted(photo, 1, cv2.cvtColor(noise, cv2.COLOR_GRAY2RGB), 1, -128)


def _supersampling(short: int) -> float:
    return 2 if short >= 96 else 3


def draw(name: str, index: int, *, seed: int = 0, size: int | tuple[int, int] = 224) -> np.ndarray:
    """A drawn picture: uint8 RGB `(height, width, 3)`, always the same for the same arguments.

    `size` is the side of a square or `(height, width)`; other sizes show the same scene.
    Raises: ValueError for an unknown class, a negative index or a side under 16 pixels.
    """
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    _check(name, index, height, width)
    streams = np.random.SeedSequence([seed, _number(name), index]).spawn(3)
    behind, subject, camera = (np.random.default_rng(s) for s in streams)
    factor = _supersampling(min(height, width))
    angle = np.deg2rad(behind.uniform(-160, -20))
    light = (float(np.cos(angle)), float(np.sin(angle)))
    pixels = _background(round(height * factor), round(width * factor), light, behind)
    pen = Pen.over(pixels, light)
    _distractors(pen, behind)
    SUBJECTS[name](pen, subject)
    _in_front(pen, behind)
    return _camera(pixels, height, width, camera)


def _number(name: str) -> int:
    return (*ANIMALS, *THINGS).index(name)


def _check(name: str, index: int, height: int, width: int) -> None:
    if name not in SUBJECTS:
        raise ValueError(f"no class {name!r} can be drawn; choose from: {', '.join(SUBJECTS)}")
    if index < 0:
        raise ValueError(f"index is {index}; pictures are numbered from 0")
    if min(height, width) < 16:
        raise ValueError(f"size is {height} x {width} pixels; both sides must be at least 16")


def draw_arrays(
    names: Sequence[str], per_class: int, *, size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 `(N, size, size, 3)` and labels int64 `(N,)`, the classes interleaved.

    Label k is `names[k]`; picture i shows class `i % len(names)`, so every slice is balanced.
    """
    jobs = [(name, index) for index in range(per_class) for name in names]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda job: draw(*job, seed=seed, size=size), jobs))
    labels = np.tile(np.arange(len(names), dtype=np.int64), per_class)
    return np.array(images, np.uint8).reshape(-1, size, size, 3), labels


def draw_folder(
    root: str | Path,
    counts: Mapping[str, Mapping[str, int]],
    *,
    seed: int = 0,
    size: int = 256,
    progress: bool = True,
) -> Path:
    """A new folder `root` of drawn JPEG files: split / class folder / file.

    `counts` says how many: `{"train": {"0_cat": 130, ...}, "eval": {...}}`; the class is what
    follows the first "_" in the folder's name, or the whole name. The short side of a picture is
    `size`, the long one up to 1.4 times that. No picture is in two splits.

    All or nothing: the files are drawn into a folder beside `root`, which takes its name when
    complete and goes away when anything fails.
    Raises: FileExistsError where `root` exists; ValueError for a class that cannot be drawn.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already; delete it or choose a folder that is new")
    jobs = _folder_jobs(counts, size)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for folder in {path.parent for path, _, _ in jobs}:
            (partial / folder).mkdir(parents=True)
        _draw_files(partial, jobs, seed, size, progress)
        partial.chmod(0o755)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return root


def _folder_jobs(counts: Mapping[str, Mapping[str, int]], size: int) -> list[tuple[Path, str, int]]:
    """The file, the class and the index of every picture; an index is used once over all splits."""
    used: dict[str, int] = {}
    jobs = []
    for split, folders in counts.items():
        for folder, count in folders.items():
            name = folder.partition("_")[2] or folder
            _check(name, 0, size, size)
            first = used.get(name, 0)
            used[name] = first + count
            files = (Path(split, folder, f"{name}.{k:04d}.jpg") for k in range(count))
            jobs += [(file, name, first + k) for k, file in enumerate(files)]
    return jobs


def _draw_files(root: Path, jobs: list, seed: int, size: int, progress: bool) -> None:
    def write(job: tuple[Path, str, int]) -> None:
        path, name, index = job
        picture = draw(name, index, seed=seed, size=_photo_shape(name, index, seed, size))
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (root / path).write_bytes(jpeg.tobytes())

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        done = pool.map(write, jobs)
        for _ in tqdm(done, total=len(jobs), desc="drawing", leave=False, disable=not progress):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _photo_shape(name: str, index: int, seed: int, size: int) -> tuple[int, int]:
    """The height and width of a photograph: the short side is `size`, either side may be long."""
    rng = np.random.default_rng([seed, _number(name), index, 7])
    long = round(size * rng.uniform(1, 1.4))
    return (size, long) if rng.random() < 0.6 else (long, size)
