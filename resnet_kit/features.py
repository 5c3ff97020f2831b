"""Features: what the head of a model sees, computed once; and probes that learn from them."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .data.loaders import (
    Loaders,
    batch_loader,
    check_loaders,
    counts_of,
    in_order,
    part_of,
    split_of,
    splits_of,
)
from .devices import arithmetic, fast_format, memory_format, place, resolve_precision, send
from .evaluation.evaluation import Evaluation, checked_batch, checked_logits
from .models.transfer import check_model, head_name, kept_modes
from .settings import check_count, counted, progress_bar, wrong
from .world import World, this_world


@dataclass(frozen=True, repr=False, eq=False)
class Features:
    """Loaders of (features `(B, D)` float32, labels `(B,)` int64), for `train_and_eval` and probes.

    With several views of each training picture, each epoch takes the next one. `files` is that of
    the `Loaders`.
    """

    train: DataLoader
    val: DataLoader
    test: DataLoader | None
    classes: tuple[str, ...]
    files: dict[str, tuple[Path, ...]] | None = None

    def __repr__(self) -> str:
        views, _, width = self.train.dataset.features.shape
        each = f"{width} numbers each; {counted(views, 'view')}"
        return f"Features({counts_of(self)} pictures; {each})"


class FeatureRows(Dataset):
    """Features `(views, N, D)` and labels `(views, N)`; item `(epoch, indices)` is a batch."""

    def __init__(self, features: Tensor, labels: Tensor, classes: tuple[str, ...]):
        self.features, self.labels, self.classes = features, labels, classes

    def __len__(self) -> int:
        return self.features.shape[1]

    def __getitem__(self, key: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        epoch, indices = key
        view = (epoch - 1) % len(self.features)
        return self.features[view, send(indices, self.features.device)], self.labels[view, indices]


def extract_features(
    model: nn.Module,
    loaders: Loaders,
    *,
    views: int = 1,
    batch_size: int = 32,
    precision: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Features:
    """Run everything before the head over all pictures once, in eval mode.

    Then `train_and_eval(head_of(model), …, features.train, features.val)` trains the head in
    seconds, and with it the whole model is ready. For any model with a linear head (`head_of`).

    Args:
        views: 1 takes each training picture as it is (resized and cropped as for validation); more
            take so many augmented views of it instead.
        batch_size, seed: of the loaders of features.
        precision: as in `train_and_eval`; the features are float32 in any case. "fp32" gives, bit
            for bit, what the head gets from the model.

    Raises:
        ValueError: no model with a linear head, no `Loaders`, or a wrong number of views.
    """
    check_model(model)
    check_loaders(loaders)
    check_count("views", views)
    parts, world = {}, this_world()
    with world.interrupts() as interrupts, kept_modes(model), world.together():
        device = place(model)
        precision = resolve_precision(device, precision)
        with memory_format(model, fast_format(device, precision)):
            for split, loader in splits_of(loaders).items():
                epochs = [None]  # as validation sees pictures
                if split == "train" and views == 1:
                    loader = loaders.plain("train")
                elif split == "train":
                    first = max(getattr(loader.dataset, "sizes", [1]))  # the first of the full size
                    epochs = range(first, first + views)
                found = []
                for epoch in epochs:
                    if epoch is not None and hasattr(loader.sampler, "set_epoch"):
                        loader.sampler.set_epoch(epoch)
                    part = part_of(loader, world, even=False)
                    show = progress and world.rank == 0
                    batches = interrupts.batches(progress_bar(part, description=split, show=show))
                    found.append(_before_the_head(model, batches, device, precision, world))
                features, labels = map(torch.stack, zip(*found, strict=True))
                parts[split] = features.to(device), labels
        interrupts.check()
    features = features_of(parts, loaders.classes, batch_size=batch_size, seed=seed)
    return replace(features, files=loaders.files)


def features_of(
    parts: dict[str, tuple[Tensor, Tensor]], classes: tuple[str, ...], *, batch_size: int, seed: int
) -> Features:
    """Return loaders for features `(views, N, D)` and labels `(views, N)` of train, val, test."""
    loaders = {
        split: batch_loader(
            FeatureRows(*part, classes), batch_size, seed=seed if split == "train" else None
        )
        for split, part in parts.items()
    }
    return Features(loaders["train"], loaders["val"], loaders.get("test"), classes)


def _before_the_head(
    model: nn.Module, batches, device: torch.device, precision: str, world: World
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the head, `(N, D)`, and the labels, `(N,)`, on the CPU."""
    rows, labels = [], []
    head = model.get_submodule(head_name(model))
    hook = head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].float().cpu()))
    try:
        for batch in batches:
            inputs, targets = checked_batch(batch)
            with torch.no_grad(), arithmetic(device, precision):
                checked_logits(model.eval(), send(inputs, device))
            labels.append(targets.cpu())
    finally:
        hook.remove()
    rows, labels = zip(*in_order(list(zip(rows, labels, strict=True)), world), strict=True)
    if rows[0].ndim != 2:
        raise ValueError(
            f"the head gets inputs of shape {tuple(rows[0].shape)}; expected features (N, D): take "
            "pooling and flattening out of the head"
        )
    return torch.cat(rows), torch.cat(labels)


