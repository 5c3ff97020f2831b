import itertools
import warnings

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.patches import Arc, Circle, FancyArrowPatch, FancyBboxPatch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import resnet_kit as rk
from resnet_kit.figures import HIGHLIGHT
from resnet_kit.models import resnets
from resnet_kit.models.resnets import BasicBlock, Bottleneck, CifarBlock

TORCHVISION_BLOCK = torchvision.models.resnet18().layer2[0]


def texts(figure) -> list[str]:
    """What is written, from top to bottom where it is one block."""
    return [text.get_text() for text in figure.axes[0].texts]


def drawn(figure, kind) -> list:
    """The patches of one kind, in the order in which they were drawn."""
    return [patch for patch in figure.axes[0].patches if isinstance(patch, kind)]


def shortcuts(figure) -> list[bool]:
    """Whether each green curve of a block is dashed."""
    curves = drawn(figure, FancyArrowPatch)
    green = [curve for curve in curves if same_color(curve.get_edgecolor(), HIGHLIGHT)]
    return [curve.get_linestyle() not in ("-", "solid") for curve in green]


def layers(figure) -> list[str]:
    """The words in the boxes, in the order in which things ran."""
    boxes = [box.get_bbox() for box in drawn(figure, FancyBboxPatch)]
    places = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    inside = lambda box, x, y: box.x0 < x < box.x1 and box.y0 < y < box.y1  # noqa: E731
    return [word for box in boxes for place, word in places.items() if inside(box, *place)]


