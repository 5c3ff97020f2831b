"""Press Ctrl-C once or twice, at random executed lines and moments, and count broken promises.

After each trial: the model holds the weights of the best epoch that the history names, it is in
eval mode and in its own memory format; gradients, autocast, TF32 and the caller's random numbers
are as before; and the next training in the same process is bit for bit what it would have been.
"""

import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import Outcome, Part, copy_of, loader, quiet, rows_of, same, small_net
from torch import nn

import resnet_kit as rk
from resnet_kit.data.loaders import Loaders
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.training import History

EPOCHS = 3


class Lines:
    """Presses Ctrl-C when the n-th line is executed, and again `gap` calls or returns later.

    Python takes a trace function away in which an error was raised, so the second press comes from
    the profile function. Counts the lines.
    """

    def __init__(self, at: int = 0, gap: int = 0):
        self.at, self.gap, self.lines, self.calls = at, gap, 0, 0

    def __enter__(self):
        sys.settrace(self._call)
        return self

    def _call(self, frame, event, argument):
        return None if frame.f_code.co_filename == __file__ else self._line

    def _line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                if self.gap:
                    sys.setprofile(self._again)
                signal.raise_signal(signal.SIGINT)
        return self._line

    def _again(self, frame, event, argument):
        self.calls += frame.f_code.co_filename != __file__
        if self.calls >= self.gap:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    def __exit__(self, *error):
        sys.setprofile(None)
        sys.settrace(None)


class Moments:
    """Presses Ctrl-C so many seconds after entering, and again `gap` seconds later."""

    def __init__(self, seconds: float, gap: float = 0.0):
        self.seconds, self.gap, self.left = seconds, gap, 1 + (gap > 0)

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self._press)
        signal.setitimer(signal.ITIMER_REAL, self.seconds, self.gap)
        return self

    def _press(self, number, frame):
        self.left -= 1
        if not self.left:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.raise_signal(signal.SIGINT)

    def __exit__(self, *error):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


@dataclass
class Reference:
    """An uninterrupted training: its rows and the weights before and after each epoch."""

    rows: list[dict]
    weights: dict[int, dict]
    lines: int
    seconds: float

    def best_of(self, epochs: int) -> dict:
        """Return the weights of the best of the first epochs; those of the start before them."""
        scores = [row["val_accuracy"] for row in self.rows[:epochs]]
        return self.weights[1 + scores.index(max(scores)) if scores else 0]


def train(model: nn.Module, precision: str, presses=None, note=None) -> History:
    """Train a few epochs and call `note` after each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    arguments = nn.CrossEntropyLoss(), optimizer, loader(0), loader(1)
    options = {"precision": precision, "on_epoch_end": note, "progress": False}
    with quiet(), presses or contextlib.nullcontext():
        return rk.train_and_eval(model, EPOCHS, *arguments, **options)


def reference(precision: str) -> Reference:
    """Train without a press, three times: warm up, note weights, count lines and seconds."""
    model = small_net()
    weights = {0: copy_of(model.state_dict())}

    def note(history: History) -> None:
        weights[len(history.rows)] = copy_of(model.state_dict())

    rows = rows_of(train(model, precision, note=note))
    counted = Lines()
    train(small_net(), precision, counted)
    start = time.perf_counter()
    train(small_net(), precision)
    return Reference(rows, weights, counted.lines, time.perf_counter() - start)


class Surroundings:
    """What no call may leave behind in the process."""

    def __init__(self):
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        self.numbers = _random_states()

    def broken(self) -> list[str]:
        """Return what is another one now, and put it right."""
        tf32 = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        handler = signal.getsignal(signal.SIGINT)
        found = {
            "autocast is still entered": _autocast_nesting() != 0,
            "autocast is switched on": torch.is_autocast_enabled("cpu"),
            "gradients are off": not torch.is_grad_enabled(),
            "TF32 is switched off": tf32 != (True, "high"),
            "Ctrl-C is still caught": handler is not signal.default_int_handler,
            "the caller's random numbers changed": _random_states() != self.numbers,
        }
        torch.set_grad_enabled(True)
        torch.set_float32_matmul_precision("highest")
        while _autocast_nesting():
            torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cpu", False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return [name for name, is_so in found.items() if is_so]


def _random_states() -> tuple:
    numpy = np.random.get_state()
    return random.getstate(), torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2]


def _autocast_nesting() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def broken_of_model(
    model: nn.Module, history: History | None, finished: int, wanted: Reference
) -> list[str]:
    """Return what does not hold of the model and its history after an interrupted training."""
    broken = []
    if not model[0].weight.is_contiguous():
        broken.append("the memory format is another one")
    if history is None:  # pressed before or after all of it
        kept = wanted.best_of(finished), wanted.best_of(finished + 1)
        if finished and not any(same(model.state_dict(), weights) for weights in kept):
            broken.append("what was learned is lost")
        return broken
    if any(module.training for module in model.modules()):
        broken.append("the model is in train mode")
    if rows_of(history) != wanted.rows[: len(history.rows)]:
        broken.append("the history is another one")
    if history.rows and not same(model.state_dict(), wanted.best_of(len(history.rows))):
        broken.append("the weights are not those of the best epoch")
    return broken


def trainings(trials: int, seed: int, make_presses: Callable) -> Outcome:
    """Interrupt trainings in bf16 and fp32 by turns."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = {precision: reference(precision) for precision in ("bf16", "fp32")}
    chance, found = random.Random(seed), Outcome()
    for number in range(trials):
        precision = ("bf16", "fp32")[number % 2]
        presses = make_presses(chance, wanted[precision])
        model, history, finished, before = small_net(), None, [], Surroundings()
        with contextlib.suppress(KeyboardInterrupt):
            history = train(model, precision, presses, finished.append)
        broken = before.broken()
        broken += broken_of_model(model, history, len(finished), wanted[precision])
        if rows_of(train(small_net(), precision)) != wanted[precision].rows:
            broken.append("the next training is another one")
        ending = history.stopped if history else "KeyboardInterrupt"
        found.add(ending, broken, f"{precision}, {_words(presses)}")
    return found


