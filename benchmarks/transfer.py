"""What the shipped weights are worth on cat, dog, ants, bees, against the same net from scratch.

    python benchmarks/transfer.py photos          needs the photos in the data root
    python benchmarks/transfer.py drawn
    python benchmarks/transfer.py photos --variants
    python benchmarks/transfer.py photos --kept

Three ways, the same number of epochs, three seeds each. Of the photos 15 % of `train` are held out
to choose the epoch, and eval/ is opened once per run, at its end. Writes
results/transfer_photos.json or results/transfer_drawn.json. With --variants fine-tuning is tried in
other ways, scored on the pictures held out alone, into results/transfer_photos_variants.json;
what is in that file already is not measured again. With --kept fine-tuning is done with pictures
that are decoded once and reduced, and with pictures that are read anew in each epoch, into
results/transfer_photos_kept.json.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torch import nn
from torchvision.transforms import v2

import resnet_kit as rk
from resnet_kit.data import Loaders
from resnet_kit.models import Weights

ROOT = Path(__file__).resolve().parent.parent
ARCH, BATCH_SIZE = "resnet18", 32


@dataclass(frozen=True)
class Way:
    """One way to train: from which weights, with which rates, on pictures cropped how."""

    origin: str | None
    head_lr: float
    backbone_lr: float  # 0 freezes the backbone
    size: int = 160  # px
    epochs: int = 8
    crop: float = 0.35  # least share of a picture's area that a random crop keeps
    trivial: bool = False  # TrivialAugment too
    head_epochs: int = 0  # of the head alone, before all of the net
    keep: bool | str = "auto"  # decoded pictures in memory, as for image_folders


BASE = Way("tiny", 1e-3, 3e-4)
# The names say what differs from BASE, besides size and epochs, which each recipe's name has.
VARIANTS = {
    "fine-tuning": BASE,
    "fine-tuning, backbone at 1e-4": replace(BASE, backbone_lr=1e-4),
    "fine-tuning, head first": replace(BASE, head_epochs=3),
    "fine-tuning, TrivialAugment": replace(BASE, trivial=True),
    "fine-tuning, larger": replace(BASE, size=192),
    "fine-tuning, largest": replace(BASE, size=224),
    "fine-tuning, longer": replace(BASE, epochs=16),
}
# The best on val of the variants that were measured.
WAYS = {
    "fine-tuning, head first": replace(BASE, head_epochs=3),
    "linear head on frozen features": Way("tiny", 1e-2, 0.0),
    "from scratch": Way(None, 1e-3, 1e-3),
}


KEPT = {
    "fine-tuning, pictures kept": replace(BASE, head_epochs=3, keep=True),
    "fine-tuning, pictures read anew": replace(BASE, head_epochs=3, keep=False),
}


def loaders_of(folder: Path, way: Way, source: Weights | None, seed: int) -> Loaders:
    share = None if (folder / "test").is_dir() else 0.15  # the drawn pictures have three splits
    crop = v2.RandomResizedCrop(way.size, scale=(way.crop, 1.0), antialias=True)
    more = [v2.TrivialAugmentWide()] if way.trivial else []
    augment = v2.Compose([crop, v2.RandomHorizontalFlip(), *more])
    return rk.image_folders(
        folder, like=source, size=way.size, batch_size=BATCH_SIZE, augment=augment,
        val_from_train=share, seed=seed, keep=way.keep,
    )  # fmt: skip


def train(way: Way, loaders: Loaders, source: Weights | None, seed: int):
    """Return the model with its best weights, and the seconds of its training."""
    model = rk.pretrained(source, num_classes=len(loaders.classes), seed=seed)
    seconds = 0.0
    if way.head_epochs or not way.backbone_lr:
        rk.freeze(model)
        rk.unfreeze(model, "fc")
    if way.head_epochs:
        seconds += fit(model, replace(way, epochs=way.head_epochs), loaders, seed)
        rk.unfreeze(model)
    return model, seconds + fit(model, way, loaders, seed)


def fit(model: nn.Module, way: Way, loaders: Loaders, seed: int) -> float:
    """Train what is not frozen, with rates that rise and fall once; return the seconds."""
    groups = rk.param_groups(model, head_lr=way.head_lr, backbone_lr=way.backbone_lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    history = rk.train_and_eval(
        model,
        way.epochs,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer,
        loaders.train,
        loaders.val,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [g["lr"] for g in groups], total_steps=way.epochs * len(loaders.train)
        ),
        scheduler_every="step",
        seed=seed,
    )
    if history.stopped != "finished":
        raise SystemExit("not finished, so nothing is recorded for this run")
    return history.seconds


def summary(rows: list[dict], split: str) -> dict:
    """Return mean and range over the seeds as a row."""
    found = [row for row in rows if row["split"] == split]
    values = [row["value"] for row in found]
    changed = {"metric": f"accuracy, mean and range over seeds (runs: {len(values)})", "seed": None}
    changed |= {"value": mean(values), "low": min(values), "high": max(values)}
    return {**found[0], **changed, "seconds": mean(row["seconds"] for row in found)}


def measure(folder: Path, recipe: str, way: Way, seeds: int, splits, about: dict) -> list[dict]:
    """Train one way with each seed; return the scores and, last, their means."""
    rows, source = [], rk.weights(ARCH, way.origin)
    for seed in range(seeds):
        loaders = loaders_of(folder, way, source, seed)
        model, seconds = train(way, loaders, source, seed)
        common = {**about, "recipe": recipe, "seed": seed, "seconds": seconds}
        for split in splits:
            result = rk.evaluate(model, getattr(loaders, split), progress=False)
            rows.append(rk.accuracy_row(result, split=split, **common))
            print(recipe, seed, split, result, f"{seconds:.0f} s")
            print(result.per_class()["recall"].round(3).to_dict(), flush=True)
    return rows + [summary(rows, split) for split in splits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", choices=["photos", "drawn"])
    parser.add_argument("--seeds", type=int, default=3)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--variants", action="store_true")
    other.add_argument("--kept", action="store_true")
    given = parser.parse_args()
    folder = rk.cat_dog_ants_bees(given.pictures)
    about = {"data": f"cat_dog_ants_bees {given.pictures}", "model": ARCH}
    ways, splits, option = WAYS, ("val", "test"), ""
    if given.variants:
        ways, splits, option = VARIANTS, ("val",), "variants"
    if given.kept:
        ways, option = KEPT, "kept"
    name = f"transfer_{given.pictures}" + (f"_{option}" if option else "")
    path = ROOT / "results" / f"{name}.json"
    command = f"python benchmarks/transfer.py {given.pictures} --seeds {given.seeds}"
    command += f" --{option}" if option else ""
    recipes = {f"{name}, {way.size} px, {way.epochs} epochs": way for name, way in ways.items()}
    if not given.variants:
        recipes = {f"{name}, crops from {way.crop:.0%}": way for name, way in recipes.items()}
    done = rk.read_results(path) if path.is_file() else {}
    known = done["rows"] if given.variants and done.get("command") == command else []
    rows = [row for row in known if row["recipe"] in recipes]
    for recipe in recipes:
        if recipe in {row["recipe"] for row in rows}:
            continue
        rows += measure(folder, recipe, recipes[recipe], given.seeds, splits, about)
        rows.sort(key=lambda row: list(recipes).index(row["recipe"]))
        rk.write_results(path, rows, command=command)


if __name__ == "__main__":
    main()
