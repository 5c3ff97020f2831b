"""The examples of the docstrings run, and give what they show."""

import copy
import doctest
import importlib
import shutil

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

import resnet_kit as rk
from conftest import PACKAGE, write_picture

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


class ShownOnly(doctest.OutputChecker):
    """Compares what an example shows; one that shows nothing only has to run."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of noise, 8 pictures each to learn from and 4 to validate with."""
    folder = tmp_path_factory.mktemp("examples") / "my_pictures"
    for label, name in enumerate(("0_cat", "1_dog")):
        for index in range(12):
            split = ("train", "train", "val")[index % 3]
            write_picture(folder / split / name / f"{index}.png", 100 * label + index)
    return folder


@pytest.fixture(scope="module")
def source():
    return rk.weights("resnet18", "tiny")


@pytest.fixture(scope="module")
def new_model():
    return rk.pretrained(rk.weights("resnet18", None), num_classes=2)


@pytest.fixture
def names(tmp_path, data_root, monkeypatch, pictures, source, new_model) -> dict:
    """What the examples speak of: a folder `my_pictures`, its loaders, a model, an optimizer."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(pictures, tmp_path / "my_pictures")  # examples move files in it
    model = copy.deepcopy(new_model)
    return {
        **{name: getattr(rk, name) for name in rk.__all__},
        **{"np": np, "rk": rk, "torch": torch, "torchvision": torchvision, "v2": v2},
        **{"criterion": nn.CrossEntropyLoss(), "model": model},
        "loaders": rk.image_folders(folder, like=source, size=32),
        "TransformedLoader": rk.data.TransformedLoader,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run_and_give_what_they_show(module, names, monkeypatch):
    cheap = {"epochs": 1, "seeds": (0,), "size": 32}
    for name, value in cheap.items():
        monkeypatch.setitem(rk.compare_strategies.__kwdefaults__, name, value)
    monkeypatch.setitem(rk.find_lr.__kwdefaults__, "steps", 10)
    runner = doctest.DocTestRunner(checker=ShownOnly(), verbose=False)
    tests = doctest.DocTestFinder().find(importlib.import_module(module), extraglobs=names)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).attempted and not runner.failures
