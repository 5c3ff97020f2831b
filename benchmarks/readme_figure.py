"""Draw the README's figure: `python benchmarks/readme_figure.py`.

Drawn pictures with their names, the net that the package starts from, drawn from the module itself,
and what it is worth on the photos, from results/. Writes results/readme.png.
"""

import io

import matplotlib.image
from results_table import HEADLINES, ROOT, documents, the_row

import resnet_kit as rk
from resnet_kit.drawn import ANIMALS, draw
from resnet_kit.figures import HIGHLIGHT, REFERENCE, TRAIN, new_figure, styled

PICTURES = [(name, index) for index in (2, 5) for name in ANIMALS]
NAMES = rk.shown_names(ANIMALS)
BARS = {  # label in HEADLINES: what stands beside the bar, and its colour
    "from scratch": ("from scratch", REFERENCE),
    "the same net fine-tuned": ("the package's ResNet-18, fine-tuned", HIGHLIGHT),
    "linear head on the package's ResNet-18": ("the same, frozen: linear head", HIGHLIGHT),
    "linear head on EfficientNet-Lite0, pre-trained on ImageNet": (
        "an ImageNet net, frozen: linear head",
        TRAIN,
    ),
}


def net_strip():
    """Return the drawing of the shipped net with four classes, as an array of pixels."""
    model = rk.pretrained(rk.weights("resnet18", "tiny"), num_classes=len(ANIMALS))
    buffer = io.BytesIO()
    rk.draw_net(model, (3, 160, 160)).savefig(buffer, dpi=220, format="png")
    buffer.seek(0)
    return matplotlib.image.imread(buffer)


def draw_bars(axes) -> None:
    found = documents()
    measurements = next(iter(HEADLINES.values()))
    for place, (label, (text, color)) in enumerate(reversed(BARS.items())):
        row = the_row(found[measurements[label][0]], *measurements[label])
        value, low, high = (100 * row[key] for key in ("value", "low", "high"))
        axes.barh(place, value, color=color, height=0.6)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.text(2, place, text, va="center", color="white", fontsize=10)
        axes.text(high + 1.5, place, f"{value:.1f} %", va="center", fontsize=10)
    axes.set(xlim=(0, 110), yticks=[], xticks=range(0, 101, 25))
    axes.set_xlabel(f"of {row['n']} test photos named right, % (line: range or interval)")


@styled
def readme_figure():
    """Return the figure: pictures and bars above, the net below."""
    figure = new_figure(10.5, 5.8)
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 3.2))
    left, right = above.subfigures(1, 2, width_ratios=(5, 5))
    for axes, (name, index) in zip(left.subplots(2, 4).flat, PICTURES, strict=True):
        axes.imshow(draw(name, index))
        axes.set_title(NAMES[ANIMALS.index(name)], fontsize=10, loc="center", pad=3)
        axes.axis("off")
    draw_bars(right.subplots())
    axes = below.subplots()
    axes.imshow(net_strip())
    axes.axis("off")
    return figure


if __name__ == "__main__":
    readme_figure().savefig(ROOT / "results" / "readme.png", dpi=110)
