"""resnet_kit: a small package for transfer learning with residual networks.

>>> import resnet_kit as rk
>>> source = rk.weights("resnet18")
>>> loaders = rk.image_folders(rk.cat_dog_ants_bees(), like=source)
>>> model = rk.pretrained(source, num_classes=len(loaders.classes))

What the calls return is described in the rooms: `resnet_kit.data`, `resnet_kit.evaluation`,
`resnet_kit.training`, `resnet_kit.models`; the package's README says what lives where.
"""

import importlib

from .classifier import load_classifier, save_classifier
from .cleaning import clean
from .data.arrays import array_loaders
from .data.augmentations import show_augmentations
from .data.folders import image_folders
from .data.images import read_image
from .data.inspection import inspect_folder
from .data.stats import mean_std
from .devices import default_device
from .doctor import doctor
from .evaluation.evaluation import evaluate, mcnemar
from .evaluation.grad_cam import grad_cam
from .features import extract_features, knn_probe, logistic_probe, svm_probe
from .files import load_weights, save_weights
from .models.resnets import cifar_resnet
from .models.transfer import freeze, head_of, param_groups, pretrained, train_mode, unfreeze
from .models.weights import weights
from .results import accuracy_row, read_results, write_results
from .settings import choose, data_root, quick_mode, seed_everything, shown_names
from .strategies import compare_strategies
from .suspects import label_suspects
from .training.loop import train_and_eval
from .training.lr_finder import find_lr

__version__ = "1.0.0"

# Names that need matplotlib or OpenCV, which are imported when they are first used (PEP 562).
_LATER = {
    "cat_dog_ants_bees": "data.datasets",
    "draw_block": "diagrams",
    "draw_net": "diagrams",
    "draw_schedule": "diagrams",
    "line_plot": "figures",
    "named_dataset": "data.datasets",
    "picture_grid": "figures",
    "score_plot": "figures",
    "training_curves": "figures",
    "use_style": "figures",
}

__all__ = [
    "accuracy_row", "array_loaders", "cat_dog_ants_bees", "choose", "cifar_resnet", "clean",
    "compare_strategies", "data_root", "default_device", "doctor", "draw_block", "draw_net",
    "draw_schedule", "evaluate", "extract_features", "find_lr", "freeze", "grad_cam", "head_of",
    "image_folders", "inspect_folder", "knn_probe", "label_suspects", "line_plot",
    "load_classifier", "load_weights", "logistic_probe", "mcnemar", "mean_std", "named_dataset",
    "param_groups", "picture_grid", "pretrained", "quick_mode", "read_image", "read_results",
    "save_classifier", "save_weights", "score_plot", "seed_everything", "show_augmentations",
    "shown_names", "svm_probe", "train_and_eval", "train_mode", "training_curves", "unfreeze",
    "use_style", "weights", "write_results",
]  # fmt: skip


def __getattr__(name: str):
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module 'resnet_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
