"""What one file of a folder of pictures is: decoded once, measured, and what is odd about it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .images import SUFFIXES, open_picture, rgb_pixels
from .splits import SPLITS

SMALL, LARGE = 32, 20_000_000  # pixels: of a side, of the whole picture
LONG = 4  # times as long as wide
DARK, BRIGHT = 0.06, 0.96  # mean brightness in 0…1
FLAT = 0.02  # deviation of brightness in 0…1
BLURRED = 0.005  # variance of the Laplacian of a picture 256 px wide / variance of brightness


@dataclass
class Seen:
    """What was found in a file, `name` below the root; `problems` are (kind, detail, usable)."""

    name: str
    split: str
    label: str
    problems: list[tuple[str, str, bool]]
    width: int = 0
    height: int = 0
    digest: str = ""
    bits: np.ndarray | None = None
    mirrored_bits: np.ndarray | None = None
    thumbnail: np.ndarray | None = None

    @property
    def usable(self) -> bool:
        return all(usable for _, _, usable in self.problems)


def look(path: Path, root: Path, has_splits: bool) -> Seen:
    """Return what one file is, decoded once."""
    parts = path.relative_to(root).parts
    depth = 2 if has_splits else 1
    split = parts[0] if has_splits and len(parts) > 1 else ""
    hidden = [part for part in parts if part.startswith(".")]
    of_class = len(parts) > depth and not hidden and (split in SPLITS or not has_splits)
    label = parts[depth - 1] if of_class else ""
    seen = Seen(path.relative_to(root).as_posix(), split, label, [])

    def problem(kind: str, detail: str, usable: bool = True) -> None:
        seen.problems.append((kind, detail, usable))

    if hidden:
        problem("ignored", f"{hidden[0]} is hidden", False)
    elif path.suffix.lower() not in SUFFIXES:
        problem("ignored", f"{path.suffix or 'no suffix'} is no picture format here", False)
    elif has_splits and split not in SPLITS:
        problem("ignored", f"{split or 'the root'} is no split folder", False)
    elif not label:
        problem("ignored", "lies in no class folder", False)
    if seen.problems:
        return seen
    try:
        data = path.read_bytes()
        seen.digest = hashlib.sha256(data).hexdigest()
        _decode(data, seen, problem)
    except Exception as error:  # decoders raise anything
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        problem("unreadable", reason, False)
    return seen


def _decode(data: bytes, seen: Seen, problem) -> None:
    with open_picture(data) as picture:
        kind, mode, frames = picture.format, picture.mode, getattr(picture, "n_frames", 1)
        turned = picture.getexif().get(0x0112, 1)
        suffix = Path(seen.name).suffix
        wanted = Image.registered_extensions()[suffix.lower()]
        if wanted != kind and (wanted, kind) != ("JPEG", "MPO"):  # a JPEG of several pictures
            problem("wrong extension", f"{suffix} holds {kind}")
        pixels = rgb_pixels(picture)
    if frames > 1 and kind != "MPO":
        problem("animated", f"{frames} frames, the first is taken")
    if turned in range(2, 9):
        problem("rotated", f"EXIF orientation {turned}, applied when read")
    if mode not in ("RGB", "L"):
        problem("mode", f"{mode}, converted to RGB when read")
    seen.height, seen.width = pixels.shape[:2]
    short, long = sorted((seen.width, seen.height))
    size = f"{seen.width} x {seen.height} pixels"
    if short < SMALL:
        problem("small", size)
    if short * long > LARGE:
        problem("large", size)
    if long > LONG * short:
        problem("long", size)
    _measure(pixels, seen, problem)


def _measure(pixels: np.ndarray, seen: Seen, problem) -> None:
    """Note brightness and sharpness, and what duplicates are found by."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    if grey.mean() < DARK:
        problem("dark", f"mean brightness {grey.mean():.1%}")
    if grey.mean() > BRIGHT:
        problem("bright", f"mean brightness {grey.mean():.1%}")
    if grey.std() < FLAT:
        problem("flat", f"deviation of brightness {grey.std():.1%}")
    scale = 256 / max(grey.shape[1], 1)
    side = 256, max(1, round(grey.shape[0] * scale))
    sharp = cv2.Laplacian(cv2.resize(grey, side, interpolation=cv2.INTER_AREA), cv2.CV_32F).var()
    if grey.std() >= FLAT and sharp < BLURRED * grey.var():
        problem("blurred", f"sharpness {sharp / grey.var():.4f}")
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    seen.thumbnail = (small - small.mean()) / max(float(small.std()), 1e-6)
    seen.bits, seen.mirrored_bits = _hash(small), _hash(small[:, ::-1])


def _hash(grey: np.ndarray) -> np.ndarray:
    """Return 64 signs: which low frequencies of a 32 x 32 picture are above the median (pHash)."""
    import cv2

    low = cv2.dct(np.ascontiguousarray(grey))[:8, :8].ravel()
    return np.where(low > np.median(low[1:]), 1, -1).astype(np.float32)
