"""Heads of several layers, as people put them in the place of the last linear one."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import resnet_kit as rk
from resnet_kit.classifier import digest_of_file
from resnet_kit.files import read_weights, save_weights
from resnet_kit.models.transfer import head_name, put_layers, replace_head


@pytest.fixture
def model():
    """A ResNet-18 with a head of several layers."""
    model = rk.pretrained(rk.weights("resnet18", "tiny"), num_classes=2)
    torch.manual_seed(0)
    model.fc = nn.Sequential(
        nn.BatchNorm1d(512), nn.Linear(512, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
    )
    return model


@pytest.fixture
def loaders(folder):
    return rk.image_folders(folder, size=32, workers=0)


def test_all_layers_that_were_put_in_are_the_head(model):
    assert head_name(model) == "fc" and rk.head_of(model) is model.fc
    head, backbone = rk.param_groups(model, head_lr=1e-3, backbone_lr=1e-5)
    assert {id(p) for p in head["params"]} == {id(p) for p in model.fc.parameters()}
    assert len(backbone["params"]) == 60


@pytest.mark.usefixtures("on_cpu")
def test_features_are_what_the_whole_head_sees(model, loaders):
    features = rk.extract_features(model, loaders, precision="fp32", progress=False)
    assert features.val.dataset.features.shape[2] == 512
    on_features = rk.evaluate(rk.head_of(model), features.val, progress=False)
    on_pictures = rk.evaluate(model, loaders.val, progress=False)
    assert (on_features.probabilities == on_pictures.probabilities).all()


@pytest.mark.usefixtures("on_cpu")
def test_a_head_of_several_layers_is_saved_and_loaded(model, loaders, tmp_path):
    path = rk.save_classifier(tmp_path / "m.safetensors", model, loaders)
    again = rk.load_classifier(path).model
    assert [type(layer) for layer in again.fc] == [type(layer) for layer in model.fc]
    assert again.fc[3].p == 0.3
    ours, theirs = (rk.evaluate(x, loaders.val, progress=False) for x in (model, again))
    assert (ours.probabilities == theirs.probabilities).all()


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "vgg11", "convnext_tiny"])
def test_a_container_put_in_is_told_from_the_one_that_was_there(arch):
    with torch.device("meta"):  # without the seconds that drawing first weights takes
        model = rk.pretrained(rk.weights(arch, None), num_classes=2)
    assert "." in head_name(model)  # torchvision's own container: its last layer
    width = rk.head_of(model).in_features
    model.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(width, 2))
    assert head_name(model) == "classifier"
    assert head_name(copy.deepcopy(model)) == "classifier"


def test_layers_in_the_place_of_the_last_one_are_the_head():
    model = rk.pretrained(rk.weights("mobilenet_v3_small", None), num_classes=2)
    model.classifier[-1] = nn.Sequential(nn.Dropout(0.1), nn.Linear(1024, 2))
    assert head_name(model) == "classifier.3"
    assert isinstance(replace_head(model, 5), nn.Linear) and rk.head_of(model).out_features == 5


def test_a_layer_that_a_file_cannot_describe_is_named(model, loaders, tmp_path):
    model.fc = nn.Sequential(nn.Linear(512, 4), nn.PReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="the head has a layer PReLU; a classifier's file can"):
        rk.save_classifier(tmp_path / "m.safetensors", model, loaders)


@pytest.mark.parametrize(
    "head",
    [
        {
            "name": "fc",
            "layers": [{"layer": "Linear", "in_features": 10**9, "out_features": 10**9}],
        },
        {"name": "fc", "layers": [{"layer": "Linear", "in_features": 512}]},
        {"name": "fc", "layers": [{"layer": "Module"}]},
        {"name": "conv1", "layers": [{"layer": "ReLU"}]},
        {"name": "fc", "layers": 7},
        {"name": "fc"},
    ],
)
def test_a_file_cannot_ask_for_any_head(head, loaders, tmp_path):
    model = rk.cifar_resnet(8, num_classes=2)
    path = rk.save_classifier(tmp_path / "m.safetensors", model, loaders, calibrate=False)
    tensors, about = read_weights(path)
    about.pop("digest")
    about["built"]["head"] = head
    save_weights(tensors, path, metadata=about | {"digest": digest_of_file(tensors, about)})
    with pytest.raises(ValueError, match="of another make|the head's 0|a layer Linear|a head 'con"):
        rk.load_classifier(path)


def test_the_shapes_of_a_described_head_must_be_those_of_the_weights():
    model = torchvision.models.resnet18(num_classes=2)
    layers = {"name": "fc", "layers": [{"layer": "Linear", "in_features": 8, "out_features": 2}]}
    with pytest.raises(ValueError, match=r"the head's 0.weight is \(2, 4\), not \(2, 8\)"):
        put_layers(model, layers, {"fc.0.weight": torch.zeros(2, 4), "fc.0.bias": torch.zeros(2)})


def test_a_head_with_pooling_inside_has_no_features(loaders):
    model = rk.pretrained(rk.weights("convnext_tiny", None), num_classes=2)
    model.classifier = nn.Sequential(nn.Flatten(1), nn.Linear(768, 2))
    with pytest.raises(ValueError, match=r"gets inputs of shape .*expected features \(N, D\)"):
        rk.extract_features(model, loaders, progress=False)


def test_a_loaded_model_is_not_scored_on_classes_of_other_names(loaders, folder, tmp_path):
    model = rk.cifar_resnet(8, num_classes=2)
    path = rk.save_classifier(tmp_path / "m.safetensors", model, loaders)
    classifier = rk.load_classifier(path)
    rk.evaluate(classifier.model, loaders.val, progress=False)
    for split in ("train", "eval"):
        (folder / split / "a").rename(folder / split / "z")
    other = rk.image_folders(folder, size=32, workers=0)
    with pytest.raises(ValueError, match="has 2 classes: a, b; the data set has 2 classes: b, z"):
        rk.evaluate(classifier.model, other.val, progress=False)
