"""resnet_kit: a small package for transfer learning with residual networks.

>>> import resnet_kit as rk
>>> source = rk.weights("resnet18")
>>> loaders = rk.image_folders(rk.cat_dog_ants_bees(), like=source)
>>> model = rk.pretrained(source, num_classes=len(loaders.classes))
"""

import importlib

from .classifier import Classifier, load_classifier, save_classifier
from .data.arrays import array_loaders
from .data.folders import class_weights, image_folders
from .data.images import Stats, UnreadableImageError, mean_std, picture_files, read_image
from .data.inspection import FolderReport, inspect_folder
from .data.loaders import Loaders, TransformedLoader
from .devices import best_precision, default_device
from .doctor import doctor
from .evaluation.evaluation import Evaluation, evaluate, mcnemar, wilson_interval
from .evaluation.grad_cam import grad_cam
from .features import Features, extract_features, knn_probe, logistic_probe, svm_probe
from .files import load_weights, read_weights, save_weights
from .models.transfer import (
    freeze,
    head_of,
    param_groups,
    pretrained,
    replace_head,
    train_mode,
    trainable_table,
    unfreeze,
)
from .models.weights import Weights, weights
from .results import accuracy_row, read_results, write_results
from .settings import choose, data_root, quick_mode, seed_everything
from .strategies import Comparison, compare_strategies
from .training.loop import train_and_eval
from .training.lr_finder import LrSearch, find_lr
from .training.state import History, log_scalars

__version__ = "0.1.0"

# Names that need matplotlib or OpenCV, which are imported when they are first used (PEP 562).
_LATER = {
    "cat_dog_ants_bees": "data.datasets",
    "line_plot": "figures",
    "named_dataset": "data.datasets",
    "picture_grid": "figures",
    "score_plot": "figures",
    "training_curves": "figures",
    "use_style": "figures",
}

__all__ = [
    "Classifier",
    "Comparison",
    "Evaluation",
    "Features",
    "FolderReport",
    "History",
    "Loaders",
    "LrSearch",
    "Stats",
    "TransformedLoader",
    "UnreadableImageError",
    "Weights",
    "accuracy_row",
    "array_loaders",
    "best_precision",
    "cat_dog_ants_bees",
    "choose",
    "class_weights",
    "compare_strategies",
    "data_root",
    "default_device",
    "doctor",
    "evaluate",
    "extract_features",
    "find_lr",
    "freeze",
    "grad_cam",
    "head_of",
    "image_folders",
    "inspect_folder",
    "knn_probe",
    "line_plot",
    "load_classifier",
    "load_weights",
    "log_scalars",
    "logistic_probe",
    "mcnemar",
    "mean_std",
    "named_dataset",
    "param_groups",
    "picture_files",
    "picture_grid",
    "pretrained",
    "quick_mode",
    "read_image",
    "read_results",
    "read_weights",
    "replace_head",
    "save_classifier",
    "save_weights",
    "score_plot",
    "seed_everything",
    "svm_probe",
    "train_and_eval",
    "train_mode",
    "trainable_table",
    "training_curves",
    "unfreeze",
    "use_style",
    "weights",
    "wilson_interval",
    "write_results",
]


def __getattr__(name: str):
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module 'resnet_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
