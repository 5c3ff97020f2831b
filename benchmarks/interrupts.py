"""Press Ctrl-C in short trainings at random executed lines, and count broken promises.

    python benchmarks/interrupts.py --trials 200

After each trial: the model holds the weights of the best epoch that the history names, it is in
eval mode and in its own memory format, gradients and autocast are as before, and the next training
in the same process is bit for bit what it would have been.
"""

import argparse
import contextlib
import copy
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import resnet_kit as rk
from resnet_kit.results import ROW
from resnet_kit.training import History

RESULTS = Path(__file__).resolve().parent.parent / "results"


class Presses:
    """Presses Ctrl-C when the n-th line is executed; counts the lines."""

    def __init__(self, at: tuple[int, ...] = ()):
        self.at, self.lines = set(at), 0

    def __enter__(self):
        sys.settrace(self._call)
        return self

    def _call(self, frame, event, argument):
        return None if frame.f_code.co_filename == __file__ else self._line

    def _line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines in self.at:
                signal.raise_signal(signal.SIGINT)
        return self._line

    def __exit__(self, *error):
        sys.settrace(None)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def loader(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12) % 3
    images = torch.randn(12, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def train(
    model: nn.Module, seen: dict[int, dict] | None = None, presses: Presses | None = None
) -> History:
    """Train three epochs in bf16; note the weights after each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    data = loader(0), loader(1)

    def note(history: History) -> None:
        if seen is not None:
            seen[len(history.rows)] = copy.deepcopy(model.state_dict())

    with presses or contextlib.nullcontext():
        return rk.train_and_eval(
            model, 3, nn.CrossEntropyLoss(), optimizer, *data, precision="bf16",
            on_epoch_end=note, progress=False,
        )  # fmt: skip


def same(state: dict, other: dict) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def rows_of(history: History) -> list[dict]:
    return [{**row, "seconds": 0} for row in history.rows]


def broken_promises(
    model: nn.Module, history: History | None, weights: dict[int, dict], rows: list[dict]
) -> list[str]:
    """Return what does not hold after an interrupted training."""
    broken = []
    torch.autocast_increment_nesting()
    if torch.autocast_decrement_nesting() != 0:
        broken.append("autocast is still entered")
    if not torch.is_grad_enabled():
        broken.append("gradients are off")
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        broken.append("Ctrl-C is still caught")
    if not model[0].weight.is_contiguous():
        broken.append("the memory format is another one")
    if history is not None:
        if any(module.training for module in model.modules()):
            broken.append("the model is in train mode")
        if rows_of(history) != rows[: len(history.rows)]:
            broken.append("the history is another one")
        if history.best_epoch and not same(model.state_dict(), weights[history.best_epoch]):
            broken.append("the weights are not those of the best epoch")
    torch.set_grad_enabled(True)
    if rows_of(train(small_net())) != rows:
        broken.append("the next training is another one")
    return broken


def campaign(trials: int, presses: int, seed: int = 0) -> Counter:
    """Return how often each ending and each broken promise came up."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    weights: dict[int, dict] = {}
    rows = rows_of(train(small_net(), weights))
    counted = Presses()
    train(small_net(), presses=counted)
    chance, found = random.Random(seed), Counter()
    for _ in range(trials):
        first = chance.randrange(1, counted.lines)
        at = (first, first + chance.randrange(1, 400))[:presses]
        model, history = small_net(), None
        with contextlib.suppress(KeyboardInterrupt):
            history = train(model, presses=Presses(at))
        found[history.stopped if history else "KeyboardInterrupt"] += 1
        for promise in broken_promises(model, history, weights, rows):
            found[f"broken: {promise}"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    rows = []
    for presses in (1, 2):
        found = campaign(given.trials, presses)
        print(presses, dict(found), flush=True)
        broken = sum(count for name, count in found.items() if name.startswith("broken"))
        about = dict.fromkeys(ROW)
        about |= {
            "data": "12 pictures of noise",
            "split": "train",
            "model": "a small net",
            "seed": 0,
        }
        about |= {"recipe": f"Ctrl-C {presses} x at random lines", "metric": "broken promises"}
        rows.append(about | {"value": broken, "n": given.trials})
    command = f"python benchmarks/interrupts.py --trials {given.trials}"
    rk.write_results(RESULTS / "interrupts.json", rows, command=command)


if __name__ == "__main__":
    main()
