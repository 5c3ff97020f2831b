"""Fine-tuning on the photos, ours beside what a user would do otherwise, in seconds per epoch.

    pip install -r benchmarks/requirements.txt
    python benchmarks/side_by_side.py PHOTOS [--arch resnet34] [--size 224] [--epochs 2]

PHOTOS is the folder with train/ and eval/ of the cat/dog/ants/bees photos. Every contender trains
all layers of the same net with Adam at 1e-4 on random crops and flips of train/, and scores eval/
after each epoch. Each runs in a fresh process of its own, and they take turns. An epoch is training
and scoring; the first one begins when the loaders are made. What is compared:

- ours: `image_folders` and `train_and_eval` as they are, batches of 32; and with compile=True;
- the tutorial's loop: ImageFolder, batches of 6 loaded between the steps, float32, and numbers read
  after every step;
- fastai as it comes (batches of 64, a worker per core) and with channels_last and, on a GPU, bf16;
- Lightning in float32 and in bf16, with batches of 32 and two workers;
- the bare steps: the same steps on one batch of photos that lies ready, in the precision and the
  memory format that are fastest here. Nothing can be faster.

The reference loops of timm and of torchvision are scripts that their packages do not install, so
they are not here. `--only` takes some of the contenders, ours always. Writes
results/fine_tuning_speed.json; its name has the net, where it is no ResNet-34, and `gpu` on one.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import get_model

import resnet_kit as rk
from resnet_kit.data.images import picture_files
from resnet_kit.devices import arithmetic, best_precision
from resnet_kit.models import Weights
from resnet_kit.settings import keep_freed_memory

RESULTS = Path(__file__).resolve().parent.parent / "results"
LR, BATCH_SIZE, WORKERS = 1e-4, 32, 2
PEERS = ("fastai", "lightning")


class Clock:
    """The seconds of each epoch, from the making of the loaders on."""

    def __init__(self):
        self.times = [time.perf_counter()]

    def epoch_is_over(self, *_) -> None:
        if rk.default_device().type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [end - start for start, end in zip(self.times, self.times[1:], strict=False)]


def new_model(arch: str) -> nn.Module:
    return get_model(arch, num_classes=4)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=LR)


def torch_loaders(
    folder: Path,
    source: Weights,
    size: int,
    scored: str = "eval",
    *,
    batch_size: int = 6,
    workers: int = 0,
) -> list[DataLoader]:
    """Return loaders of ImageFolder as tutorials make them: one to train, one to score."""
    end = [transforms.ToTensor(), transforms.Normalize(source.mean, source.std)]
    crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
    train = ImageFolder(folder / "train", transforms.Compose([*crop, *end]))
    val = ImageFolder(folder / scored, transforms.Compose([*centre, *end]))
    options = {"batch_size": batch_size, "num_workers": workers}
    return [DataLoader(train, shuffle=True, **options), DataLoader(val, **options)]


def tutorial_phase(model: nn.Module, optimizer, loader: DataLoader, training: bool) -> None:
    device, criterion = rk.default_device(), nn.CrossEntropyLoss()
    model.train(training)
    loss_sum = correct = 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        with torch.set_grad_enabled(training):
            logits = model(images)
            loss = criterion(logits, labels)
        if training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()


def tutorial(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    model = new_model(source.arch).to(rk.default_device())
    optimizer, clock = adam(model), Clock()
    train, val = torch_loaders(folder, source, size)
    for _ in range(epochs):
        tutorial_phase(model, optimizer, train, training=True)
        tutorial_phase(model, optimizer, val, training=False)
        clock.epoch_is_over()
    return clock.seconds()


def ours(
    folder: Path, source: Weights, size: int, epochs: int, *, compiled: bool = False
) -> list[float]:
    model, clock = new_model(source.arch), Clock()
    loaders = rk.image_folders(folder, like=source, size=size, batch_size=BATCH_SIZE)
    optimizer, criterion = adam(model), nn.CrossEntropyLoss()
    rk.train_and_eval(
        model,
        epochs,
        criterion,
        optimizer,
        loaders.train,
        loaders.val,
        compile=compiled,
        progress=False,
        on_epoch_end=clock.epoch_is_over,
    )
    return clock.seconds()


def ours_compiled(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    with (
        tempfile.TemporaryDirectory() as empty,  # nothing is left of an earlier compilation
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty),
    ):
        return ours(folder, source, size, epochs, compiled=True)


def fastai_as_it_comes(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    return fastai(folder, source, size, epochs, best=False)


def fastai_at_its_best(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    return fastai(folder, source, size, epochs, best=True)


def fastai(folder: Path, source: Weights, size: int, epochs: int, *, best: bool) -> list[float]:
    from fastai.vision import all as fast

    clock = Clock()

    class Tick(fast.Callback):
        def after_epoch(self):
            clock.epoch_is_over()

    loaders = fast.ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="eval",
        item_tfms=fast.RandomResizedCrop(size),
        batch_tfms=[fast.Flip(), fast.Normalize.from_stats(source.mean, source.std)],
    )
    learner = fast.Learner(
        loaders,
        new_model(source.arch),
        loss_func=fast.CrossEntropyLossFlat(),
        metrics=fast.accuracy,
        cbs=Tick(),
    )
    if best:
        learner.to_channelslast(use_amp=rk.default_device().type == "cuda")
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs, LR)
    return clock.seconds()


def lightning_fp32(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    return lightning(folder, source, size, epochs, precision="32-true")


def lightning_bf16(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    return lightning(folder, source, size, epochs, precision="bf16-mixed")


def lightning(
    folder: Path, source: Weights, size: int, epochs: int, *, precision: str
) -> list[float]:
    import lightning as pl

    clock, criterion = Clock(), nn.CrossEntropyLoss()

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = new_model(source.arch)

        def training_step(self, batch, index):
            images, labels = batch
            return criterion(self.model(images), labels)

        def validation_step(self, batch, index):
            images, labels = batch
            logits = self.model(images)
            accuracy = (logits.argmax(1) == labels).float().mean()
            self.log_dict({"loss": criterion(logits, labels), "accuracy": accuracy})

        def configure_optimizers(self):
            return adam(self)

        def on_train_epoch_end(self):  # after the validation
            clock.epoch_is_over()

    train, val = torch_loaders(folder, source, size, batch_size=BATCH_SIZE, workers=WORKERS)
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Module(), train, val)
    return clock.seconds()


def bare_steps(folder: Path, source: Weights, size: int, epochs: int) -> list[float]:
    device = rk.default_device()
    keep_freed_memory()  # as in train_and_eval
    precision = best_precision(device)
    wanted = torch.contiguous_format if precision == "fp32" else torch.channels_last
    model = new_model(source.arch).to(device, memory_format=wanted)
    # Photos, as the others have: on noise the same arithmetic need not take as long.
    images, labels = next(iter(torch_loaders(folder, source, size, batch_size=BATCH_SIZE)[0]))
    images, labels = images.to(device, memory_format=wanted), labels.to(device)
    optimizer, criterion, clock = adam(model), nn.CrossEntropyLoss(), Clock()
    counts = [len(picture_files(folder / split)) for split in ("train", "eval")]
    for _ in range(epochs):
        for split, count in zip(("train", "eval"), counts, strict=True):
            model.train(split == "train")
            for start in range(0, count, BATCH_SIZE):
                size = min(BATCH_SIZE, count - start)
                with torch.set_grad_enabled(split == "train"), arithmetic(device, precision):
                    loss = criterion(model(images[:size]), labels[:size])
                if split == "train":
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
        clock.epoch_is_over()
    return clock.seconds()


OURS, BARE = "train_and_eval", "bare steps"
CONTENDERS: dict[str, Callable] = {
    OURS: ours,
    f"{OURS}, compile=True": ours_compiled,
    "tutorial loop, batch 6": tutorial,
    "fastai, as it comes": fastai_as_it_comes,
    "fastai, channels_last": fastai_at_its_best,
    "Lightning, float32": lightning_fp32,
    "Lightning, bf16": lightning_bf16,
    BARE: bare_steps,
}


def in_a_fresh_process(run: Callable, *arguments):
    """Return what a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(quietly, run, *arguments).result()


