"""Picture files: which files count, and one way to read them."""

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from ..settings import counted, user_path

# As in torchvision, GIF is no picture format here: most are animations or "not found" signs.
SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".mpo", ".jp2", ".png", ".webp", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm",
}  # fmt: skip
HEIF = {".heic", ".heif"}  # read where the package pillow-heif is installed
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1"}  # bytes 8 to 11 of a file
HEIF_FIX = "HEIC pictures, as phones take them, need one package more: pip install pillow-heif"
# What operating systems and programs leave behind.
SYSTEM = {
    "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information",
    "lost+found", "__pycache__", "Thumbs.db", "desktop.ini",
}  # fmt: skip
LONGEST = 8  # times as long as wide: of longer pictures the middle is taken
ORIENTATION = 0x0112  # the EXIF tag
IN_FLIGHT = 100_000_000  # pixels that several threads together hold decoded


class UnreadableImageError(ValueError):
    """A file that should be a picture cannot be decoded; the message names it and says why."""


def is_hidden(name: str) -> bool:
    """True for the name of a hidden file or folder, or one that an operating system made."""
    return name.startswith(".") or name in SYSTEM


def is_read(suffix: str) -> bool:
    """True for the suffix, in any case, of a kind of picture that can be read here."""
    suffix = suffix.lower()
    if suffix in HEIF:
        return read_heif()
    if suffix == ".avif":  # read where Pillow can
        return suffix in Image.registered_extensions()
    return suffix in SUFFIXES


def read_heif() -> bool:
    """Have Pillow read HEIC pictures from now on; False where pillow-heif is not installed."""
    if ".heic" in Image.registered_extensions():
        return True
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def heif_hint(suffixes: Iterable[str]) -> str:
    """Return `HEIF_FIX` where one of the suffixes, in any case, needs it; else ""."""
    return HEIF_FIX if any(x.lower() in HEIF and not is_read(x) for x in suffixes) else ""


def is_picture(path: Path) -> bool:
    """True for a file that `is_read` by its suffix and that is not hidden."""
    return is_read(path.suffix) and not is_hidden(path.name) and path.is_file()


def existing_folder(path: str | Path, expected: str) -> Path:
    """Return a folder that a user named, or say what is there instead."""
    folder = user_path(path)
    if folder.is_file():
        raise NotADirectoryError(
            f"{folder.absolute()} is a file; {expected} (an archive must be unpacked first)"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.absolute()}; {expected}")
    return folder


def picture_files(folder: str | Path) -> list[Path]:
    """Return all pictures below `folder`, sorted; hidden files and folders are skipped."""
    folder = existing_folder(folder, "expected a folder of pictures")
    files = (path for path in files_below(folder) if is_picture(path))
    visible = (p for p in files if not any(map(is_hidden, p.relative_to(folder).parts)))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield all files below a folder, in linked folders too, unless a link leads back up."""
    here = folder.resolve()
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif path.resolve() not in (here, *here.parents, *above):
            yield from files_below(path, (*above, here))


def read_image(path: str | Path) -> Tensor:
    """Return any picture file as people see it: uint8 RGB `(3, H, W)`, upright.

    The EXIF orientation is applied; grey, palette, CMYK, LAB and 16-bit pictures become 8-bit RGB;
    transparent parts lie over white; of an animation the first frame is taken.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged, incomplete, too large or no picture, or it is
            HEIC and pillow-heif is not installed.
    """
    return tensor_of(read_rgb(path))


def read_rgb(path: str | Path) -> Image.Image:
    """Return what `read_image` does as a PIL picture."""
    path = user_path(path)
    data = path.read_bytes()
    try:
        return decode_rgb(data)
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        reason = reason_of(error)
        hint = "expected a complete picture file; replace it or take it out of the folder"
        if reason == HEIF_FIX:
            hint = "or save it as JPEG"
        if isinstance(error, Image.DecompressionBombError):
            hint = "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise UnreadableImageError(f"cannot read {path}: {reason}; {hint}") from error


def reason_of(error: Exception) -> str:
    """Return the first line of an error, or its name where it says nothing."""
    return str(error).splitlines()[0] if str(error) else repr(error)


class Room:
    """Lets threads hold decoded pictures of at most `limit` pixels; a larger one is held alone."""

    def __init__(self, limit: int):
        self.limit, self.taken, self.changed = limit, 0, threading.Condition()

    @contextmanager
    def for_picture(self, file: str | Path | BytesIO):
        """Wait until there is room for what this file holds, and keep that room inside."""
        width, height = size_of(file)
        pixels = width * height
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + pixels <= self.limit)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()


def size_of(file: str | Path | BytesIO) -> tuple[int, int]:
    """Return the width and height that a file says it has; (0, 0) for what is no picture."""
    try:
        with Image.open(file) as picture:
            return picture.size
    except Exception:  # the reader says what is wrong with it
        return 0, 0


ROOM = Room(IN_FLIGHT)
_ONE_FAX = threading.Lock()  # decoded at a time, because standard error is the whole process's


def trimmed(picture: Tensor) -> Tensor:
    """Return `(C, H, W)`, or of a picture more than `LONGEST` times as long as wide the middle.

    Resizing the short side of such a picture would take memory without bounds.
    """
    limit = LONGEST * min(picture.shape[1:])
    return center_crop(picture, [min(side, limit) for side in picture.shape[1:]])


def open_picture(data: bytes) -> Image.Image:
    """Return the picture that a file's bytes are, not decoded yet."""
    if not data:
        raise ValueError("the file is empty")
    lacks_heif = data[8:12] in HEIF_BRANDS and not read_heif()  # whatever the file is called
    try:
        picture = Image.open(BytesIO(data))
    except UnidentifiedImageError:  # its message names the bytes' place in memory
        if lacks_heif:
            raise ValueError(HEIF_FIX) from None
        raise ValueError("it is no picture, or its beginning is damaged") from None
    if picture.info.get("compression") in ("group3", "group4", "tiff_ccitt"):
        _load_fax(picture)
    return picture


