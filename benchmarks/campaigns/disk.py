"""Write to full, read-only and vanished disks, over folders and over foreign files.

The error says that there is no space left, or names the path; the old file is whole; nothing
half-written is left; and the next call, with space, succeeds. A training that cannot write leaves
the best weights in the model and its history in the error, and can be resumed.
"""

import contextlib
import errno
import importlib.util
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import Outcome, Part, copy_of, environment, loader, quiet, rows_of, same, small_net
from ctrl_c import array_data
from PIL import Image
from torch import nn

import resnet_kit as rk
from resnet_kit.files import read_weights
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.results import ROW
from resnet_kit.training.state import load_state

SIZE = 16 << 20  # bytes of the small disk
EXPORT = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


class RealDisk:
    """A small file system in memory; mounting it needs rights that few have."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self) -> bool:
        """Mount it; say whether that is allowed."""
        return self._mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.folder))

    def _mount(self, *options: str) -> bool:
        try:
            return subprocess.run(["mount", *options], capture_output=True).returncode == 0
        except OSError:
            return False

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes of space."""
        with contextlib.suppress(OSError), (self.folder / ".filler").open("ab") as file:
            file.write(bytes(max(0, self._free() - left)))

    def _free(self) -> int:
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize

    def make_read_only(self) -> bool:
        """Forbid writing; say whether that is possible."""
        return self._mount("-o", "remount,ro", str(self.folder))

    def mend(self) -> None:
        """Give space and rights back."""
        self._mount("-o", "remount,rw", str(self.folder))
        (self.folder / ".filler").unlink(missing_ok=True)

    def end(self) -> None:
        subprocess.run(["umount", str(self.folder)], capture_output=True)


class PretendedDisk:
    """A folder that says "no space left" where files are written whole or synchronised."""

    def __init__(self, folder: Path):
        self.folder, self.patches = folder, contextlib.ExitStack()

    def begin(self) -> bool:
        return True

    def fill(self, left: int = 0) -> None:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.patches.enter_context(mock.patch("os.fsync", side_effect=error))
        self.patches.enter_context(mock.patch.object(Path, "write_bytes", side_effect=error))

    def make_read_only(self) -> bool:
        return False

    def mend(self) -> None:
        self.patches.close()

    def end(self) -> None:
        self.mend()


