"""Running a model over a loader without training it: `evaluate` and what it is made of."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler

from ..models.transfer import kept_modes
from ..settings import arithmetic, place, progress_bar, resolve_precision, send
from .evaluation import Evaluation


def evaluate(
    model: nn.Module,
    loader,
    *,
    criterion=None,
    views: Sequence[Callable[[Tensor], Tensor]] = (),
    precision: str = "fp32",
    progress: bool = True,
) -> Evaluation:
    """Score a model on every batch of (inputs, labels) of a loader, in eval mode.

    The loss is `criterion`'s (default: cross-entropy), each batch weighted by its size. Every
    module keeps the mode (train or eval) that it had. Class names and files are the data set's.

    `views` is test-time augmentation: functions from a batch of pictures `(N, C, H, W)` to a
    changed one, such as torchvision's `hflip`; the probabilities are averaged over the pictures as
    they are and every view of them.
    """
    model = _Views(model, views) if views else model
    device = place(model)
    precision = resolve_precision(device, precision)
    criterion = criterion or nn.CrossEntropyLoss()
    if isinstance(criterion, nn.Module):
        criterion.to(device)
    probabilities, labels, losses = [], [], []
    batches = progress_bar(loader, description="evaluate", show=progress)
    with kept_modes(model):
        for logits, targets in predict_batches(model, batches, device, precision):
            probabilities.append(logits.softmax(1))
            labels.append(targets)
            losses.append(criterion(logits, targets) * len(targets))
    if not labels:
        raise ValueError("the loader is empty; expected at least one batch of (inputs, labels)")
    count = sum(map(len, labels))
    return Evaluation(
        loss=torch.stack(losses).sum().item() / count,
        labels=torch.cat(labels).long().cpu().numpy(),
        probabilities=torch.cat(probabilities).cpu().numpy(),
        classes=_class_names(loader, probabilities[0].shape[1]),
        files=_files_in_order(loader, count),
    )


class _Views(nn.Module):
    """The logarithm of a model's mean probabilities over several views of each picture."""

    def __init__(self, model: nn.Module, views: Sequence[Callable[[Tensor], Tensor]]):
        super().__init__()
        self.model, self.views = model, views

    def forward(self, pictures: Tensor) -> Tensor:
        batches = (pictures, *(view(pictures) for view in self.views))
        logs = [checked_logits(self.model, batch).float().log_softmax(1) for batch in batches]
        return torch.stack(logs).logsumexp(0) - math.log(len(logs))


@torch.no_grad()
def predict_batches(
    model: nn.Module, batches, device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float32 logits (N, K) and labels (N,) of each batch, on the device, in eval mode."""
    model.eval()
    for inputs, labels in batches:
        with arithmetic(device, precision):
            logits = checked_logits(model, send(inputs, device))
        check_labels(labels, logits)
        yield logits.float(), send(labels, device)


def checked_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return `model(inputs)`; where the inputs or the outputs do not fit, say so plainly."""
    try:
        logits = model(inputs)
    except RuntimeError as error:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or inputs.ndim != 4 or inputs.shape[1] == first.in_channels:
            raise
        raise ValueError(
            f"the pictures have {inputs.shape[1]} channel(s), shape {tuple(inputs.shape)}, but the "
            f"model's first convolution expects {first.in_channels}; give pictures of that many "
            "channels (grey to colour: images.expand(-1, 3, -1, -1)) or change the first layer"
        ) from error
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returned a {type(logits).__name__}; expected one tensor of logits (N, K): "
            "build it without auxiliary outputs, or wrap it in a module that returns its logits"
        )
    return logits


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Refuse labels beyond the model's outputs, where reading them does not stop a GPU."""
    if labels.device.type != "cpu" or labels.is_floating_point() or not len(labels):
        return
    low, high = int(labels.numpy().min()), int(labels.numpy().max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"labels from {low} to {high} in a batch, but the model has {logits.shape[1]} outputs "
            f"(labels 0 to {logits.shape[1] - 1}); check the labels, or build the model with "
            f"num_classes={high + 1}"
        )


def _class_names(loader, count: int) -> tuple[str, ...]:
    names = getattr(getattr(loader, "dataset", None), "classes", None)
    if names is None:
        return tuple(map(str, range(count)))
    if len(names) != count:
        raise ValueError(
            f"the model has {count} outputs, but the data set has {len(names)} classes: "
            f"{', '.join(names)}; build the model with num_classes={len(names)}"
        )
    return tuple(names)


def _files_in_order(loader, count: int) -> tuple[Path, ...] | None:
    files = getattr(getattr(loader, "dataset", None), "files", None)
    # A DataLoader with a batch_sampler has another, sequential one as its `sampler`.
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    known = files is not None and isinstance(sampler, SequentialSampler) and len(files) == count
    return tuple(files) if known else None