def assert_readable(figure) -> None:
    """No text is small, touches another one or leaves the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    written = [text for axes in figure.axes for text in axes.texts]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in written]
    assert min(text.get_fontsize() for text in written) >= 8
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(figure.bbox.containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert all(figure.bbox.containsy(y) for box in boxes for y in (box.y0, box.y1))


def test_a_block_is_drawn_with_its_kernels_channels_and_traced_shapes():
    figure = rk.draw_block(BasicBlock(64, 128, stride=2), (64, 56, 48))
    assert layers(figure) == [
        "3×3 conv, stride 2\n64 → 128", "BatchNorm", "ReLU",
        "3×3 conv\n128 → 128", "BatchNorm", "ReLU",
    ]  # fmt: skip
    assert texts(figure).count("128 × 28 × 24") == 2  # behind each convolution
    assert texts(figure)[:2] == ["BasicBlock", "230,144 parameters\n\ninput 64 × 56 × 48"]
    assert texts(figure)[-1] == "output 128 × 28 × 24"


@pytest.mark.parametrize(
    ("block", "channels", "label", "dashed"),
    [
        (BasicBlock(8, 8), 8, "identity", False),
        (BasicBlock(8, 16, stride=2), 8, "1×1 conv, stride 2\n8 → 16\nBatchNorm", True),
        (Bottleneck(8, 4), 8, "1×1 conv\n8 → 16\nBatchNorm", True),
        (TORCHVISION_BLOCK, 64, "1×1 conv, stride 2\n64 → 128\nBatchNorm", True),
        (CifarBlock(8, 8, 1, shortcut="pad"), 8, "identity", False),
        (CifarBlock(8, 16, 2, shortcut="pad"), 8, "slice, stride 2\npadding\n8 → 16", True),
        (CifarBlock(8, 8, 1, shortcut="pad", preactivation=True), 8, "identity", False),
    ],
    ids=str,
)
def test_a_shortcut_is_labelled_and_dashed_where_it_changes_the_shape(
    block, channels, label, dashed
):
    figure = rk.draw_block(block, (channels, 12, 12))
    assert shortcuts(figure) == [dashed]
    assert label in texts(figure) and texts(figure).count("+") == 1
    assert len(drawn(figure, Circle)) == 1


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_plain_block_has_no_shortcut_and_no_addition(preactivation):
    block = CifarBlock(8, 16, 2, shortcut="none", preactivation=preactivation)
    figure = rk.draw_block(block, (8, 12, 12))
    assert not shortcuts(figure) and not drawn(figure, Circle) and "+" not in texts(figure)
    first = layers(figure)[0]
    assert first == ("BatchNorm" if preactivation else "3×3 conv, stride 2\n8 → 16")


def test_what_forward_leaves_out_is_not_drawn():
    class Forgetful(BasicBlock):
        def forward(self, x):
            return F.relu(self.bn1(self.conv1(x)))

    figure = rk.draw_block(Forgetful(8, 16, stride=2), (8, 12, 12))
    assert not shortcuts(figure) and not drawn(figure, Circle)
    assert layers(figure) == ["3×3 conv, stride 2\n8 → 16", "BatchNorm", "ReLU"]
    assert f"{8 * 16 * 9 + 32:,} parameters" in texts(figure)[1]  # of what ran


def test_parameters_that_are_used_twice_are_counted_once():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    figure = rk.draw_block(nn.Sequential(conv, nn.ReLU(), conv), (8, 12, 12))
    assert layers(figure) == ["3×3 conv\n8 → 8", "ReLU", "3×3 conv\n8 → 8"]
    assert texts(figure)[1].startswith(f"{8 * 8 * 9 + 8} parameters")


def test_groups_dilation_and_pools_are_named():
    block = Bottleneck(32, 16, groups=4, width_per_group=16, dilation=2)
    assert "3×3 conv, dilation 2\n16 → 16, 4 groups" in texts(rk.draw_block(block, (32, 8, 8)))
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 4, (1, 7), padding=(0, 3)))
    words = layers(rk.draw_block(pooled, (4, 8, 8)))
    assert words == ["2×2 average pool, stride 2", "1×7 conv\n4 → 4"]


def test_blocks_one_after_another_have_a_shortcut_each():
    stage = torchvision.models.resnet18().layer2
    figure = rk.draw_block(stage, (64, 8, 8))
    assert shortcuts(figure) == [True, False] and texts(figure).count("+") == 2


def test_blocks_stand_side_by_side_in_one_scale():
    blocks = {
        "basic": BasicBlock(64, 128, stride=2),
        "bottleneck": Bottleneck(256, 128, stride=2),
        "ResNeXt": Bottleneck(1024, 512, stride=2, groups=32, width_per_group=4),
    }
    shapes = {"basic": (64, 56, 56), "bottleneck": (256, 56, 56), "ResNeXt": (1024, 14, 14)}
    figure = rk.draw_block(blocks, shapes)
    assert {"basic", "bottleneck", "ResNeXt"} < set(texts(figure))
    assert {"input 64 × 56 × 56", "input 1024 × 14 × 14"} < {
        text.split("\n")[-1] for text in texts(figure)
    }
    boxes = drawn(figure, FancyBboxPatch)
    convolutions = [box for box in boxes if box.get_height() > 0.3]
    assert len(convolutions) == 2 + 3 + 3
    assert len({(box.get_width(), box.get_height()) for box in convolutions}) == 1
    assert len({box.get_y() for box in convolutions}) == 3  # the first, second and third are level
    assert 8 <= figure.get_size_inches()[0] <= 10.5
    left, bottom = figure.axes[0].transData.transform((0, figure.axes[0].get_ylim()[0]))
    right, top = figure.axes[0].transData.transform((1, figure.axes[0].get_ylim()[0] + 1))
    assert np.allclose([right - left, top - bottom], figure.dpi)  # an inch is an inch
    assert_readable(figure)


def test_the_first_boxes_of_plain_and_residual_are_level():
    blocks = {name: CifarBlock(8, 8, 1, shortcut=name) for name in ("none", "pad")}
    boxes = drawn(rk.draw_block(blocks, (8, 12, 12)), FancyBboxPatch)
    plain, residual = boxes[:6], boxes[6:]
    assert np.isclose(plain[0].get_y(), residual[0].get_y())


def blocks_of(figure, stage: str) -> int:
    (caption,) = [
        after.get_text()
        for name, after in itertools.pairwise(figure.axes[0].texts)
        if name.get_text() == stage
    ]
    number, _, _ = caption.split("\n")[2].partition(" × ")
    return int(number)


def parameters_of(figure) -> list[int]:
    captions = [text for text in texts(figure) if "\n" in text]
    return [int(text.split("\n")[1].split()[0].replace(",", "")) for text in captions]


NETS = {
    "resnet18": (torchvision.models.resnet18, (2, 2, 2, 2)),
    "resnet50": (torchvision.models.resnet50, (3, 4, 6, 3)),
    "resnet152": (torchvision.models.resnet152, (3, 8, 36, 3)),
    "ResNeXt": (torchvision.models.resnext50_32x4d, (3, 4, 6, 3)),
    "ours, wide": (resnets.wide_resnet50_2, (3, 4, 6, 3)),
    "without top": (lambda: resnets.resnet34(include_top=False), (3, 4, 6, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_drawn_with_its_blocks_and_the_parameters_of_each_part(name):
    make, counts = NETS[name]
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")  # no time spent on random weights
    figure = rk.draw_net(model, (3, 32, 32))
    assert tuple(blocks_of(figure, f"layer{k}") for k in (1, 2, 3, 4)) == counts
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameters_of(figure)) == total
    assert texts(figure)[0] == f"{type(model).__name__}: {total:,} parameters"
    layer3 = sum(parameter.numel() for parameter in model.layer3.parameters())
    assert layer3 in parameters_of(figure)
    arcs = [arc.get_linestyle() not in ("-", "solid") for arc in drawn(figure, Arc)]
    first = np.cumsum((0, *counts[:-1])).tolist()
    wider = [0] if model.layer1[0].downsample is not None else []
    assert len(arcs) == sum(counts)
    assert [place for place, dashed in enumerate(arcs) if dashed] == wider + first[1:]
    assert_readable(figure)


def test_maps_shrink_and_channels_grow():
    figure = rk.draw_net(torchvision.models.resnet18(), (3, 64, 64))
    boxes = [(bar.get_height(), bar.get_width()) for bar in figure.axes[0].patches[:]
             if type(bar).__name__ == "Rectangle"]  # fmt: skip
    heights, widths = np.array(boxes).T
    sides = np.array([64, 32, 16, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1])
    channels = np.array([3, 64, 64, 64, 64, 128, 128, 256, 256, 512, 512, 512, 1000])
    assert np.allclose(heights / heights[0], np.sqrt(sides / 64))
    assert np.allclose(widths / widths[0], np.sqrt(channels / 3))
    captions = [text for text in texts(figure) if "\n" in text]
    assert captions[0].split("\n") == [
        "64 × 16 × 16", "9,536 parameters", "input 3 × 64 × 64", "7×7 conv, /2", "3×3 max pool, /2",
    ]  # fmt: skip
    assert captions[-1].split("\n") == [
        "1000", "513,000 parameters", "average pool", "linear 512 → 1000",
    ]  # fmt: skip


def test_what_is_frozen_is_hatched_and_said():
    model = torchvision.models.resnet18(num_classes=4)
    rk.freeze(model)
    rk.unfreeze(model, "layer4.1", "fc")
    figure = rk.draw_net(model, (3, 64, 64))
    boxes = [bar for bar in figure.axes[0].patches if type(bar).__name__ == "Rectangle"]
    hatched = [bool(bar.get_hatch()) for bar in boxes]
    # input, convolution and pool; eight blocks, the last of which learns; average and head
    assert hatched == [False, True, False, *[True] * 7, False, False, False]
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{learning:,} of them learn; hatched: frozen" in texts(figure)[0]
    states = [text.split("\n")[1].split()[1] for text in texts(figure) if "\n" in text]
    assert states == ["frozen", "frozen", "frozen", "frozen", "parameters", "parameters"]
    assert_readable(figure)


def test_a_plain_net_has_no_arcs_and_nets_stand_below_each_other():
    nets = {"residual": rk.cifar_resnet(20), "plain": rk.cifar_resnet(20, plain=True)}
    figure = rk.draw_net(nets, (3, 32, 32))
    arcs = drawn(figure, Arc)
    assert [arc.get_linestyle() != "solid" for arc in arcs] == [
        False, False, False, True, False, False, True, False, False,
    ]  # fmt: skip
    places = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    plain = places["plain: 269,722 parameters"]
    assert places["residual: 269,722 parameters"] > min(arc.center[1] for arc in arcs) > plain
    assert_readable(figure)
    deep = rk.draw_net(rk.cifar_resnet(110, preactivation=True), (3, 32, 32))
    assert len(drawn(deep, Arc)) == 54 and "BatchNorm" in texts(deep)[-1]
    assert_readable(deep)


class Noisy(BasicBlock):
    """Draws random numbers in eval mode too."""

    def forward(self, x):
        return F.dropout(super().forward(x))


def test_model_modes_and_random_numbers_are_left_alone():
    model, noisy = resnets.resnet18(num_classes=5).train(), Noisy(8, 8)
    model.layer1.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    rk.draw_net(model, (3, 32, 32))  # layer4 gives one pixel: BatchNorm would refuse to train on it
    rk.draw_block(model.layer2[0], (64, 16, 16))
    rk.draw_block(noisy, (8, 12, 12))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Gated(nn.Module):
    """Two paths that are multiplied."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * x


