"""What the shipped weights are worth on cat, dog, ants, bees, against the same net from scratch.

    python benchmarks/transfer.py photos          needs the photos in the data root
    python benchmarks/transfer.py drawn

Three ways, the same number of epochs, three seeds each. Of the photos 15 % of `train` are held out
to choose the epoch, and eval/ is opened once per run, at its end. Writes
results/transfer_photos.json or results/transfer_drawn.json.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import nn

import resnet_kit as rk

ROOT = Path(__file__).resolve().parent.parent
ARCH, SIZE, BATCH_SIZE, EPOCHS = "resnet18", 128, 32, 8
# name: (weights, frozen backbone, rate of the head, rate of the backbone)
WAYS = {
    "fine-tuning": ("tiny", False, 1e-3, 3e-4),
    "linear head on frozen features": ("tiny", True, 1e-2, 0.0),
    "from scratch": (None, False, 1e-3, 1e-3),
}


def run(
    folder: Path, way: str, seed: int, epochs: int
) -> tuple[rk.Evaluation, rk.Evaluation, float]:
    """Train one way with one seed; return the scores on val and test and the seconds."""
    origin, frozen, head_lr, backbone_lr = WAYS[way]
    source = rk.weights(ARCH, origin)
    share = None if (folder / "test").is_dir() else 0.15  # the drawn pictures have three splits
    loaders = rk.image_folders(
        folder, like=source, size=SIZE, batch_size=BATCH_SIZE, val_from_train=share, seed=seed
    )
    rk.seed_everything(seed)
    model = rk.pretrained(source, num_classes=len(loaders.classes))
    if frozen:
        rk.freeze(model)
        rk.unfreeze(model, "fc")
    groups = rk.param_groups(model, head_lr=head_lr, backbone_lr=backbone_lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    history = rk.train_and_eval(
        model,
        epochs,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer,
        loaders.train,
        loaders.val,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [g["lr"] for g in groups], total_steps=epochs * len(loaders.train)
        ),
        scheduler_every="step",
        seed=seed,
    )
    if history.stopped != "finished":
        raise SystemExit("not finished, so nothing is recorded for this run")
    val, test = (rk.evaluate(model, x, progress=False) for x in (loaders.val, loaders.test))
    return val, test, history.seconds


def summary(rows: list[dict], split: str, recipe: str) -> dict:
    """Return mean and range over the seeds as a row."""
    found = [row for row in rows if (row["split"], row["recipe"]) == (split, recipe)]
    values = [row["value"] for row in found]
    changed = {"metric": f"accuracy, mean and range over seeds (runs: {len(values)})", "seed": None}
    changed |= {"value": mean(values), "low": min(values), "high": max(values)}
    return {**found[0], **changed, "seconds": mean(row["seconds"] for row in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", choices=["photos", "drawn"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    folder, rows = rk.cat_dog_ants_bees(given.pictures), []
    about = {"data": f"cat_dog_ants_bees {given.pictures}", "model": ARCH}
    recipes = {way: f"{way}, {SIZE} px, {given.epochs} epochs" for way in WAYS}
    for seed in range(given.seeds):
        for way, recipe in recipes.items():
            *results, seconds = run(folder, way, seed, given.epochs)
            common = {**about, "recipe": recipe, "seed": seed, "seconds": seconds}
            for split, result in zip(("val", "test"), results, strict=True):
                rows.append(rk.accuracy_row(result, split=split, **common))
            print(seed, recipe, *results, f"{seconds:.0f} s", flush=True)
    rows += [
        summary(rows, split, recipe) for recipe in recipes.values() for split in ("val", "test")
    ]
    command = f"python benchmarks/transfer.py {given.pictures} --epochs {given.epochs}"
    path = ROOT / "results" / f"transfer_{given.pictures}.json"
    rk.write_results(path, rows, command=f"{command} --seeds {given.seeds}")


if __name__ == "__main__":
    main()
