"""Plain and residual nets of 20 and 56 layers on CIFAR-10: the error per epoch.

    python benchmarks/degradation.py CIFAR10 [--lr 0.02] [--epochs 10] [--pictures 10000]

CIFAR10 is an .npz with train_images (50000, 32, 32, 3) uint8 and train_labels. The recipe is the
paper's (https://arxiv.org/abs/1512.03385, section 4.2): SGD in batches of 128, a tenth of the rate
after half and after three quarters of the epochs, weight decay 1e-4, pad by 4 and crop, flip. The
paper's rate and length are --lr 0.1 --epochs 182 --pictures 45000; in a few epochs at 0.1 the nets
of 56 layers, the residual one too, hardly get going. The last 5,000 training pictures are the
validation. Writes results/degradation.json after each net; the same command goes on with the next.
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


def train(loaders: Loaders, net: dict, lr: float, epochs: int, seed: int) -> History:
    """Train a net by the paper's recipe, shortened to so many epochs."""
    rk.seed_everything(seed)
    model = cifar_resnet(**net)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    history = rk.train_and_eval(
        model, epochs, nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val,
        scheduler=scheduler, seed=seed,
    )  # fmt: skip
    if history.stopped != "finished":
        raise SystemExit("Not finished; the same command goes on with this net.")
    return history


def rows_of(name: str, history: History, recipe: str, pictures: int, seed: int) -> list[dict]:
    """Return the errors of the last epoch, on the training pictures as augmented and on val."""
    last = history.rows[-1]
    sets = (("train", last["train_accuracy"], pictures), ("val", last["val_accuracy"], VAL))
    rows = []
    for split, accuracy, n in sets:
        low, high = wilson_interval(round((1 - accuracy) * n), n)
        row = {"data": "cifar10", "split": split, "model": name, "recipe": recipe, "n": n}
        row |= {"metric": "error of the last epoch", "value": 1 - accuracy, "low": low}
        rows.append(row | {"high": high, "seed": seed, "seconds": history.seconds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cifar10", type=Path, help="cifar10.npz")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    loaders = cifar10(given.cifar10, given.pictures)
    command = (
        f"python benchmarks/degradation.py CIFAR10 --lr {given.lr} --epochs {given.epochs} "
        f"--pictures {given.pictures} --seeds {given.seeds}"
    )
    done = rk.read_results(RESULTS) if RESULTS.is_file() else {}
    if done.get("command") != command:
        done = {"rows": [], "curves": {}}
    rows, curves = done["rows"], done["curves"]
    recipe = f"rate {given.lr}, {given.epochs} epochs of {given.pictures:,} pictures"
    for seed in range(given.seeds):
        for name, net in NETS.items():
            if (key := f"{name}, seed {seed}") in curves:
                continue
            history = train(loaders, net, given.lr, given.epochs, seed)
            rows += rows_of(name, history, recipe, given.pictures, seed)
            curves[key] = history.rows
            rk.write_results(RESULTS, rows, command=command, curves=curves)
            print(key, history, flush=True)


if __name__ == "__main__":
    main()