def quietly(run: Callable, *arguments):
    """Run a function without other packages' warnings, and start workers as usual here."""
    set_start_method(get_all_start_methods()[0], force=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(*arguments)


def median_row(values: list[float], **about) -> dict:
    """Return a row of the median of several rounds, with the smallest and the largest.

    `about` is the rest of it: data, split, model, recipe, metric, and what else differs.
    """
    measured = {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return about | measured | {"n": len(values), "seed": None, "seconds": None}


def row(given: argparse.Namespace, metric: str, recipe: str, values: list[float]) -> dict:
    """Return what was measured on the photos as a row."""
    about = {"data": "cat_dog_ants_bees photos", "split": "train + eval"}
    about |= {"model": f"{given.arch}, {given.size} px", "recipe": recipe, "metric": metric}
    seconds = sum(values) if metric.startswith("seconds") else None
    return median_row(values, **about) | {"seconds": seconds}


def rows_of(given: argparse.Namespace, measured: dict[str, list[list[float]]]) -> list[dict]:
    """Return rows of ratios, later epochs and first epochs from the seconds of each round."""
    later = {name: [statistics.mean(run[1:]) for run in runs] for name, runs in measured.items()}
    rows = []
    for name, seconds in later.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds, later[OURS], strict=True)]
        if name == BARE:
            rows.append(row(given, "share of our epoch that bare steps take", OURS, ratios))
        elif name != OURS:
            rows.append(row(given, f"times as fast as {name}", OURS, ratios))
    for name, seconds in later.items():
        rows.append(row(given, "seconds per epoch, from the second on", name, seconds))
    for name, runs in measured.items():
        rows.append(row(given, "seconds of the first epoch", name, [run[0] for run in runs]))
    for name, runs in measured.items():
        whole = [sum(run) for run in runs]
        rows.append(row(given, f"seconds of all {given.epochs} epochs", name, whole))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--name", help="of the file in results/, if it is to have another")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    given = parser.parse_args()
    if given.epochs < 2:
        parser.error("an epoch after the first is measured; expected --epochs of at least 2")
    contenders = {name: run for name, run in CONTENDERS.items() if name in (OURS, *given.only)}
    needed = [peer for peer in PEERS if any(name.lower().startswith(peer) for name in contenders)]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        parser.error(
            f"{', '.join(missing)} not installed: pip install -r benchmarks/requirements.txt"
        )
    source = rk.weights(given.arch, None)
    measured = {name: [] for name in contenders}
    for number in range(given.rounds):
        for name, run in contenders.items():
            seconds = in_a_fresh_process(run, given.photos, source, given.size, given.epochs)
            measured[name].append(seconds)
            print(number + 1, name, [round(x, 2) for x in seconds], flush=True)
    options = f"--rounds {given.rounds} --epochs {given.epochs}"
    command = f"python benchmarks/side_by_side.py PHOTOS {options}"
    command += f" --arch {given.arch} --size {given.size}"
    if len(contenders) < len(CONTENDERS):
        command += " --only " + " ".join(f'"{name}"' for name in contenders)
    name = "fine_tuning_speed" if given.arch == "resnet34" else f"fine_tuning_speed_{given.arch}"
    name += "_gpu" if rk.default_device().type == "cuda" else ""
    command += f" --name {given.name}" if given.name else ""
    rows = rows_of(given, measured)
    rk.write_results(RESULTS / f"{given.name or name}.json", rows, command=command)
    print(*(f"{row['recipe']}: {row['metric']} {row['value']:.3g}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
