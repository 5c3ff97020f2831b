from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from resnet_kit import (
    array_loaders,
    evaluate,
    head_of,
    named_dataset,
    read_results,
    seed_everything,
    train_and_eval,
)
from resnet_kit.files import read_weights
from resnet_kit.models import resnets
from resnet_kit.models.weights import shipped_file

RESULTS = Path(__file__).resolve().parent.parent / "results"

TEN = [
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip


def pair(name, **options):
    """Our net and torchvision's with the same weights, whose shapes and names fit exactly."""
    with torch.device("meta"):  # without the seconds that drawing first weights takes
        ours, theirs = (getattr(m, name)(**options) for m in (resnets, torchvision.models))
    theirs.to_empty(device="cpu")
    fill(theirs)
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True, assign=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def fill(model):
    """Numbers that a trained net could have, so that no BatchNorm is an identity."""
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.zero_()
        elif tensor.ndim > 1:
            tensor.uniform_(-1, 1, generator=generator).mul_(tensor[0].numel() ** -0.5)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize("name", TEN)
def test_equals_torchvision_bit_for_bit(name):
    ours, theirs = pair(name, num_classes=7)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs.eval()(images)
        assert torch.equal(ours.eval()(images), logits)
    assert logits.isfinite().all() and logits.std() > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_training_equals_torchvision_bit_for_bit(name):
    ours, theirs = pair(name, num_classes=7)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        losses = [model.train()(images).square().mean() for model in (ours, theirs)]
        assert torch.equal(*losses)
        for model, loss in zip((ours, theirs), losses, strict=True):
            loss.backward()
            torch.optim.SGD(model.parameters(), lr=0.01).step()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[key]), key


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_init_residual": True},
        {"replace_stride_with_dilation": [False, True, True]},
        {"replace_stride_with_dilation": [True, False, True]},
    ],
)
def test_options_and_first_weights_are_torchvisions(options):
    nets = []
    for module in (resnets, torchvision.models):
        torch.manual_seed(3)
        nets.append(module.resnet50(num_classes=5, **options).eval())
    ours, theirs = nets
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[key]), key
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_without_top_the_feature_map_is_returned():
    net = resnets.resnet18(include_top=False, in_channels=1)
    assert net(torch.randn(2, 1, 64, 96)).shape == (2, 512, 2, 3)
    assert not any(name.startswith("fc") for name in net.state_dict())
    assert resnets.resnet50(include_top=False)(torch.randn(1, 3, 64, 64)).shape == (1, 2048, 2, 2)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="BasicBlock with dilation 2.* take Bottleneck"):
        resnets.resnet18(replace_stride_with_dilation=[False, False, True])
    with pytest.raises(ValueError, match="2 groups.*take Bottleneck"):
        resnets.resnet34(groups=2)
    with pytest.raises(ValueError, match="expected 4 numbers and 3 switches"):
        resnets.ResNet(resnets.BasicBlock, (2, 2, 2))
    with pytest.raises(ValueError, match="depth is 18; expected 6n"):
        resnets.cifar_resnet(18)
    with pytest.raises(ValueError, match="shortcut is 'A'; expected"):
        resnets.cifar_resnet(20, shortcut="A")


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_parameter_counts_are_the_papers(depth, millions):
    net = resnets.cifar_resnet(depth)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert f"{count:.{len(millions) - 2}f}" == millions
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("kind", ["pad", "projection", "plain"])
def test_cifar_nets_learn_in_every_kind(kind, preactivation):
    options = {"plain": True} if kind == "plain" else {"shortcut": kind}
    torch.manual_seed(0)
    net = resnets.cifar_resnet(8, 5, in_channels=1, preactivation=preactivation, **options)
    logits = net(torch.randn(3, 1, 32, 32))
    assert logits.shape == (3, 5) and head_of(net) is net.fc
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("inputs", "channels", "stride", "identity"),
    [(8, 8, 1, True), (8, 8, 2, False), (8, 16, 1, False), (16, 8, 1, False)],
)
def test_only_an_unchanged_shape_has_the_identity(inputs, channels, stride, identity):
    block = resnets.BasicBlock(inputs, channels, stride=stride)
    assert (block.downsample is None) == identity
    assert block(torch.rand(2, inputs, 8, 8)).shape == (2, channels, 8 // stride, 8 // stride)


def test_padded_shortcut_keeps_every_second_pixel_and_adds_zero_channels():
    net = resnets.cifar_resnet(8)
    x = torch.randn(2, 16, 8, 8)
    shortcut = net.layer2[0].shortcut(x)
    assert shortcut.shape == (2, 32, 4, 4)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert not shortcut[:, :8].any() and not shortcut[:, 24:].any()
    assert torch.equal(net.layer1[0].shortcut(x), x)


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_block_whose_convolutions_are_zero_is_its_shortcut(preactivation):
    block = resnets.cifar_resnet(8, preactivation=preactivation).layer1[0].eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(x), x)


