"""What is refused, and what is said, before a training costs time."""

import warnings
from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..data.loaders import EpochSampler, check_loader
from ..models.transfer import check_model
from ..settings import check_count, counted, wrong
from ..world import World


def check_plan(epochs, patience, checkpoint, checkpoint_every, resume) -> None:
    check_count("epochs", epochs)
    if patience is not None:
        check_count("patience", patience)
    if checkpoint_every is not None:
        check_count("checkpoint_every", checkpoint_every)
    if checkpoint is None and resume:
        raise ValueError('resume needs checkpoint="a/folder"')
    if checkpoint is None and checkpoint_every:
        raise ValueError('checkpoint_every needs checkpoint="a/folder"')


def check_objects(model: nn.Module, criterion: Callable, optimizer: Optimizer) -> None:
    """Refuse what are no model, criterion and optimizer, or what do not belong together."""
    check_model(model)
    if isinstance(criterion, type | Optimizer) or not callable(criterion):
        loss = "a loss such as CrossEntropyLoss(), with its parentheses, before the optimizer"
        raise wrong("criterion", criterion, loss)
    if getattr(criterion, "reduction", "mean") not in ("mean", "sum"):
        raise ValueError(f'{criterion} gives no single number; expected reduction="mean"')
    if not isinstance(optimizer, Optimizer):
        raise wrong("optimizer", optimizer, "one such as torch.optim.AdamW(model.parameters())")
    _check_parameters(model, optimizer)


def _check_parameters(model: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer that lacks trainable parameters, and one of nothing to train."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    missing = [name for name, parameter in trainable if id(parameter) not in held]
    if not trainable:
        raise ValueError("the whole model is frozen, nothing can be trained; unfreeze() a part")
    if not missing:
        return
    foreign = held - {id(parameter) for parameter in model.parameters()}
    hint = "build the optimizer after unfreeze()"
    if foreign:
        hint = (
            f"it holds {len(foreign)} of another model, or of a head that was replaced later: "
            "build the optimizer on this model, as it is now"
        )
    raise ValueError(
        f"{counted(len(missing), 'trainable parameter')} "
        f"{'is' if len(missing) == 1 else 'are'} not in the optimizer (first: {missing[0]}); {hint}"
    )


def check_scheduler(scheduler, scheduler_every: str, optimizer: Optimizer) -> None:
    if scheduler is not None and not hasattr(scheduler, "optimizer"):
        raise wrong("scheduler", scheduler, "one of torch.optim.lr_scheduler")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise ValueError("the scheduler belongs to another optimizer; build it on this one")
    if scheduler_every == "step" and isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError('ReduceLROnPlateau needs the val loss; use scheduler_every="epoch"')


def check_train_and_val(train_loader, val_loader) -> None:
    for name, loader in (("train_loader", train_loader), ("val_loader", val_loader)):
        check_loader(name, loader)
        if length_of(loader) == 0:
            raise ValueError(f"{name} is empty; expected at least one batch (see drop_last)")
    if train_loader is val_loader:
        warnings.warn("the model is validated on its training data", stacklevel=3)


def announce_lasting_workers(loader) -> None:
    """Say it where a resumed training may have other random numbers than an uninterrupted one."""
    sampler = getattr(loader, "sampler", None)
    if getattr(loader, "persistent_workers", False) and not isinstance(sampler, EpochSampler):
        print(
            "train_loader keeps its workers from one epoch to the next: if its data set draws "
            "random numbers, a resumed training has other ones. persistent_workers=False repeats "
            "them."
        )


def announce_other_statistics(model: nn.Module, loader) -> None:
    """Say it where pictures are normalised otherwise than those that the weights come from."""
    wanted = getattr(model, "prepared", None)
    dataset = getattr(loader, "dataset", None)
    given = getattr(dataset, "mean", None), getattr(dataset, "std", None)
    if wanted is not None and given[0] is not None and given != wanted:
        print(
            "The pictures are normalised with other statistics than those that the weights were "
            "trained with; like=weights in image_folders or array_loaders takes the weights' own."
        )


def pictures_a_step(world: World, batch_size: int | None, accumulate: int) -> int | None:
    """Return how many pictures a step takes, which of several processes the first one says."""
    if batch_size is None:
        return None
    pictures = world.size * batch_size * accumulate
    if world.size > 1 and world.rank == 0:
        factors = f"{world.size} processes with batches of {batch_size}"
        times = f", accumulate={accumulate}" if accumulate > 1 else ""
        print(f"{pictures} pictures a step: {factors}{times}. The best rate depends on it.")
    return pictures


def length_of(loader) -> int | None:
    """Return the number of batches, or None for a stream that does not know."""
    try:
        return len(loader)
    except TypeError:
        return None