def _words(presses) -> str:
    if isinstance(presses, Lines):
        return f"line {presses.at:,}, gap {presses.gap}"
    return f"after {presses.seconds * 1e3:.1f} ms, gap {presses.gap * 1e3:.1f} ms"


def once_by_line(trials: int, folder: Path, seed: int) -> Outcome:
    """Press at one random executed line."""
    return trainings(trials, seed, lambda chance, about: Lines(chance.randrange(1, about.lines)))


def twice_by_line(trials: int, folder: Path, seed: int) -> Outcome:
    """Press again 1 to 3,000 calls after the first press, mostly soon after it."""

    def presses(chance: random.Random, about: Reference) -> Lines:
        return Lines(chance.randrange(1, about.lines), int(3000 ** chance.random()))

    return trainings(trials, seed, presses)


def once_by_time(trials: int, folder: Path, seed: int) -> Outcome:
    """Press at one random moment."""
    return trainings(trials, seed, lambda chance, x: Moments(chance.uniform(1e-4, x.seconds)))


def twice_by_time(trials: int, folder: Path, seed: int) -> Outcome:
    """Press again 0.05 to 20 ms after the first press."""

    def presses(chance: random.Random, about: Reference) -> Moments:
        return Moments(chance.uniform(1e-4, about.seconds), 5e-5 * 400 ** chance.random())

    return trainings(trials, seed, presses)


