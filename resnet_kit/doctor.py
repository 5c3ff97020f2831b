"""What this machine has and lacks for training on pictures, each trouble with its fix."""

import importlib.metadata as metadata
import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from .devices import best_precision, cpu_count, default_device, hardware
from .models.weights import SHIPPED
from .settings import data_root, quick_mode, short_path

PAIRS = {"2.6": "0.21", "2.7": "0.22", "2.8": "0.23", "2.9": "0.24", "2.10": "0.25", "2.11": "0.26"}
SHM = 1 << 30  # bytes of shared memory that workers want


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; `fix` is empty where all is well."""

    what: str
    found: str
    fix: str = ""


class Checkup:
    """The lines of `doctor()`, shown one below the other, the troubles marked."""

    def __init__(self, lines: list[Line]):
        self.lines = lines

    @property
    def troubles(self) -> list[Line]:
        return [line for line in self.lines if line.fix]

    def __repr__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        rows = []
        for line in self.lines:
            rows.append(f"{'!' if line.fix else ' '} {line.what:<{width}}  {line.found}")
            if line.fix:
                rows.append(f"  {'':<{width}}  fix: {line.fix}")
        return "\n".join(rows)


def doctor() -> Checkup:
    """Look at versions, device, memory, data and weights; every trouble comes with its fix.

    Nothing is changed and no connection is opened.
    """
    return Checkup(
        [
            Line("Python", platform.python_version()),
            _torch_pair(),
            Line("device", hardware()),
            _precision(),
            _shared_memory(),
            _opencv(),
            _widgets(),
            Line("mode", "QUICK: tiny budgets, no connection" if quick_mode() else "normal"),
            _data(),
            _weights(),
        ]
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch_pair() -> Line:
    theirs, vision = _version("torch") or torch.__version__, _version("torchvision") or "missing"
    short = [".".join(version.split(".")[:2]) for version in (theirs, vision)]
    fix = ""
    if short[0] in PAIRS and short[1] != PAIRS[short[0]]:
        fix = f"torch {short[0]} goes with torchvision {PAIRS[short[0]]}: "
    try:
        from torchvision.ops import nms  # fails where the two were not built for each other

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        fix = fix or f"they do not fit ({error}): "
    fix = fix and f"{fix}pip install --force-reinstall torch torchvision, both from one index"
    return Line("torch, torchvision", f"{theirs}, {vision}", fix)


def _precision() -> Line:
    precision = best_precision(default_device())
    about = {"bf16": "bf16, native", "fp16": "fp16 with a scaler", "fp32": "fp32"}
    slow = precision == "fp32" and default_device().type == "cpu"
    note = "; no native bf16 on this CPU, which would train faster" if slow else ""
    return Line("precision", about[precision] + note)


def _shared_memory() -> Line:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Line("shared memory", f"no /dev/shm; {cpu_count()} cores")
    free = shutil.disk_usage(folder).free
    fix = ""
    if free < SHM:
        fix = "start the container with --shm-size=2g, or pass workers=0 to image_folders"
    return Line("shared memory", f"{free / 1e9:.1f} GB free; {cpu_count()} cores", fix)


def _opencv() -> Line:
    names = [f"opencv-{x}python{y}" for x in ("", "contrib-") for y in ("", "-headless")]
    found = {name: version for name in names if (version := _version(name))}
    text = ", ".join(f"{name} {version}" for name, version in found.items()) or "missing"
    if len(found) > 1:
        fix = f"both write the folder cv2: pip uninstall {' '.join(found)}, then install one"
    elif importlib.util.find_spec("cv2") is None:
        fix = "pip install opencv-python-headless"
    else:
        fix = ""
    return Line("OpenCV", text, fix)


def _widgets() -> Line:
    version = _version("ipywidgets")
    return Line(
        "progress bars",
        f"ipywidgets {version or 'missing'}",
        "" if version else "pip install ipywidgets (without it bars are text, which works too)",
    )


def _data() -> Line:
    from .data.datasets import DOWNLOADED  # needs OpenCV, whose absence is a line of its own

    root = data_root()
    names = [name for name in DOWNLOADED if (root / f"{name}.npz").is_file()]
    names += [name for name in ("flowers102", "cat_dog_ants_bees") if (root / name).is_dir()]
    there = ", ".join(names) or "no real pictures yet; drawn ones stand in"
    free = shutil.disk_usage(next(p for p in (root, *root.absolute().parents) if p.exists())).free
    fix = (
        "" if free > 2e9 else f"only {free / 1e9:.1f} GB free; set RESNET_KIT_DATA to another disk"
    )
    return Line("data", f"{short_path(root)}: {there}", fix)


def _weights() -> Line:
    shipped = [path.name.rsplit("-", 1)[0] for path in sorted(SHIPPED.glob("*.safetensors"))]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    cached = sorted(path.name for path in cache.glob("*.pth")) if cache.is_dir() else []
    fix = "" if shipped else "the package's own are missing: install it again"
    text = f"own: {', '.join(shipped) or 'none'}; in torch's cache: {', '.join(cached) or 'none'}"
    return Line("weights", text, fix)
