"""One picture under every augmentation, and as a training will see it."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..settings import mixed_seed, own_random_numbers, user_path, wrong
from .arrays import ArrayPictures
from .images import picture_tensor, trimmed
from .loaders import Loaders, check_loaders, split_of
from .pictures import Prepare

DRAWS = 6  # of each augmentation
JITTER = (0.2, 0.2, 0.4, 0.4, 0.8, 0.8)  # brightness, contrast, saturation times 1 ± this


def show_augmentations(
    picture,
    loaders: Loaders | None = None,
    *,
    augment: str | Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
):
    """Draw one picture under each augmentation, six times where chance decides.

    The first row is the picture as it is, as validation sees it, stretched to a square (a crop of
    all of its area), and mirrored. With `loaders` the second row is what training gets: the first
    six times that it sees this picture, with the random numbers of those epochs. The pictures are
    of the loaders' size, else of 224 px.

    Args:
        picture: a file, a uint8 array `(H, W)` or `(H, W, 3)`, or a uint8 tensor `(3, H, W)`. With
            `loaders` one of `loaders.files["train"]`, or the number of a training picture.
        augment: one more row, as for `image_folders`; a transform may return any size.
        seed: of all draws but those of the loaders.

    Raises:
        ValueError: no picture, one that is not in `loaders.train`, or no transform.

    >>> show_augmentations(loaders.files["train"][0], loaders)
    """
    from ..figures import picture_table

    training, size, still = {}, 224, None
    if loaders is not None:
        place = _place_in_training(picture, loaders)
        seen = islice(_sightings(loaders, place), DRAWS)
        training["what training gets:\nloaders.train"] = [(f"epoch {n}", x) for n, x in seen]
        dataset, size = loaders.plain("train").dataset, loaders.size
        in_memory = isinstance(dataset, ArrayPictures)
        still = v2.Resize([size] * 2) if in_memory else dataset.transform.augment
        picture = dataset.images[place] if in_memory else dataset.files[place]
    picture = trimmed(picture_tensor(picture).expand(3, -1, -1))
    drawn = {}
    for name, row in _chart(size, still, augment).items():
        drawn[name] = []
        for draw, (title, transform) in enumerate(row):
            with own_random_numbers(mixed_seed(seed, draw)):
                drawn[name].append((title, transform(picture)))
    first = "the picture"
    return picture_table({first: drawn.pop(first), **training, **drawn})


def _chart(
    size: int, still: Callable | None, augment: str | Callable | None
) -> dict[str, list[tuple[str, Callable]]]:
    """Return the rows by what they show: (title, transform); `still` is how val sees pictures."""

    def named(augment: str | Callable) -> Callable:
        return Prepare(augment, size, (0,) * 3, (1,) * 3).augment

    crops = {x: v2.RandomResizedCrop(size, (x, 1.0), antialias=True) for x in (1.0, 0.75, 0.35)}
    still, own = still or named("none"), None if augment is None else named(augment)
    if own is not None and (isinstance(own, type) or not callable(own)):
        raise wrong("augment", augment, "a name as in image_folders, or a transform")
    jitter = [(f"± {round(100 * x)} %", v2.ColorJitter(x, x, x)) for x in JITTER]
    chart = {
        "the picture": [
            ("as it is", v2.Identity()),
            ("as val sees it", still),
            ("crop of 100 %", crops[1.0]),
            ("mirrored", v2.Compose([still, v2.RandomHorizontalFlip(1.0)])),
        ],
        "crop of at least\n75 % of the area": [("", crops[0.75])] * DRAWS,
        "crop of at least\n35 % of the area": [("", crops[0.35])] * DRAWS,
        '"standard": crop of\nat least 8 %, and flip': [("", named("standard"))] * DRAWS,
        "colour jitter:\nbrightness, contrast,\nsaturation": [
            (strength, v2.Compose([still, step])) for strength, step in jitter
        ],
        "TrivialAugment": [("", v2.Compose([still, v2.TrivialAugmentWide()]))] * DRAWS,
        '"trivial": "standard",\nthen TrivialAugment': [("", named("trivial"))] * DRAWS,
    }
    return chart | ({} if own is None else {"your augmentation": [("", own)] * DRAWS})


def _place_in_training(picture, loaders: Loaders) -> int:
    """Return the number of a training picture that is given by its file or by that number."""
    check_loaders(loaders)
    count = len(split_of(loaders, "train").dataset)
    if isinstance(picture, Integral) and 0 <= picture < count:
        return int(picture)
    files = [file.absolute() for file in loaders.files["train"]] if loaders.files else []
    if isinstance(picture, str | Path) and user_path(picture).absolute() in files:
        return files.index(user_path(picture).absolute())
    expected = f'a number below {count}, or one of loaders.files["train"] where there are files'
    raise wrong("picture", picture, f"a picture that loaders.train has: {expected}")


def _sightings(loaders: Loaders, place: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (epoch, picture in 0…1) for each time that training sees the picture at this place."""
    loader = loaders.train
    mean, std = (torch.tensor(x)[:, None, None] for x in (loaders.mean, loaders.std))
    sampler = copy.copy(loader.sampler)  # the loader's own goes on where it is
    sampler.set_epoch(1)
    in_memory = isinstance(loader.dataset, ArrayPictures)  # takes batches, and leaves none out
    while True:
        epoch, order, _ = sampler.next_order()
        seen = order if in_memory else order[: len(sampler)]
        for draw in (seen == place).nonzero().flatten().tolist():
            key = (epoch, place) if sampler.weights is None else (epoch, place, draw)
            if in_memory:
                key = epoch, *(torch.tensor([number]) for number in key[1:])
            image = loader.dataset[key][0].cpu()
            yield epoch, (image.reshape(image.shape[-3:]) * std + mean).clamp(0, 1)
