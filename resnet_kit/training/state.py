"""What a training is made of and what it leaves: history, checkpoints, and how it resumes."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..files import (
    atomic_file,
    check_sums,
    fit_weights,
    only_one,
    put_weights,
    remove_leftovers,
    save_weights,
)
from ..settings import Interrupts, check_count, counted, short_path, wrong
from ..world import World

ROW = ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "seconds")
PATIENCE = 10.0  # seconds: the workers of a killed training hold its folder for a moment
PLAIN = (bool, int, float, str, tuple, list, type(None))


@dataclass(repr=False)
class History:
    """One row per finished epoch, and the best of them.

    Rows hold `epoch` (from 1), `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` (0…1),
    `lr` (the first parameter group's, at the epoch's end) and `seconds`. `stopped` is "finished",
    "patience", "interrupted" or "non-finite". Before the first validation there is no best yet.
    `step_pictures` is how many pictures a step takes in all processes together, None where the
    loader does not say.
    """

    rows: list[dict] = field(default_factory=list)
    best_epoch: int | None = None
    best_accuracy: float | None = None
    stopped: str = "finished"
    step_pictures: int | None = None

    @property
    def seconds(self) -> float:
        """The time of all finished epochs, validation included."""
        return sum(row["seconds"] for row in self.rows)

    def is_best(self, row: dict) -> bool:
        """Say whether an epoch would be the best so far: ties keep the earlier."""
        return self.best_accuracy is None or row["val_accuracy"] > self.best_accuracy

    def add(self, row: dict) -> None:
        """Append the row of an epoch."""
        if self.is_best(row):
            self.best_epoch, self.best_accuracy = row["epoch"], row["val_accuracy"]
        self.rows.append(row)

    def to_frame(self):
        """Return the rows as a pandas table, indexed by epoch."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("epoch") if self.rows else pd.DataFrame()

    def plot(self):
        """Draw loss and accuracy per epoch."""
        from ..figures import training_curves

        if not self.rows:
            raise ValueError("no epoch was finished, so there is no curve to draw")
        return training_curves(self.rows, self.best_epoch)

    def best_text(self) -> str:
        """Return the best val accuracy so far in words."""
        if self.best_epoch is None:
            return "no validation yet"
        return f"best val accuracy {self.best_accuracy:.1%} in epoch {self.best_epoch}"

    def __repr__(self) -> str:
        done, best = counted(len(self.rows), "epoch"), self.best_text()
        return f"{done} in {self.seconds:.0f} s, {best} ({self.stopped})"


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


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state_dict, whose tensors are the live ones."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@dataclass(frozen=True)
class RunSettings:
    """The numbers of a training that a resumed one must share; see `train_and_eval`."""

    seed: int
    precision: str = "fp32"
    scheduler_every: str = "epoch"
    accumulate: int = 1
    clip_norm: float | None = None
    average: float | None = None

    def __post_init__(self):
        check_count("accumulate", self.accumulate)
        if self.average is not None and not 0 < self.average < 1:
            raise wrong("average", self.average, "a decay between 0 and 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise wrong("clip_norm", self.clip_norm, "a number above 0")
        if self.scheduler_every not in ("epoch", "step"):
            raise wrong("scheduler_every", self.scheduler_every, '"epoch" or "step"')


class TrainingRun:
    """The objects that one training works with."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable,
        optimizer: Optimizer,
        device: torch.device,
        settings: RunSettings,
        scheduler: LRScheduler | None = None,
        memory_format: torch.memory_format | None = None,
        compile: bool = False,
        interrupts: Interrupts | None = None,
        world: World | None = None,
    ):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.world = world or World()
        self.criterion = criterion.to(device) if isinstance(criterion, nn.Module) else criterion
        self.device, self.settings, self.memory_format = device, settings, memory_format
        self.wrapped = self.world.wrap(model)
        self.forward = torch.compile(self.wrapped) if compile else self.wrapped
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.averaged = (
            None if settings.average is None else RunningAverage(model, settings.average)
        )
        self.interrupts = interrupts or self.world.interrupts()
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        # What a loss that is not finite leaves behind, where there is no best epoch yet.
        self.beginning: dict[str, Tensor] | None = copied(self.scored.state_dict())
        self.optimizer_state = copy.deepcopy(optimizer.state_dict())
        self.not_finite = ""  # the batch that gave such a loss
        self.plan: dict = {}  # what a resumed training must share, see `plan_of`

    @property
    def scored(self) -> nn.Module:
        """The module that is validated and kept: the model, or its running average."""
        return self.averaged.module if self.averaged else self.model


def save(run: TrainingRun, folder: Path, every: int | None) -> None:
    """Write the files of the epoch that just ended: weights first, the resume state last."""
    row = run.history.rows[-1]
    about = {"epoch": row["epoch"], "val_accuracy": row["val_accuracy"]}
    if row["epoch"] == run.history.best_epoch:
        _save_best(run, folder)
    if every is not None and row["epoch"] % every == 0:
        name = f"epoch_{row['epoch']:04d}.safetensors"
        save_weights(run.scored, folder / name, metadata=about)
    state = {
        "settings": asdict(run.settings),
        "plan": run.plan,
        "history": asdict(run.history),
        "model": _contiguous(run.model.state_dict()),
        "best": _contiguous(run.best),
        "averaged": _contiguous(run.averaged.module.state_dict()) if run.averaged else None,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict() if run.scheduler else None,
        "scaler": run.scaler.state_dict(),
        "buffers": copied(_other_tensors(run)),
    }
    save_state(_plain(state), folder / "last.pt")


def _other_tensors(run: TrainingRun) -> dict[str, Tensor]:
    """Return what the models' state_dicts leave out, and what the criterion keeps."""
    kept = run.model.state_dict()
    models = {"model": run.model}
    if run.averaged:
        models["averaged"] = run.averaged.module
    found = {
        f"{whose}.{name}": tensor
        for whose, model in models.items()
        for name, tensor in model.named_buffers()
        if name not in kept
    }
    if isinstance(run.criterion, nn.Module):
        tensors = chain(run.criterion.named_parameters(), run.criterion.named_buffers())
        found |= {f"criterion.{name}": tensor for name, tensor in tensors}
    return found


def _save_best(run: TrainingRun, folder: Path) -> None:
    about = {"epoch": run.history.best_epoch, "val_accuracy": run.history.best_accuracy}
    save_weights(run.best, folder / "best.safetensors", metadata=about)


def _plain(state):
    """Return nested dicts and lists with NumPy's numbers as Python's, which load without code."""
    if type(state) is dict:  # a Counter, say, is left as it is
        return {key: _plain(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(_plain, state))
    return state.item() if isinstance(state, np.generic) else state


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in state.items()}


@contextmanager
def own_folder(folder: Path | None):
    """Make a checkpoint folder and keep other trainings out of it, inside."""
    if folder is None:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"checkpoint {folder} is a file; expected a folder, or a new name")
    folder.mkdir(parents=True, exist_ok=True)  # fails now rather than after the first epoch
    refusal = (
        f"another training writes into {short_path(folder)}; wait for its end, or give this one a "
        "folder of its own"
    )
    with only_one(folder / ".lock", seconds=PATIENCE, refusal=refusal):
        yield


