"""From folders of pictures to loaders that are checked, split, normalised and reproducible."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from ..models.transfer import Weights
from ..settings import (
    cpu_count,
    default_device,
    mixed_seed,
    own_random_numbers,
    prepare_worker,
    quick_mode,
    workers_fork,
)
from .images import mean_std, read_image
from .splits import find_splits, share_of


@dataclass(frozen=True, repr=False)
class Loaders:
    """Batches of (pictures `(N, C, size, size)` float32 normalised, labels `(N,)` int64) per split.

    `mean` and `std` are what the pictures were normalised with; `files` holds the path of every
    picture by split, in the order of `plain`, or is None for pictures that come from no files.
    """

    train: DataLoader
    val: DataLoader
    test: DataLoader | None
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: dict[str, tuple[Path, ...]] | None
    unaugmented: DataLoader = field(repr=False)

    def plain(self, split: str = "train") -> DataLoader:
        """Return "train", "val" or "test" in order and unaugmented, as validation sees pictures."""
        return split_of(self, split) if split != "train" else self.unaugmented

    def __repr__(self) -> str:
        return (
            f"Loaders({counts_of(self)} pictures of {self.size} px; "
            f"{len(self.classes)} classes: {', '.join(self.classes)})"
        )


def splits_of(data) -> dict[str, DataLoader]:
    """Return the loaders of `Loaders` or `Features` by the name of the split, without a None."""
    loaders = {name: getattr(data, name) for name in ("train", "val", "test")}
    return {name: loader for name, loader in loaders.items() if loader is not None}


def split_of(data, name: str) -> DataLoader:
    """Return one of them, or say which there are."""
    splits = splits_of(data)
    if name not in splits:
        raise ValueError(f"no split {name!r}; this data set has: {', '.join(splits)}")
    return splits[name]


def counts_of(data) -> str:
    """Return how many pictures the splits have, in words."""
    return ", ".join(f"{name} {len(x.dataset)}" for name, x in splits_of(data).items())


class PictureFiles(Dataset):
    """Picture files and labels; item `index` or `(epoch, index)` is (transformed picture, label).

    All that is random about a picture depends on (seed, epoch, index) alone.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        classes: Sequence[str],
        transform: Callable[[Tensor], Tensor],
        seed: int = 0,
    ):
        self.files, self.labels = tuple(files), tuple(labels)
        self.classes, self.transform, self.seed = tuple(classes), transform, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        picture = read_image(self.files[index])
        with own_random_numbers(mixed_seed(self.seed, epoch, index)):
            return self.transform(picture), self.labels[index]


