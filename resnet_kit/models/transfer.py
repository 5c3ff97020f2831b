"""Pretrained weights, the head, and what is frozen: everything that transfer learning adds."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from ..files import fit_weights, read_weights
from ..settings import quick_mode, short_path

SHIPPED = Path(__file__).with_name("shipped")  # made by benchmarks/pretraining.py
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Weights:
    """Weights of one architecture, and how pictures must be prepared for them.

    `origin` is "imagenet", "tiny", "file" or "scratch"; `size` is in pixels; `mean` and `std`, per
    channel in 0…1, are of the pictures of the pre-training; `classes` are the pre-training's.
    """

    arch: str
    origin: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    read: Callable[[], Mapping[str, Tensor]] | None = None

    def __repr__(self) -> str:
        return f"Weights({self.arch}, {self.origin}, {self.size} px, {len(self.classes)} classes)"


def weights(arch: str, source: str | Path | None = "auto") -> Weights:
    """Find weights for an architecture of torchvision; "auto" says in one line which it took.

    `source`: "imagenet" (torchvision's best, downloaded once), "tiny" (in the package: a resnet18
    that it pre-trained on Tiny ImageNet), a `.safetensors` or `.pth` file, None (random weights,
    from scratch), or "auto": ImageNet if cached or quickly reachable, else "tiny". Quick mode opens
    no connection: "auto" is "tiny" there.

    Raises:
        ValueError: no such architecture, a damaged file, or "auto" and "tiny" have none for it.
        FileNotFoundError: no such file.

    >>> weights("resnet18", None)
    Weights(resnet18, scratch, 224 px, 0 classes)
    """
    known = list_models(module=torchvision.models)  # those that name what is in a picture
    if arch not in known:
        near = [name for name in known if name.startswith(str(arch)[:3])]
        raise ValueError(
            f"torchvision has no classifier {arch!r}; "
            f"expected a name such as {', '.join(near[:12] or ['resnet18', 'resnet50'])}"
        )
    if source is None:
        return Weights(arch, "scratch", 224, IMAGENET_MEAN, IMAGENET_STD)
    named = {"imagenet": _imagenet, "tiny": _tiny, "auto": _auto}
    if source in named:
        return named[source](arch)
    return _from_file(arch, Path(source))


def _imagenet(arch: str) -> Weights:
    enum = get_model_weights(arch).DEFAULT
    if quick_mode() and not _cached(arch):
        raise FileNotFoundError(
            f"{arch}: no ImageNet weights are cached, and quick mode downloads nothing; take "
            'rk.weights("resnet18", "tiny"), or leave quick mode (RESNET_KIT_QUICK)'
        )
    preset = enum.transforms()
    return Weights(
        arch,
        "imagenet",
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        tuple(enum.meta["categories"]),
        lambda: get_model(arch, weights=enum, progress=False).state_dict(),  # checks the hash
    )


def _cached(arch: str) -> bool:
    name = Path(get_model_weights(arch).DEFAULT.url).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()


def _tiny(arch: str) -> Weights:
    """Return the weights that travel with the package, after checking the hash in their name."""
    path = _shipped(arch)
    if path is None:
        known = sorted(file.name.split("-")[0] for file in SHIPPED.glob("*.safetensors"))
        raise ValueError(
            f"the package carries no weights for {arch}, only for: {', '.join(known) or 'none'}; "
            f'rk.weights("{arch}", "imagenet") downloads some, rk.weights("{arch}", None) starts '
            "from scratch"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest()[:8] != path.stem.split("-")[-1]:
        raise ValueError(
            f"{path.name} of the package is damaged: its SHA-256 is not the one in its name; "
            "install the package again"
        )
    return replace(_from_file(arch, path), origin="tiny")


def _shipped(arch: str) -> Path | None:
    return next(SHIPPED.glob(f"{arch}-tiny-*.safetensors"), None)


def _auto(arch: str) -> Weights:
    if quick_mode():
        reason = "quick mode opens no connection"
    elif _cached(arch):
        print(f"{arch}: ImageNet weights from torch's cache.")
        return _imagenet(arch)
    elif _reachable("download.pytorch.org"):
        print(f"{arch}: ImageNet weights, downloaded once into torch's cache.")
        return _imagenet(arch)
    else:
        reason = "none are cached and download.pytorch.org does not answer"
    wanted = f"wanted ImageNet weights, but {reason}"
    if _shipped(arch) is None:
        raise ValueError(
            f"{arch}: {wanted}, and the package carries none for it; take resnet18, a machine with "
            f'a connection, a file (rk.weights("{arch}", "a.pth")), or start from scratch with '
            f'rk.weights("{arch}", None)'
        )
    found = _tiny(arch)
    print(
        f"{arch}: {wanted}: taking the package's own, pre-trained on Tiny ImageNet. "
        f'rk.weights("{arch}", "imagenet") downloads the others.'
    )
    return found


def _reachable(host: str, seconds: float = 3.0) -> bool:
    try:
        socket.create_connection((host, 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def _from_file(arch: str, path: Path) -> Weights:
    if not path.is_file():
        raise FileNotFoundError(
            f'no file {str(path)!r}; expected "auto", "imagenet", "tiny", None or a weights file'
        )
    state, header = read_weights(path)
    size, classes = header.get("size", 224), tuple(header.get("classes", ()))
    if "mean" not in header:
        print(
            f"{short_path(path)} does not say how its pictures were prepared: taken as ImageNet's."
        )
    mean, std = header.get("mean", IMAGENET_MEAN), header.get("std", IMAGENET_STD)
    return Weights(arch, "file", size, tuple(mean), tuple(std), classes, lambda: state)


def pretrained(weights: Weights, *, num_classes: int) -> nn.Module:
    """Return torchvision's model with these weights and a new, random head for `num_classes`.

    The model is on the CPU; `train_and_eval` and `evaluate` move it. Call `seed_everything` before
    for the same new head every time.
    """
    if weights.read is None:
        model = get_model(weights.arch, weights=None, num_classes=num_classes)
    else:
        state, model = weights.read(), get_model(weights.arch, weights=None)
        outputs = state.get(f"{head_name(model)}.weight", torch.empty(0)).shape[0]
        if outputs and outputs != head_of(model).out_features:
            replace_head(model, outputs)
        fit_weights(model, state, f"the file for {weights.arch}")
        replace_head(model, num_classes)
    model.built = {"name": weights.arch}  # what save_classifier writes down
    return model


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the last linear layer, for torchvision's classification models."""
    if any(name.startswith(("aux", "AuxLogits")) for name, _ in model.named_children()):
        raise ValueError(
            f"{type(model).__name__} has auxiliary outputs beside its head, which train_and_eval "
            "does not train; build it with aux_logits=False, or take a ResNet"
        )
    for name in ("fc", "classifier", "head", "heads"):
        module = getattr(model, name, None)
        if isinstance(module, nn.Sequential) and len(module):
            last = list(dict(module.named_children()))[-1]
            name, module = f"{name}.{last}", module[-1]
        if isinstance(module, nn.Linear):
            return name
    raise ValueError(
        f"no linear head found in {type(model).__name__}; expected a last nn.Linear named fc, "
        "classifier, classifier[-1], head or heads.head, as in torchvision's models"
    )


