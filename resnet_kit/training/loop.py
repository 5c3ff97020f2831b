"""The training loop, from top to bottom: one step, one epoch, one training."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import ConcatDataset, Subset

from ..data.loaders import part_of
from ..devices import (
    arithmetic,
    exact_float32,
    fast_format,
    match_strides,
    memory_format,
    place,
    resolve_precision,
    send,
)
from ..evaluation.evaluation import check_outputs, checked_batch, checked_logits, predict_batches
from ..evaluation.labels import check_head, check_labels
from ..files import put_weights
from ..models.transfer import train_mode
from ..settings import (
    counted,
    keep_freed_memory,
    mixed_seed,
    own_random_numbers,
    progress_bar,
    seed_everything,
    user_path,
)
from ..world import World, this_world
from .checks import (
    announce_lasting_workers,
    announce_other_statistics,
    check_objects,
    check_plan,
    check_scheduler,
    check_train_and_val,
    length_of,
    pictures_a_step,
)
from .state import History, RunSettings, TrainingRun, copied, own_folder, plan_of, restore, save


class Meter:
    """Sums of loss and correct predictions; they stay on the device until they are read."""

    def __init__(self, device: torch.device):
        self.loss: Tensor | float = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.finite = torch.zeros((), dtype=torch.int64, device=device)
        self.weight, self.seen, self.batches, self.first_bad = 0, 0, 0, 0

    def add(self, loss: Tensor, weight: Tensor | int, logits: Tensor, labels: Tensor) -> None:
        """Count a batch whose mean loss is `loss` and that weighs as much as `weight` pictures."""
        targets = labels.argmax(1) if labels.ndim == 2 else labels  # mixed pictures: shares (N, K)
        self.batches += 1
        self.loss += loss.detach() * weight
        self.finite += torch.isfinite(self.loss)  # from the first loss that is not, no sum is
        self.correct += (logits.argmax(1) == targets).sum()
        self.weight += weight
        self.seen += len(labels)

    def join(self, world: World) -> "Meter":
        """Add what the other processes counted; a GPU has to wait here."""
        finite = self.finite.item()
        first_bad = finite + 1 if finite < self.batches else 0
        sums = self.loss.item(), float(self.weight), self.correct.item(), self.seen
        parts = world.gather((first_bad, *sums))
        bad, *sums = zip(*parts, strict=True)
        self.loss, self.weight, self.correct, self.seen = map(sum, sums)
        self.first_bad = min(filter(None, bad), default=0)
        return self

    def read(self) -> tuple[float, float]:
        """Return mean loss and accuracy per picture; a GPU has to wait here."""
        if not self.seen:
            raise ValueError("the loader is empty; expected at least one batch of (inputs, labels)")
        return float(self.loss) / float(self.weight), int(self.correct) / self.seen


def weight_of(criterion: Callable, labels: Tensor) -> Tensor | int:
    """Return by what a criterion divides its sum over a batch: the pictures, or their weights.

    With class weights a mean over batches must count each by the weights in it, or it depends on
    how the pictures were divided into batches.
    """
    weights = getattr(criterion, "weight", None)
    weighted = isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss) and weights is not None
    if not weighted or labels.is_floating_point():
        return len(labels)
    check_labels(labels, len(weights))
    return weights[send(labels, weights.device)].sum()


def sums_up(criterion: Callable) -> bool:
    """Say whether a criterion gives the sum over a batch, which is no mean to report."""
    return getattr(criterion, "reduction", "mean") == "sum"


def train_step(run: TrainingRun, batches: list, meter: Meter) -> None:
    """Take one optimizer step on a batch, or on several that count as one large one."""
    batches = [checked_batch(batch) for batch in batches]
    weights = [weight_of(run.criterion, labels) for _, labels in batches]
    whole = run.world.mean(sum(weights))  # as gradients become the mean over all processes
    for number, ((inputs, labels), weight) in enumerate(zip(batches, weights, strict=True), 1):
        inputs = send(inputs, run.device)
        if inputs.ndim == 4 and run.memory_format is not None:
            inputs = inputs.contiguous(memory_format=run.memory_format)
        reducing = run.world.reducing(run.wrapped, number == len(batches))
        with reducing, exact_float32(run.settings.precision):  # on the way back too
            with arithmetic(run.device, run.settings.precision):
                logits = checked_logits(run.forward, inputs)
                check_outputs(logits, labels)
                labels = send(labels, run.device)
                loss = run.criterion(logits, labels)
            share = run.world.size if sums_up(run.criterion) else weight / whole
            run.scaler.scale(loss * share).backward()
        meter.add(loss / weight if sums_up(run.criterion) else loss, weight, logits, labels)
    if run.settings.clip_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.averaged is not None:
        run.averaged.update(run.model)
    if run.scheduler is not None and run.settings.scheduler_every == "step":
        run.scheduler.step()


def train_epoch(run: TrainingRun, loader, bar) -> Meter:
    """Take the steps of one epoch; return what they summed up to."""
    train_mode(run.model)
    meter, shown = Meter(run.device), time.perf_counter()
    with exact_float32(run.settings.precision):  # here once, for all steps
        for batches in _groups(run.interrupts.batches(loader), run.settings.accumulate):
            _step_in_memory(run, batches, meter)
            bar.update(len(batches))
            if not bar.disable and time.perf_counter() - shown > 0.25:
                loss, accuracy = meter.read()
                best = run.history.best_text()
                bar.set_postfix_str(f"loss {loss:.3f}, train {accuracy:.1%}, {best}")
                shown = time.perf_counter()
    run.world.average_statistics(run.model, run.scored)
    return meter.join(run.world)


def _step_in_memory(run: TrainingRun, batches: list, meter: Meter) -> None:
    """Take a step; where the memory does not suffice, give it free and say what would fit."""
    full = ""
    try:
        train_step(run, batches, meter)
    except torch.OutOfMemoryError as error:
        full = str(error)  # the error itself holds all tensors of the step
    if full:
        run.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        count = len(batches[0][1])
        raise torch.OutOfMemoryError(
            f"no memory for batches of {counted(count, 'picture')}; batch_size={count // 2 or 1} "
            f"with accumulate={2 * len(batches)} takes the same steps in half of it ({full})"
        )


def _groups(loader, size: int) -> Iterator[list]:
    """Yield the batches of a loader, `size` at a time."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def validate(run: TrainingRun, loader) -> Meter:
    """Score the validation pictures; return what that summed up to."""
    meter = Meter(run.device)
    batches = run.interrupts.batches(loader)
    for logits, labels in predict_batches(run.scored, batches, run.device, run.settings.precision):
        loss, weight = run.criterion(logits, labels), weight_of(run.criterion, labels)
        meter.add(loss / weight if sums_up(run.criterion) else loss, weight, logits, labels)
    return meter.join(run.world)