class PictureLoader(DataLoader):
    """A DataLoader that ends its workers at once when one meets an error."""

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        try:
            yield from batches
        except Exception:
            # The error keeps the iterator; collected later, it would wait 5 seconds for each.
            if self.num_workers:
                batches._shutdown_workers()  # torch has no public way
                self._iterator = None  # of persistent workers
            raise


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order shuffled by (seed, epoch).

    With `weights` `(N,)` it draws each index that often on average, with repetitions. The epoch
    travels with the index, so that workers that live on know it too. It counts up by itself from
    1; `set_epoch` (which `train_and_eval` calls) sets it.
    """

    def __init__(self, count: int, seed: int | None, weights: Tensor | None = None):
        self.count, self.seed, self.weights, self.epoch = count, seed, weights, 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def next_order(self) -> tuple[int, Tensor]:
        """Return the epoch and its order; without seed nothing is shuffled, and the epoch is 0."""
        if self.seed is None:
            return 0, torch.arange(self.count, device="cpu")
        epoch = self.epoch
        self.epoch += 1
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        if self.weights is not None:
            return epoch, self.weights.multinomial(self.count, True, generator=generator)
        return epoch, torch.randperm(self.count, generator=generator, device="cpu")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = self.next_order()
        for index in order.tolist():
            yield epoch, index


def class_weights(labels: Sequence[int] | Tensor, num_classes: int) -> Tensor:
    """Return how much each class should count, `(num_classes,)`: the rarer, the more.

    They make all classes count the same in a loss; their mean over the pictures is 1, unless a
    class has none.

    >>> weights = class_weights(loaders.train.dataset.labels, len(loaders.classes))
    >>> criterion = nn.CrossEntropyLoss(weight=weights)
    """
    labels = torch.as_tensor(labels).flatten().cpu()
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels {sorted(set(labels.tolist()))}; expected some of 0 to {num_classes - 1}"
        )
    counts = torch.bincount(labels, minlength=num_classes)
    return counts.sum() / (num_classes * counts.clamp(min=1))


class Prepare:
    """Turn a uint8 picture `(3, H, W)` into a normalised float32 one `(3, size, size)`.

    `augment` is "none" (resize, centre crop), "standard" (random crop and flip), "trivial" (the
    same and TrivialAugment, https://arxiv.org/abs/2103.10158), or a transform of your own from
    uint8 `(3, H, W)` to uint8 `(3, size, size)`.
    """

    def __init__(self, augment: str | Callable[[Tensor], Tensor], size: int, mean, std):
        crop = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        named = {
            "none": [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)],
            "standard": crop,
            "trivial": [*crop, v2.TrivialAugmentWide()],
        }
        if isinstance(augment, str) and augment not in named:
            raise ValueError(f"augment is {augment!r}; expected {', '.join(named)} or a transform")
        if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
            raise ValueError(
                f"mean {tuple(mean)} and std {tuple(std)}; expected three numbers each, for red, "
                "green and blue in 0…1, and deviations above 0"
            )
        self.augment = v2.Compose(named[augment]) if isinstance(augment, str) else augment
        self.normalize = v2.Normalize(list(mean), list(std), inplace=True)
        self.size = size

    def __call__(self, picture: Tensor) -> Tensor:
        picture = self.augment(picture)
        shape = (3, self.size, self.size)
        kind = getattr(picture, "dtype", type(picture).__name__)
        found = tuple(getattr(picture, "shape", ()))
        if kind != torch.uint8 or found != shape:
            raise ValueError(
                f"the augmentation returned {kind} of shape {found}; "
                f"expected torch.uint8 of shape {shape}: let it end with a crop to {self.size} px, "
                "and leave out conversion to float and normalisation, which come after it"
            )
        return self.normalize(picture.contiguous().float().div_(255))


def image_folders(
    root: str | Path,
    *,
    like: Weights | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 32,
    augment: str | Callable[[Tensor], Tensor] = "standard",
    val_from_train: float | None = None,
    train_share: float = 1.0,
    balanced: bool = False,
    workers: int | None = None,
    seed: int = 0,
) -> Loaders:
    """Return loaders for a folder of pictures, with one folder per class in `train`, `val`, `test`.

    `val` may also be called eval, valid or validation. A root without `train` holds the classes
    themselves and is split: a fifth (or `val_from_train`) of each class becomes `val`. With split
    folders `val_from_train` holds that share out of `train`, and the other folder becomes `test`.
    Which pictures are held out follows from their bytes and `seed`; copies stay together.
    `train_share` keeps that share of each class's training pictures, at least one; a larger share
    of the same seed holds all of a smaller one's. `balanced` draws training pictures so that every
    class comes up equally often, those of rare classes repeatedly, in an epoch with the same
    augmentation (see also `class_weights`).

    Size, mean and std come from `like`, the weights to be trained on; without it they are 224 px
    and the training pictures' own. Each can be given. `augment` (see `Prepare`) is for training.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder, or a split that is a file.
        ValueError: an empty class, classes that differ between splits, or a wrong argument.
    """
    splits = find_splits(Path(root), val_from_train, seed)
    splits["train"] = share_of(splits["train"], train_share, seed)
    check_options(batch_size, mean, std)
    size = (like.size if like else 224) if size is None else size
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size is {size!r}; expected a whole number of pixels, at least 1")
    if mean is None:
        stats = like or mean_std(splits["train"].files)
        mean, std = stats.mean, stats.std
    still, moving = Prepare("none", size, mean, std), Prepare(augment, size, mean, std)
    workers = _default_workers(augment) if workers is None else workers
    train = splits["train"]
    drawn = class_weights(train.labels, len(train.classes))[train.labels] if balanced else None

    def loader(split: str, transform: Prepare, sampler: Sampler | None = None) -> DataLoader:
        found = splits[split]
        dataset = PictureFiles(found.files, found.labels, found.classes, transform, seed)
        single = len(dataset) > 1 == len(dataset) % batch_size
        return PictureLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            # BatchNorm cannot train on one picture: it is left out, another one in each epoch.
            drop_last=sampler is not None and single,
            num_workers=workers,
            pin_memory=default_device().type == "cuda",
            # Forked workers start in milliseconds; elsewhere each has to import torch first.
            persistent_workers=workers > 0 and not workers_fork(),
            worker_init_fn=prepare_worker,
            generator=torch.Generator(),  # torch's own is left alone, whatever the workers do
        )

    return Loaders(
        train=loader("train", moving, EpochSampler(len(train.files), seed, drawn)),
        val=loader("val", still),
        test=loader("test", still) if "test" in splits else None,
        classes=train.classes,
        size=int(size),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        files={name: tuple(split.files) for name, split in splits.items()},
        unaugmented=loader("train", still),
    )


def check_options(batch_size: int, mean, std) -> None:
    """Refuse what no loader can work with."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; expected a whole number of at least 1")
    if (mean is None) != (std is None):
        raise ValueError("only one of mean and std is given; expected both or neither")


def _default_workers(augment) -> int:
    """Return as many workers as help: they decode while the device computes."""
    if quick_mode():  # a few pictures are decoded sooner than workers start
        return 0
    cpu = default_device().type == "cpu"
    if workers_fork():
        return min(2 if cpu else 8, cpu_count())
    if cpu or getattr(augment, "__module__", "") == "__main__":  # unknown to a new process
        return 0
    return min(4, cpu_count())
