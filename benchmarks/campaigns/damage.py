"""Damage files in every way a disk or a stranger can, and load them.

What is loaded from a damaged file is what was written, or there is our error and nothing in the
model and the optimizer has changed. A classifier whose digest is right and whose metadata are odd
is refused when it is loaded, or works.
"""

import copy
import io
import json
import math
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Outcome, Part, copy_of, environment, loader, quiet, rows_of, same, small_net
from ctrl_c import array_data
from torch import nn

import resnet_kit as rk
from resnet_kit.classifier import digest_of_file
from resnet_kit.data.loaders import Loaders
from resnet_kit.files import read_weights
from resnet_kit.models.resnets import cifar_resnet

EPOCHS = 3
KINDS = ("flipped bit", "foreign bytes", "cut", "gap", "insertion", "zeros")


def damaged(data: bytes, kind: str, chance: random.Random) -> bytes:
    """Return the bytes with one damage, half of the time near their beginning or end."""
    changed, size = bytearray(data), len(data)
    near = chance.choice([3000, size, size, 3000])
    place = chance.randrange(min(near, size))
    if chance.random() < 0.25:
        place = size - 1 - place
    length = chance.randrange(1, 100)
    if kind == "flipped bit":
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == "foreign bytes":
        changed[place : place + length] = chance.randbytes(len(changed[place : place + length]))
    elif kind == "cut":
        del changed[place:]
    elif kind == "gap":
        del changed[place : place + length]
    elif kind == "insertion":
        changed[place:place] = chance.randbytes(length)
    else:  # a block that was never written
        changed[place : place + 512] = bytes(len(changed[place : place + 512]))
    return bytes(changed)


def attacked(
    path: Path, trials: int, seed: int, load: Callable[[], list[str]], kinds=KINDS
) -> Outcome:
    """Damage a file again and again; `load` gives what is wrong with what was loaded.

    It must raise a ValueError that names the file, or return an empty list.
    """
    data, chance, found = path.read_bytes(), random.Random(seed), Outcome()
    for number in range(trials):
        kind = kinds[number % len(kinds)]
        changed = damaged(data, kind, chance)
        path.write_bytes(changed)
        if changed == data:
            found.add("the damage changed nothing")
            continue
        found.add(*_ending(path, load), about=f"{kind}, trial {number}")
    path.write_bytes(data)
    return found


def _ending(path: Path, load: Callable[[], list[str]]) -> tuple[str, list[str]]:
    """Return how a load ended, and which promises it broke."""
    try:
        with quiet():
            wrong = load()
    except ValueError as error:
        named = path.name in str(error)
        return "our error", [] if named else [f"the error does not name the file: {error}"]
    except Exception as error:
        return type(error).__name__, [f"{type(error).__name__}: {str(error)[:90]}"]
    return "loaded as it was" if not wrong else "loaded otherwise", wrong


class Resuming:
    """A training that resumes from a folder; says what is wrong when that ends otherwise."""

    def __init__(self, folder: Path):
        self.folder = folder
        model, history = self.train(None, small_net(), EPOCHS)
        self.weights, self.rows = copy_of(model.state_dict()), rows_of(history)
        self.train(folder, small_net(), 2)
        self.files = {path: path.read_bytes() for path in folder.iterdir()}

    def train(self, place: Path | None, model: nn.Module, epochs: int):
        """Train or resume; an error carries on after a look at model and optimizer."""
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        before, state = copy_of(model.state_dict()), copy.deepcopy(optimizer.state_dict())
        options = {"checkpoint": place, "resume": place is not None}
        arguments = nn.CrossEntropyLoss(), optimizer, loader(0, shuffle=True), loader(1)
        try:
            history = rk.train_and_eval(
                model, epochs, *arguments, **options, precision="fp32", progress=False
            )
        except Exception as error:
            if not same(model.state_dict(), before) or optimizer.state_dict() != state:
                raise AssertionError(f"refused, but the model has changed: {error}") from error
            raise
        return model, history

    def __call__(self) -> list[str]:
        """Resume from what is in the folder now, and put the whole files back."""
        model = small_net()
        nn.init.zeros_(model.fc.weight)  # a resumed training takes nothing from its model
        try:
            model, history = self.train(self.folder, model, EPOCHS)
        finally:
            for path, data in self.files.items():
                path.write_bytes(data)
        broken = [] if rows_of(history) == self.rows else ["the history differs"]
        return broken + ([] if same(model.state_dict(), self.weights) else ["the weights differ"])


def resume_states(trials: int, folder: Path, seed: int) -> Outcome:
    """Damage last.pt and resume."""
    with quiet():
        resume = Resuming(folder)
    return attacked(folder / "last.pt", trials, seed, resume)


def flipped_resume_states(trials: int, folder: Path, seed: int) -> Outcome:
    """Flip one bit of last.pt and resume."""
    with quiet():
        resume = Resuming(folder)
    return attacked(folder / "last.pt", trials, seed, resume, ("flipped bit",))