def one_epoch(run: TrainingRun, epoch: int, train_loader, val_loader, bar) -> str:
    """Train and validate once and add a row to the history.

    Return "", or which batch gave a loss that is not finite; then there is no new row.
    """
    start = time.perf_counter()
    bar.set_description(f"epoch {epoch}")
    trained = train_epoch(run, train_loader, bar)
    train_loss, train_accuracy = trained.read()
    if not math.isfinite(train_loss):
        return f"batch {trained.first_bad} of epoch {epoch}"
    lr = float(run.optimizer.param_groups[0]["lr"])
    validated = validate(run, val_loader)  # the last step can break weights that gave a finite loss
    val_loss, val_accuracy = validated.read()
    if not math.isfinite(val_loss):
        return f"val batch {validated.first_bad} of epoch {epoch}"
    if isinstance(run.scheduler, ReduceLROnPlateau):
        run.scheduler.step(val_loss)
    elif run.scheduler is not None and run.settings.scheduler_every == "epoch":
        run.scheduler.step()
    row = {
        "epoch": epoch,
        "train_loss": train_loss,
        "val_loss": val_loss,
        "train_accuracy": train_accuracy,
        "val_accuracy": val_accuracy,
        "lr": lr,
        "seconds": time.perf_counter() - start,
    }
    row = run.world.once(lambda: row)  # the seconds of one process for all
    if run.history.is_best(row):  # the copy first: the history must not name weights that are lost
        run.best, run.beginning = copied(run.scored.state_dict()), None
    run.history.add(row)
    return ""


