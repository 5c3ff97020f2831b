"""ResNet-20 on CIFAR-10 from scratch: our recipe, a tutorial's, and the speed of both loops.

    python benchmarks/cifar10.py ours --epochs 24          again: goes on where it stopped
    python benchmarks/cifar10.py ours --epochs 24 --grow   small pictures first, which cost less
    python benchmarks/cifar10.py ours --epochs 60 --ship   the net travels with the package
    python benchmarks/cifar10.py tutorial --epochs 24
    python benchmarks/cifar10.py speed --rounds 3
    python benchmarks/cifar10.py ablations --epochs 10     our recipe with one thing changed
    python benchmarks/cifar10.py shipped                   scores the net of the package again

Needs cifar10.npz in the data root (`rk.named_dataset("cifar10")` downloads it): 45,000 pictures to
learn from, 5,000 that choose the epoch, and the test pictures, opened once at the end. On a GPU
our recipe takes batches of 1,024 at a higher rate, and its name says so. The tutorial's loop:
pictures one by one through PIL, enlarged to 40 px, flipped and cropped to 32, not normalised, never
shuffled, batches of 100, float32, Adam at 1e-3, a third of it (in a new optimizer) after each
quarter of the epochs, numbers read after every step, and shortcuts of 3x3 convolutions. The
ablations learn from 10,000 pictures. `shipped` trains nothing: it writes what the net of the
package takes for what, where it is surest and wrong, and what it scores with `eval()` forgotten or
on enlarged pictures. Writes results/cifar10_ours_24.json (24 epochs), results/cifar10_speed.json
and so on.
"""

import argparse
import copy
import itertools
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from pretraining import SOURCE, half_precision, write_shipped
from side_by_side import median_row
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.v2 import functional as V

import resnet_kit as rk
from resnet_kit.data import Loaders
from resnet_kit.data.arrays import ColorJitter, Crop, Flip
from resnet_kit.devices import arithmetic, best_precision, fast_format
from resnet_kit.evaluation import Evaluation
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.training import History

RESULTS = Path(__file__).resolve().parent.parent / "results"
SIZES = {0.0: 16, 0.4: 24, 0.8: 32}  # pixels, from this share of the epochs on, with --grow
BATCH_SIZE, LR, WARM_UP = 256, 0.5, 0.2  # pictures, highest rate, share of all steps
GPU_BATCH_SIZE, GPU_LR = 1024, 1.5  # a GPU is faster in larger steps, which bear a higher rate
SPAN = 200  # steps of the average of the weights that is scored; a sixteenth of a short training
FORGOTTEN = (256, 64, 16, 4, 1)  # pictures in a batch, with `eval()` forgotten
SUREST = 20  # mistakes that are written down
# name: what differs from our recipe
ABLATIONS = {
    "our recipe": {},
    "batch 64": {"batch_size": 64},
    "batch 1024": {"batch_size": 1024},
    "rate 0.05": {"lr": 0.05},
    "rate 2": {"lr": 2.0},
    "no augmentation": {"augment": "none"},
    "colour jitter too": {"augment": [Crop(4), Flip(), ColorJitter(0.4)]},
    "weights not averaged": {"averaged": False},
}


def growing(epochs: int) -> dict[int, int]:
    """Return the picture size from each epoch on: small pictures first, which cost less."""
    return {1 + round(share * epochs): size for share, size in SIZES.items()}


def new_net(depth: int, seed: int, in_channels: int = 3) -> nn.Module:
    rk.seed_everything(seed)
    return cifar_resnet(depth, in_channels=in_channels)


def tutorial_net(depth: int, seed: int) -> nn.Module:
    """Return the tutorial's net, whose shortcuts are 3x3 convolutions where the shape changes."""
    rk.seed_everything(seed)
    model = cifar_resnet(depth, shortcut="projection")
    for stage in (model.layer2, model.layer3):
        old = stage[0].downsample[0]
        new = nn.Conv2d(old.in_channels, old.out_channels, 3, old.stride, padding=1, bias=False)
        stage[0].downsample[0] = new
    return model.to(rk.default_device())


