"""The `Pen` that paints an outline as a softly lit body; places in a picture; eyes."""

import math

import cv2
import numpy as np

from .outlines import Points, ellipse, smooth
from .paints import BLACK, WHITE, Colour, Rng, mix

Paint = Colour | np.ndarray | None
Light = tuple[float, float]  # the direction that the light comes from, of length 1
Box = tuple[int, int, int, int]  # pixels: x0, y0, x1, y1

CELLS = 28  # the long side of the coarse grid on which the light on a body is worked out
MARGIN = 6  # empty cells around the body


class Pen:
    """Paints outlines, given in its own units, onto a picture that it shares with other pens."""

    def __init__(self, pixels: np.ndarray, linear: np.ndarray, x: float, y: float, light: Light):
        self.pixels, self.linear, self.x, self.y, self.light = pixels, linear, x, y, light
        (a, b), (c, d) = linear.tolist()
        self.unit = abs(a * d - b * c) ** 0.5  # pixels per unit of this pen
        self._fine, self._origin = linear * 16, np.array((x * 16 + 0.5, y * 16 + 0.5))

    @classmethod
    def over(cls, pixels: np.ndarray, light: Light) -> "Pen":
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

    def _box(self, fixed: np.ndarray, grow: int) -> Box | None:
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
        if paint is None:
            unlit = region
        else:
            unlit = (*paint, 0) if isinstance(paint, tuple) else paint[y0:y1, x0:x1]
        lit = cv2.multiply(_spread(shade, place, box), unlit, scale=1 / 128)
        if shine is not None:
            lit = cv2.add(lit, _spread(shine, place, box))
        cv2.copyTo(lit, mask, region)

    def tufted(self, outline: Points, rng: Rng, amount: float, hairs: int = 110) -> Points:
        """The outline with tufts of hair that stand out by up to `amount` units."""
        height = rng.random(hairs) * (np.arange(hairs) % 2) - 0.15
        if amount * self.unit < 2.5:  # too small to be seen; the random numbers are used up anyway
            return outline
        steps = np.diff(outline, axis=0, append=outline[:1])
        length = np.cumsum(np.hypot(*steps.T))
        at = np.linspace(0, length[-1], hairs, endpoint=False)
        reached = np.concatenate([[0], length[:-1]])
        points = np.stack([np.interp(at, reached, axis) for axis in outline.T], axis=1)
        along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
        along *= (amount / (np.hypot(*along.T) + 1e-9))[:, None]
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


Place = tuple[float, float, float]  # of a coarse grid: left, top, pixels per cell


def _light_on(
    fixed: np.ndarray, light: Light, relief: float, gloss: float, level: float
) -> tuple[np.ndarray, np.ndarray | None, Place]:
    """The light on a body, on a coarse grid: shade (128 is neutral), shine, and its place.

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
    """The grid with one cell of its margin left, displaced by x and y cells."""
    keep = MARGIN - 1
    height, width = grid.shape
    return grid[keep + y : height - keep + y, keep + x : width - keep + x]


def _spread(coarse: np.ndarray, place: Place, box: Box) -> np.ndarray:
    """The part of a coarse grid that lies in a box of pixels, as RGB at full resolution."""
    left, top, step = round(place[0]), round(place[1]), place[2]
    (h, w), (x0, y0, x1, y1) = coarse.shape, box
    size = max(x1 - left, round(w * step)), max(y1 - top, round(h * step))
    part = cv2.resize(coarse, size)[y0 - top : y1 - top, x0 - left : x1 - left]
    return cv2.cvtColor(part, cv2.COLOR_GRAY2RGB)


def half_size(pen: Pen) -> tuple[float, float]:
    """Half the width and half the height of the picture, in units of the scene."""
    height, width = pen.pixels.shape[:2]
    short = min(height, width)
    return width / short / 2, height / short / 2


def somewhere(pen: Pen, rng: Rng, reach: float = 1) -> tuple[float, float]:
    """A place in the picture; `reach` below 1 keeps it near the centre, above 1 lets it out."""
    hx, hy = half_size(pen)
    return rng.uniform(-hx, hx) * reach, rng.uniform(-hy, hy) * reach


ROUND_EYE = smooth(
    [(-0.95, 0.05), (-0.35, -0.8), (0.4, -0.8), (0.95, 0), (0.4, 0.75), (-0.4, 0.75)]
)


def eye(pen: Pen, shape: Points, iris: Colour, pupil: tuple[float, float]) -> None:
    """An eye of unit size: dark rim, iris, pupil and the light mirrored in it."""
    pen.flat(shape * 1.25, mix(BLACK, iris, 0.08))
    pen.fill(shape, iris, relief=0.5)
    pen.flat(ellipse(0, 0, *pupil), BLACK)
    pen.flat(ellipse(-0.28, -0.32, 0.2), WHITE)
