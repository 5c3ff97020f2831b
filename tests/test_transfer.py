import socket

import pytest
import torch
import torchvision
from torch import nn

import resnet_kit as rk


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_quick_mode_opens_no_socket_and_says_what_it_takes(no_network, empty_cache, capsys):
    source = rk.weights("resnet18")
    assert source.origin == "scratch" and source.read is None
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "wanted ImageNet" in line and "from scratch" in line and '"imagenet"' in line


def test_unreachable_imagenet_is_from_scratch_with_a_line(
    full_mode, monkeypatch, empty_cache, capsys
):
    def unreachable(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert rk.weights("resnet18").origin == "scratch"
    assert "does not answer: starting from scratch" in capsys.readouterr().out


def test_cached_imagenet_weights_are_taken(full_mode, no_network, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    enum = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    (tmp_path / "checkpoints").mkdir()
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "checkpoints" / enum.url.split("/")[-1])
    source = rk.weights("resnet18")
    assert (source.origin, source.size, len(source.classes)) == ("imagenet", 224, 1000)
    assert source.mean == (0.485, 0.456, 0.406) and source.std == (0.229, 0.224, 0.225)
    assert "from torch's cache" in capsys.readouterr().out


def test_weights_of_a_file_fill_all_but_the_head(tmp_path, capsys):
    original = torchvision.models.resnet18(num_classes=7)
    torch.save(original.state_dict(), tmp_path / "a.pth")
    source = rk.weights("resnet18", tmp_path / "a.pth")
    assert "does not say" in capsys.readouterr().out
    model = rk.pretrained(source, num_classes=4)
    assert torch.equal(model.layer4[1].conv2.weight, original.layer4[1].conv2.weight)
    assert model.fc.weight.shape == (4, 512)


def test_preparation_travels_with_a_file(tmp_path, capsys):
    header = {"size": 64, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "classes": ["x", "y"]}
    state = torchvision.models.resnet18(num_classes=2)
    rk.save_weights(state, tmp_path / "a.safetensors", metadata=header)
    source = rk.weights("resnet18", tmp_path / "a.safetensors")
    assert (source.size, source.mean, source.classes) == (64, (0.5, 0.4, 0.3), ("x", "y"))
    assert capsys.readouterr().out == ""


def test_unknown_architectures_and_wrong_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no model 'resnet17'; expected a name such as .*resnet18"):
        rk.weights("resnet17")
    with pytest.raises(ValueError, match="no model 18; expected a name"):
        rk.weights(18)
    with pytest.raises(FileNotFoundError, match="no file"):
        rk.weights("resnet18", tmp_path / "a.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit this ResNet"):
        rk.pretrained(rk.weights("resnet18", tmp_path / "a.pth"), num_classes=2)


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("densenet121", "classifier"),
        ("swin_t", "head"),
        ("vit_b_32", "heads.head"),
    ],
)
def test_head_is_found_and_replaced(arch, head):
    with torch.device("meta"):
        model = torchvision.models.get_model(arch, weights=None)
    assert rk.head_of(model) is model.get_submodule(head)
    width = rk.head_of(model).in_features
    new = rk.replace_head(model, 5)
    assert model.get_submodule(head) is new
    assert (new.in_features, new.out_features) == (width, 5)


def test_nets_without_one_linear_head_are_refused():
    with torch.device("meta"):
        google = torchvision.models.get_model("googlenet", weights=None, init_weights=False)
        squeeze = torchvision.models.get_model("squeezenet1_1", weights=None)
    with pytest.raises(ValueError, match="GoogLeNet has auxiliary outputs"):
        rk.head_of(google)
    with pytest.raises(ValueError, match="no linear head found in SqueezeNet"):
        rk.head_of(squeeze)
    with pytest.raises(ValueError, match="num_classes is 0"):
        rk.replace_head(torchvision.models.resnet18(), 0)


def test_freeze_and_unfreeze_by_name():
    model = torchvision.models.resnet18()
    rk.freeze(model)
    assert not any(p.requires_grad for p in model.parameters())
    rk.unfreeze(model, "fc", "layer4.1")
    learns = [name for name, p in model.named_parameters() if p.requires_grad]
    expected = [n for n, _ in model.named_parameters() if n.startswith(("fc.", "layer4.1."))]
    assert learns == expected and len(learns) == 8
    rk.unfreeze(model)
    rk.freeze(model, "layer1")
    assert not model.layer1[0].conv1.weight.requires_grad and model.fc.weight.requires_grad


def test_unknown_module_names_are_refused_and_nothing_is_changed():
    model = torchvision.models.resnet18()
    message = "no module named 'layer9' in ResNet; its top-level modules are: conv1, bn1"
    with pytest.raises(ValueError, match=message):
        rk.freeze(model, "layer1", "layer9")
    assert all(p.requires_grad for p in model.parameters())


def test_train_mode_keeps_what_is_frozen_in_eval_mode():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)),
    )
    rk.freeze(model, "0", "1.1")
    rk.train_mode(model)
    assert not any(module.training for module in model[0].modules())
    assert model.training and model[1].training and model[1][0].training
    assert not model[1][1].training  # a frozen BatchNorm in a part that learns
    assert model[1][2].training
    rk.unfreeze(model)
    rk.train_mode(model)
    assert all(module.training for module in model.modules())


def test_param_groups_hold_each_trainable_parameter_once():
    model = torchvision.models.resnet18(num_classes=4)
    rk.freeze(model, "conv1")
    head, backbone = rk.param_groups(model, head_lr=1e-2, backbone_lr=1e-3)
    assert (head["lr"], backbone["lr"]) == (1e-2, 1e-3)
    held = [id(p) for group in (head, backbone) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rk.freeze(model)
    rk.unfreeze(model, "fc")
    assert [g["name"] for g in rk.param_groups(model, head_lr=1, backbone_lr=1)] == ["head"]
    rk.freeze(model)
    with pytest.raises(ValueError, match="the whole model is frozen"):
        rk.param_groups(model, head_lr=1, backbone_lr=1)


def test_trainable_table_adds_up():
    model = torchvision.models.resnet18(num_classes=4)
    rk.freeze(model)
    rk.unfreeze(model, "fc")
    table = rk.trainable_table(model)
    assert table.loc["total"].tolist() == [11_178_564, 2052]
    assert table.loc["layer1", "trainable"] == 0
