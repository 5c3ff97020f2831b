"""Where and how to compute: device, precision, memory format."""

import os
import platform
import re
import warnings
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Where Linux says how much memory a container may use, and uses: its second and its first way.
CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
EXACT = False, "highest"  # TF32 in convolutions, and how exact matrix products are


def default_device() -> torch.device:
    """Return the device that models go to: CUDA, else Apple's MPS, else the CPU.

    Of several processes that torchrun or Accelerate started on a machine, each has a GPU of its
    own. RESNET_KIT_DEVICE (for example `cpu` or `cuda:1`) overrides the choice.
    """
    if name := os.environ.get("RESNET_KIT_DEVICE"):
        return torch.device(name)
    if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
        return torch.device("cuda", int(rank) % torch.cuda.device_count())
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
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    if not (tensor.is_contiguous() or channels_last):  # expanded or overlapping: pinning would fail
        tensor = tensor.contiguous()
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
    """Run a forward pass in this precision: autocast for bf16 and fp16, true float32 for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    with (
        exact_float32(precision),
        torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"),
    ):
        yield


@contextmanager
def exact_float32(precision: str):
    """For "fp32" switch off, inside, what is faster and less exact: TF32, and bf16 in its place.

    A backward pass belongs inside too. Inside another one it costs next to nothing.
    """
    before = float32_switches() if precision == "fp32" else EXACT
    if before == EXACT:
        yield
        return
    set_float32_switches(*EXACT)
    try:
        yield
    finally:
        set_float32_switches(*before)


def float32_switches() -> tuple[bool | None, str | None]:
    """Return whether convolutions may use TF32, and how exact matrix products are.

    torch refuses the switches to someone who used its newer ones: that is a choice, and gives None.
    """
    convolutions = products = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the newer ones, which torch.compile does not read
        with suppress(RuntimeError):
            convolutions = torch.backends.cudnn.allow_tf32
        with suppress(RuntimeError):
            products = torch.get_float32_matmul_precision()
    return convolutions, products


def set_float32_switches(convolutions: bool | None, products: str | None) -> None:
    """Set what `float32_switches` returns; None leaves a switch as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if convolutions is not None:
            with suppress(RuntimeError):
                torch.backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            with suppress(RuntimeError):
                torch.set_float32_matmul_precision(products)


def fast_format(device: torch.device, precision: str) -> torch.memory_format | None:
    """Return channels_last where it pays, and None for plain float32 in the model's own format."""
    plain = precision == "fp32" or device.type == "mps"  # whose BatchNorm fails in channels_last
    return None if plain else torch.channels_last


@contextmanager
def memory_format(
    model: nn.Module, wanted: torch.memory_format | None, optimizer: Optimizer | None = None
):
    """Hold convolution weights in this format inside, and give them their strides back after."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.ndim == 4]
    strides = [tensor.stride() for tensor in tensors]
    try:
        if wanted is not None:
            for tensor in tensors:
                tensor.data = tensor.data.contiguous(memory_format=wanted)
        match_strides(optimizer)
        yield
    finally:
        for tensor, stride in zip(tensors, strides, strict=True):
            if tensor.stride() != stride:
                restored = torch.empty_strided(
                    tensor.shape, stride, dtype=tensor.dtype, device=tensor.device
                )
                tensor.data = restored.copy_(tensor.data)
        match_strides(optimizer)


def match_strides(optimizer: Optimizer | None) -> None:
    """Lay out what the optimizer remembers like its parameters: fused ones pair them in memory."""
    if optimizer is None:
        return
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            of_weights = isinstance(value, Tensor) and value.shape == parameter.shape
            if of_weights and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def hardware() -> str:
    """Return the device in words: its name, cores or memory, and its native precision."""
    device = default_device()
    name = f"{_cpu_name()}, {cpu_count()} cores"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type != "cpu":
        name = f"{device.type.upper()} of {name}"
    return f"{name}, {best_precision(device)}"


def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA device; else of this machine, or of a container's share.

    Processes that were started together share them.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    for folder, limit, used in CONTAINERS:
        try:
            most, taken = (int((folder / name).read_text()) for name in (limit, used))
            cached = re.search(r"inactive_file (\d+)", (folder / "memory.stat").read_text())
        except (OSError, ValueError):  # no such limit
            continue
        free = min(free, most - taken + (int(cached[1]) if cached else 0))
    return max(free, 0) // processes_here()


def cpu_count() -> int:
    """Return how many cores this process may use; those started together share them."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // processes_here())


def processes_here() -> int:
    """Return how many processes torchrun or Accelerate started together on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