class StrangersBlock(nn.Module):
    """Option A in other words: averages of single pixels between two blocks of zeros."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.down = nn.AvgPool2d(1, stride) if stride > 1 else None

    def forward(self, x):
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        if self.down is not None:
            x = self.down(x)
            zeros = torch.zeros_like(x)[:, : x.shape[1] // 2]
            x = torch.cat([zeros, x, zeros], 1)
        return (x + y).relu()


class StrangersResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        blocks = [StrangersBlock(16, 16, 1), StrangersBlock(16, 32, 2), StrangersBlock(32, 64, 2)]
        self.body = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(self.body(x))


def test_a_strangers_trained_weights_fit_once_their_keys_are_renamed():
    data = named_dataset("digits", batch_size=64)
    seed_everything(0)
    stranger = StrangersResNet8()
    optimizer = torch.optim.SGD(stranger.parameters(), lr=0.1, momentum=0.9)
    train_and_eval(stranger, 6, nn.CrossEntropyLoss(), optimizer, data.train, data.val)
    names = {"body.0.": "conv1.", "body.1.": "bn1.", "linear.": "fc."}
    names |= {f"body.{2 + stage}.": f"layer{stage}.0." for stage in (1, 2, 3)}
    parts = {"first.": "conv1.", "first_norm.": "bn1.", "second.": "conv2.", "second_norm.": "bn2."}

    def ours(key):
        for theirs, name in [*names.items(), *((f".{a}", f".{b}") for a, b in parts.items())]:
            key = key.replace(theirs, name)
        return key

    net = resnets.cifar_resnet(8, in_channels=1)
    net.load_state_dict({ours(key): tensor for key, tensor in stranger.state_dict().items()})
    theirs, found = evaluate(stranger, data.test), evaluate(net, data.test)
    assert found.accuracy == theirs.accuracy > 0.8
    assert np.allclose(found.probabilities, theirs.probabilities, atol=1e-5)


def test_a_trained_resnet20_travels_with_the_package():
    net = resnets.cifar_resnet(20, weights="cifar10")
    path = shipped_file("cifar_resnet20", "cifar10")
    state, about = read_weights(path)
    assert path.stat().st_size < 0.7e6 and state["conv1.weight"].dtype == torch.float16
    assert net.prepared == (tuple(about["mean"]), tuple(about["std"]))
    assert net.fc.classes == tuple(about["classes"]) and net.fc.classes[0] == "airplane"
    assert torch.equal(net.conv1.weight, state["conv1.weight"].float())
    epochs = about["command"].split("--epochs ")[1].split()[0]
    recorded = read_results(RESULTS / f"cifar10_ours_{epochs}_growing.json")
    values = {row["split"]: row["value"] for row in recorded["rows"]}
    assert values == {"val": about["val_accuracy"], "test": about["test_accuracy"]}
    assert recorded["command"] == about["command"] and values["test"] > 0.85
    with pytest.raises(ValueError, match="no weights of a cifar_resnet56 for 'cifar10'"):
        resnets.cifar_resnet(56, weights="cifar10")
    with pytest.raises(ValueError, match="fc"):
        resnets.cifar_resnet(20, num_classes=4, weights="cifar10")


def test_the_trained_resnet20_scores_what_was_recorded(real_data):
    net = resnets.cifar_resnet(20, weights="cifar10")
    about = read_weights(shipped_file("cifar_resnet20", "cifar10"))[1]
    with np.load(real_data / "cifar10" / "test_exact_1017.npz") as arrays:
        test = arrays["images"], arrays["labels"]
    mean, std = net.prepared
    data = array_loaders(test=test, classes=about["classes"], mean=mean, std=std)
    result = evaluate(net, data.test, progress=False)
    assert len(result.labels) == about["test_pictures"]
    assert abs(result.accuracy - about["test_accuracy"]) < 0.005  # in half precision
