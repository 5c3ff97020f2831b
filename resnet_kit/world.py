"""The processes that work together, and this one's place among them."""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .devices import default_device
from .settings import Interrupts


class World:
    """One process alone: what several would exchange, it has already. `Processes` are several.

    `rank` numbers the processes from 0 to `size` - 1; 0 is the one that shows and writes things.
    """

    rank, size = 0, 1

    def interrupts(self) -> Interrupts:
        """Return what hears Ctrl-C; of several processes all stop before the same batch."""
        return Interrupts()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model to call in training; its weights become those of process 0.

        On the way back its gradients become the mean over all processes.
        """
        return model

    def reducing(self, wrapped: nn.Module, wanted: bool):
        """Return a context for one way forth and back; unless `wanted`, gradients stay local."""
        return nullcontext()

    def mean(self, value):
        """Return the mean of a number or a tensor over all processes."""
        return value

    def average_statistics(self, model: nn.Module, *others: nn.Module) -> None:
        """Make the statistics that BatchNorm gathers, where it learns, the mean over all processes.

        `others` are copies of the model, whose modules learn where the model's do.
        """

    def gather(self, value) -> list:
        """Return every process's value, in the order of their ranks; tensors must be on the CPU."""
        return [value]

    def once(self, function: Callable):
        """Call a function in process 0 alone; all get its result, or its error."""
        return function()

    def together(self):
        """Return a context in which an error because another process is gone says so."""
        return nullcontext()


class Processes(World):
    """Several processes over torch.distributed: a GPU each (NCCL), or on CPUs (gloo)."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        # What lies on the CPU is exchanged there, so that no GPU has to wait for it.
        self.group = dist.new_group(backend="gloo")

    def interrupts(self) -> Interrupts:
        return SharedInterrupts(self)

    def wrap(self, model: nn.Module) -> nn.Module:
        # Of 1 x 1 convolutions in channels_last; both strides mean the same place.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        wrapped = DistributedDataParallel(model)
        wrapped.broadcast_buffers = False  # see `average_statistics`, once an epoch
        return wrapped

    def reducing(self, wrapped: nn.Module, wanted: bool):
        return nullcontext() if wanted else wrapped.no_sync()

    def mean(self, value):
        is_tensor = isinstance(value, Tensor)
        total = value.clone() if is_tensor else torch.tensor([float(value)], dtype=torch.float64)
        dist.all_reduce(total, group=self.group if total.device.type == "cpu" else None)
        return total / self.size if is_tensor else total.item() / self.size

    def average_statistics(self, model: nn.Module, *others: nn.Module) -> None:
        for net in dict.fromkeys((model, *others)):
            pairs = zip(model.modules(), net.modules(), strict=True)
            for learning in [twin for module, twin in pairs if module.training]:
                for buffer in learning.buffers(recurse=False):
                    if buffer.is_floating_point():
                        buffer.copy_(self.mean(buffer))

    def gather(self, value) -> list:
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def once(self, function: Callable):
        outcome = [None, None]
        if self.rank == 0:
            try:
                outcome = [function(), None]
            except Exception as error:
                outcome = [None, error]
        dist.broadcast_object_list(outcome, group=self.group)
        result, error = outcome
        if error is not None:
            raise error
        return result

    @contextmanager
    def together(self):
        try:
            yield
        except RuntimeError as error:
            if "gloo" not in str(error) and not isinstance(error, dist.DistError):
                raise
            raise RuntimeError(
                f"process {self.rank} (of 0 to {self.size - 1}) has lost another one, which ended "
                "or cannot be reached: its own output says why. Start all of them again; with a "
                "checkpoint, resume=True goes on after the last whole epoch"
            ) from error


class SharedInterrupts(Interrupts):
    """Ctrl-C in any of several processes stops all of them before the same batch.

    A press is only noted, because a process that left at once would let the others wait for it.
    """

    def __init__(self, world: Processes):
        super().__init__()
        self.world = world

    def _press(self, number, frame) -> None:
        self.presses += 1

    def check(self) -> None:
        if self.world.mean(self.presses > 0):
            self.presses = 1
            super().check()

    def batches(self, loader) -> Iterator:
        """Yield the batches of a `Part`, which are as many in each process; None is left out."""
        for batch in loader:
            self.check()
            if batch is not None:
                yield batch


def this_world() -> World:
    """Return the processes that torchrun or Accelerate started together, or this one alone.

    The first call joins them; all processes must make it.

    Raises:
        RuntimeError: there are several, and Accelerate is missing or finds another number.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        size = dist.get_world_size()
    return World() if size == 1 else _join(size)


@functools.cache
def _join(size: int) -> World:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise RuntimeError(
            f"{size} processes at once need Accelerate: pip install accelerate (or "
            "pip install -e '.[several]' here); for a single process start python, not torchrun"
        ) from error
    state = PartialState(cpu=default_device().type == "cpu")
    if state.num_processes != size:
        raise RuntimeError(
            f"WORLD_SIZE is {size}, but Accelerate finds {state.num_processes}: start the program "
            "with torchrun or accelerate launch, on a Mac with RESNET_KIT_DEVICE=cpu"
        )
    return Processes(state.process_index, size)
