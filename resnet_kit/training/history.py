"""What a training did, epoch by epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(repr=False)
class History:
    """One row per finished epoch, and the best of them.

    Rows hold `epoch` (from 1), `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` (0…1),
    `lr` (the first parameter group's, at the epoch's end) and `seconds`. `stopped` is "finished",
    "patience", "interrupted" or "non-finite". Before the first validation there is no best yet.
    """

    rows: list[dict] = field(default_factory=list)
    best_epoch: int | None = None
    best_accuracy: float | None = None
    stopped: str = "finished"

    @property
    def seconds(self) -> float:
        """The time of all finished epochs, validation included."""
        return sum(row["seconds"] for row in self.rows)

    def add(self, row: dict) -> bool:
        """Append the row of an epoch; True if it is the best so far: ties keep the earlier."""
        better = self.best_accuracy is None or row["val_accuracy"] > self.best_accuracy
        if better:
            self.best_epoch, self.best_accuracy = row["epoch"], row["val_accuracy"]
        self.rows.append(row)
        return better

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

    def __repr__(self) -> str:
        best = "no validation yet"
        if self.best_epoch is not None:
            best = f"best val accuracy {self.best_accuracy:.1%} in epoch {self.best_epoch}"
        return f"{len(self.rows)} epochs in {self.seconds:.0f} s, {best} ({self.stopped})"


def log_scalars(writer) -> Callable[[History], None]:
    """Return an `on_epoch_end` that hands each epoch's numbers to `writer.add_scalar`.

    They are named `loss/train`, `loss/val`, `accuracy/train`, `accuracy/val`, `lr` and `seconds`.
    For TensorBoard (`pip install tensorboard`), or any other writer with that method:

    >>> from torch.utils.tensorboard import SummaryWriter
    >>> train_and_eval(..., on_epoch_end=log_scalars(SummaryWriter("runs/first")))
    """

    def write(history: History) -> None:
        row = history.rows[-1]
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar("/".join(reversed(name.split("_"))), value, row["epoch"])

    return write