def calls(trials: int, seed: int, call: Callable, check: Callable) -> Outcome:
    """Interrupt `call(number)` at random lines; `check(number)` gives what is broken after."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance, found = random.Random(seed), Outcome()
    with quiet():
        call(-2)  # warm up
        check(-2)
        with Lines() as counted:
            call(-1)
        check(-1)
        for number in range(trials):
            before, ending = Surroundings(), "KeyboardInterrupt"
            presses = Lines(chance.randrange(1, counted.lines))
            try:
                with presses:
                    call(number)
                ending = "finished"
            except KeyboardInterrupt:
                pass
            found.add(ending, before.broken() + check(number), _words(presses))
    return found


def mixed_modes(model: nn.Module) -> nn.Module:
    """Put some modules into train and some into eval mode."""
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    return model


def _modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def searches(trials: int, folder: Path, seed: int) -> Outcome:
    """Press in `find_lr`: model, optimizer and modes are as before."""
    model = mixed_modes(small_net())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    data, weights, modes = loader(0), copy_of(model.state_dict()), _modes(model)

    def call(number: int) -> None:
        rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, data, steps=8)

    def check(number: int) -> list[str]:
        state = optimizer.state_dict()
        rates = [group["lr"] for group in state["param_groups"]]
        found = {
            "the weights are others": not same(model.state_dict(), weights),
            "the modes are others": _modes(model) != modes,
            "the optimizer is another one": bool(state["state"]) or rates != [0.01],
            "gradients are left": any(p.grad is not None for p in model.parameters()),
        }
        model.load_state_dict(weights)
        optimizer.load_state_dict({**state, "state": {}})
        optimizer.param_groups[0]["lr"] = 0.01
        mixed_modes(model)
        return [name for name, is_so in found.items() if is_so]

    return calls(trials, seed, call, check)


def evaluations(trials: int, folder: Path, seed: int) -> Outcome:
    """Press in `evaluate`: every module keeps its mode."""
    model, data = mixed_modes(small_net()), loader(0, generator=torch.Generator())
    modes = _modes(model)

    def call(number: int) -> None:
        rk.evaluate(model, data, precision=("fp32", "bf16")[number % 2], progress=False)

    def check(number: int) -> list[str]:
        broken = ["the modes are others"] if _modes(model) != modes else []
        mixed_modes(model)
        return broken

    return calls(trials, seed, call, check)


def array_data(channels: int = 3) -> Loaders:
    """Return loaders of 12 pictures to train and 9 to validate with, of three classes."""
    rng = np.random.default_rng(0)
    shape = (8, 8, 3) if channels == 3 else (8, 8)
    train, val = (
        (rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 3)
        for count in (12, 9)
    )
    return rk.array_loaders(train=train, val=val, batch_size=4)


def extractions(trials: int, folder: Path, seed: int) -> Outcome:
    """Press in `extract_features`: modes, memory format and hooks are as before."""
    model, data = mixed_modes(small_net()), array_data()
    modes = _modes(model)

    def call(number: int) -> None:
        precision = ("fp32", "bf16")[number % 2]
        rk.extract_features(model, data, precision=precision, progress=False)

    def check(number: int) -> list[str]:
        found = {
            "the modes are others": _modes(model) != modes,
            "the memory format is another one": not model[0].weight.is_contiguous(),
            "a hook is left": bool(model.fc._forward_pre_hooks),
        }
        mixed_modes(model)
        model[0].weight.data = model[0].weight.data.contiguous()
        model.fc._forward_pre_hooks.clear()
        return [name for name, is_so in found.items() if is_so]

    return calls(trials, seed, call, check)


def savings(trials: int, folder: Path, seed: int) -> Outcome:
    """Press in `save_classifier`, every other time over an older file: absent, old or new."""
    data = array_data(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, older = (mixed_modes(cifar_resnet(8, 3, in_channels=1)) for _ in range(2))
    modes, path = _modes(model), folder / "classifier.safetensors"
    states = [x.state_dict() for x in (model, older)]

    def call(number: int) -> None:
        rk.save_classifier(path, model, data, calibrate=number % 4 < 2)

    def check(number: int) -> list[str]:
        broken = ["the modes are others"] if _modes(model) != modes else []
        if path.exists() and not _loads_one_of(path, states):
            broken.append("the file is neither the old nor the new one")
        others = [file.name for file in folder.iterdir() if file != path]
        broken += [f"{others[0]} is left"] if others else []
        mixed_modes(model)
        for file in folder.iterdir():
            file.unlink()
        if number % 2 == 0:
            rk.save_classifier(path, older, data, calibrate=False)
        return broken

    return calls(trials, seed, call, check)


def _loads_one_of(path: Path, states: list[dict]) -> bool:
    try:
        loaded = rk.load_classifier(path).model.state_dict()
    except ValueError:
        return False
    return any(same(loaded, state) for state in states)


PARTS = (
    Part("Ctrl-C once in trainings, at a random executed line", once_by_line, 600),
    Part("Ctrl-C twice in trainings, at random executed lines and calls", twice_by_line, 400),
    Part("Ctrl-C once in trainings, at a random moment", once_by_time, 127),
    Part("Ctrl-C twice in trainings, at random moments", twice_by_time, 99),
    Part("Ctrl-C in find_lr", searches, 65),
    Part("Ctrl-C in evaluate", evaluations, 120, split="val"),
    Part("Ctrl-C in extract_features", extractions, 120),
    Part("Ctrl-C in save_classifier", savings, 60, model="ResNet-8"),
)
