"""A trained classifier as one file: save it, load it in any process, predict."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from .checkpoints import digest_of, fit_weights, read_weights, save_weights
from .evaluation import evaluate, kept_modes
from .features import extract_features
from .images import check_uint8_pictures, picture_files, read_image, rgb_pixels
from .loaders import Loaders
from .resnets import cifar_resnet
from .settings import arithmetic, cpu_count, own_random_numbers, place, progress_bar
from .transfer import head_of, pretrained, weights

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
        ValueError: the architecture is not known, or the path does not end in .safetensors.
    """
    built = {"name": arch} if arch else getattr(model, "built", None)
    if built is None:
        raise ValueError(
            f"it is not known how to build this {type(model).__name__} again; give its name in "
            'torchvision, save_classifier(..., arch="resnet18"), or make it with rk.pretrained'
        )
    fit_weights(_build(built, len(loaders.classes)), model.state_dict(), "the model")
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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_weights(tensors, path, metadata=about | {"digest": _digest(tensors, about)})


def load_classifier(path: str | Path) -> "Classifier":
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


@dataclass(frozen=True, repr=False)
class Classifier:
    """A model with all it needs to name what is in a picture; `about` is the file's metadata."""

    model: nn.Module
    about: dict
    means: Tensor | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about["classes"])

    def predict(self, pictures, *, top_k: int = 1, batch_size: int = 32, progress: bool = False):
        """Return a pandas table with a row per picture: `predicted`, `confidence` in 0…1, and more.

        `pictures` is a file, a folder (all pictures below it), a PIL picture, a uint8 array
        `(H, W)`, `(H, W, C)` or `(N, H, W, C)`, or a sequence of files, PIL pictures and arrays.
        `top_k` adds the next classes as `class 2`, `confidence 2`, …. Of a calibrated classifier
        `unlike` says that a picture is unlike the training pictures. What cannot be read gets a
        row with its `problem` and no prediction.
        """
        import pandas as pd

        if not 1 <= top_k <= len(self.classes):
            raise ValueError(f"top_k is {top_k}; expected 1 to {len(self.classes)}")
        items = _listed(pictures)
        rows = []
        with ThreadPoolExecutor(cpu_count()) as pool:
            starts = range(0, len(items), batch_size)
            for start in progress_bar(starts, description="predict", show=progress):
                some = items[start : start + batch_size]
                rows += self._rows(some, list(pool.map(self._prepared, some)), start, top_k)
        table = pd.DataFrame(rows)
        return table.drop(columns="problem") if table["problem"].isna().all() else table

    def _prepared(self, item) -> Tensor | Exception:
        """Return a picture `(C, size, size)` as validation sees it, or why there is none."""
        try:
            picture = _as_tensor(item)
        except (OSError, ValueError) as error:
            return error
        channels = len(self.about["mean"])
        if len(picture) > channels:
            picture = V.rgb_to_grayscale(picture)
        picture = picture.expand(channels, -1, -1)
        square = [self.about["size"]] * 2
        if self.about["resize"]:  # as image_folders
            picture = V.resize(picture, [self.about["resize"]], antialias=True)
            picture = V.center_crop(picture, square).float() / 255
        else:  # as array_loaders
            picture = V.resize(picture.float() / 255, square, antialias=True)
        return V.normalize(picture, self.about["mean"], self.about["std"])

    def _rows(self, items: Sequence, prepared: list, start: int, top_k: int) -> list[dict]:
        good = [picture for picture in prepared if isinstance(picture, Tensor)]
        found = iter(zip(*self._scores(torch.stack(good)), strict=True) if good else ())
        rows = []
        for number, (item, picture) in enumerate(zip(items, prepared, strict=True), start):
            row = {"picture": str(item) if isinstance(item, str | Path) else number}
            row |= {"predicted": None, "confidence": None, "problem": None}
            rows.append(row)
            if isinstance(picture, Exception):
                row["problem"] = str(picture)
                continue
            probabilities, distance = next(found)
            values, labels = probabilities.topk(top_k)
            row["predicted"], row["confidence"] = self.classes[labels[0]], values[0].item()
            for k in range(1, top_k):
                row[f"class {k + 1}"] = self.classes[labels[k]]
                row[f"confidence {k + 1}"] = values[k].item()
            if self.means is not None:
                row["unlike"] = distance.item() > self.about["limit"]
        return rows

    @torch.no_grad()
    def _scores(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities `(N, K)` and distances to the nearest class `(N,)`, on the CPU."""
        device, features = place(self.model), []
        hook = head_of(self.model).register_forward_pre_hook(lambda _, x: features.append(x[0]))
        try:
            with kept_modes(self.model), arithmetic(device, "fp32"):
                logits = self.model.eval()(pictures.to(device)).cpu()
        finally:
            hook.remove()
        far = torch.zeros(len(pictures))
        if self.means is not None:
            far = _distances(features[0].cpu(), self.means)
        return (logits / self.about["temperature"]).softmax(1), far

    def export_onnx(self, path: str | Path) -> Path:
        """Write an ONNX file: RGB pictures `(N, 3, size, size)` in 0…1 in, probabilities out.

        Normalisation, temperature and softmax are inside. Needs `pip install resnet_kit[export]`.
        """
        about = self.about
        whole = _Whole(self.model, about["mean"], about["std"], about["temperature"]).eval().cpu()
        example = torch.rand(2, len(about["mean"]), about["size"], about["size"])
        torch.onnx.export(
            whole, (example,), str(path), input_names=["pictures"], output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("pictures_in_batch")},), dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
        return Path(path)

    def __repr__(self) -> str:
        about = self.about
        return (
            f"Classifier({about['built']['name']}, {about['size']} px, "
            f"{len(self.classes)} classes: {', '.join(self.classes)}; "
            f"val accuracy {about['val_accuracy']:.1%})"
        )


class _Whole(nn.Module):
    """Pictures in 0…1 to probabilities."""

    def __init__(self, model: nn.Module, mean, std, temperature: float):
        super().__init__()
        self.model, self.temperature = model, temperature
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pictures: Tensor) -> Tensor:
        return (self.model((pictures - self.mean) / self.std) / self.temperature).softmax(1)


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
    means = torch.stack([rows[labels == k].mean(0) for k in range(len(loaders.classes))])
    far = _distances(features.val.dataset.features[0].cpu(), means)
    limit = far.quantile(1 - FALSE_ALARMS).item()
    if features.test is not None:
        far = _distances(features.test.dataset.features[0].cpu(), means)
    return means, limit, (far > limit).float().mean().item()


def _distances(features: Tensor, means: Tensor) -> Tensor:
    """Return 1 - cosine to the nearest class mean, `(N,)`."""
    normal = nn.functional.normalize
    return 1 - (normal(features, dim=1) @ normal(means, dim=1).T).max(1).values


def _listed(pictures) -> list:
    if isinstance(pictures, str | Path):
        path = Path(pictures)
        found = picture_files(path) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"no pictures in {path}; expected files such as .jpg or .png")
        return found
    if isinstance(pictures, Image.Image):
        return [pictures]
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    if not isinstance(pictures, Sequence) or not len(pictures):
        raise ValueError(
            f"no pictures in {type(pictures).__name__}; expected a file, a folder, a PIL picture, "
            "a uint8 array or a list of these"
        )
    return list(pictures)


def _as_tensor(item) -> Tensor:
    """Return a file, PIL picture or uint8 array as uint8 `(3, H, W)`, grey ones as `(1, H, W)`."""
    if isinstance(item, str | Path):
        return read_image(item)
    if isinstance(item, np.ndarray) and item.shape[2:] == (4,) and item.dtype == np.uint8:
        item = Image.fromarray(item)  # with transparency
    if isinstance(item, Image.Image):
        item = rgb_pixels(item)
    pixels = check_uint8_pictures(torch.from_numpy(np.array(item))[None])[0].permute(2, 0, 1)
    if len(pixels) == 2:
        raise ValueError(f"an array of shape {np.shape(item)}; expected 1, 3 or 4 channels last")
    return pixels
