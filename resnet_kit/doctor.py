"""What this machine has and lacks for training on pictures, each trouble with its fix."""

import importlib.metadata as metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from .devices import best_precision, cpu_count, default_device, hardware
from .models.weights import SHIPPED
from .settings import data_root, quick_mode, short_path

SHARED_MEMORY = 1e9  # bytes that the workers of a loader want
FREE_DISK = 2e9  # bytes that data sets want


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; `fix` is empty where all is well."""

    what: str
    found: str
    fix: str = ""


@dataclass(frozen=True, repr=False)
class Checkup:
    """The lines of `doctor()`, shown one below the other, the troubles marked."""

    lines: list[Line]

    def troubles(self) -> list[Line]:
        """Return the lines that have a fix."""
        return [line for line in self.lines if line.fix]

    def __repr__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        rows = []
        for line in self.lines:
            mark = "!" if line.fix else " "
            rows.append(f"{mark} {line.what:<{width}}  {line.found}")
            if line.fix:
                rows.append(f"  {'':<{width}}  fix: {line.fix}")
        return "\n".join(rows)


def doctor() -> Checkup:
    """Look at versions, device, memory, data and weights; every trouble comes with its fix.

    Nothing is changed and no connection is opened.
    """
    precision = best_precision(default_device())
    if precision == "fp32" and default_device().type == "cpu":
        precision = "fp32; no native bf16 on this CPU, which would train faster"
    mode = "QUICK: tiny budgets, no connection" if quick_mode() else "normal"
    lines = [
        Line("Python", platform.python_version()),
        _torch_and_torchvision(),
        Line("device", hardware()),
        Line("precision", precision),
        _load(),
        _shared_memory(),
        _opencv(),
        _widgets(),
        Line("mode", mode),
        _data(),
        _weights(),
    ]
    return Checkup(lines)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch_and_torchvision() -> Line:
    found = f"{torch.__version__}, {_version('torchvision') or 'missing'}"
    try:
        from torchvision.ops import nms  # fails where the two were not built for each other

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        install = "pip install --force-reinstall torch torchvision, both from one index"
        return Line("torch, torchvision", found, f"they do not fit ({error}): {install}")
    return Line("torch, torchvision", found)


def _load() -> Line:
    if not hasattr(os, "getloadavg"):
        return Line("load", "not known on this system")
    busy, cores = os.getloadavg()[0], cpu_count()
    fix = (
        "other programs keep the cores busy, and threads that wait for each other cost many times "
        "the time; stop them, or set OMP_NUM_THREADS=1 before Python starts"
    )
    return Line("load", f"{busy:.1f} on {cores} cores", fix if busy > 1.5 * cores else "")


def _shared_memory() -> Line:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Line("shared memory", f"no /dev/shm; {cpu_count()} cores")
    free = shutil.disk_usage(folder).free
    fix = "start the container with --shm-size=2g, or pass workers=0 to image_folders"
    found = f"{free / 1e9:.1f} GB free; {cpu_count()} cores"
    return Line("shared memory", found, fix if free < SHARED_MEMORY else "")


def _opencv() -> Line:
    kinds = ("", "-headless")
    names = [f"opencv-{extra}python{kind}" for extra in ("", "contrib-") for kind in kinds]
    installed = {name: _version(name) for name in names if _version(name)}
    fix = ""
    if not installed:
        fix = "pip install opencv-python-headless"
    if len(installed) > 1:
        fix = f"both write the folder cv2: pip uninstall {' '.join(installed)}, then install one"
    found = ", ".join(f"{name} {version}" for name, version in installed.items())
    return Line("OpenCV", found or "missing", fix)


def _widgets() -> Line:
    version = _version("ipywidgets")
    if not version and not any(map(_version, ("jupyterlab", "notebook"))):
        return Line("progress bars", "text; no notebooks here, which would want ipywidgets")
    fix = "pip install ipywidgets (without it bars are text, which works too)"
    return Line("progress bars", f"ipywidgets {version or 'missing'}", "" if version else fix)


def _data() -> Line:
    from .data.datasets import DOWNLOADED  # needs OpenCV, whose absence is a line of its own

    root = data_root()
    names = [name for name in DOWNLOADED if (root / f"{name}.npz").is_file()]
    names += [name for name in ("flowers102", "cat_dog_ants_bees") if (root / name).is_dir()]
    there = ", ".join(names) or "no real pictures yet; drawn ones stand in"
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    fix = f"only {free / 1e9:.1f} GB free; set RESNET_KIT_DATA to another disk"
    return Line("data", f"{short_path(root)}: {there}", fix if free < FREE_DISK else "")


def _weights() -> Line:
    shipped = [path.name.rsplit("-", 1)[0] for path in sorted(SHIPPED.glob("*.safetensors"))]
    cached = sorted(path.name for path in (Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth"))
    found = f"own: {', '.join(shipped) or 'none'}; in torch's cache: {', '.join(cached) or 'none'}"
    fix = "" if shipped else "the package's own are missing: install it again"
    return Line("weights", found, fix)
