"""What one training works with: its objects, its memory format, and an ear for Ctrl-C."""

import copy
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .history import History


class Interrupts:
    """Hears every Ctrl-C: Python drops one that comes in a destructor or while a worker starts."""

    def __init__(self):
        self.pressed, self.before = False, None

    def __enter__(self):
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.before = signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, number, frame) -> None:
        self.pressed = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was dropped before, if there was one."""
        if self.pressed:
            raise KeyboardInterrupt

    def __exit__(self, *error) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


class RunningAverage:
    """A copy of a model that follows it, step by step: `decay` times itself plus the rest of it.

    torch's AveragedModel does the same, but makes a GPU wait in each step.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.begun = copy.deepcopy(model).requires_grad_(False), False
        self._follow = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        tensors = (chain(m.parameters(), m.buffers()) for m in (self.module, model))
        pairs = list(zip(*tensors, strict=True))
        for own, theirs in pairs:
            if not self.begun or not own.is_floating_point():
                own.copy_(theirs)
        if self.begun:
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            self._follow(*map(list, zip(*floats, strict=True)), None)
        self.begun = True


@dataclass
class TrainingRun:
    """The objects of one training; `settings` are the numbers that a resumed run must share."""

    model: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    device: torch.device
    settings: dict
    memory_format: torch.memory_format | None
    forward: Callable[[Tensor], Tensor]
    averaged: RunningAverage | None
    interrupts: Interrupts
    history: History = field(default_factory=History)
    best: dict[str, Tensor] | None = None

    @property
    def scored(self) -> nn.Module:
        """The module that is validated and kept: the model, or its running average."""
        return self.averaged.module if self.averaged else self.model


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
    if wanted is not None:
        for tensor in tensors:
            tensor.data = tensor.data.contiguous(memory_format=wanted)
    match_strides(optimizer)
    try:
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
    for parameter, state in optimizer.state.items() if optimizer is not None else ():
        for name, value in state.items():
            of_weights = isinstance(value, Tensor) and value.shape == parameter.shape
            if of_weights and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
