"""Blocks, nets and schedules drawn from what ran, so that a drawing cannot disagree with the code.

A copy of a module runs once. `torch.fx` writes down what its `forward` does, and the shapes are
those of the tensors that came out; nothing is decided by the name of a class.
"""

import copy
import operator
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from torch import fx, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .figures import COLORS, HIGHLIGHT, REFERENCE, line_plot, new_figure

INK, GREY = "#222222", "#666666"
TINTS = {"conv": "#D6EBF8", "ReLU": "#FBE7BF", "other": "#EEEEEE"}  # pale, for dark text
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
NAMES = {"Conv": "conv", "MaxPool": "max pool", "AvgPool": "average pool", "relu": "ReLU"}
NAMES |= {"AdaptiveAvgPool": "average pool", "mean": "average", "pad": "padding"}
WIDTH = 9.6  # inches of a net: a notebook has room for them

Shape = Sequence[int]  # without the batch: (channels, height, width), or (features,)
Modules = nn.Module | Mapping[str, nn.Module]


# What ran


class Step(NamedTuple):
    """One operation as it ran, with the shapes around it; an addition has two branches.

    `module` is None of a function. A shortcut without steps is the identity.
    """

    node: fx.Node
    module: nn.Module | None
    parameters: Sequence[nn.Parameter]
    before: Shape
    after: Shape
    main: Sequence["Step"] = ()
    shortcut: Sequence["Step"] = ()


class _Recorder(fx.Interpreter):
    """Runs a graph and notes at each node the steps that led to it from the input."""

    def run_node(self, node: fx.Node):
        result = super().run_node(node)
        if isinstance(result, tuple | list) and any(torch.is_tensor(part) for part in result):
            raise ValueError(f"{node.name!r} gives several tensors")
        if torch.is_tensor(result):
            node.meta["steps"] = self.steps(node, tuple(result.shape[1:]))
        return result

    def steps(self, node: fx.Node, after: Shape) -> list[Step]:
        """Return the steps to a node; where two paths are added, what they share and an addition.

        Raises:
            ValueError: several tensors that come from the input meet in another way.
        """
        paths = [n.meta["steps"] for n in node.all_input_nodes if n.meta.get("steps")]
        if not paths:  # the input, or a parameter
            return [Step(node, None, (), after, after)] if node.op == "placeholder" else []
        if len(paths) == 1:
            module = self.fetch_attr(node.target) if node.op == "call_module" else None
            given = [self.env[n] for n in node.all_input_nodes if n.op == "get_attr"]
            own = [*module.parameters()] if module is not None else given
            return [*paths[0], Step(node, module, own, paths[0][-1].after, after)]
        shared = [step for step, other in zip(*paths[:2], strict=False) if step is other]
        shortcut, main = sorted((path[len(shared) :] for path in paths[:2]), key=_work)
        if node.target not in ADDITIONS or len(paths) > 2 or any(s.main for s in main + shortcut):
            raise ValueError(f"{node.name!r} brings {len(paths)} paths together")
        shortcut = [step for step in shortcut if not _does_nothing(step)]
        return [*shared, Step(node, None, (), shared[-1].after, after, main, shortcut)]


def _trace(title: str, module: nn.Module, shape: Shape) -> list[Step]:
    """Run a module on one input of this shape; return the input and what was done to it."""
    try:
        runner = _Recorder(fx.symbolic_trace(module))
        runner.extra_traceback = False
        with torch.no_grad(), torch.random.fork_rng([]):
            runner.run(torch.zeros(1, *shape, dtype=torch.float32, device="cpu"))
        return list(runner.graph.nodes)[-1].meta["steps"][:-1]  # without the output's own
    except Exception as error:
        raise ValueError(
            f"{title} cannot be drawn with an input {shape}: {error}; expected a module that gives "
            "one tensor for one: a path of layers with added shortcuts, the same for all values"
        ) from error


def _work(branch: list[Step]) -> tuple[int, int]:
    """Tell the main branch: it has more convolutions, or as many and more of anything."""
    return sum(isinstance(step.module, nn.Conv2d) for step in branch), len(branch)


