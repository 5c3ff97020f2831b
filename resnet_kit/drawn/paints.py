"""The palettes and the textures that everything is painted with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Colour = tuple[float, float, float]  # red, green, blue in 0..255
Rng = np.random.Generator

NATURAL = (  # one palette for the backgrounds, clutter and things of every class
    (96, 128, 62),
    (142, 158, 88),
    (58, 92, 58),
    (178, 160, 118),
    (206, 190, 150),
    (132, 104, 76),
    (92, 70, 54),
    (150, 148, 140),
    (98, 102, 108),
    (196, 200, 204),
    (128, 164, 196),
    (84, 122, 158),
    (186, 120, 92),
    (168, 92, 80),
    (206, 170, 92),
    (160, 134, 164),
    (210, 160, 160),
    (70, 66, 72),
)
BRIGHT = (
    (196, 52, 44),
    (226, 122, 40),
    (238, 194, 60),
    (110, 160, 66),
    (52, 134, 132),
    (60, 104, 176),
    (122, 84, 160),
    (214, 112, 150),
    (238, 232, 220),
    (132, 90, 60),
    (78, 82, 92),
    (176, 206, 222),
)
COATS = (  # the fur of cats and dogs; clutter has these colours too
    (196, 128, 66),
    (222, 196, 156),
    (128, 88, 56),
    (136, 132, 128),
    (52, 48, 48),
    (226, 222, 214),
    (176, 142, 104),
    (88, 58, 42),
    (168, 170, 174),
    (206, 160, 98),
)
BLACK, WHITE = (14, 12, 12), (250, 248, 242)


def tint(rng: Rng, palette: Sequence[Colour], spread: float = 10) -> Colour:
    """A colour of the palette, moved a little in brightness and in hue."""
    base, gain = palette[rng.integers(len(palette))], rng.uniform(0.8, 1.2)
    shift = rng.normal(0, spread, 3).tolist()
    return tuple(min(250.0, max(8.0, c * gain + s)) for c, s in zip(base, shift, strict=True))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of it replaced by `b`."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


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
    """The image bent as if printed on rubber: every place moves by about `reach` pixels."""
    ys, xs = np.mgrid[:TILE, :TILE].astype(np.float32)
    dx, dy = (_noise(rng, 40, 40) * reach for _ in range(2))
    return cv2.remap(image, xs + dx, ys + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _tile_values(kind: str) -> np.ndarray:
    rng = np.random.default_rng(sum(kind.encode()))  # the same texture on every machine
    if kind == "cloud":
        return sum(_noise(rng, s, s) * s**0.6 for s in (2, 6, 18, 50)) / 14
    if kind == "spots":
        return _noise(rng, 9, 9) * 0.8 + _noise(rng, 3, 3) * 0.15
    if kind == "patches":
        return _warped(_noise(rng, 55, 55), rng, 14)
    if kind == "stripes":
        rows = np.sin(np.arange(TILE, dtype=np.float32) * 2 * np.pi / 46)
        return _warped(np.tile(rows[:, None], TILE), rng, 16) * 1.1 + _noise(rng, 14, 5) * 0.45
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

    def cut_rgb(self, width: int, height: int, unit: float, strength: float) -> np.ndarray:
        """The same in RGB, with `strength` of its contrast left around 128."""
        grey = self.cut(width, height, unit)
        grey = cv2.convertScaleAbs(grey, alpha=strength, beta=128 * (1 - strength))
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)

    @classmethod
    def pick(cls, rng: Rng, kind: str, zoom: float = 1) -> "Swatch":
        """Any piece of the texture cloud, spots, patches, stripes, hair or grain."""
        return cls(kind, rng.random(), rng.random(), zoom, int(rng.integers(-1, 2)))
