"""`find_lr`: which learning rate to start with, seen in one short run with a rising rate."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..data.loaders import check_loader, part_of
from ..devices import place
from ..evaluation.labels import check_head
from ..files import put_weights
from ..models.transfer import kept_modes, train_mode
from ..settings import mixed_seed, own_random_numbers
from ..world import this_world
from .checks import check_objects
from .loop import Meter, seed_epoch, train_step
from .state import RunSettings, TrainingRun


@dataclass(frozen=True, repr=False, eq=False)
class LrSearch:
    """The rates that were tried and the smoothed training loss after a step with each."""

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest loss: near there the loss falls fast, yet safely."""
        return self.rates[self.losses.index(min(self.losses))] / 10

    def plot(self):
        """Draw the loss over the rate."""
        from ..figures import line_plot

        title = f"training loss while the rate rises; suggested {self.suggestion:.2g}"
        return line_plot(
            {"loss": (self.rates, self.losses)}, xlabel="learning rate", title=title, log="x"
        )

    def __repr__(self) -> str:
        low, high = self.rates[0], self.rates[-1]
        return f"LrSearch({low:.0e} to {high:.0e}, suggestion {self.suggestion:.2g})"


def find_lr(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    seed: int = 0,
) -> LrSearch:
    """Train for `steps` batches while the rate rises from `lowest` to `highest`; undo it after.

    Stops early where the loss is four times its lowest. Model and optimizer are left as they were.
    With several rates in the optimizer (head and backbone), their ratios stay; the rate reported
    is the first one's. Source: https://arxiv.org/abs/1506.01186, section 3.3.

    Raises:
        ValueError: an argument, loader or the optimizer does not fit, or the first loss is not
            finite.

    >>> find_lr(model, criterion, optimizer, loaders.train).plot()
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(
            f"lowest {lowest}, highest {highest}, steps {steps}; expected 0 < lowest < highest "
            "and at least 2 steps"
        )
    check_objects(model, criterion, optimizer)
    check_loader("loader", loader)
    check_head(model, loader)
    first = optimizer.param_groups[0]["lr"]
    if not first > 0:
        raise ValueError(f"the optimizer's first rate is {first}; expected one above 0")
    world = this_world()
    with world.interrupts() as interrupts:
        device = place(model, optimizer)
        interrupts.check()
    run = TrainingRun(model, criterion, optimizer, device, RunSettings(seed), world=world)
    part = part_of(loader, world, even=True)
    rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
    numbers = own_random_numbers(mixed_seed(seed), device)
    with run.interrupts, kept_modes(model), numbers, world.together():
        try:
            seed_epoch(seed, 1, loader)
            train_mode(model)
            optimizer.zero_grad(set_to_none=True)
            losses = _losses_at(run, rates, part)
        finally:
            run.interrupts.closing = True
            put_weights(model, run.beginning)
            optimizer.load_state_dict(run.optimizer_state)
            optimizer.zero_grad(set_to_none=True)
    if not losses:
        raise ValueError(f"the loss is not finite with a rate of {lowest}; check the pictures")
    return LrSearch(rates[: len(losses)], losses)


def _losses_at(run: TrainingRun, rates: list[float], loader) -> list[float]:
    """Take a step at each rate and return the smoothed losses.

    A loss that is not finite, or four times the lowest, ends the list before it.
    """
    groups = run.optimizer.param_groups
    shares = [group["lr"] / groups[0]["lr"] for group in groups]
    losses, smooth = [], 0.0
    for step, (rate, batch) in enumerate(zip(rates, _endless(run, loader), strict=False), 1):
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = rate * share
        meter = Meter(run.device)
        train_step(run, [batch], meter)
        run.interrupts.check()
        loss, _ = meter.join(run.world).read()
        smooth = 0.9 * smooth + 0.1 * loss
        corrected = smooth / (1 - 0.9**step)
        if not math.isfinite(loss) or (losses and corrected > 4 * min(losses)):
            break
        losses.append(corrected)
    return losses


def _endless(run: TrainingRun, loader):
    """Yield the batches of a loader again and again."""
    while True:
        batch = None
        for batch in run.interrupts.batches(loader):
            yield batch
        if batch is None:
            raise ValueError("the loader is empty; expected at least one batch, each time anew")
