r"""Pre-train torchvision's ResNet-18 on Tiny ImageNet: the weights that travel with the package.

    python benchmarks/pretraining.py FOLDER --short           compare settings in short runs
    python benchmarks/pretraining.py FOLDER --epochs 14       a long run; again: resumes it

and, on a GPU, the run that made the shipped file (the size to transfer at was measured by
benchmarks/transfer_size.py):

    python benchmarks/pretraining.py FOLDER --epochs 60 --sizes 1:64,34:96,52:128 --lr 0.4 \
        --batch-size 512 --label-smoothing 0 --augment crop:0.25,flip,jitter:0.4 \
        --transfer-size 160 --no-checkpoint

FOLDER is tiny-imagenet-200, unpacked from http://cs231n.stanford.edu/tiny-imagenet-200.zip. The
long run keeps its state in FOLDER/pretraining and at its end writes results/pretraining.json and
resnet_kit/models/shipped/resnet18-tiny-XXXXXXXX.safetensors. Notebook 10 explains the recipe.
"""

import argparse
import hashlib
import math
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import v2

import resnet_kit as rk
from resnet_kit.data import Loaders, TransformedLoader
from resnet_kit.data.arrays import ColorJitter, Crop, Flip, ResizedCrop
from resnet_kit.evaluation import Evaluation, wilson_interval
from resnet_kit.files import atomic_file

ROOT = Path(__file__).resolve().parent.parent
DATA = "Tiny ImageNet"
WARM_UP = 100  # steps
SOURCE = ("command", "date", "hardware", "versions")  # of a document of results


@dataclass(frozen=True)
class Recipe:
    """How to train: sizes are pixels from an epoch on; the schedule is per step."""

    epochs: int
    sizes: dict
    lr: float = 0.2
    schedule: str = "trapezoid"
    batch_size: int = 256
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    augment: tuple = (ResizedCrop(0.35), Flip())
    cutmix: bool = False
    average: float | None = None