def net(**stages: int) -> nn.Module:
    """Rows of this many blocks after each other, a pool where it is none; no head."""
    rows = {name: [BasicBlock(4, 4) for _ in range(count)] for name, count in stages.items()}
    model = nn.Sequential()
    for name, row in rows.items():
        model.add_module(name, nn.Sequential(*row) if row else nn.MaxPool2d(2))
    return model


class Halved(nn.Module):
    """Adds two halves of its channels."""

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return first + second


class Nested(nn.Module):
    """A shortcut around a shortcut."""

    def __init__(self):
        super().__init__()
        self.inner = BasicBlock(4, 4)

    def forward(self, x):
        return x + self.inner(x)


class Undecided(nn.Module):
    """Takes another path for some values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: rk.draw_block(Gated(), (4, 8, 8)), "Gated cannot .* 'mul' brings 2 paths"),
        (lambda: rk.draw_block(Halved(), (4, 8, 8)), "Halved cannot .* gives several tensors"),
        (lambda: rk.draw_block(Nested(), (4, 8, 8)), "Nested cannot .* 'add_1' brings 2 paths"),
        (lambda: rk.draw_block(Undecided(), (4, 8, 8)), "Undecided cannot .* control flow"),
        (lambda: rk.draw_block({"a": BasicBlock(8, 8)}, (4, 8, 8)), r"a cannot .*\(4, 8, 8\)"),
        (lambda: rk.draw_block(BasicBlock(8, 8), (1, 8, 8, 8)), r"\(1, 8, 8, 8\); expected \(ch"),
        (lambda: rk.draw_block(BasicBlock(8, 8), 8), r"input_shape 8; expected \(channels"),
        (lambda: rk.draw_block({"a": BasicBlock(8, 8)}, {"b": (8, 8, 8)}), "a: input_shape None"),
        (lambda: rk.draw_block("resnet18", (8, 8, 8)), "str is 'resnet18'; expected a torch.nn"),
        (lambda: rk.draw_block({}, (8, 8, 8)), "dict is {}; expected a torch.nn"),
        (lambda: rk.draw_net(BasicBlock(8, 8), (8, 8, 8)), "BasicBlock falls into .'stem'.; exp"),
        (lambda: rk.draw_net(nn.Conv2d(3, 4, 3), (3, 8, 8)), "Conv2d falls into .'stem'.; exp"),
        (
            lambda: rk.draw_net(net(layer1=2, pool=0, layer2=2), (4, 8, 8)),
            "'layer1', 'head', 'layer2'.; expected a stem, Sequentials of blocks and a head",
        ),
        (lambda: rk.draw_net(net(stem=1, layer1=2), (4, 8, 8)), "'stem', 'stem', 'layer1'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def optimizer_of(*groups: dict) -> torch.optim.Optimizer:
    parameters = [{"params": [nn.Parameter(torch.zeros(2))], **group} for group in groups]
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


SCHEDULES = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.01], total_steps=12),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda k: 0.9**k, lambda k: 1.0]),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.ExponentialLR(o, 0.8)], [4]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.MultiStepLR(o, [5, 8])]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_what_training_would_step_through(name):
    optimizer = optimizer_of({"lr": 0.1}, {"lr": 0.02})
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()  # so that it has a state
    scheduler = SCHEDULES[name](optimizer)
    before = [str(optimizer.state_dict()), str(scheduler.state_dict())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = rk.draw_schedule(scheduler, 12, unit="epoch")
    assert [str(optimizer.state_dict()), str(scheduler.state_dict())] == before
    stepped = []
    for step in range(12):
        stepped.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if step < 11:
            scheduler.step()
    lines = [np.array(line.get_ydata()) for line in figure.axes[0].lines]
    expected = np.unique(np.array(stepped).T, axis=0)[::-1]  # groups that are the same: one line
    assert np.allclose(sorted(map(list, lines)), sorted(map(list, expected)))
    assert list(figure.axes[0].lines[0].get_xdata()) == list(range(1, 13))
    assert figure.axes[0].get_xlabel() == "epoch"
    assert figure.axes[0].get_title(loc="left") == f"learning rate, {name}"


def test_a_schedule_goes_on_from_where_it_is():
    scheduler = lr_scheduler.StepLR(optimizer_of({}), 3)
    scheduler.optimizer.step()
    scheduler.step()
    (line,) = rk.draw_schedule(scheduler, 3).axes[0].lines
    assert np.allclose(line.get_ydata(), [0.1, 0.1, 0.01]) and scheduler.last_epoch == 1


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([{"name": "head"}, {"name": "backbone", "lr": 0.01}], ["head", "backbone"]),
        ([{}, {"lr": 0.01}, {"lr": 0.01}], ["group 1", "group 2, group 3"]),
        ([{}, {}], ["lr"]),
    ],
)
def test_groups_have_a_line_each_where_they_differ(groups, names):
    figure = rk.draw_schedule(lr_scheduler.StepLR(optimizer_of(*groups), 3), 9)
    assert texts(figure) == names and len(figure.axes[0].lines) == len(names)


def test_schedules_that_nobody_can_know_are_refused():
    optimizer = optimizer_of({})
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="a ReduceLROnPlateau, .* not a loss as"):
        rk.draw_schedule(plateau, 10)
    with pytest.raises(ValueError, match="scheduler is a float, steps is 10; expected"):
        rk.draw_schedule(0.1, 10)
    with pytest.raises(ValueError, match="steps is 0; expected at least 1 step"):
        rk.draw_schedule(lr_scheduler.StepLR(optimizer, 3), 0)
    with pytest.raises(ValueError, match="number of total steps is 5"):
        rk.draw_schedule(lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5), 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25)
