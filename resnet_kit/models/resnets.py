"""Residual networks, written to be read: the paper's ImageNet family and its CIFAR family.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition",
https://arxiv.org/abs/1512.03385; section numbers below are this paper's. The ImageNet family has
torchvision's parameter names, so weights load both ways, and computes the same, bit for bit.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from ..files import fit_weights, read_weights
from .weights import shipped_file


def conv3x3(inputs: int, outputs: int, *, stride=1, dilation=1, groups=1) -> nn.Conv2d:
    """Return a convolution that keeps the size of the map, or divides it by `stride`.

    It has no bias: the BatchNorm after it would subtract it again.
    """
    padding = dilation  # a margin as wide as the kernel reaches
    return nn.Conv2d(inputs, outputs, 3, stride, padding, dilation, groups, bias=False)


def conv1x1(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a convolution that mixes channels and looks at no neighbours."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut of a block that changes the shape, or None where the identity fits.

    Source: section 3.3, option B: "dashed" shortcuts in figure 3.
    """
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv1x1(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as in ResNet-18 and 34.

    From `(N, inputs, H, W)` to `(N, channels, H / stride, W / stride)`. Source: figure 5, left.
    """

    expansion = 1  # output channels / channels

    def __init__(self, inputs: int, channels: int, *, stride: int = 1, dilation: int = 1):
        super().__init__()
        if dilation > 1:
            raise ValueError(f"BasicBlock with dilation {dilation}; expected 1: take Bottleneck")
        self.conv1 = conv3x3(inputs, channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + shortcut)


class Bottleneck(nn.Module):
    """A narrow 3x3 convolution between two 1x1 ones, as in ResNet-50 and deeper.

    From `(N, inputs, H, W)` to `(N, 4 * channels, H / stride, W / stride)`. The stride is in the
    3x3 convolution ("v1.5"); the paper has it in the first 1x1. With `groups` it is a ResNeXt's
    (https://arxiv.org/abs/1611.05431). Source: figure 5, right.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
    ):
        super().__init__()
        outputs = channels * self.expansion
        width = channels * width_per_group // 64 * groups
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=stride, dilation=dilation, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + shortcut)


class ResNet(nn.Module):
    """The ImageNet family: a stem, four stages of blocks, pooling and a linear head.

    From `(N, in_channels, H, W)` to logits `(N, num_classes)`, or without the top to the feature
    map `(N, 512 * expansion, H / 32, W / 32)`. Each stage but the first halves the map and doubles
    the channels. Source: section 3.3 and table 1.

    Args:
        layers: blocks per stage.
        zero_init_residual: let each block start as its shortcut (https://arxiv.org/abs/1706.02677).
        replace_stride_with_dilation: for the stages 2 to 4, keep the size of the map and space the
            kernel's taps instead.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        *,
        include_top: bool = True,
        groups: int = 1,
        width_per_group: int = 64,
        zero_init_residual: bool = False,
        replace_stride_with_dilation: Sequence[bool] = (False, False, False),
        in_channels: int = 3,
    ):
        super().__init__()
        if len(layers) != 4 or len(replace_stride_with_dilation) != 3:
            raise ValueError(
                f"layers {tuple(layers)} and replace_stride_with_dilation "
                f"{tuple(replace_stride_with_dilation)}; expected 4 numbers and 3 switches"
            )
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        make = block
        if block is Bottleneck:
            make = partial(block, groups=groups, width_per_group=width_per_group)
        elif groups > 1 or width_per_group != 64:
            raise ValueError(
                f"BasicBlock with {groups} groups, width {width_per_group}; expected 1 and 64: "
                "take Bottleneck"
            )
        inputs, dilation = 64, 1
        for stage, count in enumerate(layers):
            channels, stride = 64 * 2**stage, 1 if stage == 0 else 2
            before = dilation
            if stage > 0 and replace_stride_with_dilation[stage - 1]:
                dilation, stride = dilation * stride, 1
            outputs = channels * block.expansion
            blocks = [make(inputs, channels, stride=stride, dilation=before)]
            blocks += [make(outputs, channels, dilation=dilation) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.include_top = include_top
        if include_top:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(inputs, num_classes)
        _initialise(self, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1)) if self.include_top else x


def _initialise(model: nn.Module, zero_init_residual: bool) -> None:
    """Draw convolutions so that ReLU keeps the variance of what flows back.

    Source: https://arxiv.org/abs/1502.01852, section 2.2. BatchNorm starts as PyTorch has it:
    weight 1, bias 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in model.modules():
        if zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
            last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
            nn.init.zeros_(last.weight)


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
resnext50_32x4d = partial(resnet50, groups=32, width_per_group=4)
resnext101_32x8d = partial(resnet101, groups=32, width_per_group=8)
resnext101_64x4d = partial(resnet101, groups=64, width_per_group=4)
wide_resnet50_2 = partial(resnet50, width_per_group=128)
wide_resnet101_2 = partial(resnet101, width_per_group=128)


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut, activated after or before them.

    From `(N, inputs, H, W)` to `(N, channels, H / stride, W / stride)`. Where the shape changes,
    the shortcut is "pad" (every second pixel, and zeros as new channels, half of them in front, as
    most implementations have it: option A, no parameters) or "projection" (1x1 convolution: option
    B); "none" leaves it out everywhere. Source: section 4.2; for `preactivation`
    https://arxiv.org/abs/1603.05027, figure 4e.
    """

    def __init__(
        self, inputs: int, channels: int, stride: int, *, shortcut: str, preactivation: bool = False
    ):
        super().__init__()
        self.conv1 = conv3x3(inputs, channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(inputs if preactivation else channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.plain, self.preactivation, self.stride = shortcut == "none", preactivation, stride
        self.new_channels = (channels - inputs) // 2  # on either side
        self.downsample = None
        if shortcut == "projection":
            self.downsample = projection(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.preactivation:
            residual = self.conv1(F.relu(self.bn1(x)))
            residual = self.conv2(F.relu(self.bn2(residual)))
            return residual if self.plain else residual + self.shortcut(x)
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual if self.plain else residual + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the block's input in the shape of its output."""
        if self.downsample is not None:
            return self.downsample(x)
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.new_channels, self.new_channels))


