"""What one training works with: its objects, its memory format, and an ear for Ctrl-C."""

import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
    averaged: AveragedModel | None
    interrupts: Interrupts
    history: History = field(default_factory=History)
    best: dict[str, Tensor] | None = None

    @property
    def scored(self) -> nn.Module:
        """The module that is validated and kept: the model, or its running average."""
        return self.averaged.module if self.averaged else self.model


def average_of(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return a running average of the model's weights, or None without a decay."""
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


@contextmanager
def memory_format(model: nn.Module, wanted: torch.memory_format | None):
    """Hold convolution weights in this format inside, and give them their strides back after."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.ndim == 4]
    strides = [tensor.stride() for tensor in tensors]
    if wanted is not None:
        for tensor in tensors:
            tensor.data = tensor.data.contiguous(memory_format=wanted)
    try:
        yield
    finally:
        for tensor, stride in zip(tensors, strides, strict=True):
            if tensor.stride() != stride:
                restored = torch.empty_strided(
                    tensor.shape, stride, dtype=tensor.dtype, device=tensor.device
                )
                tensor.data = restored.copy_(tensor.data)