def _does_nothing(step: Step) -> bool:
    """Say whether it is a slice or a padding that keeps the shape, as in a block of stride 1."""
    return step.before == step.after and _name(step) in ("getitem", "padding")


def _parameters(units: Sequence[Sequence[Step]], *, learning: bool = False) -> int:
    """Count the parameters of what ran, each once; all of them, or those that learn."""
    ran = [one for unit in units for step in unit for one in (step, *step.main, *step.shortcut)]
    found = {p for step in ran for p in step.parameters if p.requires_grad or not learning}
    return sum(p.numel() for p in found)


def _is_frozen(units: Sequence[Sequence[Step]]) -> bool:
    """Say whether what ran has parameters, and none of them learns."""
    return _parameters(units) > 0 and _parameters(units, learning=True) == 0


def _by_title(given: Modules, shapes) -> dict[str, tuple[nn.Module, Shape]]:
    """Return copies `{title: (module, shape)}` of what was given, ready to run; or refuse it."""
    modules = given if isinstance(given, Mapping) and given else {type(given).__name__: given}
    shapes = shapes if isinstance(shapes, Mapping) else dict.fromkeys(modules, shapes)
    copies = {}
    for title, module in modules.items():
        shape = shapes.get(title)
        if not isinstance(module, nn.Module):
            raise ValueError(f"{title} is {module!r}; expected a torch.nn.Module, or some by title")
        if not isinstance(shape, Sequence) or [type(side) for side in shape] != [int] * 3:
            raise ValueError(f"{title}: input_shape {shape!r}; expected (channels, height, width)")
        copies[title] = copy.deepcopy(module).cpu().float().eval(), tuple(shape)
    return copies


# What it is called


def _name(step: Step) -> str:
    named = step.node.target if step.module is None else type(step.module)
    name = getattr(named, "__name__", str(named)).removesuffix("2d").strip("_")
    return NAMES.get(name, name)


def _words(step: Step) -> list[str]:
    """Return what a step does, in one line or with its channels in a second one."""
    module, name = step.module, _name(step)
    channels = " → ".join(str(shape[0]) for shape in (step.before, step.after))
    if step.node.op == "placeholder":
        return [f"input {_size(step.after)}"]
    if hasattr(module, "kernel_size"):
        kernel, stride = np.broadcast_to(module.kernel_size, 2), np.max(module.stride)
        name = f"{kernel[0]}×{kernel[1]} {name}" + (f", stride {stride}" if stride > 1 else "")
    if isinstance(module, nn.Conv2d):
        channels += f", {module.groups} groups" if module.groups > 1 else ""
        name += f", dilation {module.dilation[0]}" if max(module.dilation) > 1 else ""
    if isinstance(module, nn.Conv2d) or name == "padding":
        return [name, channels]
    if name == "getitem":
        return [f"slice, stride {round(step.before[-1] / step.after[-1])}"]
    return [f"linear {channels}" if isinstance(module, nn.Linear) else name]


def _size(shape: Shape) -> str:
    return " × ".join(map(str, shape))


# How a block is drawn: in inches, downwards from 0


def draw_block(block: Modules, input_shape: Shape | Mapping[str, Shape]) -> Figure:
    """Draw what a residual block does to an input of `input_shape`, from top to bottom.

    Boxes name the kernel, the stride and the channels; beside the arrows stand the shapes
    (channels × height × width) that came out when the block ran. The green curve is the shortcut,
    dashed where it changes the shape, up to the addition; a block that adds nothing has neither.

    Args:
        block: a module whose `forward` is one path of layers, with shortcuts that are added to it;
            or `{title: module}`: they stand side by side in one scale, up to three to a page.
        input_shape: (channels, height, width), or `{title: shape}` where they differ.

    A copy runs, in eval mode on the CPU; the block is left as it was. Source of the picture:
    figures 2 and 5 of https://arxiv.org/abs/1512.03385.

    Raises:
        ValueError: a block does not run on such an input, or does something else than this.

    >>> draw_block(torchvision.models.resnet18().layer2[0], (64, 56, 56))
    """
    axes = new_figure(WIDTH, 1).add_axes((0, 0, 1, 1))
    left, ends = 0.1, []
    for title, (module, shape) in _by_title(block, input_shape).items():
        start, *steps = _trace(title, module, shape)
        x = left + 0.95
        forks = bool(steps) and bool(steps[0].main)
        _text(axes, x, -0.08, title, size=11)
        _text(axes, x, -0.44, f"{_parameters([steps]):,} parameters\n\n{_words(start)[0]}", GREY)
        y = -0.68 if forks else _arrow(axes, x, -0.68, 0.12, "-")  # the first boxes are level
        y = _arrow(axes, x, _draw_steps(axes, x, y, steps), 0.2)
        _text(axes, x, y - 0.08, f"output {_size([start, *steps][-1].after)}", GREY)
        ends.append(y - 0.2)
        left = x + 2 * max((_reach(step) for step in steps if step.main), default=0.95) - 0.85
    return _finished(axes, left, min(ends))


