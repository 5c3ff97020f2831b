"""Seconds to train a head on a frozen backbone: features once, against a tutorial's frozen loop.

    python benchmarks/feature_extraction_speed.py PHOTOS [--rounds 1] [--epochs 10]

PHOTOS is the folder with train/ and eval/ of the cat/dog/ants/bees photos. The tutorial's loop is
that of side_by_side.py with `requires_grad=False` on the backbone: it runs the net over every
picture in every epoch, over those of train/ and then, to score, over those of eval/. As it
was published it scored its training folder; what that takes is a row of its own. Ours computes
the features once and trains the head on them; the time includes both. A bare forward pass runs the
net over every prepared picture once, at the same precision and memory format. They take turns, each
in a process of its own. The weights are those that travel with the package, a ResNet-18's, grown to
a ResNet-34 by blocks that pass on what they get, which costs a ResNet-34's time; eval/ is the val
of both. Writes results/feature_extraction_speed.json.
"""

import argparse
import time
from pathlib import Path

import torch
from side_by_side import RESULTS, in_a_fresh_process, row, torch_loaders, tutorial_phase
from torch import nn

import resnet_kit as rk
from resnet_kit.devices import arithmetic, best_precision
from resnet_kit.models import Weights

HEAD_LR = 0.01


def starting_weights() -> Weights:
    return rk.weights("resnet18", "tiny")


def new_model() -> nn.Module:
    """Return a ResNet-34 that computes what the package's ResNet-18 does."""
    rk.seed_everything(0)
    model = rk.pretrained(rk.weights("resnet34", None), num_classes=4)
    state = rk.pretrained(starting_weights(), num_classes=4).state_dict()
    for name, tensor in model.state_dict().items():
        if name in state:
            tensor.copy_(state[name])
        elif ".bn2." in name and "running" not in name:
            tensor.zero_()  # what is added to the shortcut is 0
    return model


def tutorial(folder: Path, size: int, epochs: int) -> tuple[list[float], float]:
    """Return seconds, scoring eval/ and scoring train/; and the last accuracy on eval/."""
    model = new_model().to(rk.default_device())
    for parameter in model.parameters():
        parameter.requires_grad = False
    for parameter in model.fc.parameters():
        parameter.requires_grad = True
    optimizer = torch.optim.Adam(model.fc.parameters(), lr=1e-4)
    train, val = torch_loaders(folder, starting_weights(), size)
    _, published = torch_loaders(folder, starting_weights(), size, scored="train")
    training, scoring, scoring_train = 0.0, 0.0, 0.0
    for _ in range(epochs):
        training += seconds_of(model, optimizer, train, True)
        scoring += seconds_of(model, optimizer, val, False)
        scoring_train += seconds_of(model, optimizer, published, False)
    accuracy = rk.evaluate(model, val, progress=False).accuracy
    return [training + scoring, training + scoring_train], accuracy


def seconds_of(*phase) -> float:
    start = time.perf_counter()
    tutorial_phase(*phase)
    return time.perf_counter() - start


def ours(folder: Path, size: int, epochs: int) -> tuple[list[float], float]:
    """Return seconds and the last accuracy on eval/."""
    model, loaders = new_model(), rk.image_folders(folder, like=starting_weights(), size=size)
    head = rk.head_of(model)
    start = time.perf_counter()
    features = rk.extract_features(model, loaders, progress=False)
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_LR)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, HEAD_LR, total_steps=epochs * len(features.train)
    )
    history = rk.train_and_eval(
        head, epochs, nn.CrossEntropyLoss(), optimizer, features.train, features.val,
        scheduler=scheduler, scheduler_every="step", progress=False,
    )  # fmt: skip
    return [time.perf_counter() - start], history.rows[-1]["val_accuracy"]


@torch.no_grad()
def bare_forward(folder: Path, size: int, epochs: int) -> tuple[list[float], None]:
    """Return the seconds of one forward pass over every prepared picture, and nothing else."""
    loaders = rk.image_folders(folder, like=starting_weights(), size=size)
    device = rk.default_device()
    model = new_model().to(device, memory_format=torch.channels_last).eval()
    total, start = torch.zeros((), device=device), time.perf_counter()
    for loader in (loaders.plain("train"), loaders.val):
        for images, _ in loader:
            with arithmetic(device, best_precision(device)):
                total += model(images.to(device)).sum()
    total.item()  # a GPU may still be busy
    return [time.perf_counter() - start], None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.set_defaults(arch="resnet34")
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    loop = f"tutorial's frozen loop, {given.epochs} epochs"
    once = f"features once, {given.epochs} epochs"
    published, bare = f"{loop}, as published", "bare forward pass"
    runs = {tutorial: (loop, published), ours: (once,), bare_forward: (bare,)}
    seconds, accuracies = {loop: [], published: [], once: [], bare: []}, {loop: [], once: []}
    for number in range(given.rounds):
        for run, names in runs.items():
            took, accuracy = in_a_fresh_process(run, given.photos, given.size, given.epochs)
            for name, value in zip(names, took, strict=True):
                seconds[name].append(value)
                print(f"round {number + 1}, {name}: {value:.1f} s, accuracy {accuracy}", flush=True)
            if accuracy is not None:
                accuracies[names[0]].append(accuracy)
    rows = [row(given, "seconds", name, values) for name, values in seconds.items()]
    rows += [row(given, "accuracy on eval", name, values) for name, values in accuracies.items()]
    for metric, slow, fast in (
        ("times as fast", loop, once),
        ("times as fast as the loop as published", published, once),
        ("of a bare forward pass", once, bare),
    ):
        ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
        rows.append(row(given, metric, once, ratios))
    command = f"python benchmarks/feature_extraction_speed.py PHOTOS --rounds {given.rounds}"
    rk.write_results(
        RESULTS / "feature_extraction_speed.json",
        rows,
        command=f"{command} --epochs {given.epochs} --size {given.size}",
    )
    print(*(f"{row['recipe']}: {row['metric']} {row['value']:.3g}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
