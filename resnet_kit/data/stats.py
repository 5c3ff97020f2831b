"""Mean and standard deviation of the pixels of many pictures."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..settings import in_threads, progress_bar, user_path
from .images import (
    ROOM,
    UnreadableImageError,
    as_seen,
    check_uint8_pictures,
    picture_files,
    read_rgb,
    refuse_unreadable,
)

POWERS = np.arange(256.0)[:, None] ** [0, 1, 2]  # of each level: 1, itself, its square


@dataclass(frozen=True)
class Stats:
    """Mean and standard deviation per channel over all pixels of all pictures, in 0…1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: int
    pixels: int


def mean_std(source: str | Path | Dataset | np.ndarray | Tensor, *, progress: bool = True) -> Stats:
    """Return the exact mean and standard deviation per channel, every pixel counting the same.

    `source` is a folder (all pictures below it, read as RGB), a data set or list whose items are
    pictures (files, PIL pictures or `(C, H, W)` tensors, uint8 or float in 0…1) or pairs (picture,
    label), or a uint8 array `(N, H, W)` or `(N, H, W, C)`. Grey PIL pictures have one channel, all
    others three, as people see them. Sums are float64; memory is constant. The deviation is the
    population's (divided by the number of pixels, not averaged per picture).

    Raises:
        UnreadableImageError: names every unreadable file, after all were tried.
        ValueError: no pictures, pictures of different channels, or values beyond 0…1.

    >>> mean_std(np.full((2, 4, 4), 51, np.uint8))
    Stats(mean=(0.2,), std=(0.0,), pictures=2, pixels=32)
    """
    if isinstance(source, str | Path):
        place = user_path(source).absolute()
        source = picture_files(source)
        if not source:
            raise ValueError(f"no pictures in {place}")
    elif isinstance(source, np.ndarray | Tensor):
        source = check_uint8_pictures(torch.as_tensor(source)).permute(0, 3, 1, 2)
    return stats_of(source, read_rgb, progress=progress)


def stats_of(
    source: Dataset | Sequence, read: Callable[[Path], Image.Image], *, progress: bool = True
) -> Stats:
    """Return what `mean_std` does; `read` makes of a file an RGB picture."""
    # Lists and tensors may be read by several threads at once, data sets need not be.
    run = in_threads if isinstance(source, list | tuple | Tensor) else map
    sums = run(functools.partial(_sums, source, read), range(len(source)))
    total, unreadable = None, []
    for found in progress_bar(sums, total=len(source), description="mean and std", show=progress):
        if isinstance(found, UnreadableImageError):
            unreadable.append(found)
        elif total is not None and len(found) != len(total):
            raise ValueError(
                f"pictures of {len(total)} and of {len(found)} channels in one data set; expected "
                'one kind; convert them all to RGB, for example with PIL\'s convert("RGB")'
            )
        else:
            total = found if total is None else total + found
    refuse_unreadable(unreadable, len(source))
    if total is None:
        raise ValueError("no pictures in it")
    pixels = int(total[0, 0])
    mean = total[:, 1] / pixels
    std = np.sqrt((total[:, 2] / pixels - mean**2).clip(min=0))
    return Stats(tuple(mean.tolist()), tuple(std.tolist()), len(source), pixels)


def _sums(
    source, read: Callable[[Path], Image.Image], index: int
) -> np.ndarray | UnreadableImageError:
    """Return pixels, sum and sum of squares per channel, `(C, 3)` float64, in units of 0…1."""
    item = source[index]
    picture = item[0] if isinstance(item, tuple | list) else item
    if not isinstance(picture, str | Path):
        return _sums_of(picture, index)
    try:
        with ROOM.for_picture(picture):
            return _sums_of_counts(read(picture).histogram())
    except UnreadableImageError as error:
        return error


def _sums_of(picture, index: int) -> np.ndarray:
    if isinstance(picture, Image.Image):
        grey = picture.mode in ("1", "L")
        picture = picture.convert("L") if grey else as_seen(picture)
        return _sums_of_counts(picture.histogram())
    if not isinstance(picture, Tensor) or picture.ndim != 3:
        kind = f"{type(picture).__name__} of shape {getattr(picture, 'shape', 'unknown')}"
        raise ValueError(f"item {index} is a {kind}; expected a PIL picture or (C, H, W) tensor")
    if picture.dtype == torch.uint8:
        channels = picture.flatten(1).cpu()
        return _sums_of_counts([torch.bincount(channel, minlength=256) for channel in channels])
    values = picture.flatten(1).cpu().double()
    low, high = values.min().item(), values.max().item()
    if not picture.is_floating_point() or low < 0 or high > 1:
        raise ValueError(
            f"item {index} is {picture.dtype} with values from {low:g} to {high:g}; expected "
            "uint8, or float in 0…1 (before normalisation)"
        )
    count = torch.full((len(values),), values.shape[1], dtype=torch.float64)
    return torch.stack([count, values.sum(1), values.square().sum(1)], 1).numpy()


def _sums_of_counts(counts: Sequence) -> np.ndarray:
    """Return what `_sums` does; `counts` says how often each level 0 to 255 is in each channel.

    The sums are exact, and the picture is not copied.
    """
    return np.reshape(counts, (-1, 256)) @ POWERS / (1, 255, 255**2)