def _finished(axes, width: float, bottom: float) -> Figure:
    """Let the axes fill the figure, and give it the size of what was drawn, in inches."""
    axes.set(frame_on=False, xticks=[], yticks=[], xlim=(0, width), ylim=(bottom - 0.1, 0.1))
    axes.figure.set(size_inches=(width, 0.2 - bottom), layout_engine="none")
    return axes.figure


def _draw_steps(axes, x: float, y: float, steps: Sequence[Step]) -> float:
    """Draw steps below each other, the first below y; return where the last one ends."""
    for step in steps:
        y = _draw_addition(axes, x, y, step) if step.main else _draw_layer(axes, x, y, step)
    return y


def _draw_layer(axes, x: float, y: float, step: Step) -> float:
    words, y = _words(step), _arrow(axes, x, y, 0.15)
    is_short = len(words) == 1 and len(words[0]) < 14
    height, width = 0.06 + 0.17 * len(words), 1.1 if is_short else 1.7
    kind = "conv" if len(words) > 1 else words[0]
    color = TINTS.get(kind, TINTS["other"])
    corner, style = (x - width / 2, y - height), "round,pad=0,rounding_size=0.05"
    axes.add_patch(FancyBboxPatch(corner, width, height, style, fc=color, ec=GREY, lw=0.8))
    _text(axes, x, y - height / 2, "\n".join(words))
    if len(words) == 1:
        return y - height
    _text(axes, x - 0.08, y - height - 0.145, _size(step.after), GREY, ha="right")
    return _arrow(axes, x, y - height, 0.12, "-")


def _draw_addition(axes, x: float, y: float, addition: Step) -> float:
    """Draw the main branch, its circle, and the shortcut as a curve on the right of them."""
    fork, side = _arrow(axes, x, y, 0.12, "-"), x + _reach(addition)
    radius, bend = 0.12, 0.45
    middle = _arrow(axes, x, _draw_steps(axes, x, fork, addition.main), 0.18) - radius
    axes.add_patch(Circle((x, middle), radius, fc="white", ec=INK))
    axes.text(x, middle, "+", ha="center", va="center_baseline", fontsize=12)
    corners = [(x, fork), (side - bend, fork), (side, fork), (side, fork - bend)]
    corners += [(side, middle + bend), (side, middle), (side - bend, middle), (x + radius, middle)]
    codes = [Path.MOVETO, *[Path.LINETO, Path.CURVE3, Path.CURVE3] * 2, Path.LINETO]
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": HIGHLIGHT, "fill": False, "lw": 1.6}
    dashes = (0, (4, 2)) if addition.before != addition.after else "solid"
    axes.add_patch(FancyArrowPatch(path=Path(corners, codes), ls=dashes, **style))
    frame = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": HIGHLIGHT, "lw": 0.8}
    _text(axes, side, (fork + middle) / 2, "\n".join(_shortcut(addition)), bbox=frame)
    return middle - radius


def _shortcut(addition: Step) -> list[str]:
    """Return what the shortcut is, line by line."""
    return [line for step in addition.shortcut for line in _words(step)] or ["identity"]


def _reach(addition: Step) -> float:
    """Return how far on the right the shortcut runs, so that its label is beside the boxes."""
    return 1.05 + 0.033 * max(map(len, _shortcut(addition)))


def _text(axes, x, y, text, color=INK, size=8.5, ha="center", va="center", bbox=None) -> None:
    axes.text(x, y, text, color=color, fontsize=size, ha=ha, va=va, bbox=bbox)


