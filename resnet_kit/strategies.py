"""Which kind of transfer suits these pictures? All kinds, trained alike and compared."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor, nn

from .data.folders import image_folders
from .data.images import existing_folder
from .data.loaders import Loaders, splits_of
from .evaluation.evaluation import Evaluation, evaluate
from .features import Features, extract_features, features_of, knn_probe, score_probe, svm_probe
from .models.transfer import freeze, head_name, param_groups, pretrained, unfreeze
from .models.weights import Weights, check_weights
from .models.weights import weights as weights_of
from .settings import counted, own_random_numbers
from .training.loop import train_and_eval


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, repr=False, eq=False)
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
        others = [name for name in ties if name not in (chosen, best)]
        tail = f" Tied with it: {', '.join(others)}." if others else ""
        pictures = self.at(fraction)[best][0].pictures
        return f"With {counted(pictures, 'training picture')}: {chosen}, {reason}.{tail}"

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
        return f"Comparison of {counted(len(self.runs), 'run')}{state}. {self.recommendation}"


def _differences(ours: list[Run], theirs: list[Run]) -> np.ndarray:
    """Return right minus right per picture: averaged over seeds that have the same pictures."""
    pairs = [(a.val, b.val) for a in ours for b in theirs if a.seed == b.seed]
    gaps = [a.correct.astype(float) - b.correct for a, b in pairs]
    same = all(a.files == pairs[0][0].files for a, _ in pairs)
    return np.mean(gaps, axis=0) if same else np.concatenate(gaps)


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


FROM_FEATURES = ("feature extraction", "features + SVM", "features + kNN")
STRATEGIES = (*FROM_FEATURES, "partial fine-tuning", "full fine-tuning", "from scratch")
TWO_STAGES = "two-stage fine-tuning"  # the head alone first; measured where it is asked for
HEAD_LR, BACKBONE_LR, SCRATCH_LR, FEATURES_LR = 1e-3, 3e-4, 1e-3, 1e-2
RESNETS = ("resnet", "resnext", "wide_resnet")  # whose last stage is layer4


def compare_strategies(
    root: str | Path,
    *,
    weights: Weights | None = None,
    strategies: Sequence[str] = STRATEGIES,
    epochs: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    fractions: Sequence[float] = (1.0,),
    size: int | None = None,
    batch_size: int = 32,
    val_from_train: float | None = None,
    augment: str | Callable[[Tensor], Tensor] = "standard",
    groups: Callable[[Path], Hashable] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Train every strategy on the same pictures for the same number of epochs, and compare.

    `root`, `size`, `val_from_train`, `augment` and `groups` are as in `image_folders`; features are
    those of the pictures as they are. Partial fine-tuning trains the last stage of a ResNet,
    `layer4`, and the head; "two-stage fine-tuning", if asked for, first the head alone for a third
    of the epochs, then all. A fraction is a share of the training pictures of each class, and a
    larger one holds the smaller ones. With `val_from_train` each seed holds out other pictures. The
    features of all pictures are computed once, and what that took is shared out by pictures.
    Stopping the cell returns what there is.

    Raises:
        ValueError: an unknown strategy, or weights or a folder that do not fit it.
        FileNotFoundError, NotADirectoryError: no such folder.

    >>> compare_strategies("my_pictures", fractions=(0.1, 1)).to_frame()
    """
    known = (*STRATEGIES, TWO_STAGES)
    if unknown := [name for name in strategies if name not in known]:
        raise ValueError(f"no strategy {unknown[0]!r}; expected some of: {', '.join(known)}")
    if not strategies or not seeds or not fractions:
        raise ValueError("no strategies, seeds or fractions; expected at least one of each")
    source = weights_of("resnet18") if weights is None else weights
    check_weights(source)
    root = existing_folder(root, "expected a folder of pictures for image_folders")
    if "partial fine-tuning" in strategies and not source.arch.startswith(RESNETS):
        raise ValueError(
            f"partial fine-tuning trains layer4 of a ResNet, which {source.arch} does not have; "
            "leave it out of `strategies`"
        )
    options = {"size": size, "batch_size": batch_size, "val_from_train": val_from_train}
    options |= {"augment": augment, "groups": groups, "workers": workers}
    task = _Task(root, source, epochs, options, progress)
    runs = []
    try:
        for run in task.runs(strategies, seeds, sorted(fractions)):
            runs.append(run)
    except KeyboardInterrupt:
        print(f"Stopped by hand after {counted(len(runs), 'run')}; the comparison holds those.")
        return Comparison(tuple(runs), finished=False)
    return Comparison(tuple(runs), finished=True)


