"""Measured numbers as JSON: one schema, written by the code that measured them."""

import datetime
import json
import platform
from pathlib import Path

import numpy as np
import torch
import torchvision

from .devices import hardware
from .files import atomic_file
from .settings import user_path

ROW = ("data", "split", "model", "recipe", "metric", "value", "low", "high", "n", "seed", "seconds")


def accuracy_row(
    result,
    *,
    data: str,
    split: str,
    model: str,
    recipe: str,
    seed: int,
    seconds: float | None = None,
) -> dict:
    """Return an `Evaluation` as a row of results: accuracy with its 95 % interval."""
    about = (data, split, model, recipe, "accuracy")
    measured = (result.accuracy, *result.interval, len(result.labels))
    return dict(zip(ROW, (*about, *measured, seed, seconds), strict=True))


def write_results(
    path: str | Path, rows: list[dict], *, command: str, curves: dict[str, list] | None = None
) -> None:
    """Write measured rows with date, hardware and versions; `name` is the file's.

    Each row holds all of `ROW` (None where it has no meaning) and may hold more; else there is a
    ValueError. `curves` maps a name to a training's rows per epoch.
    """
    for row in rows:
        if missing := [key for key in ROW if key not in row]:
            raise ValueError(f"a row lacks {', '.join(missing)}; None says that it has no meaning")
    document = {
        "name": Path(path).stem,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "rows": rows,
    }
    if curves:
        document["curves"] = curves
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_results(path: str | Path) -> dict:
    """Read a file that `write_results` wrote."""
    return json.loads(user_path(path).read_text(encoding="utf-8"))
