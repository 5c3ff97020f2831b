"""Pictures in memory, augmented in batches on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as V

from ..devices import default_device, send
from ..models.weights import Weights, check_weights
from ..settings import mixed_seed, wrong
from .images import check_uint8_pictures
from .loaders import Loaders, balancing_weights, batch_loader, check_options
from .stats import mean_std


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


class ArrayPictures(Dataset):
    """uint8 pictures `(N, C, H, W)` on the device; item `(epoch, indices)` is a whole batch.

    Pictures come out augmented, resized, as `(B, C, size, size)` float32 normalised, with labels
    `(B,)` on the CPU, where checking them stops no GPU. The random numbers of a picture are row
    `index` of a table that follows from (seed, epoch); where pictures are drawn several times in an
    epoch the item is `(epoch, indices, draws)`, and they are row `draw`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: Sequence[str],
        mean,
        std,
        sizes,
        augment: Sequence[Callable],
        seed: int,
    ):
        self.images, self.labels, self.classes = images, labels, tuple(classes)
        self.mean, self.std = tuple(mean), tuple(std)
        self._shift, self._scale = (
            torch.tensor(x, device=images.device)[:, None, None] for x in (mean, std)
        )
        self.sizes, self.augment, self.seed = dict(sizes), tuple(augment), seed
        self._numbers = (None, torch.empty(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple | int) -> tuple[Tensor, Tensor]:
        if not isinstance(key, tuple):
            images, labels = self[0, torch.tensor([key])]
            return images[0], labels[0]
        epoch, indices, *draws = key
        images = self.images[send(indices, self.images.device)].float() / 255
        if self.augment:
            rows = draws[0] if draws else indices
            numbers = self._random_numbers(epoch)[send(rows, self.images.device)]
            parts = numbers.split([step.draws for step in self.augment], 1)
            for step, part in zip(self.augment, parts, strict=True):
                images = step(images, part)
        size = self.size_in(epoch)
        if images.shape[2] != size:
            images = V.resize(images, [size, size], antialias=True)
        images = images.expand(-1, len(self.mean), -1, -1)  # grey becomes RGB for weights
        return (images - self._shift) / self._scale, self.labels[indices]

    def size_in(self, epoch: int) -> int:
        """Return the picture size of an epoch; outside of training (epoch 0) it is the last one."""
        begun = [start for start in self.sizes if start <= epoch] if epoch else self.sizes
        return self.sizes[max(begun)]

    def _random_numbers(self, epoch: int) -> Tensor:
        """Return the table of an epoch; made on the CPU, so that it is the same on any device."""
        if self._numbers[0] != epoch:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, 1))
            shape = len(self), sum(step.draws for step in self.augment)
            table = torch.rand(shape, generator=generator, device="cpu")
            self._numbers = epoch, table.to(self.images.device)
        return self._numbers[1]