def seed_epoch(seed: int, epoch: int, *loaders) -> None:
    """Make an epoch's random numbers depend on (seed, epoch) alone: a resumed run has the same."""
    seed_everything(mixed_seed(seed, epoch))
    for loader in loaders:
        for owner in _parts_of(loader):
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
            own = getattr(owner, "__dict__", {}).values()
            for source in (*own, getattr(owner, "generator", None)):  # a wrapper hands it on
                _reseed(source, mixed_seed(seed, epoch))


def _parts_of(loader) -> Iterator:
    """Yield a loader, its samplers, its data set, and the data sets that this is made of."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    yield loader
    yield getattr(loader, "sampler", None)
    yield batch_sampler
    yield getattr(batch_sampler, "sampler", None)
    datasets = [getattr(loader, "dataset", None)]
    while datasets:
        dataset = datasets.pop()
        yield dataset
        if isinstance(dataset, Subset | ConcatDataset):
            datasets += getattr(dataset, "datasets", None) or [dataset.dataset]


def _reseed(source, seed: int) -> None:
    """Seed a random number generator of torch, NumPy or Python; leave anything else alone."""
    if isinstance(source, torch.Generator):
        source.manual_seed(seed)
    elif isinstance(source, np.random.Generator):
        source.bit_generator.state = type(source.bit_generator)(seed).state
    elif isinstance(source, random.Random):
        source.seed(seed)


def train_and_eval(
    model: nn.Module,
    epochs: int,
    criterion: nn.Module,
    optimizer: Optimizer,
    train_loader,
    val_loader,
    *,
    scheduler: LRScheduler | None = None,
    scheduler_every: str = "epoch",
    precision: str = "auto",
    seed: int = 0,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
    average: float | None = None,
    compile: bool = False,
    on_epoch_end: Callable[[History], None] | None = None,
    progress: bool = True,
) -> History:
    """Train a module, validate after every epoch, and leave the best weights in it (eval mode).

    Works on any loader of (inputs, labels): pictures `(N, C, H, W)` or features `(N, D)`. Best is
    the highest val accuracy; ties keep the earlier epoch. What is frozen stays in eval mode.
    Stopping the cell (KeyboardInterrupt) is a normal end: the best weights so far are in the model
    and the history so far is returned, with `stopped="interrupted"`.
    Processes that torchrun or Accelerate started take each step together; the loaders' batch size
    is that of one process (docs/several.md).

    Args:
        scheduler_every: "epoch" or "step" (an optimizer step). A scheduler that wants a metric gets
            the val loss.
        precision: "auto" (the fastest that is native, channels_last while training), "bf16",
            "fp16", or "fp32" for plain float32 in the model's own memory format.
        seed: with the epoch it decides all random numbers; the caller's are left as they were. A
            `DataLoader`'s own generator is seeded with it too.
        patience: stop after this many epochs without a better val accuracy.
        checkpoint: a folder for `best.safetensors` and, after each epoch, `last.pt` (all that
            `resume=True` needs); every `checkpoint_every` epochs also `epoch_0001.safetensors`, ….
        resume: go on after the last epoch in `checkpoint`; on a CPU in fp32 the result is bit for
            bit that of an uninterrupted run. With nothing there yet it starts at epoch 1.
        accumulate: batches per optimizer step, each picture weighing the same.
        clip_norm: largest norm of all gradients together.
        average: decay in 0…1 of a running average of the weights, updated after each step
            (0.999, say); the average is validated and kept instead of the weights themselves.
        compile: train through `torch.compile`. Its first steps take a minute or so, so it pays in
            long trainings only; what is saved has the model's plain names.
        on_epoch_end: called with the history after each epoch, before its checkpoint is written
            (in every process), for a log of your own: with TensorBoard's `writer`,
            `lambda history: writer.add_scalars("run", history.rows[-1], len(history.rows))`.

    Raises:
        ValueError: an argument, loader, label or the optimizer does not fit; the message says why.
        Exception: whatever a loader or the model raises; the best weights so far are in the model,
            and the error carries the history so far as `error.history`.
    """
    check_plan(epochs, patience, checkpoint, checkpoint_every, resume)
    check_objects(model, criterion, optimizer)
    check_scheduler(scheduler, scheduler_every, optimizer)
    check_train_and_val(train_loader, val_loader)
    check_head(model, train_loader, val_loader)
    world = this_world()
    if checkpoint is not None and world.rank == 0:
        announce_lasting_workers(train_loader)
    if world.rank == 0:
        announce_other_statistics(model, train_loader)
    with world.interrupts() as interrupts:
        device = place(model, optimizer)
        interrupts.check()
    settings = RunSettings(
        seed, resolve_precision(device, precision), scheduler_every, accumulate, clip_norm, average
    )
    if device.type == "cpu":
        keep_freed_memory()
    folder = None if checkpoint is None else user_path(checkpoint)
    wanted = fast_format(device, precision)
    randomness = own_random_numbers(mixed_seed(seed), device)
    with (
        own_folder(folder if world.rank == 0 else None),
        world.interrupts() as interrupts,
        randomness,
        memory_format(model, wanted, optimizer),
    ):
        run = TrainingRun(
            model,
            criterion,
            optimizer,
            device,
            settings,
            scheduler,
            wanted,
            compile,
            interrupts,
            world,
        )
        optimizer.zero_grad(set_to_none=True)  # gradients of an earlier cell
        run.plan = plan_of(run, train_loader)
        restore(run, folder, resume)
        match_strides(optimizer)
        parts = part_of(train_loader, world, even=True), part_of(val_loader, world, even=False)
        history, steps = run.history, length_of(parts[0])
        history.step_pictures = pictures_a_step(world, run.plan["batch size"], accumulate)
        total, show = epochs * steps if steps else None, progress and world.rank == 0
        bar = progress_bar(total=total, show=show)
        with _keeping_the_best(run), bar, world.together():
            bar.update(len(history.rows) * (steps or 0))
            for epoch in range(len(history.rows) + 1, epochs + 1):
                if _out_of_patience(history, patience):
                    history.stopped = "patience"
                    break
                seed_epoch(seed, epoch, train_loader, val_loader)
                run.not_finite = one_epoch(run, epoch, *parts, bar)
                if run.not_finite:
                    history.stopped = "non-finite"
                    break
                try:
                    if on_epoch_end is not None:
                        on_epoch_end(history)
                finally:
                    if folder is not None:
                        world.once(lambda: save(run, folder, checkpoint_every))
    return history


@contextmanager
def _keeping_the_best(run: TrainingRun):
    """Whatever ends the block, put the best weights so far into the model; Ctrl-C just ends it."""
    history = run.history
    try:
        yield
    except KeyboardInterrupt:
        history.stopped = "interrupted"
    except Exception as error:
        error.history = history
        print(f"Stopped by an error {_what_is_kept(history)}")
        raise
    finally:
        run.interrupts.closing = True
        run.optimizer.zero_grad(set_to_none=True)
        if history.stopped == "non-finite":
            run.optimizer.load_state_dict(run.optimizer_state)
        weights = run.best
        if weights is None and history.stopped == "non-finite":
            weights = run.beginning
        if weights is not None:
            put_weights(run.model, weights)
        run.model.eval()
    if run.world.rank > 0:
        return
    if history.stopped == "interrupted":
        print(f"Stopped by hand {_what_is_kept(history)}")
    if history.stopped == "non-finite":
        print(
            f"Stopped by a loss that is not finite ({run.not_finite}) {_what_is_kept(history)} The "
            "optimizer is as it was at the beginning. Try a smaller lr."
        )


def _what_is_kept(history: History) -> str:
    if history.best_epoch is not None:
        return (
            f"after {counted(len(history.rows), 'epoch')}; the model holds the best weights so "
            f"far, of epoch {history.best_epoch} with val accuracy {history.best_accuracy:.1%}."
        )
    if history.stopped == "non-finite":
        return "before the first validation; the weights are those of the beginning."
    return "before the first validation; the weights are as they were at that moment."


def _out_of_patience(history: History, patience: int | None) -> bool:
    waited = len(history.rows) - (history.best_epoch or 0)
    return patience is not None and waited >= patience
