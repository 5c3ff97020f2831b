"""The files of a training: the weights worth keeping, and the state that a resumed run needs."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from ..files import fit_weights, load_state, put_weights, save_state, save_weights
from ..settings import short_path
from .history import History
from .state import TrainingRun


def save(run: TrainingRun, folder: Path, every: int | None) -> None:
    """Write the files of the epoch that just ended: weights first, the resume state last."""
    row = run.history.rows[-1]
    about = {"epoch": row["epoch"], "val_accuracy": row["val_accuracy"]}
    if row["epoch"] == run.history.best_epoch:
        save_weights(run.best, folder / "best.safetensors", metadata=about)
    if every is not None and row["epoch"] % every == 0:
        name = f"epoch_{row['epoch']:04d}.safetensors"
        save_weights(run.scored, folder / name, metadata=about)
    state = {
        "settings": run.settings,
        "history": asdict(run.history),
        "model": _contiguous(run.model.state_dict()),
        "best": _contiguous(run.best),
        "averaged": _contiguous(run.averaged.module.state_dict()) if run.averaged else None,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict() if run.scheduler else None,
        "scaler": run.scaler.state_dict(),
    }
    save_state(_plain(state), folder / "last.pt")


def _plain(state):
    """Return nested dicts and lists with NumPy's numbers as Python's, which load without code."""
    if type(state) is dict:  # a Counter, say, is left as it is
        return {key: _plain(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(_plain, state))
    return state.item() if isinstance(state, np.generic) else state


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in state.items()}


def restore(run: TrainingRun, folder: Path | None, resume: bool) -> None:
    """Put the state of `last.pt` into the run's objects; refuse to write over a run by accident."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"checkpoint {folder} is a file; expected a folder, or a new name")
    folder.mkdir(parents=True, exist_ok=True)  # fails now rather than after the first epoch
    path = folder / "last.pt"
    if not path.is_file():
        if resume:
            print(f"Nothing to resume in {short_path(folder)}: starting at epoch 1.")
        return
    state = load_state(path)
    done = len(state["history"]["rows"])
    if not resume:
        raise FileExistsError(
            f"{short_path(folder)} holds a training of {done} epochs; resume=True goes on with it, "
            "another folder starts a new one"
        )
    changed = [
        f"{name} was {state['settings'].get(name)!r}, is {value!r}"
        for name, value in run.settings.items()
        if state["settings"].get(name) != value
    ]
    if run.scheduler is not None and state["scheduler"] is not None:
        was, now = state["scheduler"], run.scheduler.state_dict()
        shape = ("T_max", "total_steps", "total_iters", "step_size", "gamma")
        changed += [
            f"the scheduler's {name} was {was[name]}, is {now.get(name)}"
            for name in shape
            if name in was and was[name] != now.get(name)
        ]
    if changed or (state["scheduler"] is None) != (run.scheduler is None):
        raise ValueError(
            f"this is not the training in {short_path(folder)}: "
            f"{'; '.join(changed) or 'only one of them has a scheduler'}; resume with the same "
            "arguments, or start a new one in another folder"
        )
    _load_run(run, state, str(path))


def _load_run(run: TrainingRun, state: dict, origin: str) -> None:
    fit_weights(run.model, state["model"], origin)
    if run.averaged is not None:
        put_weights(run.averaged.module, state["averaged"])
        run.averaged.begun = True
    try:
        run.optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise ValueError(
            f"the optimizer in {origin} has other parameter groups ({error}); "
            "freeze and unfreeze as in the first run, then build the optimizer"
        ) from error
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    run.best = {name: tensor.to(run.device) for name, tensor in state["best"].items()}
    run.history = History(**state["history"])