def head_of(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, which turns features into logits (`fc` of a ResNet)."""
    return model.get_submodule(head_name(model))


def replace_head(model: nn.Module, num_classes: int) -> nn.Linear:
    """Put a new, random linear head for `num_classes` into the model, in place, and return it."""
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; expected at least 1")
    name, old = head_name(model), head_of(model)
    head = nn.Linear(old.in_features, num_classes, bias=old.bias is not None).to(old.weight)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, head)
    return head


def freeze(model: nn.Module, *names: str) -> None:
    """Stop the named modules from learning, or without names the whole model.

    `train_mode` (used by `train_and_eval`) keeps what is frozen in eval mode: BatchNorm's running
    statistics stay as they are and dropout does not act.
    """
    _set_trainable(model, names, False)


def unfreeze(model: nn.Module, *names: str) -> None:
    """Let the named modules learn, or without names the whole model; then build the optimizer."""
    _set_trainable(model, names, True)


def _set_trainable(model: nn.Module, names: tuple[str, ...], trainable: bool) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise ValueError(
                f"no module named {name!r} in {type(model).__name__}; its top-level modules are: "
                f"{', '.join(name for name, _ in model.named_children())}"
            )
    for module in [modules[name] for name in names] or [model]:
        module.requires_grad_(trainable)
        for inner in module.modules():  # a BatchNorm without weights has nothing else to tell by
            if list(inner.buffers()) and not list(inner.parameters()):
                inner.keeps_statistics = not trainable


def train_mode(model: nn.Module) -> None:
    """Set the model to train mode, but whatever is frozen, and all inside it, to eval mode.

    A module is frozen when it has parameters and none of them learns, or has statistics alone and
    was frozen last.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
        if frozen or getattr(module, "keeps_statistics", False):
            module.eval()


@contextmanager
def kept_modes(model: nn.Module):
    """Put every module back into the mode, train or eval, that it had before the block."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def param_groups(model: nn.Module, *, head_lr: float, backbone_lr: float) -> list[dict]:
    """Return what is trainable as two groups for an optimizer: the head first, then the backbone.

    >>> torch.optim.AdamW(param_groups(model, head_lr=1e-3, backbone_lr=1e-4))
    """
    head = {id(parameter) for parameter in head_of(model).parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"name": name, "lr": lr, "params": [p for p in trainable if (id(p) in head) == is_head]}
        for name, lr, is_head in (("head", head_lr, True), ("backbone", backbone_lr, False))
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("the whole model is frozen; unfreeze(model, ...) something first")
    return groups


def trainable_table(model: nn.Module):
    """Return a pandas table of the top-level modules: parameters, and how many of them learn."""
    import pandas as pd

    rows = {}
    for name, module in (*model.named_children(), ("total", model)):
        if parameters := list(module.parameters()):
            learning = sum(p.numel() for p in parameters if p.requires_grad)
            rows[name] = sum(p.numel() for p in parameters), learning
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "trainable"])
    table.index.name = "module"
    return table
