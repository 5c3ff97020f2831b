"""From folders of pictures to loaders that are checked, split, normalised and reproducible."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from .images import mean_std, picture_files, read_image
from .settings import (
    cpu_count,
    default_device,
    mixed_seed,
    own_random_numbers,
    prepare_worker,
    workers_fork,
)
from .transfer import Weights

VAL_NAMES = ("val", "eval", "valid", "validation")


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
        loaders = {"train": self.unaugmented, "val": self.val, "test": self.test}
        if loaders.get(split) is None:
            known = ", ".join(name for name, loader in loaders.items() if loader is not None)
            raise ValueError(f"no split {split!r}; this data set has: {known}")
        return loaders[split]

    def __repr__(self) -> str:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        counts = [f"{n} {len(x.dataset)}" for n, x in splits.items() if x is not None]
        return (
            f"Loaders({', '.join(counts)} pictures of {self.size} px; "
            f"{len(self.classes)} classes: {', '.join(self.classes)})"
        )


class PictureFiles(Dataset):
    """Picture files and labels; item `index` or `(epoch, index)` is (transformed picture, label).

    All that is random about a picture depends on (seed, epoch, index) alone.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str],
                 transform: Callable[[Tensor], Tensor], seed: int = 0):  # fmt: skip
        self.files, self.labels = tuple(files), tuple(labels)
        self.classes, self.transform, self.seed = tuple(classes), transform, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        picture = read_image(self.files[index])
        with own_random_numbers(mixed_seed(self.seed, epoch, index)):
            return self.transform(picture), self.labels[index]


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order shuffled by (seed, epoch).

    The epoch travels with the index, so that workers that live on know it too. It counts up by
    itself from 1; `set_epoch` (which `train_and_eval` calls) sets it.
    """

    def __init__(self, count: int, seed: int | None):
        self.count, self.seed, self.epoch = count, seed, 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def next_order(self) -> tuple[int, Tensor]:
        """Return the epoch and its order; without seed nothing is shuffled, and the epoch is 0."""
        if self.seed is None:
            return 0, torch.arange(self.count)
        epoch = self.epoch
        self.epoch += 1
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        return epoch, torch.randperm(self.count, generator=generator)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = self.next_order()
        for index in order.tolist():
            yield epoch, index


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
        self.normalize = v2.Normalize(list(mean), list(std))
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
        return self.normalize(picture.float() / 255)


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
    workers: int | None = None,
    seed: int = 0,
) -> Loaders:
    """Return loaders for a folder of pictures, with one folder per class in `train`, `val`, `test`.

    `val` may also be called eval, valid or validation. A root without `train` holds the classes
    themselves and is split: a fifth (or `val_from_train`) of each class becomes `val`. With split
    folders `val_from_train` holds that share out of `train`, and the other folder becomes `test`.
    Which pictures are held out follows from their bytes and `seed`; copies stay together.
    `train_share` keeps that share of each class's training pictures, at least one; a larger share
    of the same seed holds all of a smaller one's.

    Size, mean and std come from `like`, the weights to be trained on; without it they are 224 px
    and the training pictures' own. Each can be given. `augment` (see `Prepare`) is for training.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder, or a split that is a file.
        ValueError: an empty class, classes that differ between splits, or a wrong argument.
    """
    splits = _splits(Path(root), val_from_train, seed)
    splits["train"] = _share_of(splits["train"], train_share, seed)
    if (mean is None) != (std is None):
        raise ValueError("only one of mean and std is given; expected both or neither")
    size = (like.size if like else 224) if size is None else size
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    if mean is None:
        stats = like or mean_std(_Listed(splits["train"].files))
        mean, std = stats.mean, stats.std
    still, moving = Prepare("none", size, mean, std), Prepare(augment, size, mean, std)
    workers = _default_workers() if workers is None else workers

    def loader(split: str, transform: Prepare, sampler: Sampler | None = None) -> DataLoader:
        found = splits[split]
        dataset = PictureFiles(found.files, found.labels, found.classes, transform, seed)
        return _data_loader(dataset, batch_size, workers, sampler)

    return Loaders(
        train=loader("train", moving, EpochSampler(len(splits["train"].files), seed)),
        val=loader("val", still),
        test=loader("test", still) if "test" in splits else None,
        classes=splits["train"].classes,
        size=size,
        mean=tuple(mean),
        std=tuple(std),
        files={name: tuple(split.files) for name, split in splits.items()},
        unaugmented=loader("train", still),
    )


def _check_no_splits(root: Path) -> None:
    """Refuse folders such as Train or training_set where classes are expected."""
    for path in root.iterdir():
        word = path.name.lower().replace("-", "_").split("_")[0]
        if path.is_dir() and word in ("train", "training", "test", "testing", *VAL_NAMES):
            raise ValueError(
                f"{path} looks like a split, not like a class; expected train, val (and test) in "
                f"{root}: rename the folder"
            )


@dataclass(frozen=True)
class _Split:
    folder: Path
    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]


class _Listed(Dataset):
    """The pictures of some files, as they are."""

    def __init__(self, files: Sequence[Path]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.files[index])


def _splits(root: Path, val_from_train: float | None, seed: int) -> dict[str, _Split]:
    """Return the splits "train", "val" and perhaps "test" of a folder."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; expected one with train and val, or one folder per class"
        )
    if val_from_train is not None and not 0 < val_from_train < 1:
        raise ValueError(f"val_from_train is {val_from_train}; expected a share between 0 and 1")
    if not (root / "train").exists():
        _check_no_splits(root)
        return _hold_out(_scan(root), val_from_train or 0.2, seed)
    folders = [root / name for name in VAL_NAMES if (root / name).exists()]
    if len(folders) > 1:
        names = " and ".join(folder.name for folder in folders)
        raise ValueError(f"{root} has {names}: expected one validation folder; rename the other")
    train = _scan(root / "train")
    others = {"val": _scan(folders[0])} if folders else {}
    if (root / "test").exists():
        others["test"] = _scan(root / "test")
    for other in others.values():
        _check_same_classes(train, other)
    if val_from_train is None:
        if not folders:
            raise ValueError(
                f"{root} has train but none of {', '.join(VAL_NAMES)}; "
                "val_from_train=0.15 holds validation pictures out of train"
            )
        return {"train": train, **others}
    if len(others) > 1:
        raise ValueError(
            f"{root} has {folders[0].name} and test, so there is nothing to hold out; leave out "
            f"val_from_train, or move {folders[0].name} away"
        )
    held = _hold_out(train, val_from_train, seed)
    return {**held, "test": next(iter(others.values()))} if others else held


