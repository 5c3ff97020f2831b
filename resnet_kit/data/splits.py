"""Which pictures of a folder are for training, validation and test, and of what class they are."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ..settings import mixed_seed
from .images import picture_files

VAL_NAMES = ("val", "eval", "valid", "validation")
SPLITS = ("train", *VAL_NAMES, "test")


@dataclass(frozen=True)
class Split:
    """The pictures of one split: files, and labels that number the classes."""

    folder: Path
    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]


def find_splits(root: Path, val_from_train: float | None, seed: int) -> dict[str, Split]:
    """Return the splits "train", "val" and perhaps "test" of a folder."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; expected one with train and val, or one folder per class"
        )
    if val_from_train is not None and not 0 < val_from_train < 1:
        raise ValueError(f"val_from_train is {val_from_train}; expected a share between 0 and 1")
    if not (root / "train").exists():
        check_no_splits(root)
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


def check_no_splits(root: Path) -> None:
    """Refuse folders such as Train or training_set where classes are expected."""
    for path in root.iterdir():
        word = path.name.lower().replace("-", "_").split("_")[0]
        if path.is_dir() and word in ("train", "training", "test", "testing", *VAL_NAMES):
            raise ValueError(
                f"{path} looks like a split, not like a class; expected train, val (and test) in "
                f"{root}: rename the folder"
            )


def _scan(folder: Path) -> Split:
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
    return Split(folder, tuple(path.name for path in found), files, labels)


def _check_same_classes(train: Split, other: Split) -> None:
    for name in sorted({*train.classes} ^ {*other.classes}):
        here, there = (train, other) if name in train.classes else (other, train)
        raise ValueError(
            f"class {name} is in {here.folder} but not in {there.folder}; "
            "expected the same folders in every split"
        )


def _hold_out(split: Split, share: float, seed: int) -> dict[str, Split]:
    """Hold `share` of each class out as "val", chosen by the files' bytes: copies stay together."""
    chosen = _chosen(split, share, seed)
    for label, name in enumerate(split.classes):
        files = [f for f, other in zip(split.files, split.labels, strict=True) if other == label]
        if chosen.issuperset(files):
            raise ValueError(
                f"class {name} has {len(files)} pictures, too few different ones to hold "
                f"{share:.0%} out for validation and keep one to learn from; add some, or hold out "
                "less"
            )
    val = _only(split, chosen)
    return {"train": _only(split, set(split.files) - chosen), "val": val}


def share_of(split: Split, share: float, seed: int) -> Split:
    """Keep `share` of each class; a larger share of the same seed holds all of a smaller one's."""
    if not 0 < share <= 1:
        raise ValueError(f"train_share is {share}; expected a share above 0 and up to 1")
    return split if share == 1 else _only(split, _chosen(split, share, mixed_seed(seed, 1)))


def _chosen(split: Split, share: float, seed: int) -> set[Path]:
    """Return a share of the files of each class, ranked by their bytes: copies stay together."""
    chosen = set()
    for label in range(len(split.classes)):
        files = [f for f, other in zip(split.files, split.labels, strict=True) if other == label]
        keys = {f: hashlib.sha256(b"%d:" % seed + f.read_bytes()).digest() for f in files}
        limit = sorted(keys.values())[max(1, round(share * len(files))) - 1]
        chosen |= {file for file, key in keys.items() if key <= limit}
    return chosen


def _only(split: Split, wanted: set[Path]) -> Split:
    pairs = [pair for pair in zip(split.files, split.labels, strict=True) if pair[0] in wanted]
    return replace(split, files=[f for f, _ in pairs], labels=[label for _, label in pairs])