def restore(run: TrainingRun, folder: Path | None, resume: bool) -> None:
    """Put the state of `last.pt` into the run's objects; refuse to write over a run by accident."""
    if folder is None:
        return
    state = run.world.once(lambda: _found(run, folder, resume))
    if state is not None:
        _load_run(run, state, str(folder / "last.pt"))
        run.world.once(lambda: (folder / "best.safetensors").is_file() or _save_best(run, folder))


def _found(run: TrainingRun, folder: Path, resume: bool) -> dict | None:
    """Return the state to go on with, or None for a new run; refuse that of another training."""
    remove_leftovers(folder)
    path = folder / "last.pt"
    if not path.is_file():
        if resume:
            print(f"Nothing to resume in {short_path(folder)}: starting at epoch 1.")
        return None
    state = load_state(path)
    done = len(state["history"]["rows"])
    if not resume:
        raise FileExistsError(
            f"{short_path(folder)} holds a training of {counted(done, 'epoch')}; resume=True goes "
            "on with it, another folder starts a new one"
        )
    was, now = state.get("plan"), run.plan
    if was is None:  # a file of an earlier version
        was = state["settings"]
        now = {name: run.plan[name] for name in (*was, "processes")}
    was = {"processes": 1} | was  # which older files do not say
    changed = [
        f"{name} was {was.get(name)!r}, is {now.get(name)!r}"
        for name in was | now
        if was.get(name) != now.get(name)
    ]
    if (state["scheduler"] is None) != (run.scheduler is None):
        changed.append("only one of them has a scheduler")
    if changed:
        raise ValueError(
            f"this is not the training in {short_path(folder)}: {'; '.join(changed)}; resume with "
            "the same arguments, or start a new one in another folder"
        )
    return state


def plan_of(run: TrainingRun, train_loader) -> dict:
    """Return what decides a training, by name: numbers, strings and lists of them."""
    frozen = [name for name, p in run.model.named_parameters() if not p.requires_grad]
    plan = asdict(run.settings) | {
        "optimizer": type(run.optimizer).__name__,
        "scheduler": type(run.scheduler).__name__ if run.scheduler else None,
        "criterion": _criterion_text(run.criterion),
        "frozen": f"{len(frozen)} parameters, the first {frozen[0]}" if frozen else "nothing",
    }
    plan |= {"processes": run.world.size} | _data_plan(train_loader)
    for number, group in enumerate(run.optimizer.param_groups, 1):
        for name, value in _constants(group).items():
            plan[f"{name} of parameter group {number}"] = value
    for name, value in _constants(run.scheduler.state_dict() if run.scheduler else {}).items():
        plan[f"the scheduler's {name}"] = value
    return _plain(plan)


