"""A trained classifier as one file: saved, loaded in any process, asked, and exported as ONNX."""

import copy
import hashlib
import importlib.util
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from .data.checks import announce_left_out
from .data.images import is_one_picture, listed_pictures, picture_tensor, trimmed
from .data.loaders import Loaders, check_loaders
from .data.pictures import Prepare
from .devices import arithmetic, place
from .evaluation.evaluation import Evaluation, evaluate
from .features import extract_features
from .files import atomic_file, digest_of, fit_weights, read_weights, save_weights, weights_path
from .models.resnets import cifar_resnet
from .models.transfer import find_head, head_layers, head_of, kept_modes, pretrained, put_layers
from .models.weights import weights
from .settings import (
    Interrupts,
    check_count,
    in_threads,
    listed,
    own_random_numbers,
    progress_bar,
    shown_names,
    user_path,
    wrong,
)

_ONE_AT_A_TIME = threading.Lock()  # hooks and modes are the model's, whichever thread asks


@dataclass(frozen=True, repr=False, eq=False)
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

        `pictures` is a file (its path, its bytes, or open to be read), a folder (all pictures below
        it), a PIL picture, a uint8 array `(H, W)`, `(H, W, C)`, `(N, H, W)` or `(N, H, W, C)`, a
        uint8 tensor `(C, H, W)` as of `read_image`, or several of these. Classes are named as in
        `classes`, so that a program can compare them with its folders.
        `top_k` adds the next classes as `class 2`, `confidence 2`, …. Of a calibrated classifier
        `unlike` says that a picture is unlike the training pictures. What cannot be read among
        several gets a row with its `problem` and no prediction.

        Raises:
            ValueError: a single picture that cannot be read, or nothing that is a picture.
        """
        import pandas as pd

        if not 1 <= top_k <= len(self.classes):
            raise wrong("top_k", top_k, f"1 to {len(self.classes)}")
        check_count("batch_size", batch_size)
        items = listed_pictures(pictures)
        if isinstance(pictures, str | Path) and user_path(pictures).is_dir():
            announce_left_out([user_path(pictures)])
        rows, alone = [], is_one_picture(pictures)
        starts = range(0, len(items), batch_size)
        for start in progress_bar(starts, description="predict", show=progress):
            some = items[start : start + batch_size]
            prepared = list(in_threads(self._prepared, some))
            if alone and isinstance(prepared[0], Exception):
                raise prepared[0]
            rows += self._rows(some, prepared, start, top_k)
        table = pd.DataFrame(rows)
        return table.drop(columns="problem") if table["problem"].isna().all() else table

    def score(self, loader, *, batch_size: int = 32, progress: bool = True) -> Evaluation:
        """Score the classifier on the pictures of a loader; `rk.evaluate` calls this.

        The pictures themselves are taken and prepared as the file says, whatever the loader does to
        them. Classes are matched by name, so their order may differ, and some may be absent.

        Raises:
            ValueError: a class of the data that the classifier does not know, or a loader that is
                not of `image_folders`, `array_loaders` or `named_dataset`.
        """
        dataset = getattr(loader, "dataset", None)
        files, images = (getattr(dataset, name, None) for name in ("files", "images"))
        pictures = images if files is None else files
        if pictures is None:
            raise wrong("loader", loader, "one of image_folders, array_loaders or named_dataset")
        unknown = [name for name in dataset.classes if name not in self.classes]
        if unknown:
            raise ValueError(
                f"the classifier does not know the class {unknown[0]}; it knows "
                f"{listed(self.classes)}"
            )
        numbers = [self.classes.index(name) for name in dataset.classes]
        labels = np.array([numbers[label] for label in dataset.labels])
        starts, found = range(0, len(labels), batch_size), []
        for start in progress_bar(starts, description="evaluate", show=progress):
            some = pictures[start : start + batch_size]
            prepared = list(in_threads(self._prepared, some))
            for picture in prepared:
                if isinstance(picture, Exception):
                    raise picture
            found.append(self._scores(torch.stack(prepared))[0])
        chances = torch.cat(found).numpy()
        loss = -np.log(chances[np.arange(len(labels)), labels].clip(1e-38)).mean()
        return Evaluation(float(loss), labels, chances, self.classes, files)

    def plot(self, pictures, n: int = 12):
        """Draw the first `n` readable pictures with their names; purple: unlike the training ones.

        `pictures` is as in `predict`.
        """
        from .figures import picture_grid

        items = listed_pictures(pictures)
        table = self.predict(items[:n])
        good = table[table["predicted"].notna()]
        if good.empty:
            raise ValueError(
                f"none of the first {len(table)} pictures can be read: {table['problem'][0]}"
            )
        shown = [picture_tensor(items[index]) for index in good.index]
        names = dict(zip(self.classes, shown_names(self.classes), strict=True))
        titles = [f"{names[row.predicted]} {row.confidence:.0%}" for row in good.itertuples()]
        unlike = good["unlike"].astype(bool).tolist() if "unlike" in good else None
        squares = [V.center_crop(V.resize(trimmed(x), [160], antialias=True), 160) for x in shown]
        return picture_grid(squares, titles, unlike=unlike)

    def _prepared(self, item) -> Tensor | Exception:
        """Return a picture `(C, size, size)` as validation sees it, or why there is none."""
        try:
            picture = picture_tensor(item)
        except Exception as error:  # decoders raise anything
            return error
        channels = len(self.about["mean"])
        if len(picture) > channels:
            picture = V.rgb_to_grayscale(picture)
        return self._prepare(picture.expand(channels, -1, -1))

    @cached_property
    def _prepare(self) -> Callable[[Tensor], Tensor]:
        about = self.about
        size, mean, std = about["size"], about["mean"], about["std"]
        if about["resize"]:  # as image_folders
            how = about.get("interpolation", "bilinear")
            return Prepare("none", size, mean, std, resize=about["resize"], interpolation=how)

        def as_array_loaders(picture: Tensor) -> Tensor:
            picture = V.resize(picture.float() / 255, [size, size], antialias=True)
            return V.normalize(picture, mean, std)

        return as_array_loaders

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
        features, hooks = [], []
        with _ONE_AT_A_TIME, kept_modes(self.model):
            device = place(self.model)
            if self.means is not None:
                head = head_of(self.model)
                hooks = [head.register_forward_pre_hook(lambda _, x: features.append(x[0].cpu()))]
            try:
                with arithmetic(device, "fp32"):
                    logits = self.model.eval()(pictures.to(device)).cpu()
            finally:
                for hook in hooks:
                    hook.remove()
        far = distances(features[0], self.means) if features else torch.zeros(len(pictures))
        return (logits / self.about["temperature"]).softmax(1), far

    def export_onnx(self, path: str | Path) -> Path:
        """Write an ONNX file: pictures `(N, C, size, size)` in 0…1 in, probabilities out.

        C is 3, for RGB, but 1 of nets for grey pictures. Normalisation, temperature and softmax
        are inside. Needs `pip install resnet_kit[export]`.
        """
        if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
            raise ImportError("the ONNX export needs: pip install 'resnet_kit[export]'")
        about = self.about
        model = copy.deepcopy(self.model)  # the export is in eval mode, on the CPU
        whole = _Whole(model, about["mean"], about["std"], about["temperature"]).eval().cpu()
        example = torch.rand(2, len(about["mean"]), about["size"], about["size"])
        path = user_path(path)
        with atomic_file(path) as temporary:
            torch.onnx.export(
                whole,
                (example,),
                str(temporary),
                input_names=["pictures"],
                output_names=["probabilities"],
                external_data=False,
                verbose=False,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("pictures_in_batch")},),
            )
        return path

    def __repr__(self) -> str:
        about = self.about
        return (
            f"Classifier({about['built']['name']}, {about['size']} px, "
            f"{listed(self.classes)}; val accuracy {about['val_accuracy']:.1%})"
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


def distances(features: Tensor, means: Tensor) -> Tensor:
    """Return 1 - cosine to the nearest class mean, `(N,)`."""
    normal = nn.functional.normalize
    return 1 - (normal(features, dim=1) @ normal(means, dim=1).T).max(1).values


FORMAT = "resnet_kit classifier 1"
LARGEST = 10_000  # pixels of a side that a classifier may ask for
FALSE_ALARMS = 0.05  # share of the validation pictures that count as unlike the training ones


def save_classifier(
    path: str | Path,
    model: nn.Module,
    loaders: Loaders,
    *,
    arch: str | None = None,
    calibrate: bool = True,
) -> Path:
    """Write model, classes and how to prepare pictures as one safetensors file; return its path.

    Also kept: accuracy on val, versions, and a digest of all of it.

    Args:
        arch: torchvision's name of the model; nets made by `pretrained` and `cifar_resnet` know
            their own.
        calibrate: fit a temperature on val, so that a confidence of 80 % is right 80 % of the
            time, and (of nets with a linear head) mark pictures whose features lie further from
            every class than those of 95 % of the validation pictures. How many known pictures that
            marks in error, `false_alarms`, is measured on test; without test it is None.

    Raises:
        ValueError: the architecture is not known or not the model's, pictures of 2 or 4 channels,
            or a path that does not end in .safetensors.
    """
    path = weights_path(path)  # before val is scored, which may take minutes
    with Interrupts() as interrupts:
        tensors, about = _described(model, loaders, arch, calibrate)
        interrupts.check()
    return save_weights(tensors, path, metadata=about | {"digest": digest_of_file(tensors, about)})


def _described(
    model: nn.Module, loaders: Loaders, arch: str | None, calibrate: bool
) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors of a classifier's file and its metadata."""
    built = _how_built(model, arch)
    check_loaders(loaders)
    _check_rebuilt(model, built, loaders)
    val = evaluate(model, loaders.val, progress=False)
    prepare = getattr(loaders.val.dataset, "transform", None)  # of files; arrays are squeezed
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    about = {
        "format": FORMAT,
        "built": built,
        "classes": list(loaders.classes),
        "size": loaders.size,
        "resize": prepare.resize if prepare else None,
        "interpolation": prepare.interpolation.value if prepare else "bilinear",
        "mean": list(loaders.mean),
        "std": list(loaders.std),
        "temperature": val.temperature() if calibrate else 1.0,
        "val_accuracy": val.accuracy,
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    if calibrate and val.correct.all():
        print("val has no mistake to learn from: the confidences stay as they are.")
    if calibrate and find_head(model):
        means, limit, false_alarms = _familiar(model, loaders)
        tensors["familiar.means"] = means
        about |= {"limit": limit, "false_alarms": false_alarms}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, about


def _how_built(model: nn.Module, arch: str | None) -> dict:
    built = {"name": arch} if arch else getattr(model, "built", None)
    if built is None:
        raise ValueError(
            f"it is not known how to build this {type(model).__name__} again; give its name in "
            'torchvision, save_classifier(..., arch="resnet18"), or make it with rk.pretrained'
        )
    head = head_layers(model)
    return built | {"head": head} if head else built


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
    if digest != digest_of_file(tensors, about):
        raise ValueError(f"{path} is damaged: its content does not match its digest; copy it again")
    try:
        _check_about(about, "familiar.means" in tensors)
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        with Interrupts() as interrupts:
            model = _build(about["built"], len(about["classes"]), state)
            fit_weights(model, state, str(path))
            interrupts.check()
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is a classifier of another make: {error!r}") from error
    if find_head(model):  # so that `evaluate` sees whether the data's classes are others
        head_of(model).classes = tuple(about["classes"])
    return Classifier(model.eval(), about, tensors.get("familiar.means"))


def _check_about(about: dict, knows_unlike: bool) -> None:
    """Refuse metadata that lack something, or with numbers that make no sense."""
    mean, std, sides = about["mean"], about["std"], [about["size"], about["resize"] or 1]
    classes = about["classes"]
    numbers = [*mean, *std, about["temperature"], about["val_accuracy"]]
    numbers += [about["limit"]] if knows_unlike else []
    sound = (
        all(math.isfinite(number) for number in numbers)
        and len(mean) == len(std)
        and len(mean) in (1, 3)
        and min(std) > 0
        and 0.01 < about["temperature"] < 100
        and all(type(side) is int and 0 < side <= LARGEST for side in sides)
        and all(isinstance(name, str) for name in classes)
        and len(set(classes)) == len(classes)
    )
    if not sound:
        raise ValueError("its preparation of pictures, or another number, makes no sense")


def _check_rebuilt(model: nn.Module, built: dict, loaders: Loaders) -> None:
    """Refuse a model that its name and its weights do not bring back, and odd pictures."""
    if len(loaders.mean) not in (1, 3):
        raise ValueError(
            f"pictures of {len(loaders.mean)} channels; expected grey or RGB ones for a classifier"
        )
    again = _build(built, len(loaders.classes), model.state_dict())
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


def _build(built: dict, num_classes: int, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the model that `built` describes, for weights of the state's shapes."""
    options = dict(built)
    name, head = options.pop("name"), options.pop("head", None)
    with own_random_numbers(0):  # for first weights that are replaced at once
        if name == "cifar_resnet":
            model = cifar_resnet(num_classes=num_classes, **options)
        else:
            model = pretrained(weights(name, None), num_classes=num_classes)
    if head:
        put_layers(model, head, state)
    return model


def digest_of_file(tensors: dict[str, Tensor], about: dict) -> str:
    return hashlib.sha256(
        (json.dumps(about, sort_keys=True) + digest_of(tensors)).encode()
    ).hexdigest()


def _familiar(model: nn.Module, loaders: Loaders) -> tuple[Tensor, float, float | None]:
    """Return each class's mean feature, the limit of being like it, and the false alarms."""
    features = extract_features(model, loaders, precision="fp32", progress=False)
    train = features.train.dataset
    rows, labels = train.features[0].cpu(), train.labels[0]
    means = torch.stack([rows[labels == k].mean(0) for k in labels.unique()])
    far = distances(features.val.dataset.features[0].cpu(), means)
    limit = far.quantile(1 - FALSE_ALARMS).item()
    if features.test is None:  # val chose the limit, so it cannot measure it
        return means, limit, None
    far = distances(features.test.dataset.features[0].cpu(), means)
    return means, limit, (far > limit).float().mean().item()
