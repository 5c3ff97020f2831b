"""What a comparison of strategies measured, and what follows from it: ties, advice, a figure."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import numpy as np

from .evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class Run:
    """One strategy, share of the training pictures and seed: its scores and seconds."""

    strategy: str
    fraction: float
    seed: int
    pictures: int
    val: Evaluation
    test: Evaluation | None
    seconds: float

    @property
    def reported(self) -> Evaluation:
        """The score on the test pictures, or on val where there are none."""
        return self.test or self.val


@dataclass(frozen=True, repr=False)
class Comparison:
    """The runs of a comparison and what follows from them. Val chooses, test reports."""

    runs: tuple[Run, ...]
    finished: bool

    def groups(self) -> dict[tuple[float, str], list[Run]]:
        """The runs by (fraction, strategy), one for each seed."""
        found = {}
        for run in self.runs:
            found.setdefault((run.fraction, run.strategy), []).append(run)
        return found

    def to_frame(self):
        """Return a pandas table of fractions and strategies.

        Mean accuracy over the seeds on val and test; of what is reported (test, or val where there
        is no test) the lowest and highest seed, and the 95 % interval `low` to `high` of the first
        seed's pictures; the mean seconds; and whether it is `tied` (on val) with the best.
        """
        import pandas as pd

        rows = []
        for (fraction, strategy), runs in self.groups().items():
            accuracies = [run.reported.accuracy for run in runs]
            rows.append(
                {
                    "fraction": fraction,
                    "strategy": strategy,
                    "pictures": runs[0].pictures,
                    "val": mean(run.val.accuracy for run in runs),
                    "test": mean(accuracies) if runs[0].test else None,
                    "lowest": min(accuracies),
                    "highest": max(accuracies),
                    "low": runs[0].reported.interval[0],
                    "high": runs[0].reported.interval[1],
                    "seconds": mean(run.seconds for run in runs),
                    "seeds": len(runs),
                    "tied": strategy in self.tied(fraction),
                }
            )
        return pd.DataFrame(rows)

    def at(self, fraction: float) -> dict[str, list[Run]]:
        """Return the runs of a fraction by strategy."""
        found = {name: runs for (share, name), runs in self.groups().items() if share == fraction}
        if not found:
            raise ValueError(f"nothing was measured at the fraction {fraction}")
        return found

    def best(self, fraction: float) -> str:
        """Return the strategy with the highest mean val accuracy at this fraction."""
        accuracy = self._means(fraction, lambda run: run.val.accuracy)
        return max(accuracy, key=accuracy.get)

    def tied(self, fraction: float) -> list[str]:
        """Return the best strategy and those that the val pictures cannot tell from it.

        Both see the same pictures, so their difference is taken picture by picture, averaged over
        the seeds; a mean within 1.96 standard errors of zero is a tie.
        """
        groups = self.at(fraction)
        best = groups[self.best(fraction)]
        differences = {name: _differences(best, runs) for name, runs in groups.items()}
        return [
            name
            for name, d in differences.items()
            if abs(d.mean()) <= 1.96 * d.std() / len(d) ** 0.5
        ]

    @property
    def recommended(self) -> str | None:
        """The best strategy on all the pictures, or one that is tied with it at half the time.

        Of several such it is the cheapest. A smaller saving is not worth what a tie may hide.
        """
        if not self.runs:
            return None
        fraction = max(run.fraction for run in self.runs)
        seconds, best = self._means(fraction, lambda run: run.seconds), self.best(fraction)
        cheapest = min(self.tied(fraction), key=seconds.get)
        return cheapest if seconds[cheapest] <= seconds[best] / 2 else best

    def _means(self, fraction: float, of: Callable[[Run], float]) -> dict[str, float]:
        return {name: mean(map(of, runs)) for name, runs in self.at(fraction).items()}

    @property
    def recommendation(self) -> str:
        """What to do with all the pictures, and why, in a sentence or two."""
        if not self.runs:
            return "Nothing was measured, so nothing is recommended."
        fraction = max(run.fraction for run in self.runs)
        seconds = self._means(fraction, lambda run: run.seconds)
        accuracy = self._means(fraction, lambda run: run.val.accuracy)
        best, ties, chosen = self.best(fraction), self.tied(fraction), self.recommended
        reason = f"best on val ({accuracy[best]:.1%})"
        if chosen != best:
            reason = (
                f"not told apart from {best} by the val pictures, and it takes "
                f"{_seconds_text(seconds[chosen])} instead of {_seconds_text(seconds[best])}"
            )
        others = [name for name in ties if name != chosen]
        tail = f" Tied with it: {', '.join(others)}." if others else ""
        pictures = self.at(fraction)[best][0].pictures
        return f"With {pictures} training pictures: {chosen}, {reason}.{tail}"

    def plot(self):
        """Draw the mean reported accuracy over the number of training pictures."""
        from .figures import line_plot

        if not self.runs:
            raise ValueError("nothing was measured, so there is nothing to draw")
        lines = {}
        for (_, strategy), runs in sorted(self.groups().items()):
            x, y = lines.setdefault(strategy, ([], []))
            x.append(runs[0].pictures)
            y.append(100 * mean(run.reported.accuracy for run in runs))
        split = "test" if self.runs[0].test else "val"
        return line_plot(lines, xlabel="training pictures", title=f"{split} accuracy in %", log="x")

    def __repr__(self) -> str:
        state = "" if self.finished else " (interrupted)"
        return f"Comparison of {len(self.runs)} runs{state}. {self.recommendation}"


def _differences(ours: list[Run], theirs: list[Run]) -> np.ndarray:
    """Return right minus right per picture: averaged over seeds that have the same pictures."""
    pairs = [(a.val, b.val) for a in ours for b in theirs if a.seed == b.seed]
    gaps = [a.correct.astype(float) - b.correct for a, b in pairs]
    same = all(a.files == pairs[0][0].files for a, _ in pairs)
    return np.mean(gaps, axis=0) if same else np.concatenate(gaps)


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