def _scan(folder: Path) -> _Split:
    """Find the classes of a folder (its visible folders, sorted) and their pictures."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; expected a folder with one folder per class")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise ValueError(f"no folders in {folder}; expected one folder of pictures per class")
    files, labels = [], []
    for label, path in enumerate(found):
        pictures = picture_files(path)
        if not pictures:
            others = sorted({p.suffix for p in path.rglob("*") if p.is_file()})
            seen = f" (only {', '.join(others)} files)" if others else ""
            raise ValueError(
                f"class {path.name} in {folder} has no pictures{seen}; add some or remove it"
            )
        files += pictures
        labels += [label] * len(pictures)
    return _Split(folder, tuple(path.name for path in found), files, labels)


def _check_same_classes(train: _Split, other: _Split) -> None:
    for name in sorted({*train.classes} ^ {*other.classes}):
        here, there = (train, other) if name in train.classes else (other, train)
        raise ValueError(
            f"class {name} is in {here.folder} but not in {there.folder}; "
            "expected the same folders in every split"
        )


def _hold_out(split: _Split, share: float, seed: int) -> dict[str, _Split]:
    """Hold `share` of each class out as "val", chosen by the files' bytes: copies stay together."""
    chosen = _chosen(split, share, seed)
    for label, name in enumerate(split.classes):
        files = [f for f, other in zip(split.files, split.labels, strict=True) if other == label]
        if chosen.issuperset(files):
            raise ValueError(
                f"class {name} has {len(files)} pictures, too few different ones to hold "
                f"{share:.0%} out for validation; expected at least 2"
            )
    val = _only(split, chosen)
    return {"train": _only(split, set(split.files) - chosen), "val": val}


def _share_of(split: _Split, share: float, seed: int) -> _Split:
    if not 0 < share <= 1:
        raise ValueError(f"train_share is {share}; expected a share above 0 and up to 1")
    return split if share == 1 else _only(split, _chosen(split, share, mixed_seed(seed, 1)))


def _chosen(split: _Split, share: float, seed: int) -> set[Path]:
    """Return a share of the files of each class, ranked by their bytes: copies stay together."""
    chosen = set()
    for label in range(len(split.classes)):
        files = [f for f, other in zip(split.files, split.labels, strict=True) if other == label]
        keys = {f: hashlib.sha256(b"%d:" % seed + f.read_bytes()).digest() for f in files}
        limit = sorted(keys.values())[max(1, round(share * len(files))) - 1]
        chosen |= {file for file, key in keys.items() if key <= limit}
    return chosen


def _only(split: _Split, wanted: set[Path]) -> _Split:
    pairs = [pair for pair in zip(split.files, split.labels, strict=True) if pair[0] in wanted]
    return replace(split, files=[f for f, _ in pairs], labels=[label for _, label in pairs])


def _data_loader(
    dataset: Dataset, batch_size: int, workers: int, sampler: Sampler | None
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=default_device().type == "cuda",
        # Forked workers start in milliseconds; elsewhere each has to import torch first.
        persistent_workers=workers > 0 and not workers_fork(),
        worker_init_fn=prepare_worker,
    )


def _default_workers() -> int:
    """Return as many workers as help: they decode while the device computes."""
    if default_device().type == "cpu":
        return min(2, cpu_count()) if workers_fork() else 0
    return min(8, cpu_count())
