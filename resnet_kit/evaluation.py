"""Scores of a model on pictures it has not learned from, with all that can be derived from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from torchvision.transforms.v2 import functional as F

from .images import read_image
from .settings import arithmetic, place, progress_bar, resolve_precision


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The predictions of a model on N pictures of K classes; every score is derived from them.

    `loss` is the mean over pictures, `labels` (N,) int64, `probabilities` (N, K) float32; `files`
    names the pictures where they come from files in a fixed order.
    """

    loss: float
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    files: tuple[Path, ...] | None = None

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable class of each picture, (N,) int64."""
        return self.probabilities.argmax(1)

    @cached_property
    def correct(self) -> np.ndarray:
        """Which pictures are right, (N,) bool."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Correct / seen, in 0…1."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    @property
    def confusion(self) -> np.ndarray:
        """Counts (K, K), rows actual and columns predicted."""
        count = len(self.classes)
        cells = np.bincount(self.labels * count + self.predictions, minlength=count * count)
        return cells.reshape(count, count)

    @property
    def per_class(self):
        """A pandas table: pictures, correct, accuracy and its 95 % interval of every class."""
        import pandas as pd

        rows = []
        for name, row, correct in zip(
            self.classes, self.confusion, np.diag(self.confusion), strict=True
        ):
            count = int(row.sum())
            low, high = wilson_interval(int(correct), count)
            share = correct / count if count else float("nan")
            rows.append((name, count, int(correct), share, low, high))
        columns = ["class", "pictures", "correct", "accuracy", "low", "high"]
        return pd.DataFrame(rows, columns=columns).set_index("class")

    def confused_pairs(self, n: int | None = None):
        """Return a pandas table: actual, predicted and how often, the most frequent first."""
        import pandas as pd

        cells = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        order = np.argsort(-cells, axis=None, kind="stable")[: np.count_nonzero(cells)][:n]
        actual, predicted = np.unravel_index(order, cells.shape)
        names = np.asarray(self.classes)
        return pd.DataFrame(
            {
                "actual": names[actual],
                "predicted": names[predicted],
                "times": cells[actual, predicted],
            }
        )

    def reliability(self, bins: int = 10):
        """Return a pandas table of equal bins: mean confidence, accuracy and pictures."""
        import pandas as pd

        confidence = self.probabilities.max(1)
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        table = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": self.correct})
        groups = table.groupby("bin")
        return groups.mean().assign(pictures=groups.size())

    def calibration_error(self, bins: int = 10) -> float:
        """Return the mean distance of confidence and accuracy over the bins, weighted by pictures.

        Source: https://arxiv.org/abs/1706.04599, section 2.
        """
        table = self.reliability(bins)
        gaps = (table["confidence"] - table["accuracy"]).abs()
        return float(np.average(gaps, weights=table["pictures"]))

    def plot_reliability(self, bins: int = 10):
        """Draw accuracy over confidence; on the grey line a confidence of 80 % is right 80 %."""
        from .figures import REFERENCE, VAL, line_plot

        table = self.reliability(bins)
        lines = {
            "as sure as right": ([0.0, 1.0], [0.0, 1.0]),
            "model": (table["confidence"].tolist(), table["accuracy"].tolist()),
        }
        error = self.calibration_error(bins)
        return line_plot(
            lines, xlabel="confidence", title=f"accuracy; calibration error {error:.1%}",
            colors={"as sure as right": REFERENCE, "model": VAL},
        )  # fmt: skip

    def with_temperature(self, temperature: float) -> "Evaluation":
        """Return the same predictions with softmax(logits / temperature); see `temperature`."""
        scaled = np.log(self.probabilities.astype(np.float64).clip(1e-12)) / temperature
        scaled = np.exp(scaled - scaled.max(1, keepdims=True))
        scaled /= scaled.sum(1, keepdims=True)
        loss = float(-np.log(scaled[np.arange(len(scaled)), self.labels].clip(1e-12)).mean())
        return replace(self, loss=loss, probabilities=scaled.astype(np.float32))

    def temperature(self) -> float:
        """Return the T > 0 that makes softmax(logits / T) fit the labels best (least loss).

        Above 1 the model is too sure of itself. Source: https://arxiv.org/abs/1706.04599.
        """
        from scipy.optimize import minimize_scalar

        logits = np.log(self.probabilities.astype(np.float64).clip(1e-12))

        def loss(log_t: float) -> float:
            scaled = logits / np.exp(log_t)
            scaled -= scaled.max(1, keepdims=True)
            right = scaled[np.arange(len(scaled)), self.labels]
            return float((np.log(np.exp(scaled).sum(1)) - right).mean())

        return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))

    def mistakes(self, n: int | None = None):
        """Return a pandas table of the wrong predictions, the most confident first, `n` at most."""
        import pandas as pd

        wrong = np.flatnonzero(~self.correct)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        order = np.argsort(-confidence, kind="stable")[:n]
        names = np.asarray(self.classes)
        table = pd.DataFrame(
            {
                "picture": wrong,
                "actual": names[self.labels[wrong]],
                "predicted": names[self.predictions[wrong]],
                "confidence": confidence,
            }
        )
        if self.files is not None:
            table["file"] = [self.files[index] for index in wrong]
        return table.iloc[order].reset_index(drop=True)

    def plot_confusion(self):
        """Draw the confusion matrix."""
        from .figures import confusion_matrix

        return confusion_matrix(self.confusion, self.classes)

    def plot_mistakes(self, n: int = 12):
        """Draw the `n` most confidently wrong pictures: predicted (confidence), actual."""
        from .figures import picture_grid

        if self.files is None:
            raise ValueError("these pictures come from no files; draw them with picture_grid")
        rows = self.mistakes(n).to_dict("records")
        if not rows:
            raise ValueError("there is no mistake to draw: every prediction is right")
        pictures = [F.center_crop(F.resize(read_image(row["file"]), 160), 160) for row in rows]
        titles = [f"{r['predicted']} {r['confidence']:.0%}\nis {r['actual']}" for r in rows]
        return picture_grid(pictures, titles, wrong=[True] * len(rows))

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"{self.accuracy:.1%} of {len(self.labels)} pictures correct "
            f"(95 % interval {low:.1%} to {high:.1%}), loss {self.loss:.3f}"
        )