def foreign_states(state: dict) -> dict[str, bytes]:
    """Return files that are no resume state, and states that lack or twist something."""
    model = small_net().state_dict()
    lightning = {"epoch": 3, "global_step": 9, "state_dict": model, "optimizer_states": []}
    contents = {
        "a state_dict": model,
        "a checkpoint of Lightning": lightning,
        "a checkpoint of a script": {"model": model, "optimizer": {}, "epoch": 3},
        "a list": [1, 2, 3],
        "a string": "weights",
        "a number": 7,
        "nothing": None,
        "a tensor": torch.zeros(3),
        "a history that is a list": {**state, "history": []},
        "a history of foreign rows": {**state, "history": {**state["history"], "rows": [{}]}},
        "rows that are text": {**state, "history": {**state["history"], "rows": ["a", "b"]}},
        "a best epoch beyond the rows": {**state, "history": {**state["history"], "best_epoch": 9}},
        "an optimizer that is a list": {**state, "optimizer": []},
        "an optimizer of nothing": {**state, "optimizer": {"state": {}, "param_groups": []}},
        "best weights of another model": {**state, "best": nn.Linear(2, 2).state_dict()},
        "weights of another model": {**state, "model": nn.Linear(2, 2).state_dict()},
        "weights that are lists": {**state, "model": {key: [1.0] for key in model}},
        "weights of half precision": {**state, "model": {k: v.half() for k, v in model.items()}},
    }
    contents |= {f"no {name}": {k: v for k, v in state.items() if k != name} for name in state}
    contents |= {f"{name} is None": {**state, name: None} for name in state if state[name]}
    return {name: _torch_bytes(content) for name, content in contents.items()}


