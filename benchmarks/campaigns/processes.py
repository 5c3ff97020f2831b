"""Let two processes do the same thing in the same place at the same time.

Of two downloads, or two drawings, both end well, and the right files are there; where one is
killed, the other ends well. Of two trainings into one folder at least one ends well, the other is
refused or goes on with it, and what lies in the folder is, bit for bit, one training's.
"""

import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED

import torch
from common import (
    Outcome,
    Part,
    environment,
    loader,
    processes,
    quiet,
    rows_of,
    same,
    settle,
    small_net,
    started,
)
from servers import NAMES, Behaviour, archive, is_whole, patched, serving
from torch import nn

import resnet_kit as rk
from resnet_kit.files import read_weights
from resnet_kit.training.state import load_state


def reported(task: Callable, report: Path, barrier, delay: float, arguments: tuple) -> None:
    """Do a task in a process of its own, begun together with another one; write how it ended."""
    settle()
    barrier.wait(60)
    time.sleep(delay)
    try:
        with quiet():
            task(*arguments)
        ending = "well"
    except Exception as error:
        ending = f"{type(error).__name__}: {error}"
    report.write_text(ending, encoding="utf-8")


def pair(
    task: Callable, folder: Path, delays: tuple[float, float], arguments: list[tuple], kill=0.0
) -> list[str]:
    """Run a task twice at once; return both endings. `kill` ends the first after these seconds."""
    barrier = processes().Barrier(3)
    reports = [folder / f"report_{number}" for number in range(2)]
    running = [
        processes().Process(target=reported, args=(task, report, barrier, delay, given))
        for report, delay, given in zip(reports, delays, arguments, strict=True)
    ]
    for process in running:
        process.start()
    barrier.wait(60)
    if kill:
        time.sleep(kill)
        running[0].kill()
    for process in running:
        process.join(120)
        process.kill()
    return [report.read_text() if report.is_file() else "killed" for report in reports]


def download(address: str, manifest: Path, root: Path) -> None:
    """Take the photos, which are downloaded where they are not there."""
    os.environ.pop("RESNET_KIT_QUICK", None)
    os.environ["RESNET_KIT_DATA"] = str(root)
    with patched(address, manifest):
        rk.cat_dog_ants_bees("photos", progress=False)


def _others(root: Path, expected: set[str]) -> list[str]:
    names = {path.name for path in root.iterdir() if path.suffix != ".lock"}
    return [f"{name} is left" for name in sorted(names - expected)]


def downloads(trials: int, folder: Path, seed: int) -> Outcome:
    """Download the photos in two processes; in every fourth pair the first one is killed."""
    chance, found = random.Random(seed), Outcome()
    with serving(folder) as server:
        stored = {name: archive(name, ZIP_STORED) for name in NAMES}  # larger, so slower
        server.behaviour = Behaviour(stored, pause=0.01)
        address = f"http://127.0.0.1:{server.server_port}"
        for number in range(trials):
            place = folder / f"{number}"
            place.mkdir()
            given = (address, folder / "manifest", place / "root")
            kill = chance.uniform(0.01, 0.3) if number % 4 == 3 else 0.0
            delays = 0.0, chance.choice([0, 0, chance.uniform(0, 0.4)])
            ends = pair(download, place, delays, [given] * 2, kill)
            broken = [end for end in ends if end not in ("well", "killed" if kill else "")]
            if not is_whole(place / "root" / "cat_dog_ants_bees"):
                broken.append("the photos are not there")
            broken += _others(place / "root", {"cat_dog_ants_bees"})
            found.add(" and ".join(sorted(ends)) if not broken else "not well", broken)
    return found


def draw(what: str, root: Path) -> None:
    """Take drawn pictures, which are drawn where they are not there."""
    with environment(RESNET_KIT_DATA=root, RESNET_KIT_QUICK=1):
        if what == "drawn10":
            rk.named_dataset("drawn10", val_from_train=0.2)
        else:
            rk.cat_dog_ants_bees("drawn", progress=False)