def train_ours(
    model: nn.Module, data: Loaders, epochs: int, seed: int, *, checkpoint: Path | None = None,
    lr: float = LR, averaged: bool = True,
) -> History:  # fmt: skip
    """Train with SGD, a rate that rises and falls once, and averaged weights."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * len(data.train)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=WARM_UP, anneal_strategy="linear",
        cycle_momentum=False,
    )  # fmt: skip
    average = 1 - 1 / max(2, min(SPAN, steps // 16)) if averaged else None
    history = rk.train_and_eval(
        model, epochs, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer, data.train, data.val,
        scheduler=scheduler, scheduler_every="step", average=average, seed=seed,
        checkpoint=checkpoint, resume=checkpoint is not None,
        on_epoch_end=lambda history: print(history, flush=True),
    )  # fmt: skip
    if history.stopped != "finished":
        raise SystemExit(f"{history.stopped}; with a checkpoint the same command goes on with it")
    return history


def ablation(data: Loaders, pictures: int, depth: int, epochs: int, seed: int, *,
             batch_size: int = BATCH_SIZE, augment="standard", **changed):  # fmt: skip
    """Return net and history of our recipe with something changed, on the first pictures."""
    train, val = (loader.dataset for loader in (data.train, data.val))
    few = rk.array_loaders(
        train=(train.images[:pictures].permute(0, 2, 3, 1), train.labels[:pictures]),
        val=(val.images.permute(0, 2, 3, 1), val.labels),
        mean=data.mean, std=data.std, batch_size=batch_size, augment=augment, seed=seed,
    )  # fmt: skip
    model = new_net(depth, seed)
    return model, train_ours(model, few, epochs, seed, **changed)


class OneByOne(Dataset):
    """Pictures through PIL, as a tutorial's data set."""

    def __init__(self, loader: DataLoader, transform):
        pictures = loader.dataset.images.permute(0, 2, 3, 1).cpu().numpy()
        self.pictures = [Image.fromarray(picture) for picture in pictures]
        self.labels, self.transform = loader.dataset.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.transform(self.pictures[index]), self.labels[index]


def tutorial_loaders(data: Loaders) -> list[DataLoader]:
    """Return the loaders of train, val and test."""
    crop = [transforms.Resize(40), transforms.RandomHorizontalFlip(), transforms.RandomCrop(32)]
    moving = transforms.Compose([*crop, transforms.ToTensor()])
    splits = ((data.train, moving), (data.val, transforms.ToTensor()))
    splits += ((data.test, transforms.ToTensor()),)
    return [DataLoader(OneByOne(loader, how), batch_size=100) for loader, how in splits]


