"""Pretrained weights: where they are, and how pictures must be prepared for them."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.models import get_model_weights, list_models

from ..files import read_weights
from ..settings import quick_mode, short_path, user_path, wrong

SHIPPED = Path(__file__).with_name("shipped")  # made by benchmarks/pretraining.py
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Weights:
    """Weights of one architecture, and how pictures must be prepared for them.

    `origin` is "imagenet", "tiny", "file" or "scratch"; `size` is in pixels; `mean` and `std`, per
    channel in 0…1, are of the pictures of the pre-training; `classes` are the pre-training's. For
    validation the short side is resized to `resize` pixels (default: 256 for 224) with
    `interpolation` ("bilinear", "bicubic"), then the middle is cropped.
    """

    arch: str
    origin: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    read: Callable[[], Mapping[str, Tensor]] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"

    def resize_for(self, size: int) -> int:
        """Return what to resize the short side to before a crop of `size` pixels."""
        return round(size * (self.resize or self.size * 256 / 224) / self.size)

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
    return _from_file(arch, user_path(source))


def check_weights(weights) -> None:
    """Refuse what are no `Weights`."""
    if not isinstance(weights, Weights):
        raise wrong("weights", weights, 'what rk.weights("resnet18") gives, say')


def _imagenet(arch: str) -> Weights:
    enum = get_model_weights(arch).DEFAULT
    if quick_mode() and not _cached(arch):
        raise FileNotFoundError(
            f"{arch}: no ImageNet weights are cached, and quick mode downloads nothing; take "
            'rk.weights("resnet18", "tiny"), or leave quick mode (RESNET_KIT_QUICK)'
        )
    preset = enum.transforms()

    def read() -> Mapping[str, Tensor]:
        try:
            return enum.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no connection; another hash
            raise OSError(
                f"the ImageNet weights of {arch} cannot be downloaded ({error}); try again with a "
                'connection, or take the package\'s own: rk.weights("resnet18", "tiny")'
            ) from error

    names = tuple(enum.meta["categories"])
    mean, std = tuple(preset.mean), tuple(preset.std)
    size, resize, how = preset.crop_size[0], preset.resize_size[0], preset.interpolation.value
    return Weights(arch, "imagenet", size, mean, std, names, read, resize, how)


def _cached(arch: str) -> bool:
    name = Path(get_model_weights(arch).DEFAULT.url).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()


def _tiny(arch: str) -> Weights:
    """Return the weights that travel with the package, after checking the hash in their name."""
    path = shipped_file(arch, "tiny")
    if path is None:
        known = sorted(file.name.split("-")[0] for file in SHIPPED.glob("*-tiny-*.safetensors"))
        raise ValueError(
            f"the package carries no weights for {arch}, only for: {', '.join(known) or 'none'}; "
            f'rk.weights("{arch}", "imagenet") downloads some, rk.weights("{arch}", None) starts '
            "from scratch"
        )
    return replace(_from_file(arch, path), origin="tiny")


def shipped_file(arch: str, data: str) -> Path | None:
    """Return the file of weights that travels with the package, or None where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = next(SHIPPED.glob(f"{arch}-{data}-*.safetensors"), None)
    if path and hashlib.sha256(path.read_bytes()).hexdigest()[:8] != path.stem.split("-")[-1]:
        raise ValueError(
            f"{path.name} of the package is damaged: its SHA-256 is not the one in its name; "
            "install the package again"
        )
    return path


def _auto(arch: str) -> Weights:
    reason = "quick mode opens no connection"
    if not quick_mode() and _cached(arch):
        print(f"{arch}: ImageNet weights from torch's cache.")
        return _imagenet(arch)
    if not quick_mode():
        reason = "none are cached and download.pytorch.org does not answer"
        if _reachable("download.pytorch.org", seconds=3):
            found = _imagenet(arch)
            try:
                found.read()
                print(f"{arch}: ImageNet weights, downloaded once into torch's cache.")
                return found
            except OSError as error:  # a portal, say, that answers for any address
                reason = str(error.__cause__)
    wanted = f"wanted ImageNet weights, but {reason}"
    if shipped_file(arch, "tiny") is None:
        raise ValueError(
            f"{arch}: {wanted}, and the package carries none for it; take resnet18, a machine with "
            f'a connection, a file (rk.weights("{arch}", "a.pth")), or start from scratch with '
            f'rk.weights("{arch}", None)'
        )
    print(
        f"{arch}: {wanted}: taking the package's own, pre-trained on Tiny ImageNet. "
        f'rk.weights("{arch}", "imagenet") downloads the others.'
    )
    return _tiny(arch)


def _reachable(host: str, *, seconds: float) -> bool:
    try:
        socket.create_connection((host, 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def _from_file(arch: str, path: Path) -> Weights:
    if not path.is_file():
        raise FileNotFoundError(
            f'no file {path.absolute()}; expected "auto", "imagenet", "tiny", None or a file of '
            "weights"
        )
    state, header = read_weights(path)
    if "mean" not in header:
        print(
            f"{short_path(path)} does not say how its pictures were prepared: taken as ImageNet's."
        )
    mean = tuple(header.get("mean", IMAGENET_MEAN))
    std = tuple(header.get("std", IMAGENET_STD))
    size, resize = header.get("size", 224), header.get("resize")
    names, how = tuple(header.get("classes", ())), header.get("interpolation", "bilinear")
    return Weights(arch, "file", size, mean, std, names, lambda: state, resize, how)
