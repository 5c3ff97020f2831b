"""Mode, budgets, seeds, device, precision and data root: what every other module asks first."""

import ctypes
import functools
import gc
import multiprocessing
import os
import platform
import random
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path

import numpy as np
import torch


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


def default_device() -> torch.device:
    """Return the device that models go to: CUDA, else Apple's MPS, else the CPU.

    RESNET_KIT_DEVICE (for example `cpu` or `cuda:1`) overrides the choice.
    """
    if name := os.environ.get("RESNET_KIT_DEVICE"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def place(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> torch.device:
    """Move a model from the CPU to the default device; return the device where it is now.

    A model that someone put on an accelerator stays there. What the optimizer remembers follows.
    """
    tensor = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    if tensor.device.type != "cpu":
        return tensor.device
    device = default_device()
    model.to(device)
    if optimizer is not None and optimizer.state and device.type != "cpu":
        optimizer.load_state_dict(optimizer.state_dict())  # Adagrad's, say, is as old as itself
    return device


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device, without waiting for what a CUDA GPU is busy with.

    Apple's GPUs would read a tensor that may be freed already, so there it waits.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def best_precision(device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32": the fastest arithmetic that the hardware has natively.

    Emulated bf16 does not count: it is slower than fp32.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        features = _cpu_features()
        return "bf16" if features["avx512_bf16"] or features["amx_bf16"] else "fp32"
    return "fp32"


def _cpu_features() -> dict[str, bool]:
    if hasattr(torch.cpu, "get_capabilities"):
        return {"avx512_bf16": False, "amx_bf16": False, **torch.cpu.get_capabilities()}
    return {  # older versions of torch
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
    }


def resolve_precision(device: torch.device, precision: str) -> str:
    """Return `precision`, or for "auto" what `best_precision` says of the device."""
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(f"precision is {precision!r}; expected one of: auto, fp32, bf16, fp16")
    return best_precision(device) if precision == "auto" else precision


@contextmanager
def arithmetic(device: torch.device, precision: str):
    """Run what is inside in this precision: autocast for bf16 and fp16, true float32 for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    autocast = torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
    exact = device.type == "cuda" and precision == "fp32"
    with autocast, without_tf32() if exact else nullcontext():
        yield


@contextmanager
def without_tf32():
    """Switch off cuDNN's 19-bit convolutions, its default, inside.

    torch refuses the switch to someone who used its newer ones: that is a choice, and is kept.
    """
    cudnn = torch.backends.cudnn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the newer ones, which torch.compile does not read
        try:
            before, cudnn.allow_tf32 = cudnn.allow_tf32, False
        except RuntimeError:
            before = False
    try:
        yield
    finally:
        if before:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cudnn.allow_tf32 = True


def cpu_count() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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


def prepare_worker(worker: int) -> None:
    """Leave a Ctrl-C to the main process, and leave alone what a fork took over from it.

    Without the freeze the worker's garbage collector finds loaders that the main process has just
    dropped, and prints "can only test a child process" for each of their workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def workers_fork() -> bool:
    """True where a new process is a copy of this one, which takes milliseconds."""
    method = multiprocessing.get_start_method(allow_none=True)
    return (method or multiprocessing.get_all_start_methods()[0]) == "fork"


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


def mixed_seed(*numbers: int) -> int:
    """Return one well-mixed 63-bit seed made of several non-negative integers, in their order."""
    if min(numbers) < 0:
        raise ValueError(f"a seed is an integer of at least 0, not {min(numbers)}")
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(mixed_seed(seed) % 2**32)
    torch.manual_seed(seed)


@contextmanager
def own_random_numbers(seed: int, device: torch.device | None = None):
    """Seed Python, NumPy, torch on the CPU and `device` inside; put the caller's states back after.

    Cheap enough to be used once per picture.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = device is not None and device.type != "cpu" and torch.get_device_module(device)
    which = "_all" if accelerator is torch.cuda else ""  # of several GPUs each has its own
    state = getattr(accelerator, f"get_rng_state{which}")() if accelerator else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if accelerator:
        getattr(accelerator, f"manual_seed{which}")(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if accelerator:
            getattr(accelerator, f"set_rng_state{which}")(state)


def progress_bar(iterable=None, *, total=None, description="", show=True):
    """Return a tqdm bar that vanishes when it is done and works with or without ipywidgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns when ipywidgets is missing; text bars are fine
        from tqdm.auto import tqdm

        hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm's own is for text only
        return tqdm(
            iterable, total=total, desc=description, leave=False, disable=hidden or not show
        )