def array_loaders(
    *,
    train: tuple | None = None,
    val: tuple | None = None,
    test: tuple | None = None,
    classes: Sequence[str] | None = None,
    like: Weights | None = None,
    size: int | Mapping[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 128,
    augment: str | Sequence[Callable] = "standard",
    balanced: bool = False,
    seed: int = 0,
) -> Loaders:
    """Return loaders for pictures that fit in memory (on the accelerator, if there is one).

    Each split is (images, labels): square uint8 pictures `(N, H, W)` or `(N, H, W, C)`, NumPy or
    torch, and whole numbers `(N,)`. They are shuffled, augmented, resized and normalised in
    batches; the random numbers of a picture follow from (seed, epoch, index). Splits that are left
    out are None; without training pictures `like`, or mean and std, must be given.

    Args:
        classes: names; default "0", "1", …, each of which must come up in the first split.
        like: weights to be trained on; they give size, mean and std. Grey pictures become RGB.
        size: in pixels; default the pictures' own. `{1: 32, 9: 64}` trains at 32 px and from
            epoch 9 on at 64 px ("progressive resizing"); validation is always at the last size.
        mean, std: per channel in 0…1; default `like`'s, else the training pictures' own.
        augment: "none"; "standard" (pad by an eighth and crop; flip, but not grey pictures, which
            are characters more often than not); or batch augmentations such as
            `[ResizedCrop(0.25), Flip(), ColorJitter(0.4)]`, in this order.
        balanced: draw training pictures so that every class comes up equally often.

    Raises:
        ValueError: pictures, labels or arguments that do not fit; the message says which.
    """
    given = {"train": train, "val": val, "test": test}
    splits = {
        name: _checked_split(name, *split) for name, split in given.items() if split is not None
    }
    if not splits:
        raise ValueError("no pictures are given; expected train=(images, labels), val or test")
    images, labels = next(iter(splits.values()))
    channels, side = images.shape[1:3]
    classes = _numbers_as_names(labels) if classes is None else tuple(map(str, classes))
    _check_alike(splits, classes)
    check_options(batch_size, mean, std, channels)
    if like is not None:
        check_weights(like)
    if mean is None and like is None and train is None:
        raise ValueError(
            "without training pictures it is not known how to normalise; give like=, or mean= and "
            "std= of the pictures that the model was trained on"
        )
    if mean is None:
        stats = like or mean_std(images.permute(0, 2, 3, 1), progress=False)
        mean, std = stats.mean, stats.std
    mean, std = (tuple(float(number) for number in numbers) for numbers in (mean, std))
    if size is None:
        size = like.size if like else side
    sizes = _checked_sizes(size)
    steps = _checked_augment(augment, side, channels)
    device = default_device()

    def dataset(name: str, augment: Sequence[Callable] = ()) -> ArrayPictures:
        images, labels = splits[name]
        return ArrayPictures(images.to(device), labels, classes, mean, std, sizes, augment, seed)

    plain = {name: batch_loader(dataset(name), batch_size) for name in splits}
    moving = None
    if train is not None:
        weights = balancing_weights(labels) if balanced else None
        moving = batch_loader(dataset("train", steps), batch_size, seed=seed, weights=weights)
    return Loaders(
        train=moving,
        val=plain.get("val"),
        test=plain.get("test"),
        classes=classes,
        size=sizes[max(sizes)],
        mean=mean,
        std=std,
        files=None,
        unaugmented=plain.get("train"),
    )


def _numbers_as_names(labels: Tensor) -> tuple[str, ...]:
    """Return "0", "1", … up to the largest label; refuse labels that leave some of them out."""
    count = int(labels.max()) + 1
    absent = sorted({*range(count)} - {*labels.tolist()})
    if absent:
        raise ValueError(
            f"labels go up to {count - 1}, but no picture has the label {absent[0]}; expected "
            "every number from 0 on (labels that begin at 1: subtract 1), or give classes=[names]"
        )
    return tuple(map(str, range(count)))


def _checked_split(name: str, images, labels) -> tuple[Tensor, Tensor]:
    """Return copies: the pictures as `(N, C, H, W)` and the labels as int64, on the CPU."""
    images, labels = (
        part.cpu().clone() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
        for part in (images, labels)
    )
    images = check_uint8_pictures(images).permute(0, 3, 1, 2).contiguous()
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"{name} has pictures of {width} x {height} pixels; expected square ones")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"{name} has {len(images)} pictures and labels of shape {tuple(labels.shape)} and "
            f"type {labels.dtype}; expected one whole number per picture"
        )
    if not len(images):
        raise ValueError(f"{name} is empty; expected at least one picture")
    return images, labels.long()


def _check_alike(splits: dict[str, tuple[Tensor, Tensor]], classes: Sequence[str]) -> None:
    first, (pictures, _) = next(iter(splits.items()))
    shape = tuple(pictures.shape[1:])
    for name, (images, labels) in splits.items():
        if tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"{name} has pictures (C, H, W) of {tuple(images.shape[1:])}, {first} of {shape}; "
                "expected one shape"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            raise ValueError(
                f"{name} has labels from {low} to {high}; expected 0 to {len(classes) - 1} for "
                f"{len(classes)} classes"
            )


def _checked_sizes(size: int | Mapping[int, int]) -> dict[int, int]:
    """Return the size from each epoch on."""
    sizes = dict(size) if isinstance(size, Mapping) else {1: size}
    numbers = [*sizes, *sizes.values()]
    if not all(isinstance(n, Integral) and n >= 1 for n in numbers) or 1 not in sizes:
        later = "pixels from epoch 1 on and from later epochs on, such as {1: 32, 9: 64}"
        raise wrong("size", size, f"pixels, or {later}")
    return {int(epoch): int(pixels) for epoch, pixels in sizes.items()}


def _checked_augment(
    augment: str | Sequence[Callable], side: int, channels: int
) -> Sequence[Callable]:
    mirrored = [Flip()] if channels > 1 else []
    named = {"none": [], "standard": [Crop(side // 8), *mirrored]}
    steps = named.get(augment) if isinstance(augment, str) else augment
    fit = isinstance(steps, list | tuple) and all(
        hasattr(step, "draws") and not isinstance(step, type) for step in steps
    )
    if not fit:
        raise ValueError(
            f"augment is {augment!r}; expected {', '.join(named)} or a list of batch augmentations "
            "such as [Crop(4), Flip()]: objects with `draws`, how many random numbers they need "
            "per picture, that are called with (images, numbers)"
        )
    return steps
