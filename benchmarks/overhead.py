"""What `train_and_eval` and the package cost over doing without them: steps, memory, import.

    python benchmarks/overhead.py [--rounds 5]

A step of a small net: the seconds of an epoch of `train_and_eval` against those of a bare loop with
the same batches, which adds up loss and hits as well; both in float32 on one core, in short epochs
that take turns within one process, because the speed of a machine changes from minute to minute.
The most memory of fine-tuning a ResNet-18 at 128 px by either, in fresh processes. And the time of
`import torch, torchvision`, and of `import resnet_kit` after it. Writes results/overhead.json.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from side_by_side import RESULTS, in_a_fresh_process, median_row
from torch import nn
from torchvision.models import get_model

import resnet_kit as rk
from resnet_kit.settings import keep_freed_memory

STEPS, BATCH_SIZE = 200, 32
TURNS = 15  # of both loops in a process


def small_net() -> nn.Module:
    """Return a net whose step takes about 10 ms on a CPU."""
    rk.seed_everything(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def batches_of(steps: int, size: int) -> list:
    rk.seed_everything(0)
    batch = torch.randn(BATCH_SIZE, 3, size, size), torch.randint(0, 10, (BATCH_SIZE,))
    return [batch] * steps


def bare_loop(model: nn.Module, batches: list, val: list, optimizer) -> None:
    criterion, loss_sum, correct = nn.CrossEntropyLoss(), 0.0, 0
    keep_freed_memory()  # as in train_and_eval
    for loader, training in ((batches, True), (val, False)):
        model.train(training)
        for images, labels in loader:
            with torch.set_grad_enabled(training):
                logits = model(images)
                loss = criterion(logits, labels)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss_sum = loss_sum + loss.detach() * len(labels)
            correct = correct + (logits.argmax(1) == labels).sum()


def our_loop(model: nn.Module, batches: list, val: list, optimizer) -> None:
    criterion = nn.CrossEntropyLoss()
    rk.train_and_eval(
        model, 1, criterion, optimizer, batches, val, precision="fp32", progress=False
    )


def seconds_per_step(turns: int) -> tuple[float, float]:
    """Return the seconds of a step in the bare loop, and how many more ours takes: medians."""
    torch.set_num_threads(1)
    batches = batches_of(STEPS, 32)

    def seconds_of(loop: Callable) -> float:
        model = small_net()
        optimizer, start = torch.optim.SGD(model.parameters(), lr=0.01), time.perf_counter()
        loop(model, batches, batches[:1], optimizer)
        return (time.perf_counter() - start) / STEPS

    for loop in (bare_loop, our_loop):
        seconds_of(loop)  # to warm up
    pairs = [(seconds_of(bare_loop), seconds_of(our_loop)) for _ in range(turns)]
    bare = statistics.median(first for first, _ in pairs)
    return bare, statistics.median(second - first for first, second in pairs)


def megabytes(loop: Callable) -> float:
    """Return the most memory of this process."""
    model, batches = get_model("resnet18", num_classes=10), batches_of(5, 128)
    loop(model, batches, batches[:1], torch.optim.Adam(model.parameters(), lr=1e-4))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def seconds_to_import() -> tuple[float, float]:
    """Return the seconds of `import torch, torchvision`, and how many more resnet_kit takes.

    Python itself counts the seconds of each module, in a new interpreter that finds everything
    compiled, as usual: whole seconds of a process differ by more than what is looked for.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-X", "importtime", "-c", "import torch, torchvision, resnet_kit"]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)", done.stderr)
    names = [indent + name for _, indent, name in lines]
    before = names.index("torchvision") + 1  # not indented: imported by no other module
    seconds = [int(microseconds) / 1e6 for microseconds, _, _ in lines]
    return sum(seconds[:before]), sum(seconds[before:])


def row(model: str, recipe: str, metric: str, values: list[float]) -> dict:
    about = {"data": "noise", "split": "train", "model": model, "recipe": recipe}
    return median_row(values, **about, metric=metric)


def compared(measure: Callable, ways: dict, rounds: int) -> dict[str, list[float]]:
    """Return what is measured of each way; they take turns."""
    found = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            found[name].append(in_a_fresh_process(measure, way))
            print(number + 1, measure.__name__, name, f"{found[name][-1]:.4g}", flush=True)
    return found


def import_rows(rounds: int) -> list[dict]:
    seconds_to_import()  # compiles
    both, more = zip(*(seconds_to_import() for _ in range(rounds)), strict=True)
    names = "torch and torchvision", "resnet_kit"
    return [
        row("import", names[0], "seconds", [*both]),
        row("import", names[1], "seconds more than torch and torchvision", [*more]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    bare, ours = "bare loop", "train_and_eval"
    steps = []
    for number in range(given.rounds):
        steps.append(in_a_fresh_process(seconds_per_step, TURNS))
        print(number + 1, "seconds per step, and more in ours", steps[-1], flush=True)
    memory = compared(megabytes, {bare: bare_loop, ours: our_loop}, given.rounds)
    bare_ms, more_ms = (1000 * np.array(steps)).T.tolist()
    rows = [
        row("small net", bare, "ms per step", bare_ms),
        row("small net", ours, "ms per step more than the bare loop", more_ms),
    ]
    for name, values in memory.items():
        rows.append(row("resnet18, 128 px", name, "MB of memory at most", values))
    rows += import_rows(given.rounds)
    command = f"python benchmarks/overhead.py --rounds {given.rounds}"
    rk.write_results(RESULTS / "overhead.json", rows, command=command)
    print(*(f"{row['recipe']}: {row['metric']} {row['value']:.4g}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
