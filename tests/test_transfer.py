import os
import shutil
import socket
import subprocess
import sys
import zipfile
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

import resnet_kit as rk
from resnet_kit.drawn import ANIMALS, draw_arrays
from resnet_kit.files import read_weights
from resnet_kit.models import replace_head, trainable_table, weights
from resnet_kit.models.weights import SHIPPED

RESULTS = SHIPPED.parent.parent.parent / "results"


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


@pytest.fixture
def unreachable(monkeypatch, empty_cache):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)


def test_quick_mode_opens_no_socket_and_says_what_it_takes(no_network, empty_cache, capsys):
    source = rk.weights("resnet18")
    assert source.origin == "tiny"
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and '"imagenet"' in line
    assert "wanted ImageNet weights, but quick mode" in line and "Tiny ImageNet" in line
    assert rk.pretrained(source, num_classes=4).fc.weight.shape == (4, 512)


def test_without_network_the_packages_own_weights_are_taken(full_mode, unreachable, capsys):
    assert rk.weights("resnet18").origin == "tiny"
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "download.pytorch.org does not answer: taking" in line


def test_without_network_other_architectures_are_refused_with_a_way_out(full_mode, unreachable):
    with pytest.raises(ValueError, match="resnet34: wanted ImageNet .* none for it; take resnet18"):
        rk.weights("resnet34")
    with pytest.raises(ValueError, match="no weights for resnet34, only for: resnet18; .* None"):
        rk.weights("resnet34", "tiny")
    assert rk.weights("resnet34", None).origin == "scratch"


def shipped_file():
    return next(SHIPPED.glob("resnet18-tiny-*.safetensors"))


def test_shipped_weights_say_what_they_are():
    path = shipped_file()
    assert path.stat().st_size <= 23e6
    tensors, about = read_weights(path)
    for key in ("data", "source", "recipe", "epochs", "seconds", "hardware", "versions", "date"):
        assert about[key]
    assert len(about["wnids"]) == len(about["words"]) == len(set(about["wnids"])) == 200
    assert 0.5 < about["top1"] < about["top5"] < 1
    recorded = rk.read_results(RESULTS / "pretraining.json")
    shipped = {r["metric"]: r for r in recorded["rows"] if r["recipe"].startswith("shipped")}
    assert shipped["accuracy"]["value"] == about["top1"] and shipped["accuracy"]["n"] == 10_000
    model = torchvision.models.resnet18(num_classes=200)
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, tensor in model.state_dict().items():
        half = name.rpartition(".")[0] not in norms
        assert tensors[name].dtype == (torch.float16 if half else tensor.dtype), name
        assert tensors[name].shape == tensor.shape
    source = rk.weights("resnet18", "tiny")
    assert (source.size, len(source.classes)) == (about["size"], 200)
    assert source.mean == tuple(about["mean"]) and source.std == tuple(about["std"])


def test_a_damaged_shipped_file_is_noticed(monkeypatch, tmp_path):
    damaged = bytearray(shipped_file().read_bytes())
    damaged[-1000] ^= 1
    (tmp_path / shipped_file().name).write_bytes(damaged)
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="damaged: its SHA-256 .* install the package again"):
        rk.weights("resnet18", "tiny")


def test_shipped_weights_know_more_about_pictures_than_random_ones():
    images, labels = draw_arrays(ANIMALS, 30, size=64, seed=7)
    source = rk.weights("resnet18", "tiny")
    loaders = rk.array_loaders(train=(images, labels), val=(images, labels), like=source, size=64)
    agreement = {}
    for start in (source, rk.weights("resnet18", None)):
        torch.manual_seed(0)
        model = rk.pretrained(start, num_classes=4).eval()
        model.fc = nn.Identity()
        with torch.no_grad():
            vectors = model(next(iter(loaders.val))[0].cpu())
        vectors = nn.functional.normalize(vectors - vectors.mean(0))
        nearest = (vectors @ vectors.T).fill_diagonal_(-1).argmax(1)
        agreement[start.origin] = (labels[nearest] == labels).mean()
    assert agreement["tiny"] > agreement["scratch"] + 0.1, agreement


def test_the_wheel_holds_the_weights(tmp_path):
    pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml says
    root = SHIPPED.parent.parent.parent
    for name in ("resnet_kit", "pyproject.toml", "README.md", "LICENSE"):
        source = root / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert f"resnet_kit/models/shipped/{shipped_file().name}" in names
    assert "resnet_kit/drawn/pets.py" in names


