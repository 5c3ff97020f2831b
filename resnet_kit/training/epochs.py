"""One epoch of a training: its random numbers, its optimizer steps and its validation."""

import math
import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..evaluation.scoring import check_labels, checked_logits, predict_batches
from ..models.transfer import train_mode
from ..settings import arithmetic, mixed_seed, seed_everything, send
from .history import History
from .state import TrainingRun


def one_epoch(run: TrainingRun, epoch: int, train_loader, val_loader, bar) -> bool:
    """Train and validate once and add a row to the history; False if the loss is not finite."""
    start = time.perf_counter()
    seed_epoch(run.settings["seed"], epoch, train_loader, val_loader)
    bar.set_description(f"epoch {epoch}")
    train_loss, train_accuracy = _train(run, train_loader, bar)
    if not math.isfinite(train_loss):
        return False
    lr = float(run.optimizer.param_groups[0]["lr"])
    val_loss, val_accuracy = _validate(run, val_loader)
    if not math.isfinite(val_loss):  # the last step can break weights that gave a finite loss
        return False
    if run.scheduler is not None and run.settings["scheduler_every"] == "epoch":
        metric = [val_loss] if isinstance(run.scheduler, ReduceLROnPlateau) else []
        run.scheduler.step(*metric)
    row = {
        "epoch": epoch,
        "train_loss": train_loss,
        "val_loss": val_loss,
        "train_accuracy": train_accuracy,
        "val_accuracy": val_accuracy,
        "lr": lr,
        "seconds": time.perf_counter() - start,
    }
    if run.history.add(row):
        # A copy: state_dict() returns the live tensors, which the next step overwrites.
        run.best = {name: t.detach().clone() for name, t in run.scored.state_dict().items()}
    return True


def seed_epoch(seed: int, epoch: int, *loaders) -> None:
    """Make an epoch's random numbers depend on (seed, epoch) alone: a resumed run has the same."""
    seed_everything(mixed_seed(seed, epoch))
    for loader in loaders:
        sampler = getattr(loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for owner in {id(o): o for o in (loader, sampler)}.values():
            if isinstance(getattr(owner, "generator", None), torch.Generator):
                owner.generator.manual_seed(mixed_seed(seed, epoch))


class _Meter:
    """Sums of loss and correct predictions; they stay on the device until they are read."""

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        targets = labels.argmax(1) if labels.ndim == 2 else labels  # mixed pictures: shares (N, K)
        self.loss += loss.detach() * len(labels)
        self.correct += (logits.argmax(1) == targets).sum()
        self.seen += len(labels)

    def read(self) -> tuple[float, float]:
        """Return mean loss and accuracy per picture; a GPU has to wait here."""
        if not self.seen:
            raise ValueError("the loader is empty; expected at least one batch of (inputs, labels)")
        return self.loss.item() / self.seen, self.correct.item() / self.seen


def _train(run: TrainingRun, loader, bar) -> tuple[float, float]:
    train_mode(run.model)
    meter, shown = _Meter(run.device), time.perf_counter()
    for batches in _groups(loader, run.settings["accumulate"]):
        _optimizer_step(run, batches, meter)
        run.interrupts.check()
        bar.update(len(batches))
        if not bar.disable and time.perf_counter() - shown > 0.25:
            loss, accuracy = meter.read()
            bar.set_postfix_str(f"loss {loss:.3f}, train {accuracy:.1%}{_best_so_far(run.history)}")
            shown = time.perf_counter()
    return meter.read()


def _best_so_far(history: History) -> str:
    if history.best_epoch is None:
        return ""
    return f", best val {history.best_accuracy:.1%} in epoch {history.best_epoch}"


def _groups(loader, size: int) -> Iterator[list]:
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def _optimizer_step(run: TrainingRun, batches: list, meter: _Meter) -> None:
    pictures = sum(len(labels) for _, labels in batches)
    for inputs, labels in batches:
        inputs = send(inputs, run.device)
        if inputs.ndim == 4 and run.memory_format is not None:
            inputs = inputs.contiguous(memory_format=run.memory_format)
        with arithmetic(run.device, run.settings["precision"]):
            logits = checked_logits(run.forward, inputs)
            check_labels(labels, logits)
            labels = send(labels, run.device)
            loss = run.criterion(logits, labels)
        run.scaler.scale(loss * (len(labels) / pictures)).backward()
        meter.add(loss, logits, labels)
    if run.settings["clip_norm"] is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.settings["clip_norm"])
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.averaged is not None:
        run.averaged.update(run.model)
    if run.scheduler is not None and run.settings["scheduler_every"] == "step":
        run.scheduler.step()


def _validate(run: TrainingRun, loader) -> tuple[float, float]:
    meter = _Meter(run.device)
    for logits, labels in predict_batches(
        run.scored, loader, run.device, run.settings["precision"]
    ):
        meter.add(run.criterion(logits, labels), logits, labels)
        run.interrupts.check()
    return meter.read()