def svm_probe(features: Features, *, kernel: str = "rbf", split: str = "val"):
    """Fit a support vector machine on standardised features, C by cross-validation.

    Return the `Evaluation` on a split and the fitted scikit-learn estimator. Its probabilities are
    a softmax of decision values: they rank, but are not calibrated. The borders of kernel "rbf" may
    bend, those of "linear" are straight. Where a class has a single training picture, C is the
    middle of those that are tried.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    tried = {"rbf": [0.01, 0.1, 1.0, 10.0, 100.0], "linear": [1e-4, 1e-3, 0.01, 0.1, 1.0]}
    if kernel not in tried:
        raise wrong("kernel", kernel, '"rbf" or "linear"')
    machine = SVC(kernel=kernel, break_ties=True)
    return _probe(features, split, StandardScaler(), machine, {"svc__C": tried[kernel]})


def knn_probe(features: Features, *, split: str = "val"):
    """Let the nearest training pictures vote, by the angle between features; see `svm_probe`."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import Normalizer

    most = max(1, len(features.train.dataset) // 2)  # what every fold has
    grid = {"kneighborsclassifier__n_neighbors": [k for k in (1, 3, 5, 9, 15) if k <= most]}
    neighbors = KNeighborsClassifier(weights="distance")
    return _probe(features, split, Normalizer(), neighbors, grid)


def logistic_probe(features: Features, *, split: str = "val"):
    """Fit a logistic regression on standardised features; see `svm_probe`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0, 10.0]}
    return _probe(features, split, StandardScaler(), LogisticRegression(max_iter=1000), grid)


def _probe(features: Features, split: str, scale, classifier, grid: dict):
    """Choose by cross-validation on the first view, fit all views, and score a split."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    rows_of(features, split)  # that there is such a split, before the search takes its time
    views, labels = rows_of(features, "train")
    estimator = make_pipeline(scale, classifier)
    fewest = int(np.bincount(labels[0], minlength=len(features.classes)).min())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # many classes are fine
        if fewest > 1:
            search = GridSearchCV(estimator, grid, cv=min(5, fewest)).fit(views[0], labels[0])
            chosen = search.best_params_
        else:  # nothing to cross-validate with
            chosen = {name: values[len(values) // 2] for name, values in grid.items()}
        estimator.set_params(**chosen).fit(views.reshape(-1, views.shape[2]), labels.ravel())
    return score_probe(estimator, features, split), estimator


def score_probe(estimator, features: Features, split: str) -> Evaluation:
    """Score a fitted scikit-learn estimator on a split's features."""
    rows, labels = (array[0] for array in rows_of(features, split))
    if hasattr(estimator, "predict_proba"):
        found = estimator.predict_proba(rows)
    else:
        values = torch.from_numpy(estimator.decision_function(rows))
        if values.ndim == 1:  # two classes: one value, for the second
            values = torch.stack([-values, values], 1)
        found = values.softmax(1).numpy()
    probabilities = np.zeros((len(rows), len(features.classes)))
    probabilities[:, estimator.classes_] = found  # a class without a training picture keeps 0
    of_actual = probabilities[np.arange(len(labels)), labels].clip(1e-12)
    loss = float(-np.log(of_actual).mean())
    return Evaluation(loss, labels, probabilities.astype(np.float32), features.classes)


def rows_of(features: Features, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features `(views, N, D)` and labels `(views, N)` of a split."""
    dataset = split_of(features, split).dataset
    return dataset.features.cpu().numpy(), dataset.labels.cpu().numpy()
