"""What transfer learning adds to a model: a new head, and what is frozen."""

from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from ..files import fit_weights, without_prefixes
from ..settings import check_count, mixed_seed, own_random_numbers, wrong
from .weights import Weights, check_weights


def pretrained(weights: Weights, *, num_classes: int, seed: int = 0) -> nn.Module:
    """Return torchvision's model with these weights and a new, random head for `num_classes`.

    `seed` decides what is random: the head, or from scratch all weights. The model is on the CPU;
    `train_and_eval` and `evaluate` move it.

    Raises:
        ValueError: a wrong `num_classes`, or a file of weights that are not this architecture's.
        OSError: the ImageNet weights cannot be downloaded.
    """
    check_weights(weights)
    check_count("num_classes", num_classes)
    with own_random_numbers(mixed_seed(seed)):
        if weights.read is None:
            model = get_model(weights.arch, weights=None, num_classes=num_classes)
        else:
            model, origin = get_model(weights.arch, weights=None), f"the file for {weights.arch}"
            state = without_prefixes(weights.read(), model.state_dict(), origin)
            outputs = state.get(f"{head_name(model)}.weight", torch.empty(0)).shape[0]
            if outputs and outputs != head_of(model).out_features:
                replace_head(model, outputs)
            fit_weights(model, state, origin)
            replace_head(model, num_classes, seed=seed)
            model.prepared = weights.mean, weights.std  # how its pictures must be normalised
    model.built = {"name": weights.arch}  # what save_classifier writes down
    if name := find_head(model):  # another head is one that was put in later
        model.came_with = (getattr(model, name.split(".")[0]),)  # a module would be a part of it
    return model


def check_model(model) -> None:
    """Refuse what is no model."""
    if not isinstance(model, nn.Module):
        raise wrong("model", model, "a torch.nn.Module, as rk.pretrained gives")


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the head (see `find_head`) of torchvision's classifiers."""
    check_model(model)
    if any(name.startswith(("aux", "AuxLogits")) for name, _ in model.named_children()):
        raise ValueError(
            f"{type(model).__name__} has auxiliary outputs beside its head, which train_and_eval "
            "does not train; build it with aux_logits=False, or take a ResNet"
        )
    name = find_head(model)
    if name is None:
        raise ValueError(
            f"no linear head found in {type(model).__name__}; expected a last nn.Linear named fc, "
            "classifier, classifier[-1], head or heads.head, as in torchvision's models"
        )
    return name


def find_head(model: nn.Module) -> str | None:
    """Return the dotted name of the head, or None where none is found.

    It is the last linear layer, or, where someone put several layers in its place, all of them.
    """
    for name in ("fc", "classifier", "head", "heads"):
        module = getattr(model, name, None)
        if _holds_linear(module):
            if _was_put_in(model, name, module):
                return name
            last = list(dict(module.named_children()))[-1]
            name, module = f"{name}.{last}", module[-1]
        if isinstance(module, nn.Linear) or _holds_linear(module):
            return name
    return None


def _was_put_in(model: nn.Module, name: str, layers: nn.Sequential) -> bool:
    """Say whether someone put these layers into the model; torchvision's `fc` and `head` are one.

    Its other containers are compared with the one that `pretrained` noted.
    """
    noted = getattr(model, "came_with", None)
    return name in ("fc", "head") or (noted is not None and layers is not noted[0])


def _holds_linear(module) -> bool:
    layers = module if isinstance(module, nn.Sequential) else ()
    return any(isinstance(layer, nn.Linear | nn.Sequential) for layer in layers)


def head_of(model: nn.Module) -> nn.Module:
    """Return the head, which turns features into logits: the last linear layer (`fc` of a ResNet).

    Where an `nn.Sequential` of several layers was put in its place, it is all of them.

    Raises:
        ValueError: no model, or one without such a head.
    """
    name = head_name(model)
    return model.get_submodule(name)


def replace_head(model: nn.Module, num_classes: int, *, seed: int = 0) -> nn.Linear:
    """Put a new linear head for `num_classes`, random by `seed`, into the model; return it."""
    check_count("num_classes", num_classes)
    name, old = head_name(model), head_of(model)
    if isinstance(old, nn.Sequential):
        old = next(layer for layer in old if isinstance(layer, nn.Linear))
    with own_random_numbers(mixed_seed(seed)):
        head = nn.Linear(old.in_features, num_classes, bias=old.bias is not None).to(old.weight)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, head)
    return head


# Layers that a head may have, and what each is built with.
LAYERS = {
    "Linear": ("in_features", "out_features"),
    "Dropout": ("p",),
    "BatchNorm1d": ("num_features",),
    "LayerNorm": ("normalized_shape",),
    "ReLU": (),
    "GELU": (),
    "SiLU": (),
    "Tanh": (),
    "Identity": (),
}


def head_layers(model: nn.Module) -> dict | None:
    """Return name and layers of a head of several as plain words and numbers; None of another."""
    name = find_head(model)
    head = model.get_submodule(name) if name else None
    if not isinstance(head, nn.Sequential):
        return None
    layers = []
    for layer in head:
        kind = type(layer).__name__
        if kind not in LAYERS:
            raise ValueError(
                f"the head has a layer {kind}; a classifier's file can describe "
                f"{', '.join(LAYERS)}: keep the weights with rk.save_weights instead"
            )
        layers.append({"layer": kind} | {key: getattr(layer, key) for key in LAYERS[kind]})
    return {"name": name, "layers": layers}


def put_layers(model: nn.Module, about: dict, state: Mapping[str, Tensor]) -> None:
    """Put the head that `head_layers` described into the model; its shapes must be the state's."""
    name, own = about["name"], head_name(model)
    if name not in (own, own.split(".")[0]):
        raise ValueError(f"a head {name!r}; expected {own}")
    with torch.device("meta"):  # takes no memory, whatever a file says
        head = nn.Sequential(*map(_layer, about["layers"]))
    for key, tensor in head.state_dict().items():
        found = tuple(state[f"{name}.{key}"].shape)
        if found != tensor.shape:
            raise ValueError(f"the head's {key} is {found}, not {tuple(tensor.shape)}")
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, head.to_empty(device="cpu"))


def _layer(about: dict) -> nn.Module:
    settings = dict(about)
    name = settings.pop("layer")
    if set(settings) != set(LAYERS[name]):
        raise ValueError(f"a layer {name} of {sorted(settings)}; expected {LAYERS[name]}")
    return getattr(nn, name)(**settings)


def freeze(model: nn.Module, *names: str) -> None:
    """Stop the named modules from learning, or without names the whole model.

    `train_mode` (used by `train_and_eval`) keeps what is frozen in eval mode: BatchNorm's running
    statistics stay as they are and dropout does not act.

    Raises:
        ValueError: no module has this name; nothing is changed.
    """
    _set_trainable(model, names, False)


def unfreeze(model: nn.Module, *names: str) -> None:
    """Let the named modules learn, or without names the whole model; then build the optimizer.

    Raises:
        ValueError: no module has this name; nothing is changed.
    """
    _set_trainable(model, names, True)


def _set_trainable(model: nn.Module, names: tuple[str, ...], trainable: bool) -> None:
    check_model(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"{name!r} is a {type(name).__name__}; expected names of modules, one by one: "
                'unfreeze(model, "layer4", "fc")'
            )
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

    A group of which all is frozen is left out; where everything is, there is a ValueError.

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
