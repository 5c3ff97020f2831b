"""Suspect pictures gone through one by one: kept, set aside or given another class."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path, PurePosixPath

from .data.folders import is_split
from .data.images import folders_in
from .data.inspection import FolderReport
from .data.quarantine import free_place, move_files, moves_of, place_aside, undo_moves
from .evaluation.evaluation import Evaluation
from .settings import counted, short_path, shown_names, wrong

KEEP, ASIDE, RELABEL = "keep", "set aside", "another class"
# What a person has to judge; what reading takes care of (rotated, mode, …) is left out.
TO_JUDGE = ("unreadable", "small", "long", "dark", "bright", "flat", "blurred")
COLUMNS = ["file", "label", "why", "suggested", "copy_of", "decision", "new_class", "state"]
NO_BUTTONS = "No buttons without ipywidgets (pip install ipywidgets); decide by code, see Cleaning."


def clean(suspects) -> "Cleaning":
    """Return the suspect pictures of a folder, to be gone through one by one and decided on.

    As the last line of a cell in JupyterLab the result shows a picture at a time with buttons: keep
    it, set it aside, or give it another class. The same can be said by code (see `Cleaning`).
    Nothing is touched until `apply`, nothing is ever deleted or overwritten, and `undo` brings
    everything back.

    >>> cleaning = clean(inspect_folder("my_pictures"))
    >>> cleaning.set_aside([0, 2]); cleaning.relabel(5, "1_dog"); cleaning.apply()

    Args:
        suspects: what found them: the report of `inspect_folder` (files that cannot be read,
            copies, pictures that are too small, long, dark, bright, flat or blurred), the table of
            `label_suspects` or some of its rows, or an `Evaluation` of files (the mistakes, the
            most confident first). A val or test set that is mended only where a model was wrong
            flatters that model.

    Raises:
        TypeError: something else.
        ValueError: the pictures come from no files, or not from folders of classes.
    """
    if isinstance(suspects, FolderReport):
        return _of_report(suspects)
    if isinstance(suspects, Evaluation):
        return _of_evaluation(suspects)
    if "suggested_chance" in getattr(suspects, "columns", ()):
        return _of_labels(suspects)
    raise TypeError(
        f"suspects is a {type(suspects).__name__}; expected the report of inspect_folder, the "
        "table of label_suspects, or what evaluate returns"
    )


class Folder:
    """A folder of pictures and its classes; its files are named by their path from the root."""

    def __init__(self, root: Path):
        self.root, has_splits = Path(os.path.abspath(root)), is_split(root / "train")
        self._depth = 1 if has_splits else 0  # of the class in the parts of a name
        self.classes = [path.name for path in folders_in(root / "train" if has_splits else root)]
        self._shown = dict(zip(self.classes, shown_names(self.classes), strict=True))

    def name_of(self, file: Path) -> str:
        return Path(os.path.abspath(file)).relative_to(self.root).as_posix()

    def class_of(self, name: str) -> str:
        return PurePosixPath(name).parts[self._depth]

    def shown(self, label: str) -> str:
        """Return the name of a class without its sorting prefix."""
        return self._shown.get(label, label)

    def in_class(self, name: str, label: str) -> str:
        """Return the name of a file after it was moved to another class of the same split."""
        parts = PurePosixPath(name).parts
        return "/".join([*parts[: self._depth], label, *parts[self._depth + 1 :]])

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Return length and date of a file, which show a change; None where it is gone."""
        try:
            status = os.lstat(self.root / name)
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


def folder_of(files: Sequence[Path], labels: Sequence[str], classes: Iterable[str]) -> Folder:
    """Return the folder that image_folders was given: each file lies in the folder of its class."""
    pairs = [(Path(os.path.abspath(file)), x) for file, x in zip(files, labels, strict=True)]
    common = Path(os.path.commonpath([file for file, _ in pairs]))
    for root in reversed([common, *common.parents]):
        depth = len(root.parts) + is_split(root / "train")
        if all(file.parts[depth : depth + 1] == (label,) for file, label in pairs):
            folder = Folder(root)
            if set(folder.classes).issuperset(classes):
                return folder
    file, label = pairs[0]
    raise ValueError(
        f"{file} lies in no folder of its class ({label}) beside folders of the other classes; "
        "expected pictures that image_folders has found"
    )


@dataclass
class Suspect:
    """A picture: why it is suspect, what was decided, and what became of it."""

    file: str  # its path from the root of the folder
    why: str
    suggested: str = ""  # the class that others see in it
    copy_of: str = ""  # the path of another picture
    label: str = ""
    decision: str = ""  # KEEP, ASIDE or RELABEL; "" while there is none
    new_class: str = ""  # of RELABEL
    state: str = ""  # "moved", or why it was left alone
    place: str = ""  # where it was moved, as a path from the root
    stamp: tuple[int, int] | None = None