def _load_fax(picture: Image.Image) -> None:
    """Decode a scan in the coding of fax machines, and pass on one line of what is damaged in it.

    The library underneath writes a line for each damaged row to the standard error of the process.
    """
    with _ONE_FAX, TemporaryFile() as heard:
        standard_error = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            picture.load()
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        heard.seek(0)
        lines = heard.read().decode(errors="replace").splitlines()
    if lines:
        warnings.warn(f"a damaged scan: {lines[0]}, and {len(lines) - 1} more", stacklevel=4)


def decode_picture(data: bytes) -> Tensor:
    """Return what the bytes of a picture file hold, as `read_image` does."""
    return tensor_of(decode_rgb(data))


def decode_rgb(data: bytes) -> Image.Image:
    """Return what the bytes of a picture file hold, as `read_rgb` does."""
    with open_picture(data) as picture:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return _as_rgb(picture)


def as_seen(picture: Image.Image) -> Image.Image:
    """Return a PIL picture of any mode as people see it: RGB, upright."""
    if picture.getexif().get(ORIENTATION, 1) != 1:  # without a reason it would be copied
        picture = ImageOps.exif_transpose(picture)
    return _as_rgb(picture)


def rgb_pixels(picture: Image.Image) -> np.ndarray:
    """Return a PIL picture of any mode as people see it: uint8 RGB `(H, W, 3)`, upright."""
    return np.array(as_seen(picture))


def tensor_of(picture: Image.Image) -> Tensor:
    """Return an RGB picture as uint8 `(3, H, W)`; not copied: resizing reads it faster so."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no fixed range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16 bits, whatever the byte order
        wide = np.asarray(picture)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"pixel values from {wide.min()} to {wide.max()} exceed 16 bits")
        pixels = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
        pixels[wide == picture.info.get("transparency", -1)] = 255  # lies over white
        picture = Image.fromarray(pixels)
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def listed_pictures(pictures) -> list:
    """Return what was given as a list of files, bytes, PIL pictures, arrays and tensors."""
    place = type(pictures).__name__
    if is_one_picture(pictures):
        items = [user_path(pictures) if isinstance(pictures, str | Path) else pictures]
    elif isinstance(pictures, str | Path):
        if "://" in str(pictures):
            raise ValueError(f"{pictures} is an address; download it first, and give the file")
        place = user_path(pictures).absolute()
        if not place.exists():
            raise FileNotFoundError(f"no file or folder {place}")
        items = picture_files(place)
    else:
        several = isinstance(pictures, Iterable) and not isinstance(pictures, Mapping)
        items = list(pictures) if several else []
    if not items:
        raise ValueError(
            f"no pictures in {place}; expected a file, a folder, a PIL picture, a uint8 array or a "
            "list of these"
        )
    return [_content(item) for item in items]


def _content(item):
    """Return an item that is open to be read, or a view of memory, as bytes."""
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    return item.read() if hasattr(item, "read") else item


def is_one_picture(given) -> bool:
    """True for a single picture, and for the path of a file; several may be one with one item.

    Of arrays these are `(H, W)`, `(H, W, C)` and, of tensors, `(C, H, W)`, not `(N, H, W)`.
    """
    if isinstance(given, str | Path):
        return user_path(given).is_file()
    if not isinstance(given, np.ndarray | Tensor):
        in_memory = isinstance(given, bytes | bytearray | memoryview | Image.Image)
        return in_memory or hasattr(given, "read")
    channels_last = given.ndim == 3 and given.shape[2] <= 4
    channels_first = isinstance(given, Tensor) and given.ndim == 3 and given.shape[0] in (1, 3)
    return given.ndim == 2 or channels_last or channels_first


def picture_tensor(item) -> Tensor:
    """Return a picture of any kind as uint8 `(3, H, W)`, grey ones as `(1, H, W)`."""
    if isinstance(item, str | Path):
        with ROOM.for_picture(item):
            return read_image(item)
    if isinstance(item, bytes):
        return decode_picture(item)
    if isinstance(item, Tensor) and item.dtype == torch.uint8 and item.shape[:-2] in ((1,), (3,)):
        return item.cpu()
    if isinstance(item, np.ndarray) and item.shape[2:] == (4,) and item.dtype == np.uint8:
        item = Image.fromarray(item)  # with transparency
    if isinstance(item, Image.Image):
        return tensor_of(as_seen(item))
    array = item.cpu() if isinstance(item, Tensor) else torch.from_numpy(np.array(item))
    pixels = check_uint8_pictures(array[None])[0].permute(2, 0, 1)
    if len(pixels) == 2:
        raise ValueError(f"an array of shape {np.shape(item)}; expected 1, 3 or 4 channels last")
    return pixels


def refuse_unreadable(errors: Sequence[UnreadableImageError], pictures: int) -> None:
    """Raise one error that names every unreadable file, if there is any."""
    if errors:
        message = f"{len(errors)} of {counted(pictures, 'picture')} cannot be read:\n"
        raise UnreadableImageError(message + "\n".join(map(str, errors)))


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
