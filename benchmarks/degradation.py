"""Plain and residual nets of 20 and 56 layers on CIFAR-10, each at its own best learning rate.

    python benchmarks/degradation.py CIFAR10 [--epochs 20] [--pictures 10000] [--search 4]

CIFAR10 is an .npz with train_images (50000, 32, 32, 3) uint8 and train_labels. The recipe is the
paper's (https://arxiv.org/abs/1512.03385, section 4.2): SGD in batches of 128, momentum 0.9, a
tenth of the rate after half of the epochs and a hundredth after three quarters, weight decay 1e-4,
pad by 4 and crop, flip. The last 5,000 training pictures are the validation.

One rate for all would favour the nets that it suits. So each net is first trained for a few epochs
(--search), with the same schedule squeezed into them, at 0.01, 0.03 and 0.1, and then at the
neighbours of the best rate until these were tried too. Val decides. The long training begins from
new weights. Its errors are those of the weights after each epoch, in eval mode: on the training
pictures as they are, without augmentation, and on val.

The paper's length is --epochs 182 --pictures 45000. Stopped at any moment, the same command goes on
after the last finished epoch: the states lie in the data root, in the folder `degradation`. Writes
results/degradation.json after each net.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import resnet_kit as rk
from resnet_kit.data import Loaders
from resnet_kit.data.arrays import Crop, Flip
from resnet_kit.evaluation import wilson_interval
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.training import History

VAL = 5000  # pictures
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FIRST_RATES = (0.01, 0.03, 0.1)
RESULTS = Path(__file__).resolve().parent.parent / "results" / "degradation.json"
NETS = {
    f"{kind} {depth}": {"depth": depth, "plain": kind == "plain"}
    for kind in ("plain", "residual")
    for depth in (20, 56)
}


def cifar10(path: Path, pictures: int) -> Loaders:
    """Return the first pictures to learn from and the last `VAL` to validate on."""
    with np.load(path) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    if not 1 <= pictures <= len(images) - VAL:
        raise SystemExit(f"--pictures is {pictures}; expected 1 to {len(images) - VAL}")
    return rk.array_loaders(
        train=(images[:pictures], labels[:pictures]),
        val=(images[-VAL:], labels[-VAL:]),
        augment=[Crop(4), Flip()],
    )


def folder_of(name: str, lr: float, epochs: int, pictures: int, seed: int) -> Path:
    """Return where a training keeps its states: one folder each."""
    about = f"{name} rate {lr} epochs {epochs} pictures {pictures} seed {seed}"
    return rk.data_root() / "degradation" / about.replace(" ", "_")


def train(loaders: Loaders, net: dict, lr: float, epochs: int, seed: int, folder: Path) -> History:
    """Train a net, or go on with it, and keep the weights after each epoch in `folder`."""
    rk.seed_everything(seed)
    model = cifar_resnet(**net)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    history = rk.train_and_eval(
        model,
        epochs,
        nn.CrossEntropyLoss(),
        optimizer,
        loaders.train,
        loaders.val,
        scheduler=torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4]),
        seed=seed,
        checkpoint=folder,
        checkpoint_every=1,
        resume=True,
    )
    if history.stopped == "interrupted":
        raise SystemExit("Not finished; the same command goes on after the last finished epoch.")
    print(folder.name, history, flush=True)
    return history


def search(name: str, loaders: Loaders, given: argparse.Namespace, seed: int) -> dict[float, float]:
    """Return val accuracies by rate, 0 where the loss was not finite, beside the best rate too."""
    found, wanted = {}, list(FIRST_RATES)
    while wanted:
        for lr in wanted:
            folder = folder_of(name, lr, given.search, given.pictures, seed)
            history = train(loaders, NETS[name], lr, given.search, seed, folder)
            ended = history.stopped == "finished"
            found[lr] = history.rows[-1]["val_accuracy"] if ended else 0.0
        place = RATES.index(max(found, key=found.get))
        wanted = [lr for lr in RATES[max(0, place - 1) : place + 2] if lr not in found]
    return found


def curve_of(net: dict, history: History, folder: Path, loaders: Loaders) -> list[dict]:
    """Return the rows per epoch, what they say of train measured anew, in eval mode."""
    model = cifar_resnet(**net).to(memory_format=torch.channels_last)  # half the time
    pictures, rows = loaders.plain("train"), []
    for row in history.rows:
        rk.load_weights(model, folder / f"epoch_{row['epoch']:04d}.safetensors")
        result = rk.evaluate(model, pictures, precision="auto", progress=False)
        rows.append(row | {"train_loss": result.loss, "train_accuracy": result.accuracy})
    return rows


def row_of(split: str, name: str, recipe: str, metric: str, value: float, n: int, **more) -> dict:
    """Return a row of results: a share of n pictures with its 95 % interval."""
    low, high = wilson_interval(round(value * n), n)
    row = {"data": "cifar10", "split": split, "model": name, "recipe": recipe, "metric": metric}
    return row | {"value": value, "low": low, "high": high, "n": n} | more


def record(
    name: str, loaders: Loaders, given: argparse.Namespace, seed: int
) -> tuple[list[dict], list[dict]]:
    """Find the best rate of a net and train it at length; return rows and the curve."""
    found, rows = search(name, loaders, given, seed), []
    for lr, accuracy in sorted(found.items()):
        recipe = f"search: rate {lr}, {given.search} epochs of {given.pictures:,} pictures"
        about = {"lr": lr, "seed": seed, "seconds": None}
        rows.append(row_of("val", name, recipe, "accuracy in the search", accuracy, VAL, **about))
    best = max(found, key=found.get)
    folder = folder_of(name, best, given.epochs, given.pictures, seed)
    history = train(loaders, NETS[name], best, given.epochs, seed, folder)
    if history.stopped != "finished":
        raise SystemExit(f"{name} at {best}: the loss is not finite; try a longer --search")
    curve = curve_of(NETS[name], history, folder, loaders)
    recipe = f"rate {best}, {given.epochs} epochs of {given.pictures:,} pictures"
    about = {"lr": best, "seed": seed, "seconds": history.seconds}
    for split, n in (("train", given.pictures), ("val", VAL)):
        error = 1 - curve[-1][f"{split}_accuracy"]
        rows.append(row_of(split, name, recipe, "error of the last epoch", error, n, **about))
    return rows, curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cifar10", type=Path, help="cifar10.npz")
    parser.add_argument("--epochs", type=int, default=20, help="of the long trainings")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--search", type=int, default=4, help="epochs at each rate")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    loaders = cifar10(given.cifar10, given.pictures)
    command = (
        f"python benchmarks/degradation.py CIFAR10 --epochs {given.epochs} "
        f"--pictures {given.pictures} --search {given.search} --seeds {given.seeds}"
    )
    done = rk.read_results(RESULTS) if RESULTS.is_file() else {}
    if done.get("command") != command:
        done = {"rows": [], "curves": {}}
    rows, curves = done["rows"], done["curves"]
    for seed in range(given.seeds):
        for name in NETS:
            if (key := f"{name}, seed {seed}") in curves:
                continue
            new_rows, curves[key] = record(name, loaders, given, seed)
            rows += new_rows
            rk.write_results(RESULTS, rows, command=command, curves=curves)
            print(key, f"error {rows[-2]['value']:.1%} train, {rows[-1]['value']:.1%} val")


if __name__ == "__main__":
    main()