def _of_report(report: FolderReport) -> "Cleaning":
    """Files that cannot be read, then copies (of two classes first), then odd pictures."""
    problems = report.problems()
    problems = problems[problems["problem"].isin(TO_JUDGE)]
    odd = [(x.usable, x.file, f"{x.problem}: {x.detail}") for x in problems.itertuples()]
    broken = [(file, why, "") for usable, file, why in odd if not usable]
    usable = [(file, why, "") for usable, file, why in odd if usable]
    found = {}
    for name, why, other in [*broken, *_copies(report), *usable]:
        if name not in found:
            found[name] = Suspect(name, why, copy_of=other)
        elif not other:
            found[name].why += f"; {why}"
    return Cleaning(Folder(report.root), list(found.values()))


def _copies(report: FolderReport) -> list[tuple[str, str, str]]:
    """Return (name, why, name of the other) of pictures that have a copy; one of each pair stays.

    That is the one in train. Of a pair in two classes both are listed: either can be wrong.
    """
    found = []
    torn = ["across classes", "across splits"]
    table = report.duplicates().sort_values(torn, ascending=False, kind="stable")
    for row in table.to_dict("records"):
        names = row["file"], row["other"]
        first, second = sorted(names, key=lambda name: (not name.startswith("train/"), name))
        where = [text[len("across ") :] for text in torn if row[text]]
        why = f"{row['kind']} copy" + (f" in two {' and two '.join(where)}" if where else "")
        found.append((second, why, first))
        if row["across classes"]:
            found.append((first, why, second))
    return found


def _of_labels(table) -> "Cleaning":
    if table.empty or "file" not in table:
        what = "has no column file" if len(table) else "is empty: no picture is suspect"
        raise ValueError(f"the table {what}; expected rows of label_suspects, of pictures in files")
    folder = folder_of(table["file"], table["label"], {*table["label"], *table["suggested"]})
    suspects = []
    for row in table.itertuples():
        chances = [(row.suggested, row.suggested_chance), (row.label, row.label_chance)]
        text = ", ".join(f"{folder.shown(name)} {chance:.1%}" for name, chance in chances)
        why = f"the other pictures say: {text}"
        suspects.append(Suspect(folder.name_of(row.file), why, suggested=row.suggested))
    return Cleaning(folder, suspects)


def _of_evaluation(result: Evaluation) -> "Cleaning":
    if not result.files:
        raise ValueError(
            "the pictures of this evaluation come from no files; expected one of a loader of "
            "image_folders: rk.evaluate(model, loaders.val)"
        )
    labels = [result.classes[label] for label in result.labels]
    folder = folder_of(result.files, labels, result.classes)
    suspects = []
    for row in result.mistakes().itertuples():
        why = f"the model says: {row.predicted} {row.confidence:.1%}"
        predicted = result.classes[result.predictions[row.picture]]
        suggested = predicted if predicted != labels[row.picture] else ""  # of no probability
        suspects.append(Suspect(folder.name_of(result.files[row.picture]), why, suggested))
    return Cleaning(folder, suspects)


