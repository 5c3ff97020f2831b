"""Scores on pictures that a model has not learned from: `evaluate` and what follows from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from torchvision.transforms.v2 import functional as F

from ..data.images import read_image, trimmed
from ..data.loaders import check_loader, in_order, part_of
from ..devices import arithmetic, place, resolve_precision, send
from ..models.transfer import check_model, find_head, kept_modes
from ..settings import counted, listed, progress_bar, shown_names
from ..world import this_world
from .grad_cam import grad_cam
from .labels import UNLABELLED, check_head, check_labels


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The predictions of a model on N pictures of K classes; every score is derived from them.

    `loss` is the mean over pictures, `labels` (N,) int64, `probabilities` (N, K) float32; `files`
    names the pictures where they come from files in a fixed order. Tables and figures show the
    classes by their `names`.
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
        """Which pictures are right, (N,) bool; none of which a probability is not a number."""
        return (self.predictions == self.labels) & np.isfinite(self.probabilities).all(1)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes without sorting prefixes, `cat` for `0_cat`; see `shown_names`."""
        return shown_names(self.classes)

    @property
    def accuracy(self) -> float:
        """Correct / seen, in 0…1."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    def confusion(self) -> np.ndarray:
        """Return counts (K, K), rows actual and columns predicted."""
        count = len(self.classes)
        cells = np.bincount(self.labels * count + self.predictions, minlength=count * count)
        return cells.reshape(count, count)

    def per_class(self):
        """Return a pandas table with a row per class.

        `recall` is the share of its pictures that are right, with the 95 % interval `low`, `high`;
        `precision` the share of the predictions of it that are; `f1` their harmonic mean. A share
        of nothing is NaN.
        """
        import pandas as pd

        counts = self.confusion()
        correct, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        table = pd.DataFrame({"pictures": actual, "correct": correct}, index=self.names)
        table["recall"] = table["correct"] / actual
        pairs = zip(correct.tolist(), actual.tolist(), strict=True)
        table[["low", "high"]] = [wilson_interval(*pair) for pair in pairs]
        table["precision"] = table["correct"] / predicted
        table["f1"] = 2 * table["correct"] / (actual + predicted)
        return table.rename_axis("class")

    def confused_pairs(self, n: int | None = None):
        """Return a pandas table: actual, predicted and how often, the most frequent first."""
        pairs = self.mistakes().groupby(["actual", "predicted"]).size().reset_index(name="times")
        return pairs.sort_values("times", ascending=False, kind="stable", ignore_index=True)[:n]

    def reliability(self, bins: int = 10):
        """Return a pandas table of equal bins: mean confidence, accuracy and pictures."""
        import pandas as pd

        confidence = self.probabilities.max(1)
        if not np.isfinite(confidence).all():
            raise ValueError("a probability is not a number, so there is no confidence to compare")
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
        """Draw accuracy over confidence, and how many pictures each point has.

        On the grey line a confidence of 80 % is right in 80 % of the cases.
        """
        from ..figures import REFERENCE, VAL, line_plot

        table = self.reliability(bins)
        points = 100 * table[["confidence", "accuracy"]]
        lines = {"": ([0.0, 100.0], [0.0, 100.0]), "model": points.to_numpy().T.tolist()}
        error = self.calibration_error(bins)
        figure = line_plot(
            lines,
            xlabel="confidence in %",
            colors={"": REFERENCE, "model": VAL},
            title=f"accuracy in %; grey: as sure as right; calibration error {error:.1%}",
        )
        for point, count in zip(points.to_numpy(), table["pictures"], strict=True):
            figure.axes[0].annotate(count, point, (0, -12), textcoords="offset points", fontsize=8)
        return figure

    def with_temperature(self, temperature: float) -> "Evaluation":
        """Return the same predictions with softmax(logits / temperature); see `temperature`."""
        from scipy.special import log_softmax

        # A probability of 0 is one that float32 could not hold.
        logs = np.log(self.probabilities.astype(np.float64).clip(1e-38)) / temperature
        logs = log_softmax(logs, axis=1)
        loss = float(-logs[np.arange(len(logs)), self.labels].mean())
        return replace(self, loss=loss, probabilities=np.exp(logs).astype(np.float32))

    def temperature(self) -> float:
        """Return the T that makes softmax(logits / T) fit the labels best (least loss).

        Above 1 the model is too sure of itself. Where no prediction is wrong T is 1: without a
        mistake there is nothing to learn how sure the model may be from. T stays between 0.05 and
        20; a line says so where it would lie beyond. Source: https://arxiv.org/abs/1706.04599.
        """
        from scipy.optimize import minimize_scalar

        if self.correct.all():  # the least loss would make it as sure as can be
            return 1.0

        def loss(log_t: float) -> float:
            return self.with_temperature(np.exp(log_t)).loss

        found = float(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)
        if abs(found) > 2.99:
            predictions = counted(len(self.labels), "prediction")
            print(
                f"No temperature from 0.05 to 20 makes the confidences of these {predictions} "
                f"fit; {np.exp(found):.2g} comes closest and is taken."
            )
        return float(np.exp(found))

    def mistakes(self, n: int | None = None):
        """Return a pandas table of the wrong predictions, the most confident first, `n` at most."""
        import pandas as pd

        wrong = np.flatnonzero(~self.correct)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        order = np.argsort(-confidence, kind="stable")[:n]
        names = np.asarray(self.names)
        table = pd.DataFrame({"picture": wrong, "actual": names[self.labels[wrong]]})
        table["predicted"], table["confidence"] = names[self.predictions[wrong]], confidence
        if self.files is not None:
            table["file"] = [self.files[index] for index in wrong]
        return table.iloc[order].reset_index(drop=True)

    def plot_confusion(self):
        """Draw the confusion matrix."""
        from ..figures import confusion_matrix

        return confusion_matrix(self.confusion(), self.names)

    def plot_mistakes(self, n: int = 12, *, loader=None, model=None):
        """Draw the `n` most confidently wrong pictures: predicted (confidence), actual.

        The pictures are read from their files, or come from the loader that was evaluated. With the
        model too, Grad-CAM beside each picture shows what the prediction rests on (`grad_cam`).
        """
        from ..figures import picture_grid

        if self.files is None and loader is None:
            raise ValueError(
                "these pictures come from no files; give the loader that was evaluated: "
                "plot_mistakes(loader=loaders.val)"
            )
        if model is not None and loader is None:
            raise ValueError("Grad-CAM needs the loader that was evaluated: loader=loaders.val")
        rows = self.mistakes(n).to_dict("records")
        if not rows:
            raise ValueError("there is no mistake to draw: every prediction is right")
        titles = [f"{r['predicted']} {r['confidence']:.0%}\nis {r['actual']}" for r in rows]
        wrong = [True] * len(rows)
        if loader is None:
            pictures = [
                F.center_crop(F.resize(trimmed(read_image(r["file"])), 160), 160) for r in rows
            ]
            return picture_grid(pictures, titles, wrong=wrong)
        dataset = loader.dataset
        pictures = torch.stack([dataset[row["picture"]][0] for row in rows])
        heat = None
        if model is not None:
            predicted = [int(self.predictions[row["picture"]]) for row in rows]
            heat = grad_cam(model, pictures, predicted)
        mean, std = getattr(dataset, "mean", None), getattr(dataset, "std", None)
        return picture_grid(pictures, titles, wrong=wrong, mean=mean, std=std, heat=heat)

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"{self.accuracy:.1%} of {counted(len(self.labels), 'picture')} correct "
            f"(95 % interval {low:.1%} to {high:.1%}), loss {self.loss:.3f}"
        )


def mcnemar(one: Evaluation, other: Evaluation) -> tuple[int, int, float]:
    """Return how many pictures only `one` got right, only `other`, and the exact p-value.

    A large p says that a difference this large is what luck alone gives. Both must have scored the
    same pictures in the same order, else there is a ValueError. Source: McNemar, Psychometrika 12
    (1947); exact: a binomial test.
    """
    from scipy.stats import binomtest

    others = one.files and other.files and one.files != other.files  # probes know no files
    if others or not np.array_equal(one.labels, other.labels):
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
    model: nn.Module, loader, *, precision: str = "fp32", progress: bool = True
) -> Evaluation:
    """Score a model on every batch of (inputs, labels) of a loader, in eval mode.

    The loss is the mean cross-entropy over pictures. Every module keeps the mode (train or eval)
    that it had. Class names and files are the data set's. A `Classifier` is scored in float32 on
    the pictures themselves, with classes matched by name (see `Classifier.score`). Several
    processes divide the batches, and each gets the score of all of them.

    Raises:
        ValueError: an empty loader, or batches, outputs or classes that do not fit each other.
    """
    check_loader("loader", loader)
    if hasattr(model, "score") and hasattr(model, "predict"):  # a Classifier, on a higher floor
        return model.score(loader, progress=progress)
    check_model(model)
    check_head(model, loader)
    world, criterion, found = this_world(), nn.CrossEntropyLoss(), []
    with world.interrupts() as interrupts, kept_modes(model), world.together():
        device = place(model)
        precision = resolve_precision(device, precision)
        part = part_of(loader, world, even=False)
        bar = progress_bar(part, description="evaluate", show=progress and world.rank == 0)
        batches = interrupts.batches(bar)
        for logits, targets in predict_batches(model, batches, device, precision):
            losses = criterion(logits, targets) * len(targets)
            found.append((logits.softmax(1), targets, losses))
        found = in_order([tuple(tensor.cpu() for tensor in batch) for batch in found], world)
    if not found:
        raise ValueError("the loader is empty; expected at least one batch of (inputs, labels)")
    probabilities, labels, losses = zip(*found, strict=True)
    count = sum(map(len, labels))
    return Evaluation(
        loss=torch.stack(losses).sum().item() / count,
        labels=torch.cat(labels).long().numpy(),
        probabilities=torch.cat(probabilities).numpy(),
        classes=_class_names(model, loader, probabilities[0].shape[1]),
        files=_files_in_order(loader, count),
    )


@torch.no_grad()
def predict_batches(
    model: nn.Module, batches, device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float32 logits (N, K) and labels (N,) of each batch, on the device, in eval mode."""
    model.eval()
    for batch in batches:
        inputs, labels = checked_batch(batch)
        with arithmetic(device, precision):
            logits = checked_logits(model, send(inputs, device))
        check_outputs(logits, labels)
        yield logits.float(), send(labels, device)


