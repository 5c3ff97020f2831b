"""A trained classifier as one file: save it, and load it in any process."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from .classifier import Classifier, distances
from .data.folders import Loaders
from .evaluation.scoring import evaluate
from .features import extract_features
from .files import digest_of, fit_weights, read_weights, save_weights
from .models.resnets import cifar_resnet
from .models.transfer import pretrained, weights
from .settings import own_random_numbers

FORMAT = "resnet_kit classifier 1"
FALSE_ALARMS = 0.05  # share of the validation pictures that count as unlike the training ones


def save_classifier(
    path: str | Path,
    model: nn.Module,
    loaders: Loaders,
    *,
    arch: str | None = None,
    calibrate: bool = False,
    metrics: dict | None = None,
) -> Path:
    """Write model, classes and how to prepare pictures as one safetensors file; return its path.

    Also kept: accuracy on val, a fingerprint of the training pictures, versions, `metrics` (JSON),
    and a digest of all of it.

    Args:
        arch: torchvision's name of the model; nets made by `pretrained` and `cifar_resnet` know
            their own.
        calibrate: fit a temperature on val, so that a confidence of 80 % is right 80 % of the
            time, and mark pictures whose features lie further from every class than those of 95 %
            of the validation pictures. The share of false alarms is measured on test, or on val.

    Raises:
        ValueError: the architecture is not known or not the model's, pictures of 2 or 4 channels,
            or a path that does not end in .safetensors.
    """
    built = {"name": arch} if arch else getattr(model, "built", None)
    if built is None:
        raise ValueError(
            f"it is not known how to build this {type(model).__name__} again; give its name in "
            'torchvision, save_classifier(..., arch="resnet18"), or make it with rk.pretrained'
        )
    _check_rebuilt(model, built, loaders)
    val = evaluate(model, loaders.val, progress=False)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    about = {
        "format": FORMAT,
        "built": built,
        "classes": list(loaders.classes),
        "size": loaders.size,
        "resize": round(loaders.size * 256 / 224) if loaders.files else None,
        "mean": list(loaders.mean),
        "std": list(loaders.std),
        "temperature": val.temperature() if calibrate else 1.0,
        "val_accuracy": val.accuracy,
        "metrics": metrics or {},
        "data": _fingerprint(loaders),
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    if calibrate:
        means, limit, false_alarms = _familiar(model, loaders)
        tensors["familiar.means"] = means
        about |= {"limit": limit, "false_alarms": false_alarms}
    about = json.loads(json.dumps(about))  # as it will be read: whole numbers as names are text
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_weights(tensors, path, metadata=about | {"digest": _digest(tensors, about)})


def load_classifier(path: str | Path) -> Classifier:
    """Load what `save_classifier` wrote; nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is no classifier of this package.
    """
    tensors, about = read_weights(path)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no classifier; expected a file that save_classifier wrote "
            "(rk.load_weights loads weights alone)"
        )
    digest = about.pop("digest", None)
    if digest != _digest(tensors, about):
        raise ValueError(f"{path} is damaged: its content does not match its digest; copy it again")
    try:
        model = _build(about["built"], len(about["classes"]))
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        fit_weights(model, state, str(path))
        numbers = [float(x) for x in (*about["mean"], *about["std"], about["temperature"])]
        sides = [int(about["size"]), int(about["resize"] or 1)]
        if len(about["mean"]) not in (1, 3) or min(*numbers[len(about["mean"]) :], *sides) <= 0:
            raise ValueError("its preparation of pictures makes no sense")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is a classifier of another make: {error!r}") from error
    return Classifier(model.eval(), about, tensors.get("familiar.means"))


def _check_rebuilt(model: nn.Module, built: dict, loaders: Loaders) -> None:
    """Refuse a model that its name and its weights do not bring back, and odd pictures."""
    if len(loaders.mean) not in (1, 3):
        raise ValueError(
            f"pictures of {len(loaders.mean)} channels; expected grey or RGB ones for a classifier"
        )
    again = _build(built, len(loaders.classes))
    fit_weights(again, model.state_dict(), "the model")
    batch = [next(iter(loaders.val))]
    ours, theirs = (evaluate(x, batch, progress=False).probabilities for x in (model, again))
    if not np.isfinite(ours).all():
        raise ValueError("the model's outputs are not finite; train it again with a smaller rate")
    if not np.allclose(ours, theirs, atol=1e-3):
        raise ValueError(
            f"this {type(model).__name__} computes something else than a {built['name']} with its "
            "weights: it was changed after it was built; keep its weights with rk.save_weights"
        )


def _build(built: dict, num_classes: int) -> nn.Module:
    options = dict(built)
    name = options.pop("name")
    with own_random_numbers(0):  # for first weights that are replaced at once
        if name == "cifar_resnet":
            return cifar_resnet(num_classes=num_classes, **options)
        return pretrained(weights(name, None), num_classes=num_classes)


def _digest(tensors: dict[str, Tensor], about: dict) -> str:
    return hashlib.sha256(
        (json.dumps(about, sort_keys=True) + digest_of(tensors)).encode()
    ).hexdigest()


def _fingerprint(loaders: Loaders) -> str:
    """Return a SHA-256 of the training pictures and their classes, in any order of files."""
    dataset = loaders.plain("train").dataset
    if loaders.files:
        parts = [
            hashlib.sha256(file.read_bytes()).hexdigest() + file.parent.name
            for file in loaders.files["train"]
        ]
    else:
        parts = [digest_of({"images": dataset.images, "labels": dataset.labels})]
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def _familiar(model: nn.Module, loaders: Loaders) -> tuple[Tensor, float, float]:
    """Return each class's mean feature, the limit of being like it, and the false alarms."""
    features = extract_features(model, loaders, precision="fp32", progress=False)
    train = features.train.dataset
    rows, labels = train.features[0].cpu(), train.labels[0]
    means = torch.stack([rows[labels == k].mean(0) for k in labels.unique()])
    far = distances(features.val.dataset.features[0].cpu(), means)
    limit = far.quantile(1 - FALSE_ALARMS).item()
    if features.test is not None:
        far = distances(features.test.dataset.features[0].cpu(), means)
    return means, limit, (far > limit).float().mean().item()
