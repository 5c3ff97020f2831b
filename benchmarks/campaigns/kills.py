"""Kill trainings (SIGKILL) at random moments and around each write; resume; compare the results.

A training that is killed and resumed ends with the rows and the weights, bit for bit, of one that
nobody killed; whatever lies in its folder after the kill can be read; no worker lives on.
"""

import functools
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import (
    Outcome,
    Part,
    loader,
    noise,
    quiet,
    rows_of,
    same,
    settle,
    small_net,
    started,
    wait_for,
)
from PIL import Image
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import resnet_kit as rk
from resnet_kit import files
from resnet_kit.data.arrays import ColorJitter, Crop, Flip
from resnet_kit.data.loaders import TransformedLoader
from resnet_kit.features import features_of
from resnet_kit.files import read_weights
from resnet_kit.training.state import load_state

COUNT, EPOCHS = 48, 5  # pictures, of which 12 batches an epoch are made


class Jittered(Dataset):
    """Pictures that are changed at random, with torch's own random numbers."""

    def __init__(self, seed: int):
        self.pictures = noise(seed, COUNT)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int):
        image, label = self.pictures[index]
        return image + 0.1 * torch.randn(image.shape), label


class OwnBatches:
    """A batch sampler with a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator()

    def __iter__(self):
        return iter(torch.randperm(COUNT, generator=self.generator).split(4))

    def __len__(self) -> int:
        return COUNT // 4


def arrays(**options) -> Callable[[Path], dict]:
    """Return loaders of pictures in memory."""

    def build(folder: Path) -> dict:
        rng = np.random.default_rng(0)
        train, val = (
            (rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) ** 2 % 3)
            for n in (COUNT, 12)
        )
        classes = ["a", "b", "c"]
        made = rk.array_loaders(train=train, val=val, classes=classes, batch_size=4, **options)
        return {"train": made.train, "val": made.val}

    return build


def folders(**options) -> Callable[[Path], dict]:
    """Return loaders of picture files."""

    def build(folder: Path) -> dict:
        options_of_all = {"size": 16, "batch_size": 4, "announce": False}
        made = rk.image_folders(folder / "pictures", **options_of_all, **options)
        return {"train": made.train, "val": made.val}

    return build


def features(folder: Path) -> dict:
    """Return a head and loaders of features with three views."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT).repeat(3, 1) % 3
    rows = torch.randn(3, COUNT, 16, generator=generator) + labels[..., None]
    parts = {"train": (rows, labels), "val": (rows[:1], labels[:1])}
    made = features_of(parts, ("a", "b", "c"), batch_size=4, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(16, 3)
    return {"model": head, "train": made.train, "val": made.val}


def own_batches(folder: Path) -> dict:
    return {"train": DataLoader(noise(0, COUNT), batch_sampler=OwnBatches())}


def mixed(folder: Path) -> dict:
    shuffled = loader(0, COUNT, shuffle=True)
    return {"train": TransformedLoader(shuffled, v2.MixUp(num_classes=3))}


def partly_frozen(folder: Path) -> dict:
    model = small_net()
    rk.freeze(model)
    rk.unfreeze(model, "1", "fc")
    return {"model": model}


def with_loader(**options) -> Callable[[Path], dict]:
    return lambda folder: {"train": DataLoader(Jittered(0), batch_size=4, **options)}


def sequence(optimizer) -> SequentialLR:
    """Return a warm-up of an epoch and then a cosine."""
    parts = [LinearLR(optimizer, total_iters=12), CosineAnnealingLR(optimizer, 48)]
    return SequentialLR(optimizer, parts, [12])


def one_cycle(optimizer) -> OneCycleLR:
    return OneCycleLR(optimizer, 0.1, total_steps=60)


STEPS = {"scheduler_every": "step"}
sgd = functools.partial(SGD, lr=0.05, momentum=0.9)
fused = functools.partial(AdamW, lr=0.01, fused=True)
adam = functools.partial(Adam, lr=0.01)
# What differs from SGD on shuffled tensors: loaders and model, optimizer, scheduler, options.
CONFIGURATIONS = {
    "SGD": {},
    "Adam, clipped": {"optimizer": functools.partial(adam, amsgrad=True), "clip_norm": 0.5},
    "AdamW, fused": {"optimizer": fused},
    "MultiStepLR": {"scheduler": functools.partial(MultiStepLR, milestones=[2, 4])},
    "OneCycleLR by step": {"scheduler": one_cycle, **STEPS},
    "warm-up, then cosine": {"scheduler": sequence, "optimizer": adam, **STEPS},
    "ReduceLROnPlateau": {"scheduler": functools.partial(ReduceLROnPlateau, patience=0)},
    "patience": {"patience": 2, "checkpoint_every": 2},
    "accumulate": {"accumulate": 5, "optimizer": adam},
    "running average": {"average": 0.9},
    "bf16, average": {"precision": "bf16", "average": 0.8, "optimizer": fused},
    "bf16, OneCycleLR": {"precision": "bf16", "scheduler": one_cycle, **STEPS},
    "2 workers": {"loaders": with_loader(shuffle=True, num_workers=2)},
    "jittered pictures": {"loaders": with_loader(shuffle=True)},
    "own batch_sampler": {"loaders": own_batches},
    "arrays, augmented": {
        "loaders": arrays(augment=[Crop(1), Flip(), ColorJitter()], size={1: 8, 3: 12})
    },
    "arrays, balanced": {"loaders": arrays(balanced=True), "average": 0.9},
    "folders, TrivialAugment": {"loaders": folders(augment="trivial", workers=0)},
    "folders, balanced, 2 workers": {"loaders": folders(balanced=True, workers=2)},
    "MixUp": {"loaders": mixed, "optimizer": adam},
    "features": {"loaders": features, "optimizer": adam},
    "partly frozen": {"loaders": partly_frozen, "weight_decay": 0.01},
}


def train(name: str, folder: Path, place: Path) -> None:
    """Train a configuration, or go on with it; write its rows, seconds and weights."""
    given = dict(CONFIGURATIONS[name])
    made = given.pop("loaders", lambda _: {})(folder)
    model = made.get("model") or small_net()
    decay = {"weight_decay": given.pop("weight_decay", 0)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = given.pop("optimizer", sgd)(trainable, **decay)
    scheduler = given.pop("scheduler", lambda _: None)(optimizer)
    data = made.get("train") or loader(0, COUNT, shuffle=True), made.get("val") or loader(1, 24)
    options = {"precision": "fp32", "progress": False, "scheduler": scheduler, **given}
    place.mkdir(exist_ok=True)
    (place / "began").touch()
    start = time.perf_counter()
    history = rk.train_and_eval(
        model, EPOCHS, nn.CrossEntropyLoss(), optimizer, *data,
        checkpoint=place / "run", resume=True, **options,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    rk.save_weights(model, place / "final.safetensors")
    about = {"rows": rows_of(history), "best": history.best_epoch, "stopped": history.stopped}
    (place / "final.json").write_text(json.dumps({"seconds": seconds, "history": about}))


def in_process(name: str, folder: Path, place: Path, killer: "Killer | None" = None) -> None:
    """Train in a process of its own, whose workers are forked; `killer` may end it."""
    os.setsid()  # so that workers which live on can be found
    settle()
    with quiet():
        if killer is None:
            train(name, folder, place)
        else:
            with killer:
                train(name, folder, place)


def draw_pictures(folder: Path) -> None:
    """Write 40 tiny pictures: train and val of the classes a, b and c."""
    rng = np.random.default_rng(0)
    for number in range(COUNT + 12):
        split = "train" if number < COUNT else "val"
        path = folder / "pictures" / split / "abc"[number**2 % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def uninterrupted(name: str, folder: Path) -> Path:
    """Return the folder of a training that nobody killed."""
    place = folder / f"whole {name}".replace(",", "")
    if not place.exists():
        process = started(in_process, name, folder, place)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"the training {name!r} fails without a kill")
    return place


def unreadable(run: Path) -> list[str]:
    """Return which files of a checkpoint folder cannot be read."""
    broken = []
    for path in sorted(run.glob("[!.]*")):
        try:
            load_state(path) if path.suffix == ".pt" else read_weights(path)
        except ValueError as error:
            broken.append(f"{path.name} cannot be read ({error})")
    return broken


def broken_of(place: Path, whole: Path) -> list[str]:
    """Return what differs between a resumed training and one that nobody killed."""
    if not (place / "final.json").is_file():
        return ["it cannot be resumed"]
    ends = (json.loads((x / "final.json").read_text()) for x in (place, whole))
    history, wanted = (end["history"] for end in ends)
    broken = [f"{name} differs" for name in wanted if history[name] != wanted[name]]
    weights = read_weights(whole / "final.safetensors")[0]
    for path in (place / "final.safetensors", place / "run" / "best.safetensors"):
        if not same(read_weights(path)[0], weights):
            broken.append(f"the weights in {path.name} differ")
    names = [sorted(path.name for path in (x / "run").glob("[!.]*")) for x in (place, whole)]
    if names[0] != names[1]:
        broken.append("there are other files")
    left = [path.name for path in (place / "run").glob(".*.safetensors.*")]
    left += [path.name for path in (place / "run").glob(".last.pt.*")]
    return broken + [f"{path} is left" for path in left[:1]]


def resumed(name: str, folder: Path, place: Path) -> list[str]:
    """Go on with a killed training; return which promises do not hold."""
    broken = unreadable(place / "run")
    process = started(in_process, name, folder, place)
    process.join()
    return broken + broken_of(place, uninterrupted(name, folder))


def at_random(trials: int, folder: Path, seed: int) -> Outcome:
    """Kill each configuration by turns, at a random moment of its training."""
    draw_pictures(folder)
    chance, found, sessions, names = random.Random(seed), Outcome(), [], list(CONFIGURATIONS)
    chance.shuffle(names)
    for number in range(trials):
        name, place = names[number % len(names)], folder / f"killed_{number}"
        whole = json.loads((uninterrupted(name, folder) / "final.json").read_text())
        victim = started(in_process, name, folder, place)
        wait_for((place / "began").exists, 30)
        time.sleep(chance.uniform(0, 0.9) * whole["seconds"])
        victim.kill()
        victim.join()
        sessions.append(victim.pid)
        ending = "killed" if victim.exitcode == -signal.SIGKILL else "finished before"
        epochs = _epochs_in(place / "run")
        found.add(f"{ending} after {epochs} epochs", resumed(name, folder, place), name)
    if not wait_for(lambda: not living(sessions), 20):
        found.lost.append(f"{len(living(sessions))} workers live on")
        for pid in living(sessions):
            os.kill(pid, signal.SIGKILL)
    return found


def _epochs_in(run: Path) -> int:
    path = run / "last.pt"
    return len(load_state(path)["history"]["rows"]) if path.is_file() else 0


def living(sessions: list[int]) -> list[int]:
    """Return the processes of these sessions that have not ended (on Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[3]) in sessions and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


WRITING = ("patience", "bf16, average")  # trainings that are killed while they write
MOMENTS = ("before", "in", "after")


class Killer:
    """Kills this process before, in the middle of or after the n-th call that writes a file.

    With `at` None it kills nobody and notes the calls in the file `log`.
    """

    PLACES = ((torch, "save"), (files, "save_file"), (os, "fsync"), (os, "replace"))

    def __init__(self, at: int | None, moment: str = "", log: Path | None = None):
        self.at, self.moment, self.log, self.calls = at, moment, log, []

    def __enter__(self):
        self.real = [getattr(module, name) for module, name in self.PLACES]
        for (module, name), function in zip(self.PLACES, self.real, strict=True):
            setattr(module, name, functools.partial(self._call, name, function))

    def __exit__(self, *error):
        for (module, name), function in zip(self.PLACES, self.real, strict=True):
            setattr(module, name, function)
        if self.log:
            self.log.write_text(json.dumps(self.calls))

    def _call(self, name: str, function: Callable, *arguments, **options):
        self.calls.append(name)
        hit = len(self.calls) - 1 == self.at
        if hit and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if hit and self.moment == "in":
            os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def points(name: str, folder: Path) -> list[tuple[str, int, str]]:
    """Return all places to kill a training at: the call that writes, and the moment."""
    log = folder / "calls.json"
    started(in_process, name, folder, folder / f"counted {name}", Killer(None, log=log)).join()
    calls = json.loads(log.read_text())
    writers = ("save", "save_file")
    return [
        (name, number, moment)
        for number, call in enumerate(calls)
        for moment in MOMENTS
        if moment != "in" or call in writers
    ]


def around_writes(trials: int, folder: Path, seed: int) -> Outcome:
    """Kill two trainings before, in and after their calls that write files."""
    found = Outcome()
    places = [point for name in WRITING for point in points(name, folder)]
    random.Random(seed).shuffle(places)
    for number, (name, at, moment) in enumerate(places[:trials]):
        place = folder / f"killed_{number}"
        victim = started(in_process, name, folder, place, Killer(at, moment))
        victim.join()
        ending = "killed" if victim.exitcode == -signal.SIGKILL else "not killed"
        broken = resumed(name, folder, place)
        found.add(f"{ending} {moment} a write", broken, f"{name}, {moment} call {at}")
    return found


PARTS = (
    Part(f"SIGKILL at random in {len(CONFIGURATIONS)} kinds of trainings", at_random, 132),
    Part("SIGKILL before, in and after writes of trainings", around_writes, 85),
)
