"""Folders of pictures: found, split into train, val and test, prepared, and loaded."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torchvision.transforms import v2

from ..devices import cpu_count, default_device
from ..models.weights import Weights, check_weights
from ..settings import check_count, counted, mixed_seed, quick_mode, wrong
from .checks import announce_mirrored_characters, announce_oddities
from .images import existing_folder, folders_in, heif_hint, picture_files
from .loaders import (
    EpochSampler,
    Loaders,
    balancing_weights,
    check_options,
    prepare_worker,
    workers_fork,
)
from .pictures import (
    DETAIL,
    Decoded,
    Middle,
    PictureFiles,
    PictureLoader,
    Prepare,
    Samples,
    Smaller,
    place_of_decoded,
    try_augmentation,
)
from .stats import mean_std

VAL_NAMES = ("val", "eval", "valid", "validation")
SPLITS = ("train", *VAL_NAMES, "test")


@dataclass(frozen=True)
class Split:
    """The pictures of one split: pairs of a file and a label that numbers its class."""

    folder: Path
    classes: tuple[str, ...]
    pictures: list[tuple[Path, int]]

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for file, _ in self.pictures)

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(label for _, label in self.pictures)

    def of_class(self, label: int) -> list[Path]:
        """Return the files of one class."""
        return [file for file, other in self.pictures if other == label]

    def only(self, wanted: set[Path]) -> "Split":
        """Return the split with these files alone."""
        return replace(self, pictures=[pair for pair in self.pictures if pair[0] in wanted])


def find_splits(
    root: Path,
    val_from_train: float | None,
    seed: int,
    groups: Callable[[Path], Hashable] | None = None,
) -> dict[str, Split]:
    """Return the splits "train", "val" and perhaps "test" of a folder."""
    if val_from_train is not None and not 0 < val_from_train < 1:
        raise wrong("val_from_train", val_from_train, "a share between 0 and 1")
    if not is_split(root / "train"):
        check_no_splits(root)
        return _hold_out(_scan(root), val_from_train or 0.2, seed, groups)
    folders = [root / name for name in VAL_NAMES if (root / name).exists()]
    if len(folders) > 1:
        names = " and ".join(folder.name for folder in folders)
        where = root.absolute()
        raise ValueError(f"{where} has {names}: expected one validation folder; rename the other")
    train = _scan(root / "train")
    others = {"val": _like(train, folders[0])} if folders else {}
    test = root / "test"
    if test.exists() and not is_unlabelled(test, train.classes):
        others["test"] = _like(train, test)
    if val_from_train is None:
        if not folders:
            raise ValueError(
                f"{root.absolute()} has train but none of {', '.join(VAL_NAMES)}; "
                "val_from_train=0.15 holds validation pictures out of train"
            )
        return {"train": train, **others}
    if len(others) > 1:
        raise ValueError(
            f"{root.absolute()} has {folders[0].name} and test, so there is nothing to hold out; "
            f"leave out val_from_train, or move {folders[0].name} away"
        )
    held = _hold_out(train, val_from_train, seed, groups)
    return {**held, "test": next(iter(others.values()))} if others else held


def is_split(path: Path) -> bool:
    """True for a folder of class folders, and for what stands in its place and is no folder."""
    return path.exists() and (not path.is_dir() or bool(folders_in(path)))


def is_unlabelled(split: Path, classes: Sequence[str]) -> bool:
    """True for a folder of pictures without classes, perhaps in one folder such as `unknown`."""
    if not split.is_dir():
        return False
    folders = folders_in(split)
    others = len(folders) == 1 and folders[0].name not in classes and not folders_in(folders[0])
    return (not folders or others) and bool(picture_files(split))


def check_no_splits(root: Path) -> None:
    """Refuse folders such as Train or training_set, with classes inside, where classes belong."""
    for path in folders_in(root):
        word = path.name.lower().replace("-", "_").split("_")[0]
        named_so = word in ("train", "training", "test", "testing", *VAL_NAMES)
        if named_so and folders_in(path):
            raise ValueError(
                f"{path.absolute()} looks like a split, not like a class; expected train, val (and "
                "test) beside each other: rename the folder"
            )


def _scan(folder: Path, *, may_lack: bool = False) -> Split:
    """Find the classes of a folder (its visible folders, sorted) and their pictures."""
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{folder.absolute()} is a file; expected a folder with one folder per class"
        )
    found = folders_in(folder)
    if not found:
        where = folder.absolute()
        raise ValueError(f"no folders in {where}; expected one folder of pictures per class")
    pictures = []
    for label, path in enumerate(found):
        files = picture_files(path)
        if not files and not may_lack:
            others = sorted({p.suffix for p in path.rglob("*") if p.is_file()})
            seen = f" (only {', '.join(others)} files)" if others else ""
            fix = heif_hint(others) or "add some or remove it"
            raise ValueError(
                f"class {path.name} in {folder.absolute()} has no pictures{seen}; {fix}"
            )
        pictures += [(file, label) for file in files]
    if not pictures:
        raise ValueError(f"no pictures in {folder.absolute()}; expected some in a class at least")
    return Split(folder, tuple(path.name for path in found), pictures)


def _like(train: Split, folder: Path) -> Split:
    """Find another split, with the classes of train, some of which it may lack."""
    other = _scan(folder, may_lack=True)
    for name in other.classes:
        if name not in train.classes:
            raise ValueError(
                f"class {name} is in {other.folder.absolute()} but not in "
                f"{train.folder.absolute()}, where it would have to be learned"
            )
    numbers = [train.classes.index(name) for name in other.classes]
    pictures = [(file, numbers[label]) for file, label in other.pictures]
    return replace(other, classes=train.classes, pictures=pictures)


def _hold_out(
    split: Split, share: float, seed: int, groups: Callable[[Path], Hashable] | None
) -> dict[str, Split]:
    """Hold `share` of each class out as "val"; copies stay together, in other classes too."""
    chosen = _chosen(split, share, seed, groups)
    for label, name in enumerate(split.classes):
        files = split.of_class(label)
        if chosen.issuperset(files):
            raise ValueError(
                f"class {name} has {counted(len(files), 'picture')}, too few different ones (or "
                f"groups) to hold {share:.0%} out for validation and keep one to learn from; add "
                "some, or hold out less"
            )
    return {"train": split.only(set(split.files) - chosen), "val": split.only(chosen)}


def share_of(split: Split, share: float, seed: int) -> Split:
    """Keep `share` of each class; a larger share of the same seed holds all of a smaller one's."""
    if not 0 < share <= 1:
        raise wrong("train_share", share, "a share above 0 and up to 1")
    return split if share == 1 else split.only(_chosen(split, share, mixed_seed(seed, 1)))