def tutorial_epoch(model: nn.Module, optimizer, loader: DataLoader) -> None:
    device, criterion = rk.default_device(), nn.CrossEntropyLoss()
    model.train()
    for images, labels in loader:
        loss = criterion(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def train_tutorial(
    loaders: list[DataLoader], depth: int, epochs: int, seed: int
) -> tuple[nn.Module, float, list[dict]]:
    """Train as the tutorial does; return the net after the last epoch, the seconds, and a curve."""
    model, start, rows = tutorial_net(depth, seed), time.perf_counter(), []
    for epoch in range(epochs):
        if epoch % max(1, epochs // 4) == 0:
            rate = 1e-3 / 3 ** (epoch // max(1, epochs // 4))
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        tutorial_epoch(model, optimizer, loaders[0])
        accuracy = rk.evaluate(model, loaders[1], progress=False).accuracy
        rows.append({"epoch": epoch + 1, "val_accuracy": accuracy})
        print(f"epoch {epoch + 1}, val {accuracy:.1%}", flush=True)
    return model, time.perf_counter() - start, rows


def rows_of(model, loaders: dict, name: str, recipe: str, seed: int, seconds: float) -> list[dict]:
    about = {"data": "cifar10", "model": name, "recipe": recipe, "seed": seed, "seconds": seconds}
    return [
        rk.accuracy_row(rk.evaluate(model, loader, progress=False), split=split, **about)
        for split, loader in loaders.items()
    ]


def seconds_of_epochs(size: int, epochs: int = 1, *, compiled: bool = False) -> list[float]:
    """Return the seconds of each epoch of our loop on the training pictures at this size."""
    data = rk.named_dataset("cifar10", batch_size=BATCH_SIZE, size=size)
    model, few = new_net(20, 0), [*data.val][:1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion, times = nn.CrossEntropyLoss(), [time.perf_counter()]
    rk.train_and_eval(
        model, epochs, criterion, optimizer, data.train, few, compile=compiled, progress=False,
        on_epoch_end=lambda history: times.append(time.perf_counter()),
    )  # fmt: skip
    return [end - start for start, end in itertools.pairwise(times)]


def seconds_of_bare_steps(data: Loaders) -> float:
    """Return the seconds of an epoch of steps on one batch that lies ready, in fast arithmetic."""
    device = rk.default_device()
    precision = best_precision(device)
    wanted = fast_format(device, precision) or torch.contiguous_format
    model = new_net(20, 0).to(device, memory_format=wanted).train()
    images, labels = next(iter(data.train))  # pictures, as the others have, and no noise
    images, labels = images.to(device, memory_format=wanted), labels.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion, start = nn.CrossEntropyLoss(), time.perf_counter()
    pictures, size = len(data.train.dataset), len(images)
    for first in range(0, pictures, size):
        count = min(size, pictures - first)
        with arithmetic(device, precision):
            loss = criterion(model(images[:count]), labels[:count])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_speed(data: Loaders, rounds: int) -> list[dict]:
    """Return the pictures per second of both loops, which take turns, one epoch each.

    With growing pictures it is the mean over a training: each size by its share of the epochs. With
    compile=True it is the second epoch, as the first one compiles, and what that takes is a row of
    its own (nothing is left of an earlier compilation).
    """
    pictures, loaders = len(data.train.dataset), tutorial_loaders(data)
    ours = f"train_and_eval, batch {BATCH_SIZE}"
    theirs, same = "tutorial loop, batch 100, 32 px", f"{ours}, 32 px"
    grown, compiled = f"{ours}, {min(SIZES.values())} to 32 px", f"{same}, compile=True"
    bare = f"bare steps, batch {BATCH_SIZE}, 32 px"
    ends = [*SIZES][1:] + [1.0]
    shares = {size: end - start for (start, size), end in zip(SIZES.items(), ends, strict=True)}
    rates = {name: [] for name in (theirs, same, compiled, grown, bare)}
    compiling = []
    for number in range(rounds):
        model, start = tutorial_net(20, 0), time.perf_counter()
        tutorial_epoch(model, torch.optim.Adam(model.parameters()), loaders[0])
        rates[theirs].append(pictures / (time.perf_counter() - start))
        seconds = {size: seconds_of_epochs(size)[0] for size in shares}
        rates[same].append(pictures / seconds[32])
        rates[grown].append(pictures / sum(shares[x] * seconds[x] for x in shares))
        torch.compiler.reset()
        with (
            tempfile.TemporaryDirectory() as empty,
            mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty),
        ):
            first, second = seconds_of_epochs(32, 2, compiled=True)
        rates[compiled].append(pictures / second)
        compiling.append(first - second)
        rates[bare].append(pictures / seconds_of_bare_steps(data))
        print(number + 1, {name: f"{x[-1]:.0f}/s" for name, x in rates.items()}, flush=True)
    measured = [("pictures per second", *pair) for pair in rates.items()]
    measured.append(("seconds that compiling takes", compiled, compiling))
    for name in (same, compiled, grown):
        ratios = [mine / other for mine, other in zip(rates[name], rates[theirs], strict=True)]
        measured.append(("times as fast", name, ratios))
    reached = [mine / limit for mine, limit in zip(rates[same], rates[bare], strict=True)]
    measured.append(("share of the speed of bare steps", same, reached))
    about = {"data": "cifar10", "split": "train", "model": "ResNet-20"}
    return [
        median_row(values, **about, recipe=recipe, metric=metric)
        for metric, recipe, values in measured
    ]


def measure_ablations(data: Loaders, given: argparse.Namespace) -> tuple[list[dict], dict]:
    """Return a row and a curve for each change."""
    rows, curves = [], {}
    for name, changed in ABLATIONS.items():
        model, history = ablation(
            data, given.pictures, given.depth, given.epochs, given.seed, **changed
        )
        about = (f"ResNet-{given.depth}", name, given.seed, history.seconds)
        rows += rows_of(model, {"val": data.val}, *about)
        curves[name] = history.rows
    return rows, curves


@torch.no_grad()
def scored_in_train_mode(
    model: nn.Module, loader: DataLoader, batch_size: int, order: torch.Tensor | None = None
) -> Evaluation:
    """Score as where `model.eval()` is forgotten: BatchNorm takes its statistics from each batch.

    The pictures come in `order`, by default the data set's; the model stays as it was.
    """
    model, dataset, device = copy.deepcopy(model).train(), loader.dataset, rk.default_device()
    model = model.to(device)
    order = torch.arange(len(dataset)) if order is None else order
    found = []
    for places in order.split(batch_size):
        images, labels = dataset[0, places]
        found.append((model(images.to(device)).cpu(), labels))
    logits, labels = (torch.cat(part)[order.argsort()] for part in zip(*found, strict=True))
    loss = nn.functional.cross_entropy(logits, labels).item()
    return Evaluation(loss, labels.numpy(), logits.softmax(1).numpy(), dataset.classes)


class Enlarged(nn.Module):
    """A net that sees the middle of each picture, 1.25 times as large."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.fc = model, model.fc

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        side = images.shape[-1]
        larger = V.resize(images, [round(1.25 * side)] * 2, antialias=True)
        return self.model(V.center_crop(larger, [side, side]))


def measure_shipped(data: Loaders, depth: int) -> list[dict]:
    """Return scores of the net of the package: val, test, and val in other ways than it should be.

    The first two rows also hold what was taken for what (rows actual), the most frequent confusions
    and the surest mistakes; the others McNemar's test against the first: pictures that only the
    proper way got right, that only this way did, and p.
    """
    model = cifar_resnet(depth, weights="cifar10")
    about = {"data": "cifar10", "model": f"ResNet-{depth}", "seed": 0}
    proper = {split: rk.evaluate(model, getattr(data, split)) for split in ("val", "test")}
    rows = []
    for split, result in proper.items():
        rows.append(rk.accuracy_row(result, split=split, recipe="shipped", **about))
        rows[-1] |= {
            "classes": list(result.names),
            "confusion": result.confusion().tolist(),
            "confused": result.confused_pairs(10).to_dict("records"),
            "mistakes": result.mistakes(SUREST).to_dict("records"),
        }
    labels = data.val.dataset.labels
    ways = {
        f"eval() forgotten, batches of {count}": scored_in_train_mode(model, data.val, count)
        for count in FORGOTTEN
    }
    by_class = labels.argsort(stable=True)
    sorted_ = scored_in_train_mode(model, data.val, FORGOTTEN[0], by_class)
    ways[f"eval() forgotten, batches of {FORGOTTEN[0]}, sorted by class"] = sorted_
    ways["pictures enlarged 1.25 times"] = rk.evaluate(Enlarged(model), data.val)
    for recipe, result in ways.items():
        rows.append(rk.accuracy_row(result, split="val", recipe=f"shipped, {recipe}", **about))
        first, second, p = rk.mcnemar(proper["val"], result)
        rows[-1] |= {"only shipped": first, "only this": second, "p": p}
    return rows


def ship(model: nn.Module, data: Loaders, rows: list[dict], document: dict) -> None:
    """Write the net into the package, with all that is known of it."""
    about = {row["split"]: row for row in rows}
    metadata = {
        "arch": f"cifar_resnet{model.built['depth']}",
        "data": "CIFAR-10: 45,000 of the 50,000 training pictures; 5,000 chose the epoch",
        "source": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "classes": list(data.classes),
        "size": data.size,
        "mean": data.mean,
        "std": data.std,
        "val_accuracy": about["val"]["value"],
        "test_accuracy": about["test"]["value"],
        "test_pictures": about["test"]["n"],
        "recipe": rows[0]["recipe"],
        "seconds": rows[0]["seconds"],
        **{key: document[key] for key in SOURCE},
    }
    path = write_shipped(half_precision(model), f"{metadata['arch']}-cifar10", metadata)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["ours", "tutorial", "speed", "ablations", "shipped"])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grow", action="store_true", help="train on smaller pictures first")
    parser.add_argument("--ship", action="store_true", help="write the net into the package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=10_000, help="of the ablations")
    given = parser.parse_args()
    size = growing(given.epochs) if given.grow else None
    on_gpu = given.what == "ours" and rk.default_device().type == "cuda"
    batch_size, lr = (GPU_BATCH_SIZE, GPU_LR) if on_gpu else (BATCH_SIZE, LR)
    data = rk.named_dataset("cifar10", batch_size=batch_size, size=size)
    options = f"--epochs {given.epochs} --depth {given.depth} --seed {given.seed}"
    name, curves = f"ResNet-{given.depth}", None
    file = "cifar10_gpu" if on_gpu else f"cifar10_{given.what}"
    if given.what in ("ours", "tutorial"):
        file += f"_{given.epochs}" + ("_growing" if given.grow else "")
    if given.what == "speed":
        options, rows = f"--rounds {given.rounds}", measure_speed(data, given.rounds)
    elif given.what == "shipped":
        options, rows = f"--depth {given.depth}", measure_shipped(data, given.depth)
    elif given.what == "ablations":
        options += f" --pictures {given.pictures}"
        rows, curves = measure_ablations(data, given)
    elif given.what == "ours":
        options += " --grow" if given.grow else ""
        folder = rk.data_root() / f"{file}_{given.depth}_{given.seed}"
        model = new_net(given.depth, given.seed)
        history = train_ours(model, data, given.epochs, given.seed, checkpoint=folder, lr=lr)
        loaders, recipe = {"val": data.val, "test": data.test}, f"ours, {given.epochs} epochs"
        recipe += f", {min(SIZES.values())} to {data.size} px" if given.grow else ""
        recipe += f", batch {batch_size}, rate {lr}" if on_gpu else ""
        rows = rows_of(model, loaders, name, recipe, given.seed, history.seconds)
        curves = {recipe: history.rows}
        options += " --ship" if given.ship else ""
    else:
        loaders = tutorial_loaders(data)
        model, seconds, curve = train_tutorial(loaders, given.depth, given.epochs, given.seed)
        scored = dict(zip(("val", "test"), loaders[1:], strict=True))
        recipe = f"tutorial's, {given.epochs} epochs"
        rows = rows_of(model, scored, name, recipe, given.seed, seconds)
        curves = {recipe: curve}
    command = f"python benchmarks/cifar10.py {given.what} {options}"
    rk.write_results(RESULTS / f"{file}.json", rows, command=command, curves=curves)
    if given.what == "ours" and given.ship:
        ship(model, data, rows, rk.read_results(RESULTS / f"{file}.json"))
    print(*(f"{row['split']} {row['recipe']} {row['metric']} {row['value']:.4g}" for row in rows))


if __name__ == "__main__":
    main()