class Cleaning:
    """Suspect pictures with what was decided about each; made by `clean`.

    `to_frame` numbers them from 0. One number or several are what `keep`, `set_aside` and `relabel`
    take. A decision can be changed until `apply` has moved the file.
    """

    def __init__(self, folder: Folder, suspects: list[Suspect]):
        self.folder, self.suspects, self._panel = folder, suspects, None
        for suspect in suspects:
            suspect.label = folder.class_of(suspect.file)
            suspect.stamp = folder.stamp(suspect.file)

    def to_frame(self):
        """Return a pandas table of the suspects, what was decided, and what became of them.

        `file` and `copy_of` are paths from the folder on; `label`, `suggested` and `new_class` are
        names of folders; `state` is "", "moved", or why a file was left alone.
        """
        import pandas as pd

        return pd.DataFrame([vars(x) for x in self.suspects], columns=COLUMNS)

    def keep(self, rows: int | Iterable[int]) -> None:
        """Leave pictures as they are, whatever was decided about them before."""
        self._decide(rows, KEEP)

    def set_aside(self, rows: int | Iterable[int]) -> None:
        """Have `apply` move pictures out of the folder, into the quarantine folder beside it."""
        self._decide(rows, ASIDE)

    def relabel(self, rows: int | Iterable[int], new_class: str) -> None:
        """Have `apply` move pictures into the folder of another class, in the same split."""
        if new_class not in self.folder.classes:
            raise wrong("new_class", new_class, f"one of: {', '.join(self.folder.classes)}")
        self._decide(rows, RELABEL, new_class)

    def _decide(self, rows: int | Iterable[int], decision: str, new_class: str = "") -> None:
        rows = [rows] if isinstance(rows, Integral) else list(rows)
        for row in rows:  # all of them before the first is changed
            self._check(row, new_class)
        for row in rows:
            self.suspects[row].decision = decision
            self.suspects[row].new_class = new_class
        self._redraw()

    def _check(self, row: int, new_class: str) -> None:
        count = len(self.suspects)
        if not isinstance(row, Integral) or not 0 <= row < count:
            raise wrong("row", row, f"a number of one of the {counted(count, 'row')}, from 0 on")
        suspect = self.suspects[row]
        if suspect.place:
            raise ValueError(f"{suspect.file} was moved already; undo() brings it back")
        if new_class == suspect.label:
            raise ValueError(f"{suspect.file} is in {new_class} already; keep() leaves it there")

    def waiting(self) -> list[Suspect]:
        """Return the suspects that `apply` is to move."""
        return [x for x in self.suspects if x.decision in (ASIDE, RELABEL) and not x.place]

    def moved(self) -> list[tuple[str, str]]:
        """Return (name, place) of every file that `undo` is to move back."""
        return moves_of(self.folder.root)

    def apply(self) -> None:
        """Move the files as decided; a line says how many, and what was left alone.

        Where a name is taken the file gets another (`a_2.jpg`). A file that is gone, or that
        changed after `clean`, is left alone. After an interruption or an error the table, the
        journal and `undo` know what was moved. Make new loaders and reports afterwards.
        """
        folder, waiting, plan = self.folder, self.waiting(), {}
        for suspect in waiting:
            suspect.state = self._objection(suspect)
            if not suspect.state:
                plan[suspect.file] = self._free_place(suspect, plan.values())
        try:
            move_files(folder.root, plan)
        finally:
            for suspect in waiting:
                place = plan.get(suspect.file)
                if place and folder.stamp(place) and not folder.stamp(suspect.file):
                    suspect.place, suspect.state = place, "moved"
            self._redraw()
        print(_what_became_of(waiting))

    def _objection(self, suspect: Suspect) -> str:
        """Return why a file must not be moved, or ""."""
        stamp = self.folder.stamp(suspect.file)
        if stamp is None:
            return "is gone"
        return "" if stamp == suspect.stamp else "was changed meanwhile"

    def _free_place(self, suspect: Suspect, taken: Iterable[str]) -> str:
        place = place_aside(self.folder.root, suspect.file)
        if suspect.decision == RELABEL:
            place = self.folder.in_class(suspect.file, suspect.new_class)
        return free_place(self.folder.root, place, taken)

    def undo(self) -> None:
        """Move back all that was ever moved in this folder, by `quarantine` too; a line says it.

        A new session, after a restart too, can do it, because the journal is a file in the
        quarantine folder. What was decided stays decided.

        Raises:
            FileExistsError: a file is there again where one belongs; nothing was moved.
        """
        moves = len(self.moved())
        try:
            back = undo_moves(self.folder.root)
        finally:
            for suspect in self.suspects:
                if suspect.place and not self.folder.stamp(suspect.place):
                    suspect.place, suspect.state = "", ""
                    suspect.stamp = self.folder.stamp(suspect.file)
            self._redraw()
        lost = f"; {moves - back} no longer where it was put" if moves > back else ""
        print(f"{counted(back, 'file')} moved back{lost}.")

    def _redraw(self) -> None:
        if self._panel is not None:
            self._panel.draw()

    def __repr__(self) -> str:
        counts = Counter(x.decision or "undecided" for x in self.suspects)
        decided = ", ".join(f"{counts[x]} {x}" for x in (KEEP, ASIDE, RELABEL, "undecided"))
        suspects = counted(len(self.suspects), "suspect picture")
        moved = sum(bool(x.place) for x in self.suspects)
        return f"{short_path(self.folder.root)}: {suspects}: {decided}; {moved} moved."

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """Return the buttons, and the table for a viewer that has none."""
        bundle = {"text/plain": repr(self), "text/html": self.to_frame()._repr_html_()}
        try:
            from .panel import Panel

            self._panel = self._panel or Panel(self)
        except ImportError:
            bundle["text/plain"] += f"\n{NO_BUTTONS}"
            bundle["text/html"] = f"<p>{NO_BUTTONS}</p>{bundle['text/html']}"
            return bundle
        return {**self._panel.view._repr_mimebundle_(), **bundle}


def _what_became_of(suspects: list[Suspect]) -> str:
    moved = [x for x in suspects if x.place]
    aside = sum(x.decision == ASIDE for x in moved)
    text = f"{counted(aside, 'picture')} set aside, {len(moved) - aside} given another class."
    renamed = [x.place for x in moved if Path(x.place).name != Path(x.file).name]
    if renamed:
        text += f" The name was taken, so there is now {', '.join(renamed)}."
    left = [f"{x.file} {x.state}" for x in suspects if not x.place]
    return f"{text} Left alone: {', '.join(left)}." if left else text