def _chosen(
    split: Split, share: float, seed: int, groups: Callable[[Path], Hashable] | None = None
) -> set[Path]:
    """Return a share of the files of each class, ranked by their bytes, or by their groups.

    Copies of a file, or the files of a group, have one rank and go together. Where they lie in
    several classes, the class that takes more decides.
    """

    def key(file: Path) -> bytes:
        content = file.read_bytes() if groups is None else repr(groups(file)).encode()
        return hashlib.sha256(b"%d:" % seed + content).digest()

    keys = {file: key(file) for file in split.files}
    chosen = set()
    for label in range(len(split.classes)):
        ranked = sorted(keys[file] for file in split.of_class(label))
        limit = ranked[max(1, round(share * len(ranked))) - 1]
        chosen |= {key for key in ranked if key <= limit}
    return {file for file, key in keys.items() if key in chosen}


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
    groups: Callable[[Path], Hashable] | None = None,
    keep: str | bool = "auto",
    workers: int | None = None,
    seed: int = 0,
    announce: bool = True,
) -> Loaders:
    """Return loaders for a folder of pictures, with one folder per class in `train`, `val`, `test`.

    `val` may also be called eval, valid or validation. A root without `train` holds the classes
    themselves and is split: a fifth (or `val_from_train`) of each class becomes `val`. With split
    folders `val_from_train` holds that share out of `train`, and the other folder becomes `test`.
    Which pictures are held out follows from their bytes and `seed`; copies stay together. `groups`
    says for a file what else must stay together: its film, patient or site, any string or number.
    `train_share` keeps that share of each class's training pictures, at least one; a larger share
    of the same seed holds all of a smaller one's. `balanced` draws training pictures so that every
    class comes up equally often, those of rare classes repeatedly, each time augmented anew
    (scikit-learn's `compute_class_weight` gives weights for a loss instead).

    Size, mean, std and how to resize come from `like`, the weights to be trained on; without it
    they are 224 px and the training pictures' own. Each can be given. `augment` (see `Prepare`) is
    for training.

    Pictures are decoded once, at the first use, and kept in memory as uint8, as long as they take
    at most a third of the memory that is free (`keep="auto"`); else `workers` decode them in every
    epoch. `keep=False` always does that, as does a number of workers, and `keep=True` never. Of
    large pictures so much is kept that random crops find their detail: a short side of twice
    `size`, or with a transform of your own all of it. A GPU holds them itself, and crops a batch at
    a time. A file that changes afterwards is noticed by new loaders only.

    What makes a score mean less than it seems (one class, copies of training pictures in val or
    test, files that are left out, …) is said in a line each, unless `announce` is False.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder, or a split that is a file.
        ValueError: an empty class, classes that differ between splits, or a wrong argument.
    """
    root = existing_folder(root, "expected one with train and val, or one folder per class")
    if groups is not None and not callable(groups):
        raise wrong("groups", groups, "a function from a file to its film, patient or site")
    splits = find_splits(root, val_from_train, seed, groups)
    check_options(batch_size, mean, std, 3)
    if like is not None:
        check_weights(like)
    if size is None:
        size = like.size if like else 224
    check_count("size", size)
    if announce:
        announce_oddities(root, splits, groups)
        if augment == "standard":
            announce_mirrored_characters(splits["train"].classes)
    splits["train"] = share_of(splits["train"], train_share, seed)
    files = {name: split.files for name, split in splits.items()}
    side = DETAIL * size if isinstance(augment, str) else None
    if keep is True and workers:
        raise ValueError(f"keep=True needs no workers, but workers is {workers}; leave out one")
    place = place_of_decoded(False if workers else keep, files, size, side)
    middle = Middle(
        size,
        like.resize_for(size) if like else round(size * 256 / 224),
        v2.InterpolationMode(like.interpolation if like else "bilinear"),
    )
    crops = None
    if place is not None:
        change = middle if augment == "none" else Smaller(side, middle.interpolation)
        crops = Decoded(files["train"], change, place)
    if mean is None:
        stats = like or (mean_std(list(files["train"])) if crops is None else crops.stats())
        mean, std = stats.mean, stats.std
    how = {"resize": middle.resize, "interpolation": middle.interpolation}
    still, moving = (Prepare(name, size, mean, std, **how) for name in ("none", augment))
    try_augmentation(moving, files["train"][0])
    if workers is None:
        workers = _default_workers(augment) if place is None else 0

    def loader(split: str, sampler: Sampler | None = None) -> DataLoader:
        found, transform, decoded = splits[split], moving, crops
        if sampler is None:
            transform = still
            decoded = None if place is None else Decoded(found.files, middle, place)
        about = found.files, found.labels, found.classes
        dataset = PictureFiles(*about, transform, seed, decoded)
        return _loader(dataset, batch_size, workers, sampler)

    labels = splits["train"].labels
    weights = balancing_weights(labels) if balanced else None
    return Loaders(
        train=loader("train", EpochSampler(len(labels), seed, weights, batch_size)),
        val=loader("val"),
        test=loader("test") if "test" in splits else None,
        classes=splits["train"].classes,
        size=int(size),
        mean=still.mean,
        std=still.std,
        files=files,
        unaugmented=loader("train"),
    )


def _loader(
    dataset: PictureFiles, batch_size: int, workers: int, sampler: Sampler | None
) -> DataLoader:
    """Return the batches of a data set: in order, or as a sampler for training says."""
    on_cpu = dataset.decoded is None or dataset.decoded.device.type == "cpu"
    return PictureLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=Samples.batch,
        num_workers=workers,
        pin_memory=on_cpu and default_device().type == "cuda",
        # Forked workers start in milliseconds; elsewhere each has to import torch first.
        persistent_workers=workers > 0 and not workers_fork(),
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # torch's own is left alone, whatever the workers do
    )


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
