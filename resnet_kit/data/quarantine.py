"""Files moved aside or into another folder, with a journal, so that everything can be undone."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ..files import atomic_file

# Every path in the journal and below is written from the root on, with slashes: the name of a file
# is `train/cat/a.jpg`, its place aside is `../pictures_quarantine/train/cat/a.jpg`.
JOURNAL = "moved.json"


def quarantine_of(root: Path) -> Path:
    """Return the folder beside a root into which its files are set aside; it need not exist yet."""
    root = root.resolve()
    return root.with_name(f"{root.name}_quarantine")


def place_aside(root: Path, name: str) -> str:
    """Return the place of a file that is set aside."""
    return f"../{quarantine_of(root).name}/{name}"


def free_place(root: Path, place: str, taken: Iterable[str] = ()) -> str:
    """Return the place, or where something is there or in `taken`, `a_2.jpg`, `a_3.jpg`, …"""
    root, wanted, number = root.resolve(), PurePosixPath(place), 1
    while place in taken or os.path.lexists(root / place):
        number += 1
        place = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}").as_posix()
    return place


def moves_of(root: Path) -> list[tuple[str, str]]:
    """Return what the journal says was moved and not undone, in order: (name, place)."""
    path = quarantine_of(root) / JOURNAL
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    # Earlier journals named only the files, which were all set aside.
    return [(x, place_aside(root, x)) if isinstance(x, str) else (x[0], x[1]) for x in entries]


def move_files(root: Path, moves: Mapping[str, str]) -> None:
    """Move files, each from its name to a place where nothing is.

    The journal is written before the first file moves. After an error or an interruption it holds
    what was moved until then.

    Raises:
        FileExistsError: something is at the place of a file; those before it were moved.
    """
    if not moves:
        return
    root, before = root.resolve(), moves_of(root)
    _write_journal(root, [*before, *moves.items()])
    try:
        for name, place in moves.items():
            _move(root / name, root / place)
    except BaseException:  # a Ctrl-C too
        moved = [pair for pair in moves.items() if not os.path.lexists(root / pair[0])]
        _write_journal(root, [*before, *moved])
        raise


def undo_moves(root: Path) -> int:
    """Move every file of the journal back to where it was, the last first; return how many moves.

    A file that is no longer at its place is passed over.

    Raises:
        FileExistsError: a file is there again where one belongs; nothing was moved.
    """
    root, moves = root.resolve(), moves_of(root)
    steps = _steps_back(root, moves)
    for number in steps:
        name, place = moves[number]
        _move(root / place, root / name)
        _write_journal(root, moves[:number])  # so that a killed undo can be continued
    if moves:
        _write_journal(root, [])
    return len(steps)


def _steps_back(root: Path, moves: list[tuple[str, str]]) -> list[int]:
    """Return the numbers of the moves to undo, in the order of undoing; nothing is touched yet."""
    steps, filled, emptied = [], set(), set()

    def is_there(path: str) -> bool:
        return path in filled or (path not in emptied and os.path.lexists(root / path))

    for number in reversed(range(len(moves))):
        name, place = moves[number]
        if not is_there(place):
            continue
        if is_there(name):
            what = "is the place of two files" if name in filled else "is there again"
            raise FileExistsError(f"{root / name} {what}; nothing was moved")
        steps.append(number)
        filled.discard(place)
        emptied.add(place)
        filled.add(name)
        emptied.discard(name)
    return steps


def _move(source: Path, target: Path) -> None:
    if os.path.lexists(target):  # a file would be overwritten
        raise FileExistsError(f"{target} is there already; {source} was not moved")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def _write_journal(root: Path, moves: list[tuple[str, str]]) -> None:
    with atomic_file(quarantine_of(root) / JOURNAL) as temporary:
        temporary.write_text(json.dumps(moves, indent=1), encoding="utf-8")
