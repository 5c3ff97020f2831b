"""Look at a folder of pictures before training on it: what is broken, odd, twice or leaking."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import to_pil_image

from ..settings import counted, in_threads, progress_bar, short_path, shown_names
from .duplicates import Fingerprint, find_pairs, groups_of
from .folders import SPLITS, check_no_splits, is_split
from .images import (
    LONGEST,
    ORIENTATION,
    ROOM,
    existing_folder,
    files_below,
    heif_hint,
    is_hidden,
    is_read,
    open_picture,
    read_image,
    reason_of,
    rgb_pixels,
)
from .quarantine import move_files, place_aside, quarantine_of, undo_moves

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
    fingerprint: Fingerprint | None = None

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
    elif not is_read(path.suffix):
        fix = heif_hint([path.suffix]) or f"{path.suffix or 'no suffix'} is no picture format here"
        problem("ignored", fix, False)
    elif has_splits and split not in SPLITS:
        problem("ignored", f"{split or 'the root'} is no split folder", False)
    elif not label:
        problem("ignored", "lies in no class folder", False)
    if seen.problems:
        return seen
    try:
        data = path.read_bytes()
        with ROOM.for_picture(BytesIO(data)):
            _decode(data, seen, problem)
    except Exception as error:  # decoders raise anything
        problem("unreadable", reason_of(error), False)
    return seen


def _decode(data: bytes, seen: Seen, problem) -> None:
    import cv2

    with open_picture(data) as picture:
        kind, mode, frames = picture.format, picture.mode, getattr(picture, "n_frames", 1)
        turned = picture.getexif().get(ORIENTATION, 1)
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
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    _measure(grey, problem)
    seen.fingerprint = Fingerprint.of(hashlib.sha256(data).digest(), grey)


def _measure(grey: np.ndarray, problem) -> None:
    """Note what is odd about brightness and sharpness."""
    import cv2

    mean, std = (float(x[0, 0]) / 255 for x in cv2.meanStdDev(grey))
    if mean < DARK:
        problem("dark", f"mean brightness {mean:.1%}")
    if mean > BRIGHT:
        problem("bright", f"mean brightness {mean:.1%}")
    if std < FLAT:
        problem("flat", f"deviation of brightness {std:.1%}")
    if grey.shape[1] > 1024:  # floating-point numbers of a large scan would take gigabytes
        grey = cv2.resize(grey, _size_of_width(grey, 1024), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32) / 255
    small = cv2.resize(grey, _size_of_width(grey, 256), interpolation=cv2.INTER_AREA)
    sharp = cv2.Laplacian(small, cv2.CV_32F).var()
    if std >= FLAT and sharp < BLURRED * std**2:
        problem("blurred", f"sharpness {sharp / std**2:.4f}")


def _size_of_width(grey: np.ndarray, width: int) -> tuple[int, int]:
    """Return (width, height) of a picture resized to this width, at most `LONGEST` as high."""
    height = round(grey.shape[0] * width / grey.shape[1])
    return width, min(max(1, height), width * LONGEST)


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
    return FolderReport(root, seen)


def _is_file_or_link(path: Path) -> bool:
    """True for a file and for a link, even for one that leads nowhere."""
    return path.is_file() or path.is_symlink()


class FolderReport:
    """What `inspect_folder` found; its tables are pandas'."""

    def __init__(self, root: Path, seen: list[Seen]):
        self.root, self._seen = root, seen
        self._pictures = [x for x in seen if x.fingerprint is not None]
        self._pairs = find_pairs([x.fingerprint for x in self._pictures])
        firsts = groups_of(len(self._pictures), self._pairs)
        names = [x.name for x in self._pictures]
        self._groups = {name: names[first] for name, first in zip(names, firsts, strict=True)}

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

        rows = []
        for pair in self._pairs:
            one, other = self._pictures[pair.one], self._pictures[pair.other]
            torn = one.split != other.split, one.label != other.label
            rows.append((one.name, other.name, pair.kind, pair.correlation, *torn))
        columns = ["file", "other", "kind", "correlation", "across splits", "across classes"]
        return pd.DataFrame(rows, columns=columns)

    def group_of(self, file: Path) -> str:
        """Return the first of all pictures that are copies of this file, for `image_folders`.

        `image_folders(root, groups=report.group_of)` keeps near copies on one side of a split.
        """
        name = Path(file).relative_to(self.root).as_posix()
        return self._groups.get(name, name)

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
        counts.index = shown_names(counts.index)
        order = {"train": 0, "test": 2}  # what stands for val is between them, in val's colour
        splits = sorted(counts, key=lambda split: order.get(split, 1))
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
        titles = [
            f"{folder[-26:]}\n{file[-26:]}"
            for folder, _, file in (name.rpartition("/") for name in names)
        ]
        pictures = [to_pil_image(read_image(self.root / name)) for name in names]
        pictures = [np.asarray(ImageOps.pad(x, (160, 160), color="white")) for x in pictures]
        return picture_grid(pictures, titles, columns=4, inches=1.9)

    def quarantine(self, files: str | Sequence[str]) -> Path:
        """Move files (names as in the tables) into a folder beside the root; return that folder.

        A list in it says where each came from, for `undo_quarantine`. Nothing is deleted.
        """
        folder = quarantine_of(self.root)
        files = list(dict.fromkeys([files] if isinstance(files, str) else files))
        missing = [name for name in files if not _is_file_or_link(self.root / name)]
        if missing:
            raise FileNotFoundError(f"no file {missing[0]} below {self.root}; nothing was moved")
        taken = [name for name in files if os.path.lexists(folder / name)]
        if taken:
            raise FileExistsError(f"{folder / taken[0]} is there already; nothing was moved")
        move_files(self.root, {name: place_aside(self.root, name) for name in files})
        return folder

    def undo_quarantine(self) -> int:
        """Move everything back to where it was, also what `clean` moved; return how many moves."""
        return undo_moves(self.root)

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
        return "\n".join([*lines, f"  {self._duplicates_text()}"])

    def _duplicates_text(self) -> str:
        table = self.duplicates()
        torn, mixed = int(table["across splits"].sum()), int(table["across classes"].sum())
        text = f"pairs of duplicates: {len(table)}, across classes: {mixed}"
        if any(x.split for x in self._seen):
            return f"{text}, across splits: {torn}"
        near = int((table["kind"] != "exact").sum())
        if not near:
            return text
        return (
            f"{text}; no splits yet: {counted(near, 'near pair')} can be torn apart by one; "
            "image_folders(root, groups=report.group_of) keeps them together"
        )
