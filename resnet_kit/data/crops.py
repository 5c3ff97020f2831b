"""Random crops of a batch of pictures, drawn and resized together: what a GPU is fast at."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ..devices import send

TRIES = 10  # as torchvision's
NUMBERS = 2 * TRIES + 3  # random numbers of a crop: area and shape of each try, place, mirrored


def drawn_crops(
    sizes: Sequence[tuple[int, int]], numbers: np.ndarray, crop: v2.RandomResizedCrop
) -> np.ndarray:
    """Return top, left, height, width and whether it is mirrored of a crop each, `(N, 5)` int64.

    `sizes` has heights and widths of the pictures, `numbers` `(N, NUMBERS)` random ones in 0…1. The
    crops are distributed as those of torchvision's `RandomResizedCrop`: the first of ten tries that
    fits into the picture, else the largest in its middle that has one of the shapes asked for.
    """
    heights, widths = np.array(sizes).T
    low, high = crop.scale
    areas = (heights * widths)[:, None] * (low + (high - low) * numbers[:, :TRIES])
    narrowest, widest = np.log(crop.ratio)
    shapes = np.exp(narrowest + (widest - narrowest) * numbers[:, TRIES : 2 * TRIES])
    tall = np.sqrt(areas / shapes).round().astype(int)
    wide = np.sqrt(areas * shapes).round().astype(int)
    tall_fits = (tall > 0) & (tall <= heights[:, None])
    wide_fits = (wide > 0) & (wide <= widths[:, None])
    fits = tall_fits & wide_fits
    found, first = fits.any(1), (np.arange(len(fits)), fits.argmax(1))
    # Where none fits, too narrow a picture keeps its width, and too wide a one its height.
    largest_height = np.minimum(heights, np.round(widths / crop.ratio[0]).astype(int))
    largest_width = np.minimum(widths, np.round(heights * crop.ratio[1]).astype(int))
    height = np.where(found, tall[first], largest_height)
    width = np.where(found, wide[first], largest_width)
    down, across, side = numbers[:, 2 * TRIES :].T
    top = np.where(found, down * (heights - height + 1), (heights - height) // 2).astype(int)
    left = np.where(found, across * (widths - width + 1), (widths - width) // 2).astype(int)
    return np.stack([top, left, height, width, side < 0.5], 1)


def resized_crops(pictures: Sequence[Tensor], crops: np.ndarray, size: int) -> Tensor:
    """Return a crop of each uint8 picture `(C, H, W)`: uint8 `(N, C, size, size)`.

    `crops` is what `drawn_crops` returns. The levels are those of torchvision's bilinear resize
    with antialias: each new line is a mean of old lines, with the same weights in all columns, so
    that a product with a matrix makes all lines, and another one all columns.
    """
    height, width = crops[:, 2:4].max(0).tolist()
    padded = pictures[0].new_zeros(len(pictures), len(pictures[0]), height, width)
    for place, picture, (top, left, high, wide, _) in zip(
        padded, pictures, crops.tolist(), strict=True
    ):
        place[:, :high, :wide] = picture[:, top : top + high, left : left + wide]
    lengths = np.concatenate([crops[:, 2], crops[:, 3]])
    backwards = np.concatenate([np.zeros(len(crops), int), crops[:, 4]])
    weights = weights_of_means(lengths, backwards, size, max(height, width), padded.device)
    lines, columns = weights[: len(crops), None, :, :height], weights[len(crops) :, None, :, :width]
    return (lines @ padded.float() @ columns.mT).round_().to(torch.uint8)


def weights_of_means(
    lengths: np.ndarray, backwards: np.ndarray, size: int, longest: int, device: torch.device
) -> Tensor:
    """Return by what `longest` old pixels count in `size` new ones, `(N, size, longest)` float32.

    In row n the first `lengths[n]` of the old pixels are there, and the new ones run from them
    forwards or `backwards`. A new pixel is a mean of the old ones around its centre, those further
    away counting less: down to nothing at a distance of one pixel of the coarser grid.
    """
    step = lengths / size  # old pixels for each new one
    start, stride = np.where(backwards, lengths, 0), np.where(backwards, -step, step)
    about = torch.tensor(np.stack([lengths, start, stride, step.clip(min=1)]), dtype=torch.float32)
    length, start, stride, reach = send(about, device)[:, :, None, None]
    new = (torch.arange(size, device=device) + 0.5)[:, None]
    old = torch.arange(longest, device=device) + 0.5
    weights = (1 - (old - (start + stride * new)).abs() / reach).clamp(min=0) * (old < length)
    return weights / weights.sum(2, keepdim=True)
