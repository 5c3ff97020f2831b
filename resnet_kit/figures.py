"""One look for every plot; takes plain arrays and names, returns `matplotlib.figure.Figure`."""

import functools
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Okabe and Ito's palette, told apart with every kind of colour vision; line style says it again.
TRAIN, VAL, HIGHLIGHT, REFERENCE = "#0072B2", "#D55E00", "#009E73", "#999999"
COLORS = (TRAIN, VAL, HIGHLIGHT, REFERENCE, "#CC79A7", "#56B4E9", "#E69F00")
UNLIKE = "#8E3A80"  # titles of pictures that are unlike the training pictures
MOST_NAMES = 30  # that a figure has room for
MOST_MARKERS = 12  # on a line; beyond, the line alone shows the points between them
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 10,
    "lines.markersize": 4,
}


def use_style() -> None:
    """Make `STYLE` matplotlib's default in this session, for one's own plots too."""
    rcParams.update(STYLE)


class Plot(Figure):
    """A figure that notebooks show as PNG by itself: made without pyplot, it is shown only once."""

    def _repr_png_(self) -> bytes:
        return self._encoded("png")

    def _encoded(self, kind: str) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format=kind)
        return buffer.getvalue()


class Pictures(Plot):
    """A figure of photographs, shown as JPEG: a fifth of the size in a saved notebook."""

    _repr_png_ = None

    def _repr_jpeg_(self) -> bytes:
        return self._encoded("jpeg")


def styled(draw):
    """Make a function draw in `STYLE`, and leave the defaults of one's own plots alone."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float, kind: type[Figure] = Plot) -> Figure:
    """Return an empty figure of this size in inches."""
    return kind(figsize=(width, height), dpi=STYLE["figure.dpi"], layout="constrained")


@styled
def training_curves(rows: Sequence[dict], best_epoch: int | None = None) -> Figure:
    """Draw loss and accuracy per epoch, train dashed, val solid, the best epoch marked.

    Each row holds `epoch, train_loss, val_loss, train_accuracy, val_accuracy`. A val loss that is
    many times the others, as before BatchNorm's statistics have settled, leaves the plot at its
    top, and the title says so.
    """
    figure = new_figure(9, 3.2)
    every = -(-len(rows) // MOST_MARKERS)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        epochs = [row["epoch"] for row in rows]
        lines = {split: [row[f"{split}_{name}"] for row in rows] for split in ("train", "val")}
        axes.plot(epochs, lines["train"], "o--", color=TRAIN, markevery=every)
        axes.plot(epochs, lines["val"], "o-", color=VAL, markevery=every)
        if name == "accuracy":
            values = [*lines["train"], *lines["val"]]
            axes.set_ylim(max(0, min(values) - 0.08), min(1.02, max(values) + 0.08))
        title, top = name, 1.5 * max(*lines["train"], lines["val"][-1], np.median(lines["val"]))
        if name == "loss" and max(lines["val"]) > 2 * top:
            axes.set_ylim(0, top)
            title = f"loss; val up to {max(lines['val']):.0f}, beyond the top"
        ends = {split: (epochs[-1], values[-1]) for split, values in lines.items()}
        _label_ends(axes, ends, {"train": TRAIN, "val": VAL})
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
            _mark_best(axes, rows, best_epoch)
    return figure


def _label_ends(axes, ends: Mapping[str, tuple[float, float]], colors: Mapping[str, str]) -> None:
    """Write each line's name beside its end, one above the other where the ends are close."""
    axes.get_ylim()  # settles the limits
    gap = 14 / (axes.bbox.height * 72 / axes.figure.dpi)
    to_axes = axes.transScale + axes.transLimits
    x, y = ({name: to_axes.transform(end)[k] for name, end in ends.items()} for k in (0, 1))
    order = sorted(ends, key=y.get)
    for index, name in enumerate(order):
        below = [y[other] + gap for other in order[:index] if abs(x[other] - x[name]) < 0.15]
        y[name] = max([y[name], *below])
    for index, name in reversed([*enumerate(order)]):  # a heap that is too high moves down
        above = [y[other] - gap for other in order[index + 1 :] if abs(x[other] - x[name]) < 0.15]
        y[name] = min([y[name], 1.0, *above])
    for name, end in ends.items():
        moved = abs(y[name] - to_axes.transform(end)[1]) > gap / 2
        leader = {"arrowstyle": "-", "color": colors[name], "relpos": (0, 0.5), "linewidth": 0.7}
        axes.annotate(
            name,
            end,
            (x[name] + (0.05 if moved else 0.02), y[name]),
            textcoords="axes fraction",
            va="center",
            color=colors[name],
            path_effects=[withStroke(linewidth=3, foreground="white")],  # over other lines
            arrowprops=leader if moved else None,
            annotation_clip=False,
        )


