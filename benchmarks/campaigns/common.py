"""What all campaigns share: what one found, what it trains, and processes that start fast."""

import contextlib
import io
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from resnet_kit.training import History


@dataclass
class Outcome:
    """What a campaign found: attacks that were tried, how they ended, and each broken promise."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    endings: Counter = field(default_factory=Counter)

    def add(self, ending: str, broken: Sequence[str] = (), about: str = "") -> None:
        """Count an attack; however many promises it broke, it is lost once."""
        self.tried += 1
        self.endings[ending] += 1
        if broken:
            self.lost.append(": ".join(filter(None, (about, "; ".join(broken)))))


@dataclass(frozen=True)
class Part:
    """One kind of attack: `run(trials, folder, seed)`, and what its row of the results says."""

    recipe: str
    run: Callable[[int, Path, int], Outcome]
    trials: int
    data: str = "12 pictures of noise"
    split: str = "train"
    model: str = "a small net"


def small_net() -> nn.Module:
    """Return a convolution, BatchNorm, dropout and a linear head; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        net.add_module("fc", nn.Linear(4, 3))
        return net


def noise(seed: int, count: int = 12) -> TensorDataset:
    """Return pictures of noise whose brightness follows the class: learnable."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    return TensorDataset(images, labels)


def loader(seed: int, count: int = 12, **options) -> DataLoader:
    """Return batches of four pictures of noise."""
    return DataLoader(noise(seed, count), batch_size=4, **options)


def copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict that does not change with its model."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Say whether two states are bit for bit one."""
    return state.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in state.items()
    )


def rows_of(history: History) -> list[dict]:
    """Return the rows of a history without the seconds, the only thing that may differ."""
    return [{**row, "seconds": 0} for row in history.rows]


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what is printed inside, and warnings to oneself."""
    with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield out


@contextlib.contextmanager
def environment(**variables) -> Iterator[None]:
    """Set environment variables inside; None takes one away."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        _set(variables)
        yield
    finally:
        _set(before)


def _set(variables: dict) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = str(value)


def processes():
    """Return a maker of processes that have imported the package and done nothing yet.

    They are forked from one server, each within milliseconds. Needs Linux or macOS.
    """
    context = multiprocessing.get_context("forkserver")
    slow = ["torch._dynamo", "sklearn.model_selection", "resnet_kit.data.datasets"]
    context.set_forkserver_preload(["resnet_kit", *slow])
    return context


def settle() -> None:
    """Have a new process compute as all others: on the CPU, in one thread, its workers forked."""
    os.environ["RESNET_KIT_DEVICE"] = "cpu"
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)


def started(target: Callable, *arguments) -> BaseProcess:
    """Call a function of a module, in a process of its own."""
    process = processes().Process(target=target, args=arguments)
    process.start()
    return process


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds, that long at most; say whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return condition()