def _arrow(axes, x: float, y: float, length: float, head="-|>") -> float:
    """Draw an arrow downwards; return where it ends."""
    style = {"arrowstyle": head, "mutation_scale": 8, "color": GREY, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch((x, y), (x, y - length), **style))
    return y - length


# How a net is drawn: a strip of parts from left to right


def draw_net(model: Modules, input_shape: Shape | Mapping[str, Shape]) -> Figure:
    """Draw a residual net as a strip: its stem, its stages with a box per block, its head.

    The higher a box, the larger the map that came out; the wider, the more channels (square roots
    of both). An arc above a block is its shortcut, dashed where it changes the shape; a plain net
    has none. Below stand the last shape (channels × height × width) and the parameters. What is
    frozen (it has parameters, and none asks for a gradient) is hatched.

    Args:
        model: a net whose stages are `nn.Sequential`s of blocks, as all of ours and torchvision's
            ResNets are; or `{title: net}`: they are drawn below each other.
        input_shape: (channels, height, width), or `{title: shape}` where they differ.

    A copy runs, in eval mode on the CPU; the net is left as it was.

    Raises:
        ValueError: a net does not run on such an input, or has no such stages.

    >>> draw_net(torchvision.models.resnet50(), (3, 224, 224))
    """
    nets = {title: _parts(title, *given) for title, given in _by_title(model, input_shape).items()}
    axes = new_figure(WIDTH, 1).add_axes((0, 0, 1, 1))
    wide, y = 0.03, 0.0
    while max(sum(_columns(net, wide)) for net in nets.values()) > WIDTH and wide > 0.001:
        wide *= 0.95
    tall = 1.5 / max(_sides(net["stem"][0])[1] for net in nets.values())
    for title, net in nets.items():
        y = _draw_strip(axes, y, title, net, wide, tall)
    return _finished(axes, WIDTH, y)


def _parts(title: str, model: nn.Module, shape: Shape) -> dict[str, list[list[Step]]]:
    """Run a net; return, by the names of its parts, the steps of each block, or layer, in it."""
    parts, unit, steps = [], "", _trace(title, model, shape)
    for stage, group in groupby(steps, lambda step: _block(step)[0].rpartition(".")[0]):
        parts.append((stage or ("head" if parts else "stem"), {}))
        for step in group:
            if stage or len(_words(step)) > 1 or np.prod(step.before) != np.prod(step.after):
                unit = _block(step)[0] or step.node.name
            parts[-1][1].setdefault(unit, []).append(step)
    names = [name for name, _ in parts]
    if len(names) < 2 or len(set(names)) < len(names) or "head" in names[:-1]:
        raise ValueError(
            f"{title} falls into {names}; expected a stem, Sequentials of blocks and a head"
        )
    return {name: list(units.values()) for name, units in parts}


def _block(step: Step) -> tuple[str, str]:
    """Return path and class of the block that a step ran in: one's own module in a Sequential."""
    for path, kind in step.node.meta.get("nn_module_stack", {}).values():
        if path.rpartition(".")[2].isdigit() and not kind.__module__.startswith("torch."):
            return path, kind.__name__
    return "", ""


def _sides(unit: list[Step]) -> tuple[float, float]:
    """Return how wide and how high a map is drawn; a vector is as high as one pixel."""
    channels, height, *_ = *unit[-1].after, 1
    return np.sqrt(channels), np.sqrt(height)


def _columns(net: dict[str, list[list[Step]]], wide: float) -> list[float]:
    """Return the widths of the parts, with room for what is written below them."""
    return [max(1.4, 0.2 + wide * sum(_sides(unit)[0] for unit in part)) for part in net.values()]


def _caption(units: list[list[Step]]) -> list[str]:
    """Return what came out of a part, its parameters, and what is in it."""
    kinds = [_block(unit[0])[1] or _words(unit[0])[0].replace("stride ", "/") for unit in units]
    words = [f"{kinds.count(k)} × {k}" if kinds.count(k) > 1 else k for k in dict.fromkeys(kinds)]
    state = "frozen" if _is_frozen(units) else "parameters"
    return [_size(units[-1][-1].after), f"{_parameters(units):,} {state}", *words]


