"""How much faster several processes train, measured here, and projected to 8 and to 64 devices.

    python benchmarks/several.py [--processes 2] [--arch resnet18] [--size 64] [--rounds 5]

One process and several take turns in `train_and_eval` on the same batches of noise each: a GPU
each, or on a CPU one thread each. The time to reduce as many numbers as the net has weights is
measured alone. Two projections to more devices follow from it, and are no measurements: a step
takes as long as in one process, and a ring reduction is added to it (the lower number), or is
hidden behind the computation as far as it is not longer (the higher number). All devices are taken
to be joined as those that were measured. Writes results/several.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torchvision.models import get_model

import resnet_kit as rk
from resnet_kit.world import this_world

RESULTS = Path(__file__).resolve().parent.parent / "results"
STEPS, PROJECTED = 10, (8, 64)


def seconds_a_step(arch: str, size: int, batch_size: int, epochs: int) -> list[float]:
    """Return the seconds of a step in each epoch but the first, which warms up."""
    world = this_world()
    count = STEPS * batch_size * world.size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 10
    val = images[:10], labels[:10]
    options = {"batch_size": batch_size, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    loaders = rk.array_loaders(train=(images, labels), val=val, **options)
    model = get_model(arch, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    history = rk.train_and_eval(
        model, epochs + 1, nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val,
        progress=False,
    )  # fmt: skip
    return [row["seconds"] / STEPS for row in history.rows[1:]]


def seconds_to_reduce(count: int) -> float:
    """Return the median time, of seven, in which all processes add up `count` float32 numbers."""
    numbers, found = torch.zeros(count, device=rk.default_device()), []
    for _ in range(1 + 7):  # the first one warms up
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        numbers.sum().item()  # waits for a GPU
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def measure(arguments: argparse.Namespace) -> dict:
    """Return what one of the processes measures."""
    given = arguments.arch, arguments.size, arguments.batch_size
    found = {"steps": seconds_a_step(*given, epochs=1)}
    if this_world().size > 1:
        weights = sum(p.numel() for p in get_model(arguments.arch, num_classes=10).parameters())
        found |= {"weights": weights, "reduction": seconds_to_reduce(weights)}
        found["latency"] = seconds_to_reduce(1)
    return found


def started(processes: int) -> dict:
    """Run this program in so many processes; return what the first one measured."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        launcher = [] if processes == 1 else ["-m", "torch.distributed.run"]
        launcher += [] if processes == 1 else ["--nproc-per-node", str(processes)]
        command = [sys.executable, *launcher, __file__, *sys.argv[1:], "--answer", str(answer)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(answer.read_text())


def ring(processes: int, measured_with: int, reduction: float, latency: float) -> float:
    """Return the seconds of a reduction among more processes, as a ring takes them.

    2 (P - 1) messages follow each other, each with 1/P of the numbers. Source: Patarasuk and Yuan,
    Bandwidth optimal all-reduce algorithms, 2009.
    """
    message = latency / (2 * (measured_with - 1))
    transfer = (reduction - latency) * measured_with / (2 * (measured_with - 1))
    return 2 * (processes - 1) * (message + transfer / processes)


def projected(processes: int, step: float, reduction: float) -> tuple[float, float]:
    """Return how many times as fast: with the reduction after the step, and behind it."""
    return processes * step / (step + reduction), processes * step / max(step, reduction)


def rows_of(arguments: argparse.Namespace, ones: list[dict], others: list[dict]) -> list[dict]:
    processes, batch_size = arguments.processes, arguments.batch_size
    about = {"data": f"noise of {arguments.size} px", "split": "train", "model": arguments.arch}
    about |= {"seed": None, "seconds": None, "low": None, "high": None, "n": len(ones)}
    step, together = (statistics.median(r["steps"][0] for r in runs) for runs in (ones, others))
    pairs = zip(ones, others, strict=True)
    ratios = [processes * one["steps"][0] / other["steps"][0] for one, other in pairs]
    reduction, latency = (
        statistics.median(run[name] for run in others) for name in ("reduction", "latency")
    )
    recipe = f"{processes} processes, batches of {batch_size} each"
    numbers = f"{others[0]['weights']:,} numbers"
    rows = [
        {"recipe": f"one process, batches of {batch_size}", "metric": "seconds a step"}
        | {"value": step},
        {"recipe": recipe, "metric": "seconds a step", "value": together},
        {"recipe": recipe, "metric": "times as fast", "value": statistics.median(ratios)}
        | {"low": min(ratios), "high": max(ratios)},
        {"recipe": recipe, "metric": f"seconds to reduce {numbers}", "value": reduction},
        {"recipe": recipe, "metric": "seconds to reduce one number", "value": latency},
    ]
    for count in PROJECTED:
        low, high = projected(count, step, ring(count, processes, reduction, latency))
        recipe = f"{count} devices: projection, not measured; {batch_size} pictures each"
        rows.append({"recipe": recipe, "metric": "times as fast", "value": low})
        rows[-1] |= {"low": low, "high": high, "n": 0}
    return [about | row for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer is not None:
        found = measure(arguments)
        if this_world().rank == 0:
            arguments.answer.write_text(json.dumps(found))
        return
    runs = [(started(1), started(arguments.processes)) for _ in range(arguments.rounds)]
    rows = rows_of(arguments, *map(list, zip(*runs, strict=True)))
    for row in rows:
        print(f"{row['recipe']}: {row['metric']} {row['value']:.3g}")
    command = f"python benchmarks/several.py {' '.join(sys.argv[1:])}".strip()
    rk.write_results(RESULTS / "several.json", rows, command=command)


if __name__ == "__main__":
    main()