@contextlib.contextmanager
def small_disk(folder: Path, kind: type | None = None) -> Iterator[RealDisk | PretendedDisk]:
    """Give a small disk: a real one where that is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = (kind or RealDisk)(folder)
    if not disk.begin():
        disk = PretendedDisk(folder)
    try:
        yield disk
    finally:
        disk.end()


@dataclass
class Action:
    """A call that writes something; `path` is what it writes, below the disk."""

    path: str
    call: Callable[[Path], object]
    is_whole: Callable[[Path], bool]
    size: int  # bytes, about


def _is_readable(path: Path) -> bool:
    try:
        read_weights(path)
    except ValueError:
        return False
    return True


def _is_classifier(path: Path) -> bool:
    try:
        rk.load_classifier(path)
    except ValueError:
        return False
    return True


def single_files(folder: Path) -> dict[str, Action]:
    """Return the calls that write one file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, data = cifar_resnet(8, 3, in_channels=1), array_data(1)
    classifier = rk.load_classifier(rk.save_classifier(folder / "c.safetensors", model, data))
    rows = [dict.fromkeys(ROW, "x" * 500) for _ in range(30)]
    found = {
        "save_weights": Action(
            "w.safetensors", lambda path: rk.save_weights(model, path), _is_readable, 320_000
        ),
        "save_classifier": Action(
            "c.safetensors",
            lambda path: rk.save_classifier(path, model, data),
            _is_classifier,
            320_000,
        ),
        "write_results": Action(
            "r.json",
            lambda path: rk.write_results(path, rows, command="none"),
            lambda path: len(json.loads(path.read_text())["rows"]) == 30,
            160_000,
        ),
    }
    if EXPORT:
        found["export_onnx"] = Action(
            "c.onnx", classifier.export_onnx, lambda path: path.stat().st_size > 300_000, 320_000
        )
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder but locks and what fills the disk."""
    hidden = (".filler", ".lock")
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name not in hidden and path.suffix != ".lock"
    }


def said(error: Exception, path: Path, full: bool) -> list[str]:
    """Return what is wrong with the error of a write that failed."""
    text = str(error)
    if not isinstance(error, OSError | ValueError):
        return [f"a raw {type(error).__name__}: {text[:80]}"]
    if full and "no space left" not in text.lower():
        return [f"it does not say that the disk is full: {text[:80]}"]
    if not full and not any(part in text for part in (path.name, str(path.parent), "Read-only")):
        return [f"it does not name the path: {text[:80]}"]
    return []


def fails(disk, action: Action, *, full: bool) -> list[str]:
    """Call what cannot succeed; return which promises do not hold."""
    path, before = disk.folder / action.path, files_of(disk.folder)
    try:
        with quiet():
            action.call(path)
        broken = [] if action.is_whole(path) else ["no error, and no whole file"]
    except Exception as error:
        broken = said(error, path, full)
        if files_of(disk.folder) != before:
            broken.append("what was there is another one, or something half-written is left")
    disk.mend()
    return broken


def succeeds(disk, action: Action) -> list[str]:
    """Call what must succeed now; return which promises do not hold."""
    path = disk.folder / action.path
    try:
        with quiet():
            action.call(path)
    except Exception as error:
        return [f"with space it fails too: {error!r}"[:120]]
    return [] if action.is_whole(path) else ["with space there is no whole file"]


def full(disk, action: Action, *, left: float, older: bool) -> list[str]:
    """The disk has space for a part of the file only; there may be an older one."""
    if older:
        with quiet():
            action.call(disk.folder / action.path)
    disk.fill(int(left * action.size))
    return fails(disk, action, full=True) + succeeds(disk, action)


def read_only(disk, action: Action) -> list[str]:
    """The disk is read-only."""
    if not disk.make_read_only():
        return []
    return fails(disk, action, full=False) + succeeds(disk, action)


def below_a_file(disk, action: Action) -> list[str]:
    """Where the folder should be there is a file."""
    (disk.folder / "folder").write_text("a file")
    place = Action(f"folder/{action.path}", action.call, action.is_whole, action.size)
    broken = fails(disk, place, full=False)
    (disk.folder / "folder").unlink()
    return broken + succeeds(disk, place)


def onto_a_folder(disk, action: Action) -> list[str]:
    """Where the file should be there is a folder with something in it."""
    path = disk.folder / action.path
    path.mkdir()
    (path / "thesis.txt").write_text("do not lose me")
    broken = fails(disk, action, full=False)
    kept = (path / "thesis.txt").is_file()
    shutil.rmtree(path)
    return broken + ([] if kept else ["the folder is gone"]) + succeeds(disk, action)


def over_a_foreign_file(disk, action: Action) -> list[str]:
    """Where the file should be there is another one, which is replaced."""
    (disk.folder / action.path).write_text("something else")
    return succeeds(disk, action)


SINGLE = {
    "full": lambda *x: full(*x, left=0, older=True),
    "almost full": lambda *x: full(*x, left=0.5, older=True),
    "almost full, no older file": lambda *x: full(*x, left=0.5, older=False),
    "read-only": read_only,
    "below a file": below_a_file,
    "onto a folder": onto_a_folder,
    "over a foreign file": over_a_foreign_file,
}


def data_sets() -> dict[str, Action]:
    """Return the calls that draw pictures into the data root."""

    def drawn10(root: Path):
        with environment(RESNET_KIT_DATA=root.parent, RESNET_KIT_QUICK=1):
            return rk.named_dataset("drawn10", val_from_train=0.2)

    def animals(root: Path):
        with environment(RESNET_KIT_DATA=root.parent, RESNET_KIT_QUICK=1):
            return rk.cat_dog_ants_bees("drawn", progress=False)

    return {
        "named_dataset": Action(
            "root/drawn10", drawn10, lambda path: len(list(path.parent.glob("*.npz"))) == 1, 700_000
        ),
        "cat_dog_ants_bees": Action(
            "root/drawn", animals, lambda path: len(list(path.parent.rglob("*.jpg"))) == 88, 900_000
        ),
    }


def nearly_full_root(disk, action: Action) -> list[str]:
    """Half of what is drawn fits."""
    (disk.folder / "root").mkdir()
    disk.fill(action.size // 2)
    return fails(disk, action, full=True) + succeeds(disk, action)


def full_root(disk, action: Action) -> list[str]:
    """The data root can be made, and nothing in it."""
    (disk.folder / "root").mkdir()
    disk.fill()
    return fails(disk, action, full=True) + succeeds(disk, action)


def read_only_root(disk, action: Action) -> list[str]:
    """The data root is read-only."""
    (disk.folder / "root").mkdir()
    return read_only(disk, action)


def file_as_root(disk, action: Action) -> list[str]:
    """The data root is a file."""
    (disk.folder / "root").write_text("a file")
    broken = fails(disk, action, full=False)
    (disk.folder / "root").unlink()
    return broken + succeeds(disk, action)


ROOTS = {
    "nearly full": nearly_full_root,
    "full": full_root,
    "read-only": read_only_root,
    "a file as root": file_as_root,
}


def quarantine(disk, trouble: str) -> list[str]:
    """Set two pictures aside on a troubled disk: both are moved, or none."""
    rng, root = np.random.default_rng(0), disk.folder / "set"
    for number in range(6):
        path = root / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    report, names = rk.inspect_folder(root, progress=False), ["train/a/0.png", "train/b/1.png"]
    aside = Action(
        "set_quarantine", lambda _: report.quarantine(names), lambda _: _moved(disk, names), 0
    )
    before = files_of(disk.folder)
    if trouble == "full":
        disk.fill()
    elif trouble == "a file in its place":
        (disk.folder / "set_quarantine").write_text("a file")
        before = files_of(disk.folder)
    elif not disk.make_read_only():
        return []
    broken = fails(disk, aside, full=trouble == "full")
    if not _moved(disk, names) and files_of(disk.folder) != before:
        broken.append("something is lost")
    if trouble == "a file in its place":
        (disk.folder / "set_quarantine").unlink()
    if not _moved(disk, names):
        broken += succeeds(disk, aside)
    report.undo_quarantine()
    return broken + ([] if (root / names[0]).is_file() else ["it cannot be undone"])


def _moved(disk, names: list[str]) -> bool:
    return all((disk.folder / "set_quarantine" / name).is_file() for name in names)


EPOCHS = 5


def train(place: Path | None, *, resume: bool = False, note: Callable | None = None):
    """Train a small net; return it and the history, or raise with the net as `error.model`."""
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    arguments = nn.CrossEntropyLoss(), optimizer, loader(0, shuffle=True), loader(1)
    options = {"checkpoint": place, "checkpoint_every": 2 if place else None, "resume": resume}
    try:
        with quiet():
            history = rk.train_and_eval(
                model, EPOCHS, *arguments, **options, precision="fp32", on_epoch_end=note,
                progress=False,
            )  # fmt: skip
    except Exception as error:
        error.model = model
        raise
    return model, history


def best_weights() -> tuple[dict[int, dict], list[dict]]:
    """Return the best weights after each number of epochs, and the rows, of a whole training."""
    weights = {}
    for epochs in range(1, EPOCHS + 1):
        with mock.patch(f"{__name__}.EPOCHS", epochs):
            model, history = train(None)
        weights[epochs] = copy_of(model.state_dict())
    return weights, rows_of(history)


TROUBLES = {
    "full": lambda disk, run: disk.fill(),
    "almost full": lambda disk, run: disk.fill(8192),
    "read-only": lambda disk, run: disk.make_read_only(),
    "the folder vanishes": lambda disk, run: shutil.rmtree(run),
    "last.pt is a folder": lambda disk, run: _folder_instead(run / "last.pt"),
}


def _folder_instead(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def training(disk, trouble: str, epoch: int, whole: tuple) -> list[str]:
    """The trouble comes at the end of an epoch; then it goes, and the training is resumed."""
    run, (weights, rows) = disk.folder / "run", whole

    def note(history) -> None:
        if len(history.rows) == epoch:
            TROUBLES[trouble](disk, run)

    try:
        model, history = train(run, note=note)
        broken, finished = [], True
    except Exception as error:
        broken, finished = said(error, run / "last.pt", "full" in trouble), False
        history, model = getattr(error, "history", None), error.model
    if history is None:
        return [*broken, "the error has no history"]
    if not same(model.state_dict(), weights[len(history.rows)]) or model.training:
        broken.append("the model does not hold the best weights")
    disk.mend()
    broken += _temporaries(run)
    if finished and trouble != "the folder vanishes":
        return broken
    if (run / "last.pt").is_dir():
        (run / "last.pt").rmdir()
    model, history = train(run, resume=True)
    if rows_of(history) != rows or not same(model.state_dict(), weights[EPOCHS]):
        broken.append("resumed it is another training")
    return broken + _unreadable(run)


def _temporaries(run: Path) -> list[str]:
    left = [path.name for path in run.glob(".*.????????")]
    return [f"{name} is left" for name in left[:1]]


def _unreadable(run: Path) -> list[str]:
    try:
        load_state(run / "last.pt")
        for path in run.glob("[!.]*.safetensors"):
            read_weights(path)
    except ValueError as error:
        return [str(error)]
    return []


def scenarios(folder: Path) -> dict[str, Callable[[object], list[str]]]:
    """Return all scenarios by name; each is called with a new disk."""
    found = {}
    for name, action in single_files(folder).items():
        for state, run in SINGLE.items():
            found[f"{name}: {state}"] = lambda disk, run=run, action=action: run(disk, action)
    for name, action in data_sets().items():
        for state, run in ROOTS.items():
            found[f"{name}: {state}"] = lambda disk, run=run, action=action: run(disk, action)
    for trouble in ("full", "read-only", "a file in its place"):
        found[f"quarantine: {trouble}"] = lambda disk, trouble=trouble: quarantine(disk, trouble)
    whole = best_weights()
    for trouble in TROUBLES:
        for epoch in (1, 2, 4):
            found[f"training: {trouble} after epoch {epoch}"] = (
                lambda disk, trouble=trouble, epoch=epoch: training(disk, trouble, epoch, whole)
            )
    return found


def all_scenarios(
    trials: int, folder: Path, seed: int = 0, *, kind: type | None = None, only: str = ""
) -> Outcome:
    """Run scenarios in a random order, each on a disk of its own."""
    with quiet():
        names = {name: run for name, run in scenarios(folder).items() if only in name}
    order, found = list(names), Outcome()
    random.Random(seed).shuffle(order)
    for number, name in enumerate(order[:trials]):
        with small_disk(folder / f"disk_{number}", kind) as disk:
            ending = type(disk).__name__
            try:
                broken = names[name](disk)
            except Exception as error:
                broken = [f"the scenario fails: {error!r}"[:200]]
        found.add(ending, broken, name)
    return found


PARTS = (Part("full, read-only and vanished disks, foreign files", all_scenarios, 54),)
