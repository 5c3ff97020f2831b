"""Outlines: ellipses, smooth shapes, curves and tubes as plain arrays of points."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Points = np.ndarray  # (N, 2) float: x, y


@lru_cache
def circle(corners: int) -> Points:
    """Corners at equal angles on the circle of radius 1 around the origin."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def turned(points: Points, degrees: float) -> Points:
    """The points turned about the origin, clockwise on screen."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(points, float) @ np.array([[c, s], [-s, c]])


def moved(points: Points, x: float, y: float) -> Points:
    return np.asarray(points, float) + np.array((x, y))


def ellipse(x: float, y: float, rx: float, ry: float | None = None, tilt: float = 0) -> Points:
    """The outline of an ellipse around (x, y), turned by `tilt` degrees (clockwise on screen)."""
    ry = rx if ry is None else ry
    return moved(turned(circle(28) * (rx, ry), tilt), x, y)


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
    """For `limb`: the matrices of the spine, of its direction and of the half-widths."""
    spine = _spline(count, steps, False)
    share = np.linspace(0, widths - 1, len(spine))
    half = np.stack([np.interp(share, range(widths), unit) for unit in np.eye(widths)], axis=1)
    return spine, np.gradient(spine, axis=0), half


def smooth(points: Sequence, steps: int = 6) -> Points:
    """A closed smooth outline through the points."""
    return _spline(len(points), steps, True) @ np.asarray(points, float)


def curve(points: Sequence, steps: int = 6) -> Points:
    """An open smooth curve through the points."""
    return _spline(len(points), steps, False) @ np.asarray(points, float)


def mirrored(right: Sequence) -> Points:
    """A symmetric outline from its right half, listed from the top to the bottom."""
    left = [(-x, y) for x, y in reversed(right) if x]
    return np.array([*right, *left], float)


def limb(points: Sequence, widths: Sequence[float], *, steps: int = 6) -> Points:
    """The outline of a tube along a curve, with half-widths and round ends."""
    points = np.asarray(points, float)
    spine, slope, half = _limb_matrices(len(points), steps, len(widths))
    spine, along, half = spine @ points, slope @ points, half @ np.asarray(widths, float)
    along *= (half / (np.hypot(*along.T) + 1e-9))[:, None]
    side = along[:, ::-1] * (-1, 1)
    ends = spine[[0, -1]] + along[[0, -1]] * [[-0.8], [0.8]]
    return np.concatenate([ends[:1], spine + side, ends[1:], (spine - side)[::-1]])


def rectangle(x: float, y: float, rx: float, ry: float) -> Points:
    """The four corners around (x, y), `rx` and `ry` away from it."""
    return np.array([(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)])
