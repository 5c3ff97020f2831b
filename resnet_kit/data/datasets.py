"""Data sets by name: the real thing where it is at hand, an announced stand-in where it is not."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tarfile import TarError
from zipfile import BadZipFile, ZipFile

import numpy as np
import torchvision.datasets

from ..drawn import FLOWERS, THINGS, VERSION, draw_arrays, kept_folder
from ..files import atomic_file, fetch, only_one
from ..models.weights import Weights
from ..settings import data_root, quick_mode, short_path
from .arrays import Crop, Flip, array_loaders
from .folders import image_folders
from .loaders import Loaders

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
DIGITS = tuple("0123456789")
# name: torchvision's class, and the names of its classes where it has other ones or none yet.
DOWNLOADED = {
    "mnist": ("MNIST", DIGITS),
    "kmnist": ("KMNIST", None),
    "fashion_mnist": ("FashionMNIST", None),
    "cifar10": ("CIFAR10", CIFAR10),
    "cifar100": ("CIFAR100", None),
    "svhn": ("SVHN", DIGITS),
    "stl10": ("STL10", STL10),
}
# No connection, or an archive that is damaged in one of many ways.
BROKEN = (OSError, RuntimeError, ValueError, EOFError, HTTPException, TarError, BadZipFile)
KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def named_dataset(
    name: str,
    *,
    stand_in: str | None = None,
    download: bool = True,
    val_from_train: float = 0.1,
    like: Weights | None = None,
    size: int | Mapping[int, int] | None = None,
    batch_size: int = 128,
    augment: str | Callable | Sequence[Callable] = "standard",
    seed: int = 0,
) -> Loaders:
    """Return a known data set as loaders: mnist, kmnist, fashion_mnist, cifar10, cifar100, svhn,
    stl10, scikit-learn's digits, drawn10 (ten kinds of things), flowers102, or drawn_flowers.

    Taken from `<data root>/<name>.npz` with uint8 `train_images` `(N, H, W)` or `(N, H, W, 3)`,
    `train_labels`, `test_images` and `test_labels`; where that is missing, downloaded by
    torchvision and kept as such a file. A share of the training pictures of each class, chosen by
    `seed`, becomes `val`. The other arguments are those of `array_loaders`; "standard"
    augmentation mirrors only what may be mirrored.

    The flowers are folders of files: flowers102 with its official splits (train 1,020, val 1,020,
    test 6,149), drawn_flowers with 48 kinds (train 10 each, val 10, test 20). Their val is their
    own, whatever `val_from_train` says; their other arguments are those of `image_folders`.

    `stand_in` names a set to take, announced in one line, where this one cannot be had, and in
    quick mode. Without `download`, and in quick mode, no connection is opened.

    Raises:
        FileNotFoundError: no file and no download, and no stand-in.
        ValueError: no such name, or a damaged or unfit file.
    """
    options = {"like": like, "size": size, "batch_size": batch_size, "seed": seed}
    known = (*DOWNLOADED, "digits", "drawn10", *FOLDERS)
    for given in (name, stand_in):
        if given is not None and given not in known:
            raise ValueError(f"no data set {given!r}; expected one of: {', '.join(known)}")
    try:
        if stand_in is not None and quick_mode():
            raise FileNotFoundError("quick mode takes the stand-in")
        found = _found(name, download and not quick_mode())
    except FileNotFoundError as error:
        if stand_in is None:
            raise
        print(f"Wanted {name}, but {error}; using {stand_in} instead.")
        name, found = stand_in, _found(stand_in, False)
    if isinstance(found, Path):
        return image_folders(found, augment=augment, **options)
    images, labels = found["train_images"], found["train_labels"]
    train, val = _held_out(labels, val_from_train, seed)
    crop = Crop(images.shape[1] // 8)
    if augment == "standard" and name == "svhn":  # numbers, in colour: a mirrored 2 is no 2
        augment = [crop]
    if augment == "standard" and name == "fashion_mnist":  # grey, and no characters
        augment = [crop, Flip()]
    return array_loaders(
        train=(images[train], labels[train]),
        val=(images[val], labels[val]),
        test=(found["test_images"], found["test_labels"]),
        classes=found["classes"],
        augment=augment,
        **options,
    )


def _found(name: str, download: bool) -> Path | dict[str, np.ndarray]:
    return FOLDERS[name](download) if name in FOLDERS else _arrays(name, download)


def _held_out(labels: np.ndarray, share: float, seed: int) -> list[np.ndarray]:
    """Return the indices of what stays for training and of what is held out, in order."""
    from sklearn.model_selection import train_test_split

    try:
        parts = train_test_split(
            np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"val_from_train={share} of {len(labels)} pictures: {error}") from error
    return [np.sort(part) for part in parts]


def _arrays(name: str, download: bool) -> dict[str, np.ndarray]:
    """Return the four arrays of a set and the names of its classes."""
    if name == "digits":
        return _digits()
    path = data_root() / f"{name}.npz"
    if name == "drawn10":
        path = path.with_stem(f"drawn10{'_quick' if quick_mode() else ''}_v{VERSION}")
    if not path.is_file():
        if name == "drawn10":
            _keep(path, _drawn10())
        else:
            _download(name, path, download)
    try:
        with np.load(path) as file:  # pickled objects are refused
            arrays = dict(file)
    except Exception as error:  # in one of many ways, or a single array instead of an .npz
        raise ValueError(
            f"{path} cannot be read ({error}); delete it, or put a whole one"
        ) from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; expected {', '.join(KEYS)}")
    names = arrays.get("classes")
    if names is None and name in DOWNLOADED:
        class_name, names = DOWNLOADED[name]
        names = names or getattr(getattr(torchvision.datasets, class_name), "classes", None)
    if names is None:
        names = range(int(arrays["train_labels"].max()) + 1)
    return {**arrays, "classes": tuple(map(str, names))}


@contextmanager
def _downloading(name: str, path: Path, content: str, allowed: bool) -> Iterator[Path | None]:
    """Give a folder to download into, which is removed at the end; say what to do on a failure.

    Where another process is downloading, wait for it, and give None when it has put the path there.
    """
    if not allowed:
        hint = ", and quick mode downloads nothing"
        hint = hint if quick_mode() else f' (rk.named_dataset("{name}") downloads it)'
        raise FileNotFoundError(f"{short_path(path)} is not there{hint}")
    folder = path.with_suffix(".download")
    with only_one(path.with_name(f".{path.stem}.lock")):
        if path.exists():
            yield None
            return
        print(f"{name}: downloading it once, to be kept as {short_path(path)}.")
        try:
            yield folder
        except BROKEN as error:
            raise FileNotFoundError(
                f"{short_path(path)} is not there and cannot be downloaded ({error!r}); provide "
                f"it, with {content}, or take a stand-in: "
                f'named_dataset("{name}", stand_in="drawn10")'
            ) from error
        finally:
            with suppress(OSError):
                folder.rmdir()  # where nothing came
        shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _download(name: str, path: Path, allowed: bool) -> None:
    """Have torchvision download a set and check its sums; keep it as arrays."""
    class_name, names = DOWNLOADED[name]
    arrays = {}
    with _downloading(name, path, ", ".join(KEYS), allowed) as folder:
        if folder is None:
            return
        for split in ("train", "test"):
            which = {"split": split} if name in ("svhn", "stl10") else {"train": split == "train"}
            data = getattr(torchvision.datasets, class_name)(folder, download=True, **which)
            images = np.asarray(data.data)
            if images.ndim == 4 and images.shape[1] == 3:
                images = images.transpose(0, 2, 3, 1)
            labels = data.targets if hasattr(data, "targets") else data.labels
            arrays |= {f"{split}_images": images, f"{split}_labels": np.asarray(labels)}
        _keep(path, {**arrays, "classes": np.array(names or data.classes)})


def _flowers(download: bool) -> Path:
    """Return the folder of the flowers, one folder per split and class; downloaded once."""
    path = data_root() / "flowers102"
    if path.is_dir():
        return path
    content = "train, val and test, a folder per class"
    with _downloading("flowers102", path, content, download) as folder:
        if folder is None:
            return path
        whole = folder / "flowers102"
        shutil.rmtree(whole, ignore_errors=True)  # of a call that was interrupted
        for split in ("train", "val", "test"):
            data = torchvision.datasets.Flowers102(folder, split=split, download=True)
            names = getattr(data, "classes", None) or [""] * 102  # new in torchvision 0.22
            # Private, but asking for the items would decode 8,189 photos.
            for file, label in zip(data._image_files, data._labels, strict=True):
                name = f"{label + 1:03d}_{names[label]}".rstrip("_?")
                (whole / split / name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, whole / split / name / file.name)
        whole.replace(path)
    return path


def _drawn_flowers(_: bool) -> Path:
    """Return the folder of the drawn flowers, drawn once."""
    names = [f"{number:02d}_{name}" for number, name in enumerate(FLOWERS, 1)]
    train, val, test = (3, 1, 1) if quick_mode() else (10, 10, 20)
    counts = {"train": train, "val": val, "test": test}
    return kept_folder("drawn_flowers", {x: dict.fromkeys(names, n) for x, n in counts.items()})


FOLDERS = {"flowers102": _flowers, "drawn_flowers": _drawn_flowers}


def _digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's digits, 8 x 8 pixels: the last 297 are the test pictures."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (digits.images * 255 / 16).round().astype(np.uint8), digits.target
    parts = images[:1500], labels[:1500], images[1500:], labels[1500:]
    return {**dict(zip(KEYS, parts, strict=True)), "classes": DIGITS}


def _drawn10() -> dict[str, np.ndarray]:
    """Return ten kinds of things, drawn at 32 px."""
    train, test = (20, 5) if quick_mode() else (500, 100)
    images, labels = draw_arrays(THINGS, train + test, size=32)
    cut = train * len(THINGS)
    parts = images[:cut], labels[:cut], images[cut:], labels[cut:]
    return {**dict(zip(KEYS, parts, strict=True)), "classes": np.array(THINGS)}


# Photos of each class, in the order of the folders: ants and bees are those of PyTorch's
# transfer-learning tutorial, cats and dogs the first of Kaggle's "Dogs vs. Cats".
CLASS_FOLDERS = ("0_cat", "1_dog", "2_ants", "3_bees")
COUNTS = {"train": (130, 222, 123, 121), "eval": (100, 102, 70, 83)}
DRAWN_COUNTS = {**COUNTS, "test": (40,) * 4}
QUICK_COUNTS = {"train": (12,) * 4, "eval": (6,) * 4, "test": (4,) * 4}


def cat_dog_ants_bees(source: str = "auto", *, progress: bool = True) -> Path:
    """Return the folder of the cat/dog/ants/bees pictures; one printed line says which they are.

    `source`: "photos" (951 of them: train 596, eval 355; downloaded once, about 115 MB, and
    each checked by its SHA-256), "drawn" (the same folders and counts and
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
        download_photos(photos, progress=progress)
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
    missing = [path for path in read_manifest() if not (folder / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the 951 photos (first: {missing[0]}); "
            'data/README.md says which belong there, or take cat_dog_ants_bees("drawn")'
        )


def _drawn_folder(progress: bool) -> Path:
    splits = QUICK_COUNTS if quick_mode() else DRAWN_COUNTS
    counts = {
        split: dict(zip(CLASS_FOLDERS, numbers, strict=True)) for split, numbers in splits.items()
    }
    return kept_folder("cat_dog_ants_bees_drawn", counts, progress=progress)


ARCHIVES = (
    "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
    "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
)
MANIFEST = Path(__file__).with_name("photos.sha256")  # of all 951: SHA-256, path


def download_photos(folder: Path, *, progress: bool = True) -> None:
    """Put the 951 photos into a new folder: whole or not at all.

    What was downloaded of a file before an interruption is kept beside the folder and continued.

    Raises:
        OSError: no connection, or it was cut again and again.
        ValueError: an archive is damaged, or photos are missing or not those of the manifest.
    """
    with only_one(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():  # perhaps another process has just put it there
            _download_photos(folder, progress)


def _download_photos(folder: Path, progress: bool) -> None:
    work = folder.with_name(folder.name + ".download")
    photos = work / "photos"
    shutil.rmtree(photos, ignore_errors=True)
    try:
        archives = [
            fetch(url, work / PurePosixPath(url).name, progress=progress) for url in ARCHIVES
        ]
    finally:
        with suppress(OSError):
            work.rmdir()  # where nothing came
    manifest = read_manifest()
    try:
        for archive in archives:
            _unpack(archive, photos, manifest)
        _check(photos, manifest)
    except ValueError:
        shutil.rmtree(work)  # so that the next call downloads anew
        raise
    photos.replace(folder)
    shutil.rmtree(work)


def read_manifest() -> dict[str, str]:
    """Return the SHA-256 of every photo by its path, such as "train/0_cat/cat.0.jpg"."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def _unpack(archive: Path, photos: Path, manifest: dict[str, str]) -> None:
    """Write the photos that the manifest names into their folders."""
    for path, content in _photos_in(archive, manifest):
        (photos / path).parent.mkdir(parents=True, exist_ok=True)
        (photos / path).write_bytes(content)


def _photos_in(archive: Path, manifest: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    try:
        with ZipFile(archive) as file:
            names = set(file.namelist())
            for path in manifest:
                if _member(path) in names:
                    yield path, file.read(_member(path))
    except Exception as error:  # damaged in one of many ways, locked, or of an unknown method
        raise ValueError(f"{archive.name} is damaged ({error!r}); call again") from error


def _member(path: str) -> str:
    """Return the name that a photo of the manifest has in its archive."""
    split, folder, file = path.split("/")
    kind = folder.split("_")[1]
    if kind in ("ants", "bees"):
        return f"hymenoptera_data/{'train' if split == 'train' else 'val'}/{kind}/{file}"
    return f"cats_and_dogs_filtered/train/{kind}s/{file}"


def _check(photos: Path, manifest: dict[str, str]) -> None:
    wrong = []
    for path, digest in manifest.items():
        file = photos / path
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            wrong.append(path)
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(manifest)} photos are missing or not those of the manifest: "
            f"{', '.join(wrong[:5])}; call again, or lay them out by hand as data/README.md says"
        )
