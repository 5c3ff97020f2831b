"""Look at a folder of pictures before training on it: what is broken, odd, twice or leaking."""

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ImageOps
from torchvision.transforms.v2.functional import to_pil_image

from ..files import atomic_file
from ..settings import in_threads, progress_bar, short_path
from .duplicates import find_pairs
from .file_checks import Seen, look
from .images import files_below, read_image
from .splits import SPLITS, check_no_splits


def inspect_folder(root: str | Path, *, progress: bool = True) -> "FolderReport":
    """Decode every file below a folder once, on all cores, and report what a trainer should know.

    The folder is one for `image_folders`: split folders (train, val, …) of class folders, or class
    folders. Nothing is changed.

    Raises:
        FileNotFoundError: no such folder, or nothing in it.
        ValueError: folders such as Train or training_set, of which it is not clear what they are.
    """
    root = Path(root)
    files = sorted(filter(_is_file_or_link, files_below(root)))
    if not files:
        raise FileNotFoundError(f"no files below {root}; expected a folder of pictures")
    split_names = {path.name for path in root.iterdir() if path.is_dir()} & set(SPLITS)
    if "train" not in split_names:
        check_no_splits(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large and odd pictures; they are reported here
        looks = in_threads(lambda path: look(path, root, "train" in split_names), files)
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
        """One row per file: split, class, width and height in pixels, usable, problems."""
        import pandas as pd

        return pd.DataFrame(
            {
                "file": [x.name for x in self._seen],
                "split": [x.split for x in self._seen],
                "class": [x.label for x in self._seen],
                "width": [x.width for x in self._seen],
                "height": [x.height for x in self._seen],
                "usable": [x.usable for x in self._seen],
                "problems": [", ".join(kind for kind, _, _ in x.problems) for x in self._seen],
            }
        )

    @property
    def problems(self):
        """One row per problem of a file: file, problem, detail, and whether it is usable still."""
        import pandas as pd

        rows = [(x.name, *problem) for x in self._seen for problem in x.problems]
        rows += [(name, "class", detail, False) for name, detail in self._odd_classes()]
        return pd.DataFrame(rows, columns=["file", "problem", "detail", "usable"])

    @property
    def duplicates(self):
        """Pairs of files of one picture: exact, near (resized, re-encoded) or mirrored copies."""
        import pandas as pd

        columns = ["file", "other", "kind", "correlation", "across splits", "across classes"]
        return pd.DataFrame(self._pairs, columns=columns)

    @property
    def leaks(self):
        """The duplicates that lie in two splits: what is learned from and what is scored on."""
        table = self.duplicates
        return table[table["across splits"].astype(bool)].reset_index(drop=True)

    @property
    def counts(self):
        """Usable pictures by class and split."""
        table = self.to_frame()
        return table[table["usable"]].pivot_table(
            index="class", columns="split", values="file", aggfunc="count", fill_value=0
        )

    def plot(self):
        """Draw the usable pictures by class, the splits side by side."""
        from ..figures import bars

        splits = sorted(self.counts, key=lambda split: split != "train")  # train first
        return bars(
            {split: self.counts[split].to_dict() for split in splits},
            title="usable pictures by class",
        )

    def plot_pairs(self, pairs=None, n: int = 6):
        """Draw the first pairs of `duplicates` (or of a part of that table) side by side."""
        from ..figures import picture_grid

        table = (self.duplicates if pairs is None else pairs).head(n)
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
        all_labels = {x.label for x in self._seen if x.label}
        return odd + [(name, "has no usable picture") for name in sorted(all_labels - set(found))]

    def __repr__(self) -> str:
        table, problems = self.to_frame(), self.problems
        usable = int(table["usable"].sum())
        lines = [f"{short_path(self.root)}: {len(table)} files, {usable} usable pictures."]
        for kind, group in problems.groupby("problem"):
            first = group.iloc[0]
            lines.append(f"  {len(group)} {kind} (first: {first['file']}, {first['detail']})")
        lines.append(f"  pairs of duplicates: {len(self._pairs)}, across splits: {len(self.leaks)}")
        return "\n".join(lines)


def _read_moves(folder: Path) -> list[str]:
    path = folder / "moved.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _write_moves(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "moved.json") as temporary:
        temporary.write_text(json.dumps(names, indent=1), encoding="utf-8")