def mcnemar(one: Evaluation, other: Evaluation) -> tuple[int, int, float]:
    """Return how many pictures only `one` got right, only `other`, and the exact p-value.

    A large p says that a difference this large is what luck alone gives. Both must have scored the
    same pictures. Source: McNemar, Psychometrika 12 (1947); exact: a binomial test.
    """
    from scipy.stats import binomtest

    if not np.array_equal(one.labels, other.labels) or one.files != other.files:
        raise ValueError("the two evaluations are not of the same pictures in the same order")
    first = int((one.correct & ~other.correct).sum())
    second = int((other.correct & ~one.correct).sum())
    count = first + second
    return first, second, float(binomtest(first, count).pvalue) if count else 1.0


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share; (0, 1) when nothing was counted."""
    from scipy.stats import binomtest

    if count == 0:
        return 0.0, 1.0
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def evaluate(
    model: nn.Module, loader, *, criterion=None, precision: str = "fp32", progress: bool = True
) -> Evaluation:
    """Score a model on every batch of (inputs, labels) of a loader, in eval mode.

    The loss is `criterion`'s (default: cross-entropy), each batch weighted by its size. Every
    module keeps the mode (train or eval) that it had. Class names and files are the data set's.
    """
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


@torch.no_grad()
def predict_batches(
    model: nn.Module, batches, device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float32 logits (N, K) and labels (N,) of each batch, on the device, in eval mode."""
    model.eval()
    for inputs, labels in batches:
        with arithmetic(device, precision):
            logits = checked_logits(model, inputs.to(device, non_blocking=True))
        check_labels(labels, logits)
        yield logits.float(), labels.to(device, non_blocking=True)


@contextmanager
def kept_modes(model: nn.Module):
    """Put every module back into the mode, train or eval, that it had before the block."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


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