def checked_batch(batch) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of a batch, whole numbers as int64; say what else it is.

    Pictures without a label (-100, torch's `ignore_index`) are left out; labels that lie on a GPU
    are not looked at, because that would make it wait.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if hasattr(batch, "__len__") else ""
        raise ValueError(
            f"a batch is a {type(batch).__name__}{size}; expected a pair (inputs, labels): let the "
            "data set, or a collate_fn of the DataLoader, return those two"
        )
    inputs, labels = batch
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(inputs).__name__} and {type(labels).__name__}"
        raise ValueError(f"a batch of {kinds}; expected tensors, labels as numbers of classes")
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs are {inputs.dtype}; expected float32, pictures normalised (for uint8: divide "
            "by 255, subtract the mean, divide by the deviation)"
        )
    if inputs.shape[:1] != labels.shape[:1]:
        shapes = f"{tuple(inputs.shape)} and labels of shape {tuple(labels.shape)}"
        raise ValueError(f"a batch of inputs {shapes}; expected as many labels as inputs")
    if labels.is_floating_point() or labels.device.type != "cpu":
        return inputs, labels if labels.is_floating_point() else labels.long()
    known = torch.from_numpy(labels.numpy() != UNLABELLED)
    if not known.numpy().all():
        if not known.numpy().any():
            raise ValueError("a batch without a single label; expected some (-100 stands for none)")
        inputs, labels = inputs[known], labels[known]
    return inputs, labels.long()


