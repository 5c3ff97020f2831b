"""Augmentations of whole batches on the device: crop, resized crop, flip, colour jitter.

Each turns float32 pictures (N, C, H, W) in 0…1 and N rows of `draws` random numbers in 0…1 into
pictures of the same shape. Picture i depends on row i alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V


@dataclass(frozen=True)
class Crop:
    """Pad by `padding` black pixels on every side and crop back at a random place."""

    draws: ClassVar[int] = 2
    padding: int = 4

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        _, channels, height, width = images.shape
        top, left = (numbers * (2 * self.padding + 1)).long().T[:, :, None]
        rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
        padded = F.pad(images, [self.padding] * 4)
        padded = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
        return padded.gather(3, columns.expand(-1, channels, height, -1))


@dataclass(frozen=True)
class ResizedCrop:
    """Crop a random part, of `smallest` to all of the area, and stretch it to the full size.

    The part is up to 4/3 times as wide as high, or as high as wide. Bilinear.
    Source: https://arxiv.org/abs/1409.4842, section 6.
    """

    draws: ClassVar[int] = 4
    smallest: float = 0.25

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        area, ratio, across, down = numbers.T
        side = (self.smallest + (1 - self.smallest) * area).sqrt()
        stretch = (4 / 3) ** (ratio - 0.5)
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        left, top = (2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height)
        zero = torch.zeros_like(width)
        theta = torch.stack([width, zero, left, zero, height, top], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        # Reflection repeats the outermost pixel here, as "border" does, which MPS does not have.
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class Flip:
    """Mirror a random half of the pictures, left to right."""

    draws: ClassVar[int] = 1

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(numbers[:, :, None, None] < 0.5, images.flip(3), images)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast and (of RGB pictures) saturation by factors in 1 ± `strength`."""

    draws: ClassVar[int] = 3
    strength: float = 0.4

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        factors = 1 + self.strength * (2 * numbers - 1)
        brightness, contrast, saturation = factors.T[:, :, None, None, None]
        images = images * brightness
        images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
        if images.shape[1] == 3:
            images = torch.lerp(V.rgb_to_grayscale(images), images, saturation)
        return images.clamp(0, 1)
