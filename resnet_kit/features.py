"""Features: what the head of a model sees, computed once; and probes that learn from them."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.data import DataLoader, Dataset

from .data.loaders import EpochBatchSampler, Loaders, counts_of, split_of, splits_of
from .devices import fast_format, memory_format, place, resolve_precision, send
from .evaluation.evaluation import Evaluation, predict_batches
from .files import bytes_of, digest_of, read_weights, save_weights
from .models.transfer import head_name, head_of, kept_modes
from .settings import progress_bar, short_path


@dataclass(frozen=True, repr=False)
class Features:
    """Loaders of (features `(B, D)` float32, labels `(B,)` int64), for `train_and_eval` and probes.

    With several views of each training picture, each epoch takes the next one.
    """

    train: DataLoader
    val: DataLoader
    test: DataLoader | None
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        views, _, width = self.train.dataset.features.shape
        return f"Features({counts_of(self)} pictures; {width} numbers each; {views} view(s))"


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
    cache: str | Path | None = None,
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
        cache: a folder. The features are kept there under a key that follows from the weights and
            the prepared pictures themselves, so a change of either never meets old features; with
            it the pictures are still read, but the model need not run.
        batch_size, seed: of the loaders of features.
        precision: as in `train_and_eval`; the features are float32 in any case. "fp32" gives, bit
            for bit, what the head gets from the model.
    """
    if views < 1:
        raise ValueError(f"views is {views}; expected at least 1")
    device, head = place(model), head_of(model)
    precision = resolve_precision(device, precision)
    passes = {"train 1": (loaders.plain("train"), None)}  # loaders, and epochs to augment as in
    if views > 1:
        first = max(getattr(loaders.train.dataset, "sizes", [1]))  # epoch of the full size
        passes = {f"train {k + 1}": (loaders.train, first + k) for k in range(views)}
    passes |= {name: (x, None) for name, x in splits_of(loaders).items() if name != "train"}
    key = _key(model, head, passes, precision, progress) if cache is not None else ""
    found = _cached(Path(cache), key) if cache is not None else None
    if found is None:
        found = {}
        fast = model if precision == "fp32" else _folded(model)
        fast_head = fast.get_submodule(head_name(model))
        with memory_format(fast, fast_format(device, precision)):
            for name in passes:
                batches = _batches(*passes[name], name, progress)
                found |= _before_the_head(name, fast, fast_head, batches, device, precision)
        if cache is not None:
            about = {"key": key, "digest": digest_of(found)}
            save_weights(found, _place_in(Path(cache), key), metadata=about)

    parts = {}
    for split in splits_of(loaders):
        names = [name for name in passes if name.split()[0] == split]
        features = torch.stack([found[f"{name} features"] for name in names]).to(device)
        parts[split] = features, torch.stack([found[f"{name} labels"] for name in names])
    return features_of(parts, loaders.classes, batch_size=batch_size, seed=seed)


def features_of(
    parts: dict[str, tuple[Tensor, Tensor]], classes: tuple[str, ...], *, batch_size: int, seed: int
) -> Features:
    """Return loaders for features `(views, N, D)` and labels `(views, N)` of train, val, test."""

    def loader(split: str, shuffled: int | None = None) -> DataLoader:
        dataset = FeatureRows(*parts[split], classes)
        sampler = EpochBatchSampler(len(dataset), batch_size, shuffled)
        generator = torch.Generator()  # torch's own is left alone
        return DataLoader(dataset, batch_size=None, sampler=sampler, generator=generator)

    test = loader("test") if "test" in parts else None
    return Features(loader("train", seed), loader("val"), test, classes)


def _batches(loader: DataLoader, epoch: int | None, description: str, progress: bool):
    """Return the batches of a loader in one of its epochs, behind a bar."""
    if epoch is not None and hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return progress_bar(loader, description=description, show=progress)


def _folded(model: nn.Module) -> nn.Module:
    """Return a copy with BatchNorm folded into the convolutions, which saves its share of the time.

    A model that torch.fx cannot trace (one whose steps depend on its input), that traces into its
    head, or that uses a convolution twice is returned as it is.
    """
    with kept_modes(model):
        try:
            folded = fuse(model.eval())
        except Exception:  # whatever its forward raises when it is called without numbers
            return model
    calls = [str(node.target) for node in folded.graph.nodes if node.op == "call_module"]
    convs = [name for name in calls if isinstance(folded.get_submodule(name), nn.Conv2d)]
    sound = head_name(model) in calls and len(convs) == len(set(convs))
    return folded if sound else model


def _before_the_head(
    name: str, model: nn.Module, head: nn.Module, batches, device: torch.device, precision: str
) -> dict[str, Tensor]:
    """Return the inputs of the head, `(N, D)`, and the labels, `(N,)`, on the CPU."""
    rows, labels = [], []
    hook = head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].float().cpu()))
    try:
        with kept_modes(model):
            for _, targets in predict_batches(model, batches, device, precision):
                labels.append(targets.cpu())
    finally:
        hook.remove()
    return {f"{name} features": torch.cat(rows), f"{name} labels": torch.cat(labels)}


def _key(model: nn.Module, head: nn.Linear, passes: dict, precision: str, progress: bool) -> str:
    """Return a SHA-256 of the model without its head, and of every prepared picture."""
    digest = hashlib.sha256(precision.encode())
    for name, module in model.named_modules():
        if module is not head:
            plain = {
                k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str)
            }
            about = name, type(module).__name__, module.extra_repr(), plain | {"training": False}
            digest.update(str(about).encode())
    of_head = {id(tensor) for tensor in (*head.parameters(), *head.buffers())}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in of_head:
            digest.update(name.encode() + bytes_of(tensor))
    for name in passes:
        for inputs, labels in _batches(*passes[name], f"{name}, key", progress):
            digest.update(name.encode() + bytes_of(inputs) + bytes_of(labels))
    return digest.hexdigest()


def _place_in(folder: Path, key: str) -> Path:
    return folder / f"features-{key[:16]}.safetensors"


def _cached(folder: Path, key: str) -> dict[str, Tensor] | None:
    """Return the features of this key, or None, having said why, where they must be computed."""
    path = _place_in(folder, key)
    if path.is_file():
        try:
            tensors, about = read_weights(path)
            if about == {"key": key, "digest": digest_of(tensors)}:
                return tensors
        except ValueError:
            pass
        print(f"{short_path(path)} is damaged; the features are computed anew.")
    elif others := len(list(folder.glob("features-*.safetensors"))):
        print(
            f"None of the {others} file(s) in {short_path(folder)} is of these weights, pictures "
            "and transforms; the features are computed."
        )
    return None


def svm_probe(features: Features, *, split: str = "val"):
    """Fit a support vector machine on standardised features, C by cross-validation.

    Return the `Evaluation` on a split and the fitted scikit-learn estimator. Its probabilities are
    a softmax of decision values: they rank, but are not calibrated. Where a class has a single
    training picture, C is 1.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    grid = {"svc__C": [0.01, 0.1, 1.0, 10.0, 100.0]}
    return _probe(features, split, StandardScaler(), SVC(break_ties=True), grid)


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

    _rows(features, split)  # that there is such a split, before the search takes its time
    views, labels = _rows(features, "train")
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
    rows, labels = (array[0] for array in _rows(features, split))
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


def _rows(features: Features, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features `(views, N, D)` and labels `(views, N)` of a split."""
    dataset = split_of(features, split).dataset
    return dataset.features.cpu().numpy(), dataset.labels.cpu().numpy()