def _digests(root: Path) -> dict[str, str]:
    """Return the digest of every file but locks; of an .npz the one of its arrays."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".npz")
    } | {path.name: "arrays" for path in root.glob("*.npz")}


def drawings(trials: int, folder: Path, seed: int) -> Outcome:
    """Draw pictures in two processes, by turns into an .npz and into a folder."""
    chance, found = random.Random(seed), Outcome()
    kinds, wanted = ("drawn10", "animals"), {}
    for what in kinds[:trials]:
        with quiet():
            draw(what, folder / what)
        wanted[what] = _digests(folder / what)
    for number in range(trials):
        what, place = kinds[number % 2], folder / f"{number}"
        place.mkdir()
        kill = chance.uniform(0.01, 0.3) if number % 4 == 3 else 0.0
        ends = pair(draw, place, (0.0, chance.uniform(0, 0.1)), [(what, place / "root")] * 2, kill)
        broken = [end for end in ends if end not in ("well", "killed" if kill else "")]
        if _digests(place / "root") != wanted[what]:
            broken.append("there are other files")
        found.add(" and ".join(sorted(ends)) if not broken else "not well", broken, what)
    return found


def train(seed: int, resume: bool, run: Path | None, result: Path) -> None:
    """Train, about half a second long; write the rows and the weights."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    arguments = nn.CrossEntropyLoss(), optimizer, loader(0, 120, shuffle=True), loader(1)
    options = {"checkpoint": run, "resume": resume, "seed": seed, "precision": "fp32"}
    history = rk.train_and_eval(model, 6, *arguments, **options, progress=False)
    rk.save_weights(model, result.with_suffix(".safetensors"))
    result.with_suffix(".json").write_text(json.dumps(rows_of(history)))


def alone(seed: int, result: Path) -> None:
    """Train in a process of its own, with a folder of its own."""
    settle()
    train(seed, False, result, result)


REFUSALS = ("RuntimeError: another training", "FileExistsError", "ValueError: this is not the")


def trainings(trials: int, folder: Path, seed: int) -> Outcome:
    """Train two nets into one folder.

    By turns two others, the same one twice with `resume`, and that with the first one killed.
    """
    chance, found = random.Random(seed), Outcome()
    for number in range(2):
        started(alone, number, folder / f"alone_{number}").join()
    for number in range(trials):
        place, kind = folder / f"{number}", ("two", "same", "killed")[number % 3]
        place.mkdir()
        resume = kind != "two"
        seeds = (0, 0) if resume else (0, 1)
        results = [place / f"result_{k}" for k in range(2)]
        given = [(s, resume, place / "run", r) for s, r in zip(seeds, results, strict=True)]
        kill = chance.uniform(0.05, 0.4) if kind == "killed" else 0.0
        ends = pair(train, place, (0.0, chance.choice([0, chance.uniform(0, 0.3)])), given, kill)
        broken = [
            end
            for end in ends
            if end not in ("well", "killed" if kill else "") and not end.startswith(REFUSALS)
        ]
        broken += _of_one(place, folder, ends, seeds, results)
        found.add(" and ".join(sorted(end.split(":")[0] for end in ends)), broken, kind)
    return found


def _of_one(place: Path, folder: Path, ends: list, seeds: tuple, results: list) -> list[str]:
    """Return what shows that a folder is not one training's."""
    if "well" not in ends:
        return ["no training ended well"]
    broken = []
    alone = [read_weights(folder / f"alone_{k}.safetensors")[0] for k in range(2)]
    rows = [json.loads((folder / f"alone_{k}.json").read_text()) for k in range(2)]
    for end, number, result in zip(ends, seeds, results, strict=True):
        if end == "well" and (
            not same(read_weights(result.with_suffix(".safetensors"))[0], alone[number])
            or json.loads(result.with_suffix(".json").read_text()) != rows[number]
        ):
            broken.append("a training ended as another one")
    state = load_state(place / "run" / "last.pt")
    found = [{**row, "seconds": 0} for row in state["history"]["rows"]]
    if found not in rows:
        return [*broken, "last.pt is no training's"]
    owner = rows.index(found)
    with contextlib.suppress(FileNotFoundError):
        if same(read_weights(place / "run" / "best.safetensors")[0], alone[owner]):
            return broken
    return [*broken, "best.safetensors is another training's"]


PARTS = (
    Part("two downloads of the photos at once", downloads, 14, "6 photos"),
    Part("two drawings of a data set at once", drawings, 8, "338 drawn pictures"),
    Part("two trainings into one folder at once", trainings, 12, "120 pictures of noise"),
)