def read_tiny_imagenet(folder: Path) -> dict[str, np.ndarray]:
    """Return pictures (N, 64, 64, 3), labels, and the classes' wnids and words; keeps a copy."""
    cache = folder / "arrays.npz"
    if not cache.is_file():
        wnids = sorted((folder / "wnids.txt").read_text().split())
        words = dict(x.split("\t", 1) for x in (folder / "words.txt").read_text().splitlines())
        train = [(f, w) for w in wnids for f in sorted((folder / "train" / w).rglob("*.JPEG"))]
        notes = (folder / "val" / "val_annotations.txt").read_text().splitlines()
        val = [(folder / "val" / "images" / n.split("\t")[0], n.split("\t")[1]) for n in notes]
        arrays = {"wnids": np.array(wnids), "words": np.array([words[w] for w in wnids])}
        for name, pairs in (("train", train), ("val", val)):
            with ThreadPoolExecutor() as pool:
                pictures = list(pool.map(lambda pair: rk.read_image(pair[0]), pairs))
            arrays[f"{name}_images"] = torch.stack(pictures).permute(0, 2, 3, 1).numpy()
            arrays[f"{name}_labels"] = np.array([wnids.index(w) for _, w in pairs])
        with atomic_file(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    with np.load(cache) as arrays:
        return dict(arrays)


def some_classes(data: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return every 200 / count-th class only."""
    chosen = np.arange(0, len(data["wnids"]), len(data["wnids"]) // count)[:count]
    small = {"wnids": data["wnids"][chosen], "words": data["words"][chosen]}
    for name in ("train", "val"):
        rows = np.isin(data[f"{name}_labels"], chosen)
        small[f"{name}_images"] = data[f"{name}_images"][rows]
        small[f"{name}_labels"] = np.searchsorted(chosen, data[f"{name}_labels"][rows])
    return small


def loaders_for(data: dict[str, np.ndarray], recipe: Recipe, seed: int) -> Loaders:
    """Return both splits in memory."""
    return rk.array_loaders(
        train=(data["train_images"], data["train_labels"]),
        val=(data["val_images"], data["val_labels"]),
        classes=[str(wnid) for wnid in data["wnids"]],
        size=recipe.sizes,
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        seed=seed,
    )


def lr_factor(step: int, *, steps: int, warm_up: int, schedule: str) -> float:
    """Return the share of the highest rate at a step: up, then down to 0 by one of two shapes.

    "trapezoid" stays at the top and falls linearly in the last third, so that a run can be made
    longer later without starting again; "cosine" falls all the way.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    left = (steps - step) / (steps - warm_up)
    if schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return min(1.0, (steps - step) / (steps / 3))


def train(loaders, recipe: Recipe, *, seed: int, until=None, checkpoint=None, on_epoch_end=None):
    """Train a new ResNet-18 by the recipe, or its first epochs; return it and its history."""
    rk.seed_everything(seed)
    model = resnet18(num_classes=len(loaders.classes))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases and BatchNorm
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(
        groups, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = len(loaders.train)
    shape = {"steps": recipe.epochs * steps, "warm_up": WARM_UP, "schedule": recipe.schedule}
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(s, **shape))
    batches = loaders.train
    if recipe.cutmix:
        mix = v2.RandomApply([v2.CutMix(num_classes=len(loaders.classes))], p=0.5)
        batches = TransformedLoader(loaders.train, mix)
    history = rk.train_and_eval(
        model,
        until or recipe.epochs,
        nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        optimizer,
        batches,
        loaders.val,
        scheduler=scheduler,
        scheduler_every="step",
        average=recipe.average,
        seed=seed,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        on_epoch_end=on_epoch_end,
    )
    return model, history


BASE = Recipe(epochs=6, sizes={1: 32}, lr=0.1, batch_size=128)
SHORT = {
    "base": BASE,
    "color jitter too": replace(BASE, augment=(*BASE.augment, ColorJitter(0.4))),
    "averaged weights (0.99)": replace(BASE, average=0.99),
    "highest rate 0.03 instead of 0.1": replace(BASE, lr=0.03),
    "highest rate 0.3": replace(BASE, lr=0.3),
    "padded crop instead of resized": replace(BASE, augment=(Crop(8), Flip())),
    "cosine instead of trapezoid": replace(BASE, schedule="cosine"),
    "CutMix in half the batches": replace(BASE, cutmix=True),
    "64 px in the last two epochs": replace(BASE, sizes={1: 32, 5: 64}),
}


def short_runs(folder: Path, seed: int) -> None:
    """Train six epochs on 20 of the classes with each setting; settings that are done are kept."""
    path = ROOT / "results" / "pretraining_short.json"
    command = f"python benchmarks/pretraining.py FOLDER --short --seed {seed}"
    done = rk.read_results(path) if path.is_file() else {"command": command, "rows": []}
    if done["command"] != command:
        raise SystemExit(f"{path.name} holds the runs of: {done['command']}; move it away")
    rows, curves = done["rows"], done.get("curves", {})
    data = some_classes(read_tiny_imagenet(folder), 20)
    about = {"data": f"{DATA}, 20 classes", "split": "val", "model": "resnet18", "seed": seed}
    for name, recipe in SHORT.items():
        if name in curves:
            continue
        model, history = train(loaders := loaders_for(data, recipe, seed), recipe, seed=seed)
        if history.stopped != "finished":
            raise SystemExit("Not finished; the same command goes on with this setting.")
        result = rk.evaluate(model, loaders.val, progress=False)
        rows.append(rk.accuracy_row(result, recipe=name, seconds=history.seconds, **about))
        curves[name] = history.rows
        print(name, result, f"{history.seconds:.0f} s", flush=True)
        rk.write_results(path, rows, command=command, curves=curves)


def augmentation(text: str) -> tuple:
    """Return the batch augmentations that "crop:0.35,flip,jitter:0.4" names, in this order."""
    known = {"crop": ResizedCrop, "flip": Flip, "jitter": ColorJitter}
    steps = []
    for part in text.split(","):
        name, _, strength = part.partition(":")
        steps.append(known[name](float(strength)) if strength else known[name]())
    return tuple(steps)


def long_run(folder: Path, recipe: Recipe, given: argparse.Namespace, command: str) -> None:
    """Train on all classes, going on where an earlier call stopped; score and ship the result."""
    seed, until = given.seed, given.until or given.epochs
    data = read_tiny_imagenet(folder)
    loaders = loaders_for(data, recipe, seed)
    model, history = train(
        loaders,
        recipe,
        seed=seed,
        until=until,
        checkpoint=None if given.no_checkpoint else folder / "pretraining",
        on_epoch_end=lambda history: print(history, history.rows[-1], flush=True),
    )
    if history.stopped != "finished":
        print("Not finished, so nothing is shipped; the same command goes on with it.")
        return
    if given.score_at is not None:
        loaders = loaders_for(data, replace(recipe, sizes={1: given.score_at}), seed)
    full = rk.evaluate(model, loaders.val, progress=False)
    model.load_state_dict(half_precision(model))  # computes in float32 with the rounded numbers
    half = rk.evaluate(model, loaders.val, progress=False)
    about = {"data": DATA, "split": "val", "model": "resnet18", "seed": seed}
    rows = [
        accuracy_at(result, top, recipe=name, seconds=history.seconds, **about)
        for result, name in ((full, "float32"), (half, "shipped: float16"))
        for top in (1, 5)
    ]
    path = ROOT / "results" / "pretraining.json"
    rk.write_results(path, rows, command=command, curves={"long run": history.rows})
    about = {"recipe": str(recipe), "epochs": len(history.rows), "seconds": history.seconds}
    about |= {key: rk.read_results(path)[key] for key in SOURCE}
    ship(half_precision(model), loaders, data, rows[-2:], given.transfer_size, about)


def half_precision(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights with float16 for all but BatchNorm, whose numbers need the range."""
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    return {
        name: tensor if name.rpartition(".")[0] in norms else tensor.half()
        for name, tensor in model.state_dict().items()
    }


def accuracy_at(result: Evaluation, top: int, **about) -> dict:
    """Return a row of results: the share of pictures whose class is among the `top` likeliest."""
    likeliest = np.argsort(-result.probabilities, axis=1)[:, :top]
    correct = int((likeliest == result.labels[:, None]).any(1).sum())
    low, high = wilson_interval(correct, len(result.labels))
    row = rk.accuracy_row(result, **about)
    metric = "accuracy" if top == 1 else f"top-{top} accuracy"
    return {**row, "metric": metric, "value": correct / row["n"], "low": low, "high": high}


def ship(
    weights: dict, loaders: Loaders, data: dict, rows: list[dict], transfer_size: int, about: dict
) -> None:
    """Write the weights into the package, all that is known of them inside, a hash as name.

    `size` is the one to transfer at, where `like=` finds it; `scored_at` that of the scores.
    """
    metadata = {
        "arch": "resnet18",
        "data": f"{DATA}: 100,000 photos of 64 px, 200 classes; a part of ImageNet",
        "source": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "wnids": list(loaders.classes),
        "classes": [str(words).split(",")[0] for words in data["words"]],
        "words": [str(words) for words in data["words"]],
        "size": transfer_size or loaders.size,
        "scored_at": loaders.size,
        "mean": loaders.mean,
        "std": loaders.std,
        "top1": rows[0]["value"],
        "top5": rows[1]["value"],
        "measured_on": f"{rows[0]['n']:,} validation pictures, which also chose the epoch",
    }
    path = write_shipped(weights, "resnet18-tiny", metadata | about)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, top-1 {rows[0]['value']:.2%}")


def write_shipped(weights: dict, name: str, metadata: dict) -> Path:
    """Write a file of weights into the package in the place of those of this name."""
    folder = ROOT / "resnet_kit" / "models" / "shipped"
    path = rk.save_weights(weights, folder / "new.safetensors", metadata=metadata)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.replace(folder / f"{name}-{digest}.safetensors")
    for old in set(folder.glob(f"{name}-*.safetensors")) - {path}:
        old.unlink()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="tiny-imagenet-200")
    parser.add_argument("--short", action="store_true", help="compare settings in short runs")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--until", type=int, help="ship what is best after this epoch, go on later")
    parser.add_argument("--sizes", default="1:64,9:80,13:96", help="pixels from an epoch on")
    parser.add_argument("--lr", type=float, default=0.2, help="the highest rate")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--augment", default="crop:0.35,flip", help="crop, flip, jitter: strength")
    parser.add_argument("--cutmix", action="store_true", help="in half the batches")
    parser.add_argument("--no-checkpoint", action="store_true", help="a run that is not resumed")
    parser.add_argument("--transfer-size", type=int, help="pixels that `like=` takes")
    parser.add_argument("--score-at", type=int, help="pixels of the final score; default the last")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.short:
        short_runs(given.folder, given.seed)
        return
    sizes = dict(map(int, part.split(":")) for part in given.sizes.split(","))
    recipe = Recipe(
        given.epochs,
        sizes,
        lr=given.lr,
        batch_size=given.batch_size,
        label_smoothing=given.label_smoothing,
        augment=augmentation(given.augment),
        cutmix=given.cutmix,
        average=0.998,
    )
    options = [part for part in sys.argv[1:] if part != str(given.folder)]
    command = shlex.join(["python", "benchmarks/pretraining.py", "FOLDER", *options])
    long_run(given.folder, recipe, given, command)


if __name__ == "__main__":
    main()
