"""Pictures of files as a data set: prepared for a net, read anew each time or decoded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from ..devices import default_device, free_memory
from ..settings import in_threads, mixed_seed, own_random_numbers, progress_bar, seed_cpu, wrong
from .crops import NUMBERS, drawn_crops, resized_crops
from .images import (
    LONGEST,
    ROOM,
    UnreadableImageError,
    read_image,
    read_rgb,
    refuse_unreadable,
    size_of,
    tensor_of,
    trimmed,
)
from .stats import Stats, stats_of

SHARE = 1 / 3  # of the memory that is free: what decoded pictures may take
DETAIL = 2  # times the size of the net's pictures: the short side that is kept for random crops
# Decoded pictures by file, its date and length, and what was made of them. A picture is forgotten
# with the last loader that holds it; until then other loaders of the same folder share it.
_SHARED: WeakValueDictionary[tuple, Tensor] = WeakValueDictionary()


@dataclass(frozen=True)
class Middle:
    """Resize the short side to `resize` and take the middle: a picture `(C, size, size)`."""

    size: int
    resize: int
    interpolation: v2.InterpolationMode

    def __call__(self, picture: Tensor) -> Tensor:
        picture = V.resize(picture, [self.resize], self.interpolation, antialias=True)
        return V.center_crop(picture, [self.size, self.size])


@dataclass(frozen=True)
class Smaller:
    """Reduce a picture whose short side has more than `side` pixels to that; None leaves it."""

    side: int | None
    interpolation: v2.InterpolationMode

    def __call__(self, picture: Tensor) -> Tensor:
        if self.side is None or min(picture.shape[1:]) <= self.side:
            return picture
        return V.resize(picture, [self.side], self.interpolation, antialias=True)


class Prepare:
    """Turn a uint8 picture `(3, H, W)` into a normalised float32 one `(3, size, size)`.

    `augment` is "none" (resize the short side to `resize`, centre crop), "standard" (random crop
    and flip), "trivial" (the same and TrivialAugment, https://arxiv.org/abs/2103.10158), or a
    transform of your own from uint8 `(3, H, W)` to uint8 `(3, size, size)`.
    """

    def __init__(
        self,
        augment: str | Callable[[Tensor], Tensor],
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        resize: int | None = None,
        interpolation: str | v2.InterpolationMode = "bilinear",
    ):
        self.size, self.resize = size, resize or round(size * 256 / 224)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.interpolation = v2.InterpolationMode(interpolation)
        how = {"interpolation": self.interpolation, "antialias": True}
        self.crop, flip = v2.RandomResizedCrop(size, **how), v2.RandomHorizontalFlip()
        named = {
            "none": Middle(size, self.resize, self.interpolation),
            "standard": v2.Compose([self.crop, flip]),
            "trivial": v2.Compose([self.crop, flip, v2.TrivialAugmentWide()]),
        }
        if isinstance(augment, str) and augment not in named:
            raise wrong("augment", augment, f"{', '.join(named)} or a transform")
        self.name = augment if isinstance(augment, str) else None
        self.augment = named[augment] if self.name else augment
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, picture: Tensor) -> Tensor:
        return self.normalized(self.augmented(picture))

    def augmented(self, picture: Tensor) -> Tensor:
        """Return the augmented picture, uint8 `(3, size, size)`."""
        picture = self.augment(trimmed(picture))
        shape = (len(self.mean), self.size, self.size)
        kind = getattr(picture, "dtype", type(picture).__name__)
        found = tuple(getattr(picture, "shape", ()))
        if kind != torch.uint8 or found != shape:
            raise ValueError(
                f"the augmentation returned {kind} of shape {found}; "
                f"expected torch.uint8 of shape {shape}: let it end with a crop to {self.size} px, "
                "and leave out conversion to float and normalisation, which come after it"
            )
        return picture

    def normalized(self, pictures: Tensor) -> Tensor:
        """Return augmented pictures `(…, 3, size, size)` as normalised float32."""
        device = pictures.device
        if device not in self._on_device:  # sent there once: a GPU waits for what it is sent
            self._on_device[device] = tuple(
                torch.tensor(numbers, device=device)[:, None, None]
                for numbers in (self.mean, self.std)
            )
        mean, std = self._on_device[device]
        return pictures.contiguous().float().div_(255).sub_(mean).div_(std)


class Decoded:
    """The pictures of files, read at the first use, on all cores, and kept in memory as uint8.

    `change` makes of each picture `(3, H, W)` what is kept. Data sets with an equal one share it.
    A file that changes afterwards is read anew by new loaders only.
    """

    def __init__(self, files: Sequence[Path], change: Middle | Smaller, device: torch.device):
        self.files, self.change, self.device = files, change, device
        self.pictures: list[Tensor] | None = None

    def __getitem__(self, index: int) -> Tensor:
        if self.device.type == "cuda" and get_worker_info() is not None:
            raise RuntimeError(
                "the pictures are kept on the GPU, where workers cannot read them; expected a "
                "DataLoader without workers, or image_folders(..., keep=False)"
            )
        if self.pictures is None:
            found = in_threads(self._decode, self.files)
            bar = progress_bar(found, total=len(self.files), description="decoding", delay=1)
            pictures = list(bar)
            errors = [found for found in pictures if isinstance(found, UnreadableImageError)]
            refuse_unreadable(errors, len(pictures))
            self.pictures = pictures
        return self.pictures[index]

    def stats(self) -> Stats:
        """Return mean and deviation of the pictures as the files have them, and keep them."""
        found = {}

        def read(file: Path) -> Image.Image:
            picture = read_rgb(file)
            found[file] = self._keep(file, tensor_of(picture))
            return picture

        stats = stats_of(self.files, read)
        self.pictures = [found[file] for file in self.files]
        return stats

    @property
    def bytes(self) -> int:
        """What the pictures take; 0 before the first use."""
        return sum(picture.nbytes for picture in self.pictures or ())

    def _decode(self, file: Path) -> Tensor | UnreadableImageError:
        key = self._key(file)
        kept = _SHARED.get(key)
        if kept is not None:
            return kept
        try:
            with ROOM.for_picture(file):
                return self._keep(file, read_image(file))
        except UnreadableImageError as error:
            return error

    def _keep(self, file: Path, picture: Tensor) -> Tensor:
        changed = self.change(trimmed(picture))
        if changed.untyped_storage().nbytes() > changed.nbytes:  # a part of the whole picture
            changed = changed.clone()
        kept = changed.to(self.device)
        _SHARED[self._key(file)] = kept
        return kept

    def _key(self, file: Path) -> tuple:
        about = file.stat()
        return file.resolve(), about.st_mtime_ns, about.st_size, self.change, self.device


class PictureFiles(Dataset):
    """Picture files and labels; item `index` or `(epoch, index)` is (transformed picture, label).

    All that is random about a picture depends on (seed, epoch, index) alone; where a picture is
    drawn several times in an epoch the key has the number of the draw too. With `decoded` the
    files are read once; where it holds their middles, these only have to be normalised. A GPU takes
    random crops a batch at a time, with other random numbers than a CPU.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        classes: Sequence[str],
        transform: Prepare,
        seed: int,
        decoded: Decoded | None,
    ):
        self.files, self.labels, self.classes = files, labels, classes
        self.transform, self.seed, self.decoded = transform, seed, decoded
        self.mean, self.std = transform.mean, transform.std
        self._numbers = (None, np.empty(0))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, ...]) -> tuple[Tensor, int]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, ...]]) -> "Samples":
        """Return several items, as a DataLoader asks for them."""
        keys = [key if isinstance(key, tuple) else (0, key) for key in keys]
        return Samples(
            self.augmented(keys), [self.labels[index] for _, index, *_ in keys], self.transform
        )

    def augmented(self, keys: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
        """Return pictures before they are normalised, uint8 `(3, size, size)`."""
        if self.cropped_together:
            return self._cropped(keys)
        if self.decoded is not None and isinstance(self.decoded.change, Middle):
            return [self.decoded[index] for _, index, *_ in keys]
        pictures = []
        with own_random_numbers(0):  # the caller's are put back once for all
            for key in keys:
                picture = self.picture(key[1])
                seed_cpu(mixed_seed(self.seed, *key))
                pictures.append(self.transform.augmented(picture))
        return pictures

    @property
    def cropped_together(self) -> bool:
        """True where random crops are drawn and resized a batch at a time: on a GPU."""
        on_gpu = self.decoded is not None and self.decoded.device.type == "cuda"
        bilinear = self.transform.interpolation == v2.InterpolationMode.BILINEAR
        return on_gpu and bilinear and self.transform.name == "standard"

    def _cropped(self, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """Return random crops of one epoch, uint8 `(N, 3, size, size)`."""
        pictures = [self.decoded[index] for _, index, *_ in keys]
        numbers = self._random_numbers(keys[0][0])[[key[-1] for key in keys]]
        sizes = [picture.shape[1:] for picture in pictures]
        crops = drawn_crops(sizes, numbers, self.transform.crop)
        return resized_crops(pictures, crops, self.transform.size)

    def _random_numbers(self, epoch: int) -> np.ndarray:
        """Return the random numbers of an epoch's crops: row i for picture, or draw, number i."""
        if self._numbers[0] != epoch:
            generator = np.random.default_rng(mixed_seed(self.seed, epoch, 1))
            self._numbers = epoch, generator.random((len(self), NUMBERS))
        return self._numbers[1]

    def picture(self, index: int) -> Tensor:
        """Return a picture that may be changed, before it is transformed: uint8 `(3, H, W)`."""
        if self.decoded is None:
            return read_image(self.files[index])
        picture = self.decoded[index]
        return picture if self.transform.name else picture.clone()


class Samples(Sequence):
    """Augmented pictures with labels; item i is (normalised picture, label).

    `batch` normalises all at once, which takes half the time.
    """

    def __init__(self, pictures: Sequence[Tensor], labels: list[int], transform: Prepare):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform.normalized(self.pictures[index]), self.labels[index]

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return pictures `(N, 3, size, size)` and labels `(N,)`."""
        together = isinstance(self.pictures, Tensor)
        pictures = self.pictures if together else torch.stack(self.pictures)
        return self.transform.normalized(pictures), torch.tensor(self.labels)


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


def place_of_decoded(
    keep: str | bool, files: dict[str, Sequence[Path]], size: int, side: int | None
) -> torch.device | None:
    """Return the device where decoded pictures are kept, or None where they are not.

    They are kept where they fit: with "auto" into `SHARE` of the memory that is free. A GPU has
    them where the augmentation is one of ours (`side` is not None), else they wait on the CPU.
    """
    if not (isinstance(keep, bool) or keep == "auto"):
        raise wrong("keep", keep, '"auto", True or False')
    if keep is False:
        return None
    on_gpu = side is not None and default_device().type == "cuda"
    device = default_device() if on_gpu else torch.device("cpu")
    free = free_memory(device)
    limit = free if keep is True else int(SHARE * free)
    scored = sum(len(found) for split, found in files.items() if split != "train")
    needed = scored * 3 * size**2 + bytes_of(files["train"], side, limit)
    if needed > limit and keep is True:
        raise ValueError(
            f"the decoded pictures take more than the {free / 1e9:.1f} GB of memory that are free; "
            'leave keep at "auto", or take a smaller size'
        )
    return device if needed <= limit else None


def bytes_of(files: Sequence[Path], side: int | None, enough: int) -> int:
    """Return what the pictures take as uint8, the short side at most `side`; stop at `enough`."""
    total = 0
    for width, height in in_threads(size_of, files):
        short = min(width, height)
        scale = 1.0 if side is None or short <= side else side / short
        long = min(max(width, height), LONGEST * short)
        total += 3 * round(short * scale) * round(long * scale)
        if total > enough:
            break
    return total


def try_augmentation(prepare: Prepare, file: Path) -> None:
    """Try an augmentation on one picture, so that one that does not fit costs no time."""
    if not callable(prepare.augment) or isinstance(prepare.augment, type):
        expected = "a transform that is called with a picture: v2.Compose([...]) of several"
        raise wrong("augment", prepare.augment, expected)
    picture = read_image(file)
    with own_random_numbers(0):
        try:
            prepare.augment(trimmed(picture))
        except Exception as error:  # of another library
            raise ValueError(
                f"augment fails with {type(error).__name__}: {error}; expected a transform from a "
                "uint8 tensor (3, H, W) to one of the same kind, such as those of "
                "torchvision.transforms.v2, without ToTensor and Normalize"
            ) from error
        prepare(picture)
