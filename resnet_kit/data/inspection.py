"""Look at a folder of pictures before training on it: what is broken, odd, twice or leaking."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import to_pil_image

from ..files import atomic_file
from ..settings import counted, in_threads, progress_bar, short_path
from .folders import SPLITS, check_no_splits, is_split
from .images import (
    LONGEST,
    SUFFIXES,
    existing_folder,
    files_below,
    is_hidden,
    open_picture,
    read_image,
    rgb_pixels,
)

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

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.problems]


def look(path: Path, root: Path, has_splits: bool) -> Seen:
    """Return what one file is, decoded once."""
    parts = path.relative_to(root).parts
    depth = 2 if has_splits else 1
    split = parts[0] if has_splits and len(parts) > 1 else ""
    hidden = [part for part in parts if is_hidden(part)]
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
    height = round(grey.shape[0] * 256 / grey.shape[1])
    side = 256, min(max(1, height), 256 * LONGEST)
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


NEAR_BITS, NEAR_CORRELATION = 12, 0.96  # of 64 bits; of thumbnails 32 x 32


def find_pairs(seen: list[Seen], block: int = 512) -> list[dict]:
    """Return pairs of pictures that are the same: near hashes first, confirmed by correlation."""
    if len(seen) < 2:
        return []
    bits = np.stack([x.bits for x in seen])
    mirrored = np.stack([x.mirrored_bits for x in seen])
    least = 64 - 2 * NEAR_BITS  # of the sum of 64 products of signs
    found = {}
    for start in range(0, len(seen), block):
        for flipped, others in ((False, bits), (True, mirrored)):
            near = np.argwhere(bits[start : start + block] @ others.T >= least)
            for i, j in near + (start, 0):
                if i < j and (i, j) not in found:
                    pair = _confirmed(seen[i], seen[j], flipped)
                    if pair:
                        found[i, j] = pair
    return [found[key] for key in sorted(found)]


def _confirmed(one: Seen, other: Seen, flipped: bool) -> dict | None:
    theirs = other.thumbnail[:, ::-1] if flipped else other.thumbnail
    correlation = float((one.thumbnail * theirs).mean())
    exact = one.digest == other.digest
    if not exact and correlation < NEAR_CORRELATION:
        return None
    return {
        "file": one.name,
        "other": other.name,
        "kind": "exact" if exact else "mirrored" if flipped else "near",
        "correlation": 1.0 if exact else correlation,
        "across splits": one.split != other.split,
        "across classes": one.label != other.label,
    }


def inspect_folder(root: str | Path, *, progress: bool = True) -> "FolderReport":
    """Decode every file below a folder once, on all cores, and report what a trainer should know.

    The folder is one for `image_folders`: split folders (train, val, …) of class folders, or class
    folders. Nothing is changed.

    Raises:
        FileNotFoundError: no such folder, or nothing in it.
        ValueError: folders such as Train or training_set, of which it is not clear what they are.
    """
    root = existing_folder(root, "expected a folder of pictures")
    files = sorted(filter(_is_file_or_link, files_below(root)))
    if not files:
        raise FileNotFoundError(f"no files below {root.absolute()}; expected a folder of pictures")
    has_splits = is_split(root / "train")
    if not has_splits:
        check_no_splits(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large and odd pictures; they are reported here
        looks = in_threads(lambda path: look(path, root, has_splits), files)
        seen = list(progress_bar(looks, total=len(files), description="inspect", show=progress))
    pairs = find_pairs([x for x in seen if x.thumbnail is not None])
    return FolderReport(root, seen, pairs)


def _is_file_or_link(path: Path) -> bool:
    """True for a file and for a link, even for one that leads nowhere."""
    return path.is_file() or path.is_symlink()


class FolderReport:
    """What `inspect_folder` found; its tables are pandas'."""

    def __init__(self, root: Path, seen: list[Seen], pairs: list[dict]):
        self.root, self._seen, self._pairs = root, seen, pairs

    def to_frame(self):
        """Return a row per file: split, class, width and height in pixels, usable, problems."""
        import pandas as pd

        rows = [
            (x.name, x.split, x.label, x.width, x.height, x.usable, ", ".join(x.kinds()))
            for x in self._seen
        ]
        columns = ["file", "split", "class", "width", "height", "usable", "problems"]
        return pd.DataFrame(rows, columns=columns)

    def problems(self):
        """Return a row per problem of a file: file, problem, detail, and if it is usable still."""
        import pandas as pd

        rows = [(x.name, *problem) for x in self._seen for problem in x.problems]
        rows += [(name, "class", detail, False) for name, detail in self._odd_classes()]
        return pd.DataFrame(rows, columns=["file", "problem", "detail", "usable"])

    def duplicates(self):
        """Return pairs of files of one picture: exact, near (resized, re-encoded) or mirrored."""
        import pandas as pd

        columns = ["file", "other", "kind", "correlation", "across splits", "across classes"]
        return pd.DataFrame(self._pairs, columns=columns)

    def leaks(self):
        """Return the duplicates in two splits: what is learned from and what is scored on."""
        table = self.duplicates()
        return table[table["across splits"].astype(bool)].reset_index(drop=True)

    def counts(self):
        """Return the usable pictures by class and split."""
        table = self.to_frame()
        return table[table["usable"]].pivot_table(
            index="class", columns="split", values="file", aggfunc="count", fill_value=0
        )

    def plot(self):
        """Draw the usable pictures by class, the splits side by side."""
        from ..figures import bars

        counts = self.counts()
        splits = sorted(counts, key=lambda split: split != "train")  # train first
        return bars(
            {split: counts[split].to_dict() for split in splits}, title="usable pictures by class"
        )

    def plot_pairs(self, pairs=None, n: int = 6):
        """Draw the first pairs of `duplicates` (or of a part of that table) side by side."""
        from ..figures import picture_grid

        table = (self.duplicates() if pairs is None else pairs).head(n)
        if table.empty:
            raise ValueError("there is no pair to draw")
        names = [name for row in table.itertuples() for name in (row.file, row.other)]
        pictures = [to_pil_image(read_image(self.root / name)) for name in names]
        pictures = [np.asarray(ImageOps.pad(x, (160, 160), color="white")) for x in pictures]
        return picture_grid(pictures, [name[-26:] for name in names], columns=4, inches=1.9)

    def quarantine(self, files: str | Sequence[str]) -> Path:
        """Move files (names as in the tables) into a folder beside the root; return that folder.

        A list in it says where each came from, for `undo_quarantine`. Nothing is deleted.
        """
        folder = self._aside()
        files = list(dict.fromkeys([files] if isinstance(files, str) else files))
        missing = [name for name in files if not _is_file_or_link(self.root / name)]
        if missing:
            raise FileNotFoundError(f"no file {missing[0]} below {self.root}; nothing was moved")
        taken = [name for name in files if os.path.lexists(folder / name)]
        if taken:
            raise FileExistsError(f"{folder / taken[0]} is there already; nothing was moved")
        _write_moves(folder, [*_read_moves(folder), *files])
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.root / name, folder / name)
        return folder

    def undo_quarantine(self) -> int:
        """Move everything back to where it was; return how many files."""
        folder = self._aside()
        moves = [name for name in _read_moves(folder) if _is_file_or_link(folder / name)]
        taken = [name for name in moves if os.path.lexists(self.root / name)]
        if taken:
            raise FileExistsError(f"{self.root / taken[0]} is there again; nothing was moved")
        for name in moves:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / name, self.root / name)
        if folder.is_dir():
            _write_moves(folder, [])
        return len(moves)

    def _aside(self) -> Path:
        root = self.root.resolve()
        return root.with_name(f"{root.name}_quarantine")

    def _odd_classes(self) -> list[tuple[str, str]]:
        """Classes that some split lacks, and classes without a usable picture."""
        splits = sorted({x.split for x in self._seen if x.split in SPLITS})
        found = {}
        for x in self._seen:
            if x.usable and x.label and (x.split or not splits):
                found.setdefault(x.label, set()).add(x.split)
        odd = [
            (name, f"only in {', '.join(sorted(where))}")
            for name, where in sorted(found.items())
            if splits and len(where) < len(splits)
        ]
        if len(found) == 1:
            odd += [(name, "is the only class") for name in found]
        all_labels = {x.label for x in self._seen if x.label}
        return odd + [(name, "has no usable picture") for name in sorted(all_labels - set(found))]

    def __repr__(self) -> str:
        table, problems = self.to_frame(), self.problems()
        usable = int(table["usable"].sum())
        files, pictures = counted(len(table), "file"), counted(usable, "usable picture")
        lines = [f"{short_path(self.root)}: {files}, {pictures}."]
        for kind, group in problems.groupby("problem"):
            first = group.iloc[0]
            lines.append(f"  {len(group)} {kind} (first: {first['file']}, {first['detail']})")
        lines.append(
            f"  pairs of duplicates: {len(self._pairs)}, across splits: {len(self.leaks())}"
        )
        return "\n".join(lines)


def _read_moves(folder: Path) -> list[str]:
    path = folder / "moved.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _write_moves(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "moved.json") as temporary:
        temporary.write_text(json.dumps(names, indent=1), encoding="utf-8")
