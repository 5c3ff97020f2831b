"""What makes a score on a folder of pictures mean less than it seems: said in a line each."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from ..settings import counted, short_path
from .duplicates import copied_from, in_several_classes, near_copied_from
from .images import files_below, folders_in, heif_hint, is_hidden, is_picture

MOST = 5_000  # pictures among which near copies are looked for; it takes about a second per 1,000


def announce_oddities(
    root: Path, splits: Mapping, groups: Callable[[Path], Hashable] | None = None
) -> None:
    """Say what is odd about the splits (see `folders.Split`) that were found in a folder."""
    train = splits["train"]
    if len(train.classes) == 1:
        only = train.folder / train.classes[0]
        hint = f" The classes seem to be in {short_path(only)}." if folders_in(only) else ""
        print(f"There is one class only ({only.name}): any model is right about all of it.{hint}")
    announce_left_out({split.folder for split in splits.values()})
    if len(splits["val"].files) > len(train.files):
        counts = f"{len(splits['val'].files):,} pictures, train {len(train.files):,}"
        print(f"val has {counts}: is it the other way round?")
    if "test" not in splits and (root / "test").is_dir() and train.folder == root / "train":
        print("test has pictures without classes, which cannot be scored: left out.")
    mixed = in_several_classes(train.pictures)
    if mixed:
        files = f"{counted(mixed, 'picture')} of train {_are(mixed)}"
        print(f"{files} byte for byte in another class too; rk.inspect_folder names them.")
    for name, split in splits.items():
        if name != "train":
            _announce_unknown(split)
            _announce_leaks(name, split, train, groups)


def announce_mirrored_characters(classes: Sequence[str]) -> None:
    if all(len(name) == 1 for name in classes):
        print(
            'The classes look like characters, and augment="standard" mirrors pictures: a '
            'mirrored character is another one. Give augment="none" or a transform of your own.'
        )


def announce_left_out(folders: Iterable[Path]) -> None:
    """Say how many files of which kinds are no pictures that are read, if there are any."""
    kinds = Counter()
    for folder in folders:
        others = (path for path in files_below(folder) if not is_picture(path))
        kinds.update(path.suffix.lower() for path in others if not _is_hidden_below(folder, path))
    if not kinds:
        return
    counts = (f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(kinds.items()))
    line = (
        f"Left out, because they are no pictures of a kind that is read here: {', '.join(counts)}."
    )
    hint = heif_hint(kinds)
    print(f"{line} {hint}." if hint else line)


def _is_hidden_below(folder: Path, path: Path) -> bool:
    return any(map(is_hidden, path.relative_to(folder).parts))


def _announce_unknown(split) -> None:
    present = set(split.labels)
    absent = [name for label, name in enumerate(split.classes) if label not in present]
    if absent:
        names = ", ".join(absent)
        print(f"{split.folder.name} has no pictures of {names}, whose recall stays unknown.")


def _announce_leaks(name: str, split, train, groups) -> None:
    """Say how many pictures of a split are, more or less, in train too."""
    count, total = copied_from(train.files, split.files), f"{len(split.files):,} in {name}"
    if count:
        print(
            f"{counted(count, 'picture')} of {total} {_are(count)} byte for byte in train too, so "
            "its score is too good; rk.inspect_folder names them."
        )
    if groups is not None:
        learned = {groups(file) for file in train.files}
        count = sum(groups(file) in learned for file in split.files)
        if count:
            pictures = counted(count, "picture")
            print(f"{pictures} of {total} {_are(count)} of groups that are in train too.")
    if split.folder != train.folder:  # splits that someone made; rk.inspect_folder looks closer
        return
    pictures = len(train.files) + len(split.files)
    if pictures > MOST:
        print(f"Near copies were not looked for in {pictures:,} pictures; rk.inspect_folder does.")
        return
    count = near_copied_from(train.files, split.files)
    if count:
        print(
            f"{counted(count, 'picture')} of {total} {_are(count)} nearly the same as one in train "
            "(edited copies, or frames of one film?), so its score is too good: "
            "groups=rk.inspect_folder(root).group_of keeps them together, or a function of your "
            "own from a file to its film, patient or site."
        )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