class CifarResNet(nn.Module):
    """The CIFAR family: a 3x3 stem, three stages of n blocks with 16, 32, 64 channels, a head.

    From `(N, in_channels, H, W)` to logits `(N, num_classes)`; see `cifar_resnet`.
    """

    def __init__(
        self, n: int, num_classes: int, in_channels: int, *, shortcut: str, preactivation: bool
    ):
        super().__init__()
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(64 if preactivation else 16)
        make = partial(CifarBlock, shortcut=shortcut, preactivation=preactivation)
        inputs = 16
        for stage, channels in enumerate((16, 32, 64)):
            blocks = [make(inputs, channels, 1 if stage == 0 else 2)]
            blocks += [make(channels, channels, 1) for _ in range(n - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = channels
        self.fc = nn.Linear(64, num_classes)
        self.preactivation = preactivation
        _initialise(self, zero_init_residual=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x if self.preactivation else F.relu(self.bn1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn1(x)) if self.preactivation else x
        return self.fc(x.mean((2, 3)))


def cifar_resnet(
    depth: int = 20,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    shortcut: str = "pad",
    plain: bool = False,
    preactivation: bool = False,
    weights: str | None = None,
) -> CifarResNet:
    """Return a net of `depth` = 6n + 2 layers for small pictures (20, 32, 44, 56, 110: the paper).

    `plain` leaves the shortcuts out; `shortcut` is "pad" or "projection" where the shape changes;
    `preactivation` puts BatchNorm and ReLU before the convolutions. `weights="cifar10"` loads the
    weights of a trained ResNet-20 that travel with the package; `prepared` is then the mean and the
    deviation that its pictures were normalised with. Source: section 4.2.

    Raises:
        ValueError: no such depth or shortcut, or weights that the package has not for this net.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth is {depth}; expected 6n + 2: 8, 14, 20, 26, 32, 38, 44, …, 110")
    if shortcut not in ("pad", "projection"):
        raise ValueError(f'shortcut is {shortcut!r}; expected "pad" or "projection"')
    net = CifarResNet(
        depth // 6,
        num_classes,
        in_channels,
        shortcut="none" if plain else shortcut,
        preactivation=preactivation,
    )
    options = {"shortcut": shortcut, "plain": plain, "preactivation": preactivation}
    net.built = {"name": "cifar_resnet", "depth": depth, "in_channels": in_channels, **options}
    if weights is not None:
        _load_shipped(net, f"cifar_resnet{depth}", weights)
    return net


def _load_shipped(net: CifarResNet, arch: str, data: str) -> None:
    path = shipped_file(arch, data)
    if path is None:
        raise ValueError(
            f"the package carries no weights of a {arch} for {data!r}, only those of depth 20 for "
            '"cifar10"; rk.load_weights(net, path) loads a file of your own'
        )
    state, about = read_weights(path)
    fit_weights(net, state, path.name)
    net.prepared = tuple(about["mean"]), tuple(about["std"])
    net.fc.classes = tuple(about["classes"])  # `evaluate` compares them with the data's