def test_an_editable_install_is_found_beside_a_checkout_of_the_same_name(tmp_path):
    pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml says
    root = SHIPPED.parent.parent.parent
    checkout, wheels = tmp_path / "resnet_kit", tmp_path / "wheels"
    (checkout / "resnet_kit").mkdir(parents=True)
    wheels.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, checkout / name)
    for package in ("", "data", "drawn", "evaluation", "models", "training"):
        (checkout / "resnet_kit" / package).mkdir(exist_ok=True)
        (checkout / "resnet_kit" / package / "__init__.py").touch()
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    command = [sys.executable, "-c", build, str(wheels)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "site"
    zipfile.ZipFile(next(wheels.glob("*.whl"))).extractall(installed)
    # A process in the folder that holds the checkout, where `resnet_kit` is the checkout as well.
    look = "import site, sys; site.addsitedir(sys.argv[1]); import resnet_kit; "
    look += "print(resnet_kit.__file__)"
    command = [sys.executable, "-S", "-c", look, str(installed)]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert found.stdout.strip() == str(checkout / "resnet_kit" / "__init__.py"), found.stderr


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


def test_quick_mode_downloads_no_imagenet_weights(no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no ImageNet weights are cached, and quick mode"):
        rk.weights("resnet18", "imagenet")


def test_models_that_do_not_classify_are_refused():
    with pytest.raises(ValueError, match="torchvision has no classifier 'deeplabv3_resnet50'"):
        rk.weights("deeplabv3_resnet50", "imagenet")
    with pytest.raises(ValueError, match="no classifier 'effnet_b0'; .* such as efficientnet_b0, "):
        rk.weights("effnet_b0")
    with pytest.raises(ValueError, match="expected a name such as resnet18, resnet50$"):
        rk.weights("yolo")


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
    with pytest.raises(ValueError, match="no classifier 'resnet17'; expected a name such as"):
        rk.weights("resnet17")
    with pytest.raises(ValueError, match="no classifier 18; expected a name"):
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
    new = replace_head(model, 5)
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
        replace_head(torchvision.models.resnet18(), 0)


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
    table = trainable_table(model)
    assert table.loc["total"].tolist() == [11_178_564, 2052]
    assert table.loc["layer1", "trainable"] == 0


def test_a_frozen_batchnorm_without_weights_keeps_its_statistics():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(16, 2)
    )
    rk.freeze(model)
    rk.unfreeze(model, "3")
    before = model[1].running_mean.clone()
    rk.train_mode(model)
    model(torch.randn(2, 3, 4, 4))
    assert torch.equal(model[1].running_mean, before) and model[3].training
    rk.unfreeze(model)
    rk.train_mode(model)
    assert model[1].training


def test_a_shared_module_answers_to_both_its_names():
    model = nn.Sequential(nn.Linear(3, 3))
    model.add_module("again", model[0])
    rk.freeze(model, "again")
    assert not model[0].weight.requires_grad


def test_a_new_head_is_of_the_old_ones_make():
    model = nn.Module()
    model.fc = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    head = replace_head(model, 2)
    assert head.bias is None and head.weight.dtype == torch.float64


def test_the_total_counts_a_models_own_parameters():
    with torch.device("meta"):  # nothing is computed with its 88 million weights
        model = rk.pretrained(rk.weights("vit_b_32", None), num_classes=2)
    total = trainable_table(model).loc["total"]
    assert total["parameters"] == sum(p.numel() for p in model.parameters()) == total["trainable"]


def test_the_same_seed_gives_the_same_head_whatever_was_drawn_before():
    for source in (rk.weights("resnet18", "tiny"), rk.weights("resnet18", None)):
        first = rk.pretrained(source, num_classes=3)
        torch.manual_seed(123)
        before = torch.get_rng_state()
        again = rk.pretrained(source, num_classes=3)
        assert torch.equal(torch.get_rng_state(), before)
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
        other = rk.pretrained(source, num_classes=3, seed=1)
        assert not torch.equal(first.fc.weight, other.fc.weight)
    heads = [replace_head(first, 5, seed=seed).weight.clone() for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_names_and_numbers_of_the_wrong_type_are_refused():
    model = torchvision.models.resnet18(num_classes=2)
    for call in (rk.freeze, rk.unfreeze):
        with pytest.raises(ValueError, match=r"\['layer4', 'fc'\] is a list; expected names of"):
            call(model, ["layer4", "fc"])
    for wrong in ("4", 0, None, 2.5):
        with pytest.raises(ValueError, match=f"num_classes is {wrong!r}; expected a whole number"):
            rk.pretrained(rk.weights("resnet18", None), num_classes=wrong)


def test_a_wrapped_checkpoint_gives_pretrained_weights(tmp_path, capsys):
    original = torchvision.models.resnet18(num_classes=7)
    state = {f"module.{name}": tensor for name, tensor in original.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "a.pth")
    model = rk.pretrained(rk.weights("resnet18", tmp_path / "a.pth"), num_classes=4)
    assert torch.equal(model.conv1.weight, original.conv1.weight)
    assert "'module.', which is left out" in capsys.readouterr().out


@pytest.fixture
def broken_download(monkeypatch, empty_cache):
    """A network whose probe answers and whose downloads fail, as behind a portal."""

    class Answer:
        def close(self):
            pass

    def fail(*args, **kwargs):
        raise URLError("certificate of a portal")

    monkeypatch.setattr(socket, "create_connection", lambda *a, **o: Answer())
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)


def test_a_download_that_fails_gives_the_packages_own(full_mode, broken_download, capsys):
    assert rk.weights("resnet18").origin == "tiny"
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "certificate of a portal" in line and "taking the pack" in line
    with pytest.raises(ValueError, match="wanted ImageNet weights, but .*certificate of a portal"):
        rk.weights("resnet34")


def test_imagenet_weights_without_a_connection_say_what_to_do(full_mode, broken_download):
    source = rk.weights("resnet18", "imagenet")
    with pytest.raises(OSError, match=r'cannot be downloaded .*rk.weights\("resnet18", "tiny"\)'):
        rk.pretrained(source, num_classes=2)


def test_every_architectures_weights_say_how_their_pictures_are_prepared(full_mode):
    found = {}
    for arch in torchvision.models.list_models(module=torchvision.models):
        source = rk.weights(arch, "imagenet")
        preset = torchvision.models.get_model_weights(arch).DEFAULT.transforms()
        ours = source.size, source.resize_for(source.size), source.interpolation
        theirs = preset.crop_size[0], preset.resize_size[0], preset.interpolation.value
        found[arch] = ours == theirs and source.mean == tuple(preset.mean)
    assert len(found) >= 80 and all(found.values()), found
