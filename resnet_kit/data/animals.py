"""The pictures of cats, dogs, ants and bees: photos where they are at hand, else drawn ones."""

from pathlib import Path

from ..drawn import kept_folder
from ..settings import data_root, quick_mode, short_path
from .images import picture_files
from .photos import download_photos

# Photos per class and split: ants and bees are those of PyTorch's transfer-learning tutorial, cats
# and dogs the first of Kaggle's "Dogs vs. Cats". The drawn pictures have a test split too.
CLASS_FOLDERS = ("0_cat", "1_dog", "2_ants", "3_bees")
COUNTS = {
    "train": dict(zip(CLASS_FOLDERS, (130, 222, 123, 121), strict=True)),
    "eval": dict(zip(CLASS_FOLDERS, (100, 102, 70, 83), strict=True)),
}
DRAWN_COUNTS = {**COUNTS, "test": dict.fromkeys(CLASS_FOLDERS, 40)}
QUICK_COUNTS = {
    split: dict.fromkeys(CLASS_FOLDERS, count)
    for split, count in {"train": 12, "eval": 6, "test": 4}.items()
}


def cat_dog_ants_bees(source: str = "auto", *, check: bool = True, progress: bool = True) -> Path:
    """Return the folder of the cat/dog/ants/bees pictures; one printed line says which they are.

    `source`: "photos" (951 of them: train 596, eval 355; downloaded once, about 115 MB, and
    each checked by its SHA-256 unless `check` is False), "drawn" (the same folders and counts and
    a test split of 40 each, drawn once into a folder of their own), or "auto": the photos if they
    are in the data root, else drawn. In quick mode "auto" and "drawn" are a few drawn ones.

    Raises:
        OSError: the photos are wanted, and cannot be downloaded, or some of them are missing.
        ValueError: what was downloaded is not what it should be.
    """
    if source not in ("auto", "photos", "drawn"):
        raise ValueError(f'source is {source!r}; expected "auto", "photos" or "drawn"')
    photos = data_root() / "cat_dog_ants_bees"
    if source == "photos" and not photos.is_dir() and quick_mode():
        raise FileNotFoundError(
            f"{short_path(photos)} is not there, and quick mode downloads nothing; leave quick "
            'mode (RESNET_KIT_QUICK), or take cat_dog_ants_bees("drawn")'
        )
    if source == "photos" and not photos.is_dir():
        print(f"Downloading photos of cats, dogs, ants and bees once into {short_path(photos)}.")
        download_photos(photos, check=check, progress=progress)
    if source == "photos" or (source == "auto" and photos.is_dir() and not quick_mode()):
        _check_photos(photos)
        print(f"951 photos of cats, dogs, ants and bees in {short_path(photos)}.")
        return photos
    folder = _drawn_folder(progress)
    if source == "drawn":
        print(f"Drawn pictures of cats, dogs, ants and bees in {short_path(folder)}.")
        return folder
    reason = "quick mode never takes them" if quick_mode() else f"{short_path(photos)} is not there"
    print(
        f"Wanted the photos of cats, dogs, ants and bees, but {reason}; using drawn pictures in "
        f'{short_path(folder)} instead. rk.cat_dog_ants_bees("photos") downloads the photos.'
    )
    return folder


def _check_photos(folder: Path) -> None:
    for split, counts in COUNTS.items():
        for name, count in counts.items():
            path = folder / split / name
            found = len(picture_files(path)) if path.is_dir() else 0
            if found != count:
                raise FileNotFoundError(
                    f"{path} holds {found} photos, expected {count}; data/README.md says which, "
                    'or take cat_dog_ants_bees("drawn")'
                )


def _drawn_folder(progress: bool) -> Path:
    counts = QUICK_COUNTS if quick_mode() else DRAWN_COUNTS
    return kept_folder("cat_dog_ants_bees_drawn", counts, progress=progress)