def _torch_bytes(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _zip_bytes() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return file.getvalue()


def foreign(trials: int, folder: Path, seed: int) -> Outcome:
    """Put foreign files in the place of last.pt and resume."""
    with quiet():
        resume = Resuming(folder)
    path, found = folder / "last.pt", Outcome()
    kinds = foreign_states(torch.load(path, weights_only=True))
    kinds |= {
        "an empty file": b"",
        "a zip": _zip_bytes(),
        "a pickle": pickle.dumps({"rows": []}),
        "text": b"epoch 3",
        "an .npz": _npz_bytes(a=np.zeros(3)),
        "safetensors": (folder / "best.safetensors").read_bytes(),
    }
    names = list(kinds)
    random.Random(seed).shuffle(names)
    for name in names[:trials]:
        path.write_bytes(kinds[name])
        found.add(*_ending(path, resume), about=name)
    return found


def weights_files(trials: int, folder: Path, seed: int) -> Outcome:
    """Flip bits of best.safetensors and load it as weights."""
    path = rk.save_weights(small_net(), folder / "best.safetensors", metadata={"epoch": 1})
    return attacked(path, trials, seed, _loading(path), ("flipped bit",))


def torch_files(trials: int, folder: Path, seed: int) -> Outcome:
    """Flip bits of a state_dict that torch.save wrote, and load it as weights."""
    path = folder / "weights.pth"
    torch.save(small_net().state_dict(), path)
    return attacked(path, trials, seed, _loading(path), ("flipped bit",))


def _loading(path: Path) -> Callable[[], list[str]]:
    weights = copy_of(small_net().state_dict())

    def load() -> list[str]:
        model = small_net()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        before = copy_of(model.state_dict())
        try:
            rk.load_weights(model, path)
        except ValueError as error:
            if not same(model.state_dict(), before):
                raise AssertionError(f"refused, but the model has changed: {error}") from error
            raise
        return [] if same(model.state_dict(), weights) else ["other weights, without a word"]

    return load


def _npz_bytes(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tiny_mnist() -> dict[str, np.ndarray]:
    """Return arrays as named_dataset keeps them."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 40), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    return {**arrays, "classes": np.array([str(number) for number in range(10)])}


def contents_of(loaders: Loaders) -> list[torch.Tensor]:
    """Return all pictures and labels of loaders of arrays."""
    splits = [loaders.plain(name).dataset for name in ("train", "val", "test")]
    return [part for split in splits for part in (split.images, split.labels)]


def named_sets(trials: int, folder: Path, seed: int) -> Outcome:
    """Flip bits and cut pieces of a data set's .npz, and load it by name."""
    path = folder / "mnist.npz"
    np.savez(path, **tiny_mnist())
    options = {"download": False, "val_from_train": 0.25}
    with environment(RESNET_KIT_DATA=folder):
        whole = rk.named_dataset("mnist", **options)

        def load() -> list[str]:
            found = rk.named_dataset("mnist", **options)
            pairs = zip(contents_of(found), contents_of(whole), strict=True)
            alike = found.classes == whole.classes and all(torch.equal(a, b) for a, b in pairs)
            return [] if alike else ["other pictures or labels, without a word"]

        return attacked(path, trials, seed, load, ("flipped bit", *KINDS))


def saved_classifier(folder: Path) -> Path:
    """Write a small classifier that was not trained."""
    torch.manual_seed(0)
    with quiet():
        model, data = cifar_resnet(8, 3, in_channels=1), array_data(1)
        return rk.save_classifier(folder / "classifier.safetensors", model, data)


PICTURES = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)


def classifier_files(trials: int, folder: Path, seed: int) -> Outcome:
    """Damage a classifier, half of the time by a flipped bit, and load it."""
    path = saved_classifier(folder)
    whole = rk.load_classifier(path)

    def load() -> list[str]:
        found = rk.load_classifier(path)
        alike = found.about == whole.about
        alike = alike and same(found.model.state_dict(), whole.model.state_dict())
        return [] if alike else ["another classifier, without a word"]

    kinds = [kind for other in KINDS for kind in ("flipped bit", other)]
    return attacked(path, trials, seed, load, kinds)


ODD = (
    None, True, False, 0, 1, -1, 2, 3.5, 1e-320, 1e300, 10**9, 10**30, -(10**9),
    math.nan, math.inf, -math.inf, "", "a", "8", "nan", [], [None], [1], [0.5, 0.5], [0.5] * 3,
    [math.nan], [0.0], [-1.0], [[0.5]], ["a"], ["a", "a", "a"], {}, {"name": "resnet18"},
    {"name": "no such net"}, {"name": None}, {"name": "cifar_resnet"}, "x" * 5000, [0.5] * 5000,
)  # fmt: skip


def mutated(about: dict, chance: random.Random) -> tuple[dict, str]:
    """Return metadata with one or two odd changes, and what they are."""
    changed, words = copy.deepcopy(about), []
    for _ in range(chance.choice([1, 1, 1, 2])):
        within = chance.choice([changed] * 4 + [changed.get("built")])
        within = within if isinstance(within, dict) and within else changed
        key = chance.choice([key for key in within if key != "format"] or ["size"])
        how = chance.choice(["odd"] * 6 + ["missing", "extra", "element"])
        old = within.get(key)
        if how == "missing":
            within.pop(key, None)
        elif how == "extra":
            within[key + "_too"] = chance.choice(ODD)
        elif how == "element" and isinstance(old, list) and old:
            old[chance.randrange(len(old))] = chance.choice(ODD)
        else:
            within[key] = chance.choice(ODD)
        words.append(f"{key} {how} {str(within.get(key))[:30]}")
    return changed, ", ".join(words)


def odd_classifiers(trials: int, folder: Path, seed: int) -> Outcome:
    """Change the metadata of a classifier and give it the right digest; load it and predict."""
    tensors, about = read_weights(saved_classifier(folder))
    about.pop("digest")
    chance, found = random.Random(seed), Outcome()
    path = folder / "odd.safetensors"
    for _ in range(trials):
        changed, words = mutated(about, chance)
        changed["digest"] = digest_of_file(tensors, changed)
        rk.save_weights(tensors, path, metadata=changed)
        with quiet():
            found.add(*_loaded_and_used(path), about=words)
    return found


def _loaded_and_used(path: Path) -> tuple[str, list[str]]:
    """Return how a classifier of odd metadata ends, and what is wrong with that."""
    try:
        classifier = rk.load_classifier(path)
    except ValueError:
        return "refused when it is loaded", []
    except Exception as error:
        return "raw error at load", [f"load: {error!r}"[:120]]
    broken = use(classifier)
    return "raw error in use" if broken else "works", broken


def use(classifier) -> list[str]:
    """Return what is wrong with a classifier that was loaded."""
    try:
        repr(classifier)
        table = classifier.predict(list(PICTURES))
        problems = table["problem"].tolist() if "problem" in table else []
        sound = table["confidence"].between(0, 1).all() and not problems
        json.dumps(classifier.about)
    except Exception as error:
        return [f"use: {error!r}"[:120]]
    named = set(table["predicted"]) <= set(classifier.classes)
    if not sound or not named:
        return [f"predictions make no sense: {table.iloc[0].to_dict()}"[:160]]
    return []


PARTS = (
    Part("damaged last.pt, resumed", resume_states, 150),
    Part("flipped bits in last.pt, resumed", flipped_resume_states, 200),
    Part("foreign files in the place of last.pt, resumed", foreign, 45),
    Part("flipped bits in best.safetensors, load_weights", weights_files, 200),
    Part("flipped bits in a .pth, load_weights", torch_files, 200),
    Part("damaged .npz, named_dataset", named_sets, 200, "60 pictures of noise"),
    Part("damaged classifiers, load_classifier", classifier_files, 400, model="ResNet-8"),
    Part("classifiers with odd metadata and a right digest", odd_classifiers, 1200,
         model="ResNet-8"),
)  # fmt: skip
