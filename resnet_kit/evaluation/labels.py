"""Labels that do not fit what a model gives, refused before they cost time or stop a GPU."""

import torch
from torch import Tensor, nn

from ..data.pictures import PictureFiles
from ..models.transfer import find_head
from ..settings import counted

UNLABELLED = -100  # torch's default `ignore_index`


def check_labels(labels: Tensor, outputs: int) -> None:
    """Refuse labels beyond the model's outputs, where reading them does not stop a GPU."""
    if labels.device.type != "cpu" or labels.is_floating_point() or not len(labels):
        return
    low, high = int(labels.numpy().min()), int(labels.numpy().max())
    if low < 0 or high >= outputs:
        raise ValueError(
            f"labels from {low} to {high}, but the model has "
            f"{counted(outputs, 'output')} (labels 0 to {outputs - 1}); check the labels, or build "
            f"the model with num_classes={high + 1}"
        )


def check_head(model: nn.Module, *loaders) -> None:
    """Refuse a head with fewer outputs than picture files have labels, before they are decoded."""
    name = find_head(model)
    last = list(model.get_submodule(name).modules())[-1] if name else None
    if not isinstance(last, nn.Linear):  # a head of another kind says itself how much it gives
        return
    for loader in loaders:
        dataset = getattr(loader, "dataset", None)
        if isinstance(dataset, PictureFiles):
            labels = torch.tensor(dataset.labels)
            check_labels(labels[labels != UNLABELLED], last.out_features)
