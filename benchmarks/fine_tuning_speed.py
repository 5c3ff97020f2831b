"""Seconds per epoch of fine-tuning: `train_and_eval` against the loop of a typical tutorial.

    python benchmarks/fine_tuning_speed.py PHOTOS [--rounds 3] [--arch resnet34] [--size 224]

PHOTOS is the folder with train/ and eval/ of the cat/dog/ants/bees photos. Both loops train every
layer with Adam at 1e-4 and score eval/ after the epoch; they take turns, each in a process of its
own, and medians are written to results/fine_tuning_speed.json. The tutorial's loop: PIL,
ImageFolder, batches of 6 loaded between the steps, float32, and numbers read after every step.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import get_model

import resnet_kit as rk
from resnet_kit.models import Weights

RESULTS = Path(__file__).resolve().parent.parent / "results"


def tutorial_loaders(
    folder: Path, source: Weights, size: int, scored: str = "eval"
) -> list[DataLoader]:
    """Return the loader that trains and the one that scores the pictures of a folder."""
    end = [transforms.ToTensor(), transforms.Normalize(source.mean, source.std)]
    crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
    train = ImageFolder(folder / "train", transforms.Compose([*crop, *end]))
    val = ImageFolder(folder / scored, transforms.Compose([*centre, *end]))
    return [DataLoader(train, batch_size=6, shuffle=True), DataLoader(val, batch_size=6)]


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


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-4)


def timed_tutorial(folder: Path, source: Weights, size: int) -> float:
    model = get_model(source.arch, num_classes=4).to(rk.default_device())
    optimizer, (train, val) = adam(model), tutorial_loaders(folder, source, size)
    start = time.perf_counter()
    tutorial_phase(model, optimizer, train, training=True)
    tutorial_phase(model, optimizer, val, training=False)
    return time.perf_counter() - start


def timed_ours(folder: Path, source: Weights, size: int) -> float:
    model = get_model(source.arch, num_classes=4)
    optimizer = adam(model)
    loaders = rk.image_folders(folder, like=source, size=size)
    start = time.perf_counter()
    criterion = nn.CrossEntropyLoss()
    rk.train_and_eval(model, 1, criterion, optimizer, loaders.train, loaders.val, progress=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    source = rk.weights(given.arch, None)
    times = {"tutorial loop, batch 6": [], "train_and_eval, batch 32": []}
    for number in range(given.rounds):
        for name, run in zip(times, (timed_tutorial, timed_ours), strict=True):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                seconds = process.submit(run, given.photos, source, given.size).result()
            times[name].append(seconds)
            print(f"round {number + 1}, {name}: {times[name][-1]:.1f} s", flush=True)
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    rows = [row(given, "seconds per epoch", name, seconds) for name, seconds in times.items()]
    rows.append(row(given, "times as fast", "train_and_eval, batch 32", ratios))
    command = f"python benchmarks/fine_tuning_speed.py PHOTOS --rounds {given.rounds}"
    command += f" --arch {given.arch} --size {given.size}"
    rk.write_results(RESULTS / "fine_tuning_speed.json", rows, command=command)
    print(f"train_and_eval is {statistics.median(ratios):.2f} times as fast (median)")


def row(given: argparse.Namespace, metric: str, recipe: str, values: list[float]) -> dict:
    """Return a row of the median of several rounds, with the smallest and the largest."""
    return {
        "data": "cat_dog_ants_bees photos",
        "split": "train + eval",
        "model": f"{given.arch}, {given.size} px",
        "recipe": recipe,
        "metric": metric,
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
        "seed": None,
        "seconds": sum(values) if metric.startswith("seconds") else None,
    }


if __name__ == "__main__":
    main()