@dataclass
class _Task:
    """What all runs of a comparison share, and the features of every picture."""

    root: Path
    source: Weights
    epochs: int
    options: dict  # of the loaders
    progress: bool
    rows: dict | None = None
    seconds_per_picture: float = 0.0

    def runs(self, strategies, seeds, fractions) -> Iterator[Run]:
        for seed in seeds:
            for fraction in fractions:
                first = (seed, fraction) == (seeds[0], fractions[0])
                loaders = self.loaders(seed, fraction, announce=first)
                for strategy in strategies:
                    yield self.run(strategy, loaders, seed, fraction)

    def loaders(self, seed: int, fraction: float = 1.0, *, announce: bool = False) -> Loaders:
        options = self.options | {"train_share": fraction, "seed": seed, "announce": announce}
        return image_folders(self.root, like=self.source, **options)

    def run(self, strategy: str, loaders: Loaders, seed: int, fraction: float) -> Run:
        how = self.from_features if strategy in FROM_FEATURES else self.end_to_end
        with own_random_numbers(seed):
            results, seconds = how(strategy, loaders, seed)
        val, *test = (
            replace(result, files=loaders.files[split])
            for split, result in zip(_scored(loaders), results, strict=True)
        )
        pictures = len(loaders.files["train"])
        return Run(strategy, fraction, seed, pictures, val, test[0] if test else None, seconds)

    def from_features(self, strategy: str, loaders: Loaders, seed: int):
        features = self.features(loaders, seed)
        start = time.perf_counter()
        if strategy == "feature extraction":
            head = nn.Linear(features.train.dataset.features.shape[2], len(loaders.classes))
            optimizer = torch.optim.AdamW(head.parameters(), lr=FEATURES_LR)
            self.train(head, optimizer, [FEATURES_LR], features, seed, self.epochs)
            results = [evaluate(head, x, progress=False) for x in _scored(features).values()]
        else:
            probe = svm_probe if strategy == "features + SVM" else knn_probe
            _, estimator = probe(features)
            results = [score_probe(estimator, features, x) for x in _scored(features)]
        pictures = sum(len(loaders.files[split]) for split in ("train", "val"))
        seconds = time.perf_counter() - start + pictures * self.seconds_per_picture
        return results, seconds

    def features(self, loaders: Loaders, seed: int) -> Features:
        """Return the features of these pictures; all of the folder are computed the first time."""
        if self.rows is None:
            start, everything = time.perf_counter(), self.loaders(seed)
            model = pretrained(self.source, num_classes=len(everything.classes))
            found = extract_features(model, everything, progress=self.progress)
            self.rows = {}
            for split, loader in splits_of(found).items():
                features = loader.dataset.features[0]
                self.rows |= dict(zip(everything.files[split], features, strict=True))
            self.seconds_per_picture = (time.perf_counter() - start) / len(self.rows)
        parts = {}
        for split in splits_of(loaders):
            labels = torch.tensor(loaders.plain(split).dataset.labels)
            found = torch.stack([self.rows[file] for file in loaders.files[split]])
            parts[split] = found[None], labels[None]
        batch_size = self.options["batch_size"]
        return features_of(parts, loaders.classes, batch_size=batch_size, seed=seed)

    def end_to_end(self, strategy: str, loaders: Loaders, seed: int):
        scratch = strategy == "from scratch"
        source = weights_of(self.source.arch, None) if scratch else self.source
        model = pretrained(source, num_classes=len(loaders.classes), seed=seed)
        if strategy == "partial fine-tuning":
            freeze(model)
            unfreeze(model, "layer4", head_name(model))
        rates = (SCRATCH_LR, SCRATCH_LR) if scratch else (HEAD_LR, BACKBONE_LR)
        start, epochs = time.perf_counter(), self.epochs
        if strategy == TWO_STAGES and epochs > 1:
            first_stage = max(1, epochs // 3)
            freeze(model)
            unfreeze(model, head_name(model))
            self.train_at(rates, model, loaders, seed, first_stage)
            unfreeze(model)
            epochs -= first_stage
        self.train_at(rates, model, loaders, seed, epochs)
        seconds = time.perf_counter() - start
        results = [evaluate(model, x, progress=False) for x in _scored(loaders).values()]
        return results, seconds

    def train_at(self, rates, model: nn.Module, loaders: Loaders, seed: int, epochs: int) -> None:
        """Train what is not frozen, head and backbone at their rates."""
        groups = param_groups(model, head_lr=rates[0], backbone_lr=rates[1])
        optimizer = torch.optim.AdamW(groups)
        self.train(model, optimizer, [group["lr"] for group in groups], loaders, seed, epochs)

    def train(
        self, module: nn.Module, optimizer, rates: list[float], data, seed: int, epochs: int
    ) -> None:
        """Train with a rate that rises and falls once."""
        steps = epochs * len(data.train)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        history = train_and_eval(
            module,
            epochs,
            nn.CrossEntropyLoss(label_smoothing=0.1),
            optimizer,
            data.train,
            data.val,
            scheduler=scheduler,
            scheduler_every="step",
            seed=seed,
            progress=self.progress,
        )
        if history.stopped == "interrupted":
            raise KeyboardInterrupt


def _scored(data) -> dict:
    return {split: loader for split, loader in splits_of(data).items() if split != "train"}
