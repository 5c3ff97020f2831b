"""Where a model looks: Grad-CAM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..devices import arithmetic, place
from ..models.transfer import check_model, kept_modes

MOST_LINEAR = 4  # layers after the last maps: VGG has three


def grad_cam(
    model: nn.Module, pictures: Tensor, labels: Sequence[int] | Tensor | None = None
) -> Tensor:
    """Return heat maps `(N, H, W)` in 0…1: how much each place speaks for a class.

    `pictures` `(N, C, H, W)` are prepared as for the model, `labels` `(N,)` name the classes that
    are asked about (default: the predicted ones). The maps are those of the last layer that still
    has height and width, enlarged. Works on frozen models, and leaves modes and gradients alone. A
    picture in which nothing speaks for the class gives zeros.

    Raises:
        ValueError: pictures or labels that do not fit, or a model without maps near its end.

    Source: https://arxiv.org/abs/1610.02391, section 3.
    """
    check_model(model)
    _check_pictures(pictures)
    device = place(model)
    logits, maps = _logits_and_maps(model, pictures.to(device))
    asked = logits.argmax(1) if labels is None else _checked_labels(labels, logits)
    with torch.enable_grad(), arithmetic(device, "fp32"):
        (gradient,) = torch.autograd.grad(logits.gather(1, asked[:, None]).sum(), maps)
    heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat, pictures.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu()


def _check_pictures(pictures) -> None:
    if not isinstance(pictures, Tensor):
        raise ValueError(f"pictures is a {type(pictures).__name__}; expected a tensor (N, C, H, W)")
    if pictures.ndim != 4 or not pictures.is_floating_point():
        raise ValueError(
            f"pictures of shape {tuple(pictures.shape)}, {pictures.dtype}; expected a batch "
            "(N, C, H, W) of prepared ones, as a loader gives them"
        )


def _checked_labels(labels: Sequence[int] | Tensor, logits: Tensor) -> Tensor:
    """Return a class for each picture, `(N,)`, on the device of the logits."""
    asked, count = torch.as_tensor(labels, device=logits.device), logits.shape[1]
    if asked.shape != logits.shape[:1] or not ((asked >= 0) & (asked < count)).all():
        raise ValueError(
            f"labels {asked.tolist()}; expected one of 0 to {count - 1} for each of the "
            f"{len(logits)} pictures"
        )
    return asked


def _logits_and_maps(model: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits `(N, K)` and the last maps `(N, C, h, w)`, which the logits follow from."""
    last, after = [], []

    def keep(module, inputs, output):
        if not isinstance(output, Tensor) or output.ndim != 4 or min(output.shape[2:]) < 2:
            after.append(module)
            return output
        after.clear()
        last[:] = [output.detach().requires_grad_()]
        return last[0].clone()  # what follows may work in place

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with kept_modes(model), torch.enable_grad(), arithmetic(pictures.device, "fp32"):
            logits = model.eval()(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise ValueError(
            f"no layer of this {type(model).__name__} gives maps (N, C, H, W) of more than one "
            "place; expected a convolutional network and larger pictures"
        )
    if _many_layers(after):
        raise ValueError(
            f"between the last maps (N, C, H, W) of this {type(model).__name__} and its logits lie "
            "many layers, so the maps do not say where it looks; expected a network that ends in "
            "maps, pooling and a head, such as a ResNet, not a vision transformer"
        )
    return logits, last[0]


def _many_layers(modules: list[nn.Module]) -> bool:
    """Say whether these are more than a head: attention, or more than a few linear layers."""
    attention = any(isinstance(module, nn.MultiheadAttention) for module in modules)
    return attention or sum(isinstance(module, nn.Linear) for module in modules) > MOST_LINEAR