def _draw_strip(axes, y: float, title: str, net: dict, wide: float, tall: float) -> float:
    """Draw one net below y; return where it ends."""
    every = [unit for units in net.values() for unit in units]
    count, learning = _parameters(every), _parameters(every, learning=True)
    some = f", {learning:,} of them learn; hatched: frozen" if learning < count else ""
    _text(axes, 0.15, y - 0.08, f"{title}: {count:,} parameters{some}", size=11, ha="left")
    columns = np.array(_columns(net, wide))
    columns += (WIDTH - columns.sum()) / len(columns)  # spread over the page
    middle, left, rows = y - 1.3, 0.0, 0
    axes.plot([columns[0] / 2, WIDTH - columns[-1] / 2], [middle] * 2, color=GREY, lw=1, zorder=0)
    for (name, units), column in zip(net.items(), columns, strict=True):
        x, left, caption = left + column / 2, left + column, _caption(units)
        _draw_maps(axes, x, middle, units, wide, tall)
        _text(axes, x, middle - 0.95, name, size=10)
        _text(axes, x, middle - 1.08, "\n".join(caption), size=8, va="top")
        rows = max(rows, len(caption))
    return middle - 1.2 - 0.16 * rows


def _draw_maps(axes, x: float, middle: float, units: list, wide: float, tall: float) -> None:
    """Draw maps beside each other, centred on x, and an arc above each that has a shortcut."""
    left = x - wide * sum(_sides(unit)[0] for unit in units) / 2
    for unit in units:
        width, height = wide * _sides(unit)[0], tall * _sides(unit)[1]
        center, low = left + width / 2, middle - height / 2
        color = TINTS["conv" if _block(unit[0])[0] else "other"]
        style = {"fc": color, "ec": GREY, "hatch": "/////" if _is_frozen([unit]) else None}
        axes.bar(center, height, 0.85 * width, low, **style, lw=0.7, snap=False)
        for addition in [step for step in unit if step.main]:
            dashes = (0, (2.5, 1.2)) if addition.before != addition.after else "solid"
            where = (center, low + height + 0.03), width, min(0.4, 2 * width)
            axes.add_patch(Arc(*where, theta2=180, ec=HIGHLIGHT, lw=1.3, ls=dashes))
        left += width


def draw_schedule(scheduler: LRScheduler, steps: int, *, unit: str = "step") -> Figure:
    """Draw the learning rate of the next `steps` steps, a line for each group that differs.

    The first value is the rate as it is now. `unit` is what `scheduler.step()` follows in your
    loop, "step" or "epoch". A copy of the schedule is stepped: scheduler and optimizer stay as
    they are.

    Raises:
        ValueError: the scheduler follows a metric (`ReduceLROnPlateau`), or ends before.

    >>> draw_schedule(torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=500), 500)
    """
    follows_loss = isinstance(scheduler, ReduceLROnPlateau)
    if not isinstance(scheduler, LRScheduler) or follows_loss or steps < 1:
        raise ValueError(
            f"scheduler is a {type(scheduler).__name__}, steps is {steps}; expected at least 1 "
            "step of a scheduler that follows its steps alone, not a loss as ReduceLROnPlateau does"
        )
    groups, title = scheduler.optimizer.param_groups, f"learning rate, {type(scheduler).__name__}"
    shared = [scheduler.optimizer.state, *(p for group in groups for p in group["params"])]
    twin = copy.deepcopy(scheduler, {id(thing): thing for thing in shared})
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the optimizer, which does not step here
        for step in range(steps):
            if step > 0:
                twin.step()
            rates.append([float(group["lr"]) for group in twin.optimizer.param_groups])
    names = {}
    for number, values in enumerate(zip(*rates, strict=True)):
        names.setdefault(values, []).append(groups[number].get("name", f"group {number + 1}"))
    names = names if len(names) > 1 else {values: ["lr"] for values in names}
    lines = {", ".join(names[values]): (range(1, steps + 1), values) for values in names}
    colors = dict(zip(lines, [HIGHLIGHT, REFERENCE, *COLORS[4:]] * len(lines), strict=False))
    return line_plot(lines, colors=colors, xlabel=unit, title=title)