def check_outputs(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits and labels of which no accuracy can be told."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"the model returned shape {tuple(logits.shape)}; expected (N, K) with an output for "
            "each of K > 1 classes: two classes need num_classes=2 and CrossEntropyLoss"
        )
    if labels.is_floating_point():
        fits = labels.shape == logits.shape
        if not fits or (labels.device.type == "cpu" and (labels.sum(1) - 1).abs().max() > 1e-3):
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and {labels.dtype}; expected the number of "
                "one class for each picture, or shares of classes (N, K) that add up to 1; several "
                "labels a picture are not supported"
            )
        return
    if labels.ndim != 1:
        raise ValueError(f"labels of shape {tuple(labels.shape)}; expected one number a picture")
    check_labels(labels, logits.shape[1])


def checked_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return `model(inputs)`; where the inputs or the outputs do not fit, say so plainly."""
    try:
        logits = model(inputs)
    except ValueError as error:
        if "more than 1 value per channel when training" not in str(error):
            raise
        raise ValueError(
            "BatchNorm cannot learn from a batch of one picture with maps of one place; take a "
            "larger batch_size, or drop_last=True if it is the last batch"
        ) from error
    except RuntimeError as error:
        weight = next(model.parameters(), inputs)
        if weight.dtype != inputs.dtype:
            raise ValueError(
                f"inputs are {inputs.dtype}, the model's weights {weight.dtype}; expected one "
                "type: inputs.float()"
            ) from error
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None or inputs.ndim != 4 or inputs.shape[1] == first.in_channels:
            raise
        hint = "grey to colour: images.expand(-1, 3, -1, -1)"
        if inputs.shape[1] == 3:
            hint = "colour to grey: images.mean(1, keepdim=True)"
        if inputs.shape[3] == first.in_channels:
            hint = "channels come first: images.permute(0, 3, 1, 2)"
        raise ValueError(
            f"the pictures have {inputs.shape[1]} channel(s), shape {tuple(inputs.shape)}, but the "
            f"model's first convolution expects {first.in_channels}; give pictures (N, C, H, W) of "
            f"that many channels ({hint}) or change the first layer"
        ) from error
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returned a {type(logits).__name__}; expected one tensor of logits (N, K): "
            "build it without auxiliary outputs, or wrap it in a module that returns its logits"
        )
    return logits


def _class_names(model: nn.Module, loader, count: int) -> tuple[str, ...]:
    names = getattr(getattr(loader, "dataset", None), "classes", None)
    head = find_head(model)
    own = getattr(model.get_submodule(head), "classes", None) if head else None  # of a saved model
    if names is None:
        return own or tuple(map(str, range(count)))
    if own is not None and own != tuple(names):
        raise ValueError(
            f"the model has {listed(own)}; the data set has {listed(names)}; give the Classifier "
            "itself, which is scored by name: evaluate(classifier, loader)"
        )
    if len(names) != count:
        raise ValueError(
            f"the model has {count} outputs, but the data set has {listed(names)}; build the model "
            f"with num_classes={len(names)}"
        )
    return tuple(names)


def _files_in_order(loader, count: int) -> tuple[Path, ...] | None:
    files = getattr(getattr(loader, "dataset", None), "files", None)
    # A DataLoader with a batch_sampler has another, sequential one as its `sampler`.
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    known = files is not None and isinstance(sampler, SequentialSampler) and len(files) == count
    return tuple(files) if known else None
