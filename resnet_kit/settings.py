"""Quick mode and budgets, seeds, the data root, progress bars and threads."""

import ctypes
import functools
import os
import platform
import random
import re
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from .devices import cpu_count, default_device, float32_switches, set_float32_switches


def quick_mode() -> bool:
    """True when RESNET_KIT_QUICK is set (to anything but 0): tiny budgets, no network."""
    return os.environ.get("RESNET_KIT_QUICK", "0") not in ("", "0")


def choose(*, quick, cpu, gpu):
    """Return the value that fits this run: `quick` in quick mode, else `cpu` or `gpu` by device.

    >>> epochs = choose(quick=1, cpu=8, gpu=30)
    """
    if quick_mode():
        _announce_quick_mode()
        return quick
    return cpu if default_device().type == "cpu" else gpu


@functools.cache
def _announce_quick_mode() -> None:
    print("QUICK MODE (RESNET_KIT_QUICK is set): tiny budgets, so no number below is a result.")


def in_threads(function: Callable, items: Sequence) -> Iterator:
    """Yield function(item) in order, on all cores, a few in flight: memory stays constant."""
    window = 4 * cpu_count()
    with ThreadPoolExecutor(cpu_count()) as pool:
        waiting = deque(pool.submit(function, item) for item in items[:window])
        for index in range(len(items)):
            yield waiting.popleft().result()
            if index + window < len(items):
                waiting.append(pool.submit(function, items[index + window]))


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones, in this process from now on.

    It would give large blocks back at once, and the empty pages that come instead cost a training
    on the CPU time. The process stays as large as it once was. Other C libraries are left alone.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mmap_threshold, trim_threshold = -3, -1  # the names of malloc.h are M_MMAP_THRESHOLD, …
    if mallopt(mmap_threshold, 2**31 - 1) or mallopt(mmap_threshold, 2**25):  # older: 32 MiB
        mallopt(trim_threshold, 2**31 - 1)


def data_root() -> Path:
    """Return the folder of all data sets: RESNET_KIT_DATA, else `data/` of the checkout.

    For a package that was installed without its checkout it is `~/.cache/resnet_kit`.
    """
    if folder := os.environ.get("RESNET_KIT_DATA"):
        return Path(folder).expanduser()
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / "data"
    return Path.home() / ".cache" / "resnet_kit"


def short_path(path: Path) -> str:
    """Return a path as messages show it: `data/…` in the checkout's data root, else as it is."""
    root = data_root()
    if root == Path(__file__).resolve().parent.parent / "data" and Path(path).is_relative_to(root):
        return str(Path("data") / Path(path).relative_to(root))
    return str(path)


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with `~` for the home folder."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{path!r} is a {type(path).__name__}; expected a path")
    return Path(path).expanduser()


def mixed_seed(*numbers: int) -> int:
    """Return one well-mixed 63-bit seed made of several integers of 0 to 2^64 - 1, in their order.

    How many they are is mixed in too, because `SeedSequence` takes (3,) and (3, 0) for the same.
    """
    if min(numbers) < 0 or max(numbers) >= 2**64:
        raise ValueError(f"a seed is an integer of at least 0 and below 2^64, not {numbers}")
    words = np.array([len(numbers), *numbers], np.uint64).view(np.uint32)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def counted(count: int, noun: str) -> str:
    """Return "1 epoch" or "2 epochs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(classes: Sequence[str]) -> str:
    """Return how many classes there are, and the names of the first twelve."""
    count = f"{len(classes)} class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"{count}: {', '.join(classes[:12])}{', …' if len(classes) > 12 else ''}"


def shown_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes as people read them: `cat` for `0_cat`.

    Figures and the tables of an `Evaluation` show these. What a program compares with a folder or
    with `loaders.classes` keeps the name as it is: `classes` everywhere, `Classifier.predict`,
    `label_suspects`, the tables of a `FolderReport`, files, messages.

    The prefix is a number with `_`, `-` or a space before a letter. It is left out only where all
    classes have one, and no two of them are the same without it.

    >>> shown_names(["0_cat", "1_dog"])
    ('cat', 'dog')
    """
    bare = tuple(re.sub(r"^\d+[ _-]+(?=[^\W\d_])", "", name) for name in classes)
    all_had_one = all(short != name for short, name in zip(bare, classes, strict=True))
    return bare if all_had_one and len(set(bare)) == len(bare) else tuple(classes)