def _criterion_text(criterion: Callable) -> str:
    """Return the name of a loss and its numbers, weights of classes among them."""
    name = getattr(criterion, "__name__", type(criterion).__name__)  # a function has its own
    if not isinstance(criterion, nn.Module):
        return name
    settings = dict(vars(criterion))
    if type(criterion).__module__.startswith("torch.nn"):  # those of other losses may change
        settings |= {key: tensor.tolist() for key, tensor in criterion.state_dict().items()}
    plain = (
        f"{key}={value}"
        for key, value in settings.items()
        if isinstance(value, PLAIN) and not key.startswith("_") and key != "training"
    )
    return f"{name}({', '.join(plain)})"


def _data_plan(train_loader) -> dict:
    """Return what a loader says of its data: batch size, pictures, classes, names and labels."""
    dataset, sampler = (getattr(train_loader, name, None) for name in ("dataset", "sampler"))
    batch_size = getattr(train_loader, "batch_size", None) or getattr(sampler, "batch_size", None)
    plan = {
        "batch size": batch_size,
        "training pictures": len(dataset) if hasattr(dataset, "__len__") else None,
    }
    classes, labels = (getattr(dataset, name, None) for name in ("classes", "labels"))
    if classes is not None:
        plan["classes"] = ", ".join(map(str, classes))
    if labels is not None:
        files = [f"{file.parent.name}/{file.name}" for file in getattr(dataset, "files", ())]
        content = repr((torch.as_tensor(labels).tolist(), files)).encode()
        plan["labels and names of files"] = f"of digest {sha256(content).hexdigest()[:8]}"
    return plan


def _constants(state: dict) -> dict:
    """Return the numbers and strings in a state that stay the same during a training."""
    moving = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter", "params", "initial_lr"}
    if "base_momentum" in state:  # a schedule that moves them too
        moving |= {"momentum", "betas"}
    found = {}
    for name, value in state.items():
        if isinstance(value, Counter):  # milestones
            value = sorted(value.elements())
        if name == "_schedulers":  # a sequence of several
            value = [str(_constants(part)) for part in value]
        if name == "lr":  # a scheduler keeps the rate that it began with
            value = state.get("initial_lr", value)
        hidden = name.startswith("_") and name not in ("_schedulers", "_milestones")
        if name not in moving and not hidden and isinstance(value, PLAIN):
            found[name] = value
    return found


def _check_state(state: dict) -> None:
    """Refuse a resume state that is none, whatever else it may be."""
    rows = History(**state["history"]).rows
    if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError("its epochs are not 1, 2, …")
    for row in rows:
        if set(row) != set(ROW) or not all(isinstance(x, int | float) for x in row.values()):
            raise ValueError(f"a row of its history has other columns than {', '.join(ROW)}")
    for name in ("settings", "optimizer", "scaler"):
        dict(state[name])
    kinds = _kinds(state["model"])
    if kinds != _kinds(state["best"]) or kinds != _kinds(state["averaged"] or state["model"]):
        raise ValueError("its best weights are of another model than its last ones")
    if state["scheduler"] is not None:
        dict(state["scheduler"])
    _kinds(state.get("buffers", {}))


def _kinds(tensors: Mapping[str, Tensor]) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _load_run(run: TrainingRun, state: dict, origin: str) -> None:
    own = run.model.state_dict()
    for name, tensor in state["model"].items():
        if name in own and own[name].dtype != tensor.dtype:
            raise ValueError(f"{name} in {origin} is {tensor.dtype}, the model's {own[name].dtype}")
    others = _other_tensors(run)
    if "buffers" in state and _kinds(state["buffers"]) != _kinds(others):
        raise ValueError(f"{origin} has buffers of another model or criterion")
    try:
        run.optimizer.load_state_dict(state["optimizer"])  # changes nothing where it does not fit
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the optimizer in {origin} has other parameter groups ({error}); "
            "freeze and unfreeze as in the first run, then build the optimizer"
        ) from error
    try:
        fit_weights(run.model, state["model"], origin)
    except ValueError:
        run.optimizer.load_state_dict(run.optimizer_state)
        raise
    if run.averaged is not None:
        put_weights(run.averaged.module, state["averaged"])
        run.averaged.begun = True
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    for name, tensor in state.get("buffers", {}).items():  # older files have none
        others[name].data.copy_(tensor)
    run.best = {name: tensor.to(run.device) for name, tensor in state["best"].items()}
    run.history = History(**state["history"])


def save_state(state: dict, path: str | Path) -> None:
    """Write a resume state (tensors, numbers, strings, lists, dicts) with `torch.save`."""
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def load_state(path: str | Path) -> dict:
    """Read a resume state with `weights_only=True`: nothing in it is executed."""
    try:
        check_sums(Path(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_state(state)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no resume state: {error!r}; delete it to start from epoch 1"
        ) from error
    return state
