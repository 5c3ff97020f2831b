"""Picture files: which files count, one way to read them, and their mean and standard deviation."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .settings import cpu_count, prepare_worker, progress_bar, workers_fork

# As in torchvision, GIF is no picture format here: most are animations or "not found" signs.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
)


class UnreadableImageError(ValueError):
    """A file that should be a picture cannot be decoded; the message names it and says why."""


def is_picture(path: Path) -> bool:
    """True for a file whose suffix (in any case) is in `SUFFIXES` and that is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def picture_files(folder: Path) -> list[Path]:
    """Return all pictures below `folder`, sorted; hidden files and folders are skipped."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected a folder of pictures")
    files = (path for path in folder.rglob("*") if is_picture(path))
    visible = (p for p in files if not any(x.startswith(".") for x in p.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def read_image(path: str | Path) -> Tensor:
    """Return any picture file as people see it: uint8 RGB `(3, H, W)`, upright.

    The EXIF orientation is applied; grey, palette, CMYK, LAB and 16-bit pictures become 8-bit RGB;
    transparent parts lie over white; of an animation the first frame is taken.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged, incomplete, too large or no picture.
    """
    data = Path(path).read_bytes()
    try:
        return _decode(data)
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        raise UnreadableImageError(
            f"cannot read {path}: {str(error).splitlines()[0] if str(error) else repr(error)}; "
            "expected a complete picture file; replace it or take it out of the folder"
        ) from error


def _decode(data: bytes) -> Tensor:
    if not data:
        raise ValueError("the file is empty")
    with Image.open(BytesIO(data)) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        pixels = np.array(_as_rgb(picture))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # not copied: resizing reads it faster so


def rgb_pixels(picture: Image.Image) -> np.ndarray:
    """Return a PIL picture of any mode as people see it: uint8 RGB `(H, W, 3)`, upright."""
    return np.array(_as_rgb(ImageOps.exif_transpose(picture)))


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no fixed range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16 bits, whatever the byte order
        wide = np.asarray(picture).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"pixel values from {wide.min()} to {wide.max()} exceed 16 bits")
        picture = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@dataclass(frozen=True)
class Stats:
    """Mean and standard deviation per channel over all pixels of all pictures, in 0…1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: int
    pixels: int


def mean_std(
    source: str | Path | Dataset | np.ndarray | Tensor,
    *,
    on_error: str = "raise",
    progress: bool = True,
) -> Stats:
    """Return the exact mean and standard deviation per channel, every pixel counting the same.

    `source` is a folder (all pictures below it, read as RGB), a data set whose items are pictures
    or (picture, label) pairs, `(C, H, W)` tensors (uint8, or float in 0…1) or PIL pictures, or a
    uint8 array `(N, H, W)` or `(N, H, W, C)`. Sums are float64; memory use is constant.
    The deviation is the population's (divided by the number of pixels, not averaged per picture).

    With `on_error="skip"` unreadable files are named in one warning and left out.

    Raises:
        UnreadableImageError: names every unreadable file, after all were tried.

    >>> mean_std(np.full((2, 4, 4), 51, np.uint8))
    Stats(mean=(0.2,), std=(0.0,), pictures=2, pixels=32)
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error is "raise" or "skip", not {on_error!r}')
    count, sums = _sums_of(source)
    total, unreadable = None, []
    for found in progress_bar(sums, total=count, description="mean and std", show=progress):
        if isinstance(found, UnreadableImageError):
            unreadable.append(str(found))
        elif total is None:
            total = found
        elif len(found) != len(total):
            raise ValueError(_mixed_channels(len(total), len(found)))
        else:
            total = total + found
    if unreadable:
        message = f"{len(unreadable)} of {count} pictures are unreadable:\n" + "\n".join(unreadable)
        if on_error == "raise":
            raise UnreadableImageError(f'{message}\n(on_error="skip" leaves them out)')
        warnings.warn(message, stacklevel=2)
    if total is None:
        raise ValueError(f"no pictures in {source if isinstance(source, str | Path) else 'it'}")
    pixels = int(total[0, 0])
    mean = total[:, 1] / pixels
    std = (total[:, 2] / pixels - mean**2).clamp(min=0).sqrt()
    return Stats(tuple(mean.tolist()), tuple(std.tolist()), count - len(unreadable), pixels)


def _mixed_channels(first: int, other: int) -> str:
    return (
        f"pictures of {first} and of {other} channels in one data set; expected one kind; "
        'convert them all to RGB, for example with PIL\'s convert("RGB")'
    )


def _sums_of(source) -> tuple[int, Iterator]:
    """Return how many pictures there are, and their sums (see `_sums`) in order."""
    if isinstance(source, str | Path):
        files = picture_files(Path(source))
        return len(files), _in_threads(lambda index: read_image(files[index]), len(files))
    if isinstance(source, np.ndarray | Tensor):
        array = check_uint8_pictures(torch.as_tensor(source))
        return len(array), _in_threads(lambda index: array[index].permute(2, 0, 1), len(array))
    # Data sets need not be safe to use from several threads, but they are from processes.
    workers = cpu_count() if workers_fork() else 0
    items = DataLoader(
        _Summed(source), batch_size=None, num_workers=workers, worker_init_fn=prepare_worker
    )
    return len(source), iter(items)


def check_uint8_pictures(array: Tensor) -> Tensor:
    """Return uint8 pictures `(N, H, W)` or `(N, H, W, C)` as `(N, H, W, C)`; refuse others."""
    shape = tuple(array.shape)
    if array.dtype != torch.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            f"an array of shape {shape} and type {array.dtype}; "
            "expected uint8 pictures (N, H, W) or (N, H, W, C)"
        )
    if array.ndim == 4 and array.shape[-1] > 4:
        raise ValueError(
            f"an array of shape {shape} has {shape[-1]} channels last; "
            "expected (N, H, W, C) with C at most 4; move the channels with transpose"
        )
    return array if array.ndim == 4 else array[..., None]


class _Summed(Dataset):
    """The sums of another data set's pictures."""

    def __init__(self, source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor | UnreadableImageError:
        return _sums(lambda index: _picture_of(self.source[index]), index)


def _picture_of(item) -> Tensor:
    picture = item[0] if isinstance(item, tuple | list) else item
    if isinstance(picture, Image.Image):
        picture = torch.from_numpy(np.array(picture))
        picture = picture[None] if picture.ndim == 2 else picture.permute(2, 0, 1)
    return picture


def _sums(read: Callable[[int], Tensor], index: int) -> Tensor | UnreadableImageError:
    """Return pixels, sum and sum of squares per channel, `(C, 3)` float64, in units of 0…1."""
    try:
        picture = read(index)
    except UnreadableImageError as error:
        return error
    values = picture.flatten(1).cpu().double()  # sums of 8-bit integers are exact
    scale = 255.0 if picture.dtype == torch.uint8 else 1.0
    count = torch.full((len(values),), values.shape[1], dtype=torch.float64)
    return torch.stack([count, values.sum(1) / scale, values.square().sum(1) / scale**2], 1)


def _in_threads(read: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    """Yield the sums of `count` pictures, a few in flight at a time: memory stays constant."""
    window = 4 * cpu_count()
    with ThreadPoolExecutor(cpu_count()) as pool:
        waiting = [pool.submit(_sums, read, index) for index in range(min(window, count))]
        for index in range(count):
            yield waiting.pop(0).result()
            if index + window < count:
                waiting.append(pool.submit(_sums, read, index + window))
