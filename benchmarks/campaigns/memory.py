"""Train many times in one process, and look at huge flat pictures: is the memory bounded?

After a warm-up the resident memory and the open descriptors of a process stay where they are,
whatever is trained. `mean_std` and `inspect_folder` over pictures of 100 megapixels and more stay
below 3 GB, however many threads read them.
"""

import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from common import Outcome, Part, loader, processes, quiet, settle, small_net
from PIL import Image
from torch import nn

import resnet_kit as rk

GROWTH, PEAK = 30, 3000  # MB
CORES = 16  # as many threads read pictures, whatever this machine has
SIDES = ((13000, 13000), (12500, 11000), (16000, 8000), (10001, 10001))  # pixels


def resident() -> float:
    """Return the memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> int:
    """Return how many files, pipes and sockets are open."""
    return len(os.listdir("/proc/self/fd"))


def train_once(folder: Path, number: int) -> None:
    """Train, evaluate and save; each kind of loader comes up."""
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    workers = 2 if number % 10 == 0 else 0
    data = loader(0, 48, shuffle=True, num_workers=workers), loader(1, 24)
    with quiet():
        rk.train_and_eval(
            model, 2, nn.CrossEntropyLoss(), optimizer, *data, average=0.9,
            precision=("fp32", "bf16")[number % 2], checkpoint=folder / f"{number}",
            progress=False,
        )  # fmt: skip
        rk.evaluate(model, data[1], progress=False)


def flat(trials: int, warm_up: int, folder: Path, train: Callable) -> list[str]:
    """Train again and again; return what grew after the warm-up."""
    for number in range(warm_up):
        train(folder, number)
    memory, files = resident(), descriptors()
    for number in range(warm_up, warm_up + trials):
        train(folder, number)
    broken = []
    if resident() > memory + GROWTH:
        broken.append(f"the memory grew from {memory:.0f} to {resident():.0f} MB")
    if descriptors() > files:
        broken.append(f"open descriptors grew from {files} to {descriptors()}")
    return broken


def _report(task: Callable, arguments: tuple, report: Path) -> None:
    settle()
    report.write_text("\n".join(task(*arguments)))


def in_process(task: Callable, arguments: tuple, report: Path) -> list[str]:
    """Return what a task finds in a process of its own."""
    process = processes().Process(target=_report, args=(task, arguments, report))
    process.start()
    process.join()
    if not report.is_file():
        return [f"the process ended with {process.exitcode}"]
    return report.read_text().splitlines()


def many_trainings(trials: int, folder: Path, seed: int) -> Outcome:
    """Train many times in one process."""
    warm_up = min(30, trials)
    broken = in_process(flat, (trials, warm_up, folder, train_once), folder / "report")
    return Outcome(trials, broken, Counter({"trained": trials}))


def peak_of(task: Callable, root: Path) -> list[str]:
    """Return what is wrong with the peak of the memory of a call."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cores = mock.patch("os.sched_getaffinity", return_value=set(range(CORES)))
    with quiet(), cores:
        task(root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    text = f"{peak:.0f} MB at its peak, {before / 1000:.0f} before"
    return [text] if peak > PEAK else []


def statistics(root: Path) -> None:
    """Read pictures whose pixels are flat."""
    mean = rk.mean_std(root, progress=False).mean
    if not all(0 <= number <= 1 for number in mean):
        raise AssertionError(f"the mean is {mean}")


def inspection(root: Path) -> None:
    """Inspect the same pictures."""
    usable = rk.inspect_folder(root, progress=False).to_frame()["usable"]
    if not usable.all():
        raise AssertionError("large pictures are not usable")


def huge_pictures(trials: int, folder: Path, seed: int) -> Outcome:
    """Read flat pictures of 100 to 169 megapixels in many threads."""
    found = Outcome()
    root = folder / "set"
    for number, size in enumerate(SIDES):
        path = root / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (30 * number, 90, 120)).save(path, compress_level=1)
    tasks = {"mean_std": statistics, "inspect_folder": inspection}
    for name, task in list(tasks.items())[:trials]:
        found.add("measured", in_process(peak_of, (task, root), folder / name), name)
    return found


PARTS = (
    Part("memory and descriptors over many trainings in one process", many_trainings, 150,
         "48 pictures of noise"),
    Part("peak memory over flat pictures of 100 to 169 megapixels", huge_pictures, 2,
         "4 flat pictures", "train", "none"),
)  # fmt: skip
