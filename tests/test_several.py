"""Several processes: real ones, over gloo, with tiny nets."""

import os

import pytest
import torch
from torch import nn

import resnet_kit as rk
from conftest import tensor_loader
from resnet_kit.data import TransformedLoader
from resnet_kit.data.arrays import ColorJitter, Crop, Flip

pytestmark = pytest.mark.usefixtures("on_cpu")
AUGMENT = [Crop(1), Flip(), ColorJitter(0.2)]


def plain_net(outputs: int = 3) -> nn.Module:
    """No batch statistics and no dropout: what a picture gives does not depend on its batch."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # other weights in each process
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, outputs),
    )  # fmt: skip


def arrays(batch_size: int, count: int = 36, val: int = 7, **options):
    """Learnable noise of 8 px; of class 0 there are more."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count + val) % 5 % 3
    noise = torch.randint(0, 128, (count + val, 8, 8, 3), generator=generator)
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    splits = {"train": (images[:count], labels[:count]), "val": (images[count:], labels[count:])}
    return rk.array_loaders(**splits, batch_size=batch_size, augment=AUGMENT, **options)


def trained(loaders=None, epochs=3, model=None, *, train=None, weighted=False, **options):
    """Train with all that depends on what is in a step; return weights, history, size."""
    model = model if model is not None else plain_net()
    weight = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    history = rk.train_and_eval(
        model, epochs, nn.CrossEntropyLoss(weight), optimizer,
        train if train is not None else loaders.train,
        loaders.val if loaders is not None else tensor_loader(12, seed=1),
        precision="fp32", progress=False, **options,
    )  # fmt: skip
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, history


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def close(first: dict, second: dict) -> bool:
    return all(torch.allclose(first[k], second[k], rtol=1e-4, atol=1e-6) for k in first)


def without_seconds(history) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


# Steps


EVERYTHING = {"accumulate": 2, "clip_norm": 0.5, "average": 0.5, "weighted": True}


def train_arrays(batch_size, options):
    return trained(arrays(batch_size), **options)


@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_a_batch_in_several_processes_are_steps_on_all_of_it(size, together):
    """Accumulation, clipping, class weights and the average of weights included."""
    whole, history = train_arrays(12, EVERYTHING)
    found = together(train_arrays, 12 // size, EVERYTHING, size=size).results()
    assert all(same(found[0][0], weights) for weights, _ in found)
    assert close(found[0][0], whole)
    for _, other in found:
        assert other.rows == found[0][1].rows and other.best_epoch == history.best_epoch
        assert other.step_pictures == history.step_pictures == 24
    for ours, theirs in zip(without_seconds(found[0][1]), without_seconds(history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert not close(whole, train_arrays(12 // size, EVERYTHING)[0])  # steps of less are others


def train_own_loader(batch_size, kind):
    loader = tensor_loader(24, batch_size=batch_size)
    if kind == "wrapped":
        loader = TransformedLoader(loader, lambda images, labels: (images * 2, labels))
    if kind == "list":
        loader = list(loader)
    criterion = {"unlabelled": True}
    del criterion
    return trained(train=loader)


@pytest.mark.parametrize("kind", ["DataLoader", "wrapped", "list"])
def test_loaders_of_ones_own_are_divided_too(kind, together):
    whole, _ = train_own_loader(8, kind)
    found = together(train_own_loader, 4, kind).results()
    assert same(found[0][0], found[1][0]) and close(found[0][0], whole)