def _mark_best(axes, rows: Sequence[dict], best_epoch: int | None) -> None:
    for row in rows:
        if row["epoch"] == best_epoch:
            best = row["val_accuracy"]
            axes.plot(best_epoch, best, "o", markersize=9, fillstyle="none", color=HIGHLIGHT)
            axes.set_title(f"accuracy, best val {best:.1%} in epoch {best_epoch}")


@styled
def confusion_matrix(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw counts `(K, K)`, rows actual and columns predicted, shaded by share of the row.

    Of more than `MOST_NAMES` classes only the shades are drawn, and some of the names.
    """
    count = len(classes)
    few = count <= MOST_NAMES
    figure = new_figure(1.6 + 0.62 * count, 1.2 + 0.5 * count) if few else new_figure(9, 8)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if few:
        _write_counts(axes, matrix, shares)
    named = range(0, count, -(-count // MOST_NAMES))
    axes.set_xticks(named, [classes[place] for place in named])
    if max(map(len, classes)) > 7 or not few:  # wider than a column
        axes.tick_params("x", rotation=30 if few else 90)
    axes.set_yticks(named, [classes[place] for place in named])
    axes.set(xlabel="predicted", ylabel="actual")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _write_counts(axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    """Write each count into its cell: white on dark, grey where it is zero."""
    for (row, column), number in np.ndenumerate(matrix):
        color = "black" if number else REFERENCE
        color = "white" if shares[row, column] > 0.6 else color
        axes.text(column, row, f"{number}", ha="center", va="center", color=color)


@styled
def line_plot(
    lines: Mapping[str, tuple[Sequence, Sequence]],
    *,
    colors: Mapping[str, str] | None = None,
    xlabel: str,
    title: str,
    level: float | None = None,
    log: str = "",
) -> Figure:
    """Draw `{name: (x, y)}`, the names beside the ends of the lines and `level` as a grey line.

    `log` names the logarithmic axes: "", "x", "y" or "xy".
    """
    colors = colors or dict(zip(lines, cycle(COLORS), strict=False))
    figure = new_figure(6.5, 2.8 if len(lines) < 4 else 3.6)
    axes = figure.subplots()
    axes.set(xlabel=xlabel, title=title)
    for name in log:
        getattr(axes, f"set_{name}scale")("log")
    if level is not None:
        axes.axhline(level, color=REFERENCE, linewidth=1)
    few = all(len(x) <= 20 for x, _ in lines.values())
    for name, (x, y) in lines.items():
        axes.plot(x, y, "o-" if few else "-", color=colors[name])
    counts = sorted({value for x, _ in lines.values() for value in x})
    if all(isinstance(value, int) for value in counts):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if "x" in log:  # a few counts: those themselves
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.set_xticks([], minor=True)
    _label_ends(axes, {name: (x[-1], y[-1]) for name, (x, y) in lines.items()}, colors)
    return figure


@styled
def bars(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Figure:
    """Draw counts `{group: {name: count}}` as horizontal bars, the groups of a name together.

    Of more than `MOST_NAMES` names those with the fewest and the most are drawn.
    """
    names = list(dict.fromkeys(name for group in counts.values() for name in group))
    if len(names) > MOST_NAMES:
        half = MOST_NAMES // 2
        names.sort(key=lambda name: sum(group.get(name, 0) for group in counts.values()))
        title = f"{title}: of {len(names)}, the {half} with the fewest and the {half} with the most"
        names = names[:half] + names[-half:]
    figure = new_figure(6.5, 0.8 + 0.22 * len(names) * max(1, len(counts)))
    axes = figure.subplots()
    height = 0.8 / max(1, len(counts))
    for place, (group, color) in enumerate(zip(counts, cycle(COLORS), strict=False)):
        values = [counts[group].get(name, 0) for name in names]
        rows = [row + place * height for row in range(len(names))]
        drawn = axes.barh(rows, values, height * 0.9, color=color, label=group)
        axes.bar_label(drawn, padding=3, fontsize=8)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    if len(counts) > 1:
        figure.legend(frameon=False, loc="outside right upper")
    return figure


@styled
def score_plot(
    scores: Mapping[str, tuple[float, float, float]],
    *,
    highlight: Sequence[str] = (),
    xlabel: str = "accuracy, 95 % interval",
) -> Figure:
    """Draw shares in 0…1, `{name: (value, low, high)}`, as dots with intervals, the best on top."""
    names = sorted(scores, key=lambda name: scores[name][0])
    figure = new_figure(7.5, 0.75 + 0.32 * len(names))
    axes = figure.subplots()
    for place, name in enumerate(names):
        value, low, high = scores[name]
        color = HIGHLIGHT if name in highlight else VAL
        axes.plot([low, high], [place, place], "-", color=color, alpha=0.45, linewidth=3)
        axes.plot(value, place, "o", color=color)
        axes.annotate(
            f"{value:.1%}", (high, place), (6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.12)
    axes.set_xlabel(xlabel)
    return figure


@styled
def picture_grid(
    pictures: Sequence,
    titles: Sequence[str] | None = None,
    *,
    wrong: Sequence[bool] | None = None,
    unlike: Sequence[bool] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    heat: Sequence | None = None,
    columns: int = 6,
    inches: float = 1.55,
) -> Figure:
    """Draw pictures in a grid, each `inches` wide, the titles of `wrong` ones in orange.

    A picture is a tensor or array `(C, H, W)` or `(H, W, C)` with C = 1 or 3, or `(H, W)`; uint8,
    or float in 0…1. Normalised pictures need `mean` and `std`: they are denormalised and clipped.
    `heat` are maps `(H, W)` in 0…1, as `grad_cam` returns. Beside each picture it is drawn again
    with its map: the warmer a place, the more. The titles of `unlike` ones, which are unlike the
    training pictures, are purple. Without any picture there is a ValueError.
    """
    if not len(pictures):
        raise ValueError("no pictures to draw; expected at least one")
    places = 1 if heat is None else 2  # of a picture: without and with its map
    columns = min(max(1, columns // places), len(pictures)) * places
    rows = -(-len(pictures) * places // columns)
    lines = max(str(title).count("\n") + 1 for title in titles) if titles is not None else 0
    height = inches + (0.1 + 0.15 * lines if lines else 0)
    figure = new_figure(inches * columns, height * rows, Pictures)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for index, picture in enumerate(pictures):
        axes = grid[index * places]
        shown = _displayable(picture, mean, std)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
        if heat is not None:
            _draw_heat(grid[index * places + 1], shown, np.asarray(heat[index]))
        if titles is not None:
            color = VAL if wrong is not None and wrong[index] else "black"
            color = UNLIKE if unlike is not None and unlike[index] else color
            axes.set_title(titles[index], fontsize=8, color=color, loc="center")
    return figure


def _draw_heat(axes, picture: np.ndarray, warmth: np.ndarray) -> None:
    """Draw a picture in pale grey with its map over it."""
    grey = picture if picture.ndim == 2 else picture.mean(2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    axes.imshow(warmth, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.5 * warmth)


@styled
def picture_table(
    rows: Mapping[str, Sequence[tuple[str, object]]], *, inches: float = 1.1
) -> Figure:
    """Draw `{what a row shows: [(title, picture), …]}`, the words left of their pictures.

    Pictures are as in `picture_grid`, in 0…1 or uint8, each `inches` wide; titles may be empty.
    """
    columns, words = max(map(len, rows.values())), 1.55
    heights = [inches + 0.2 * any(title for title, _ in row) for row in rows.values()]
    figure = new_figure(words + inches * columns, sum(heights), Pictures)
    grid = figure.subplots(
        len(rows),
        columns + 1,
        squeeze=False,
        width_ratios=[words, *[inches] * columns],
        height_ratios=heights,
    )
    for (name, row), (label, *places) in zip(rows.items(), grid, strict=True):
        label.text(0, 0.5, name, va="center", fontsize=9, transform=label.transAxes)
        for axes, (title, picture) in zip(places, row, strict=False):
            axes.imshow(_displayable(picture, None, None), cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=8, loc="center")
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure


def _displayable(picture, mean, std) -> np.ndarray:
    """Return a picture as `(H, W)` or `(H, W, 3)` float in 0…1."""
    array = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    array = array / 255 if array.dtype == np.uint8 else array
    if mean is not None:
        array = array * np.asarray(std) + np.asarray(mean)
    return np.clip(array, 0, 1).squeeze()