def wrong(name: str, value, expected: str) -> ValueError:
    """Return the error that says what an argument is and what was expected."""
    if isinstance(value, type):
        found = f"the class {value.__name__}"
    elif value is None or isinstance(value, str | int | float | list | tuple | dict):
        found = repr(value)
    else:
        found = f"a {type(value).__name__}"
    return ValueError(f"{name} is {found}; expected {expected}")


def check_count(name: str, value) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise wrong(name, value, "a whole number of at least 1")


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(mixed_seed(seed) % 2**32)
    torch.manual_seed(seed)


def seed_cpu(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and torch on the CPU; cheap enough for a picture."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def own_random_numbers(seed: int, device: torch.device | None = None):
    """Seed Python, NumPy, torch on the CPU and `device` inside; put the caller's states back after.

    That takes several times as long as `seed_cpu`: for a batch rather than for each picture.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # A training on the CPU seeds a GPU beside it too.
    on_cuda = device is not None and torch.cuda.is_available()
    on_mps = device is not None and device.type == "mps"
    seed_cpu(seed)
    if on_cuda:  # of several GPUs each has its own
        accelerators = torch.cuda.get_rng_state_all()
        torch.cuda.manual_seed_all(seed)
    if on_mps:
        accelerator = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if on_cuda:
            torch.cuda.set_rng_state_all(accelerators)
        if on_mps:
            torch.mps.set_rng_state(accelerator)


class Interrupts:
    """Hears Ctrl-C between two steps, so that none is left half done.

    Inside, the first press is remembered, and `check` raises it as a KeyboardInterrupt. While the
    next batch is awaited a press is raised at once; a second press is raised wherever it comes.
    Once one was raised, or `closing` is set, presses are ignored: what is put back is put back
    whole. Python itself drops a KeyboardInterrupt that comes in a destructor or while a worker
    starts; `check` raises that one too.
    """

    def __init__(self):
        self.presses, self.waiting, self.closing, self.before = 0, False, False, None

    def __enter__(self):
        self.gradients, self.nesting = torch.is_grad_enabled(), _autocast_nesting()
        self.autocast, self.switches = _autocast_switches(), float32_switches()
        handler = signal.getsignal(signal.SIGINT)
        outer = isinstance(getattr(handler, "__self__", None), Interrupts)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and (outer or handler is signal.default_int_handler):
            self.before = signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, number, frame) -> None:
        self.presses += 1
        if not self.closing and (self.waiting or self.presses == 2):
            self.check()

    def check(self) -> None:
        """Raise a press that was remembered."""
        if self.presses:
            self.closing = True
            raise KeyboardInterrupt

    def batches(self, loader) -> Iterator:
        """Yield the batches of a loader; a press is raised before and while one is awaited."""
        self.waiting = True
        try:
            self.check()
            for batch in loader:
                self.waiting = False
                yield batch
                self.waiting = True
                self.check()
            self.check()
        finally:
            self.waiting = False

    def __exit__(self, *error) -> None:
        self.closing = True
        # A press may cut the end of no_grad, of autocast or of exact_float32 short.
        torch.set_grad_enabled(self.gradients)
        set_float32_switches(*self.switches)
        for device, (enabled, dtype) in self.autocast.items():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        while _autocast_nesting() > self.nesting:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def _autocast_switches() -> dict[str, tuple[bool, torch.dtype]]:
    return {
        device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    }


def _autocast_nesting() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def progress_bar(iterable=None, *, total=None, description="", show=True, delay=0):
    """Return a tqdm bar that vanishes when it is done and works with or without ipywidgets.

    With `delay` it comes after so many seconds, and not at all for what takes less.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns when ipywidgets is missing; text bars are fine
        from tqdm.auto import tqdm

        hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm's own is for text only
        hidden = hidden or not show
        file = sys.stdout if in_notebook() else sys.stderr  # there stderr has the red of errors
        return tqdm(
            iterable,
            total=total,
            desc=description,
            leave=False,
            disable=hidden,
            delay=delay,
            file=file,
        )
