"""Write results/README.md, and the README's table, from results/*.json.

python benchmarks/results_table.py
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BETWEEN = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)
HEADER = ("data", "what", "measured", "value", "95 % interval, or range", "n", "seconds")
PHOTOS = "photos of cats, dogs, ants and bees"
ABOUT = """Written by `benchmarks/results_table.py` from the files of this folder. Each row is one
measurement: *n* is how many pictures, runs or rounds it is of, *seconds* the time it took. *Ours*
is the recipe of this package, *tutorial's* the one that it is compared with. A score of one run has
a 95 % interval, which says what other test pictures could give; several runs have their range."""
# Words of what was measured in several rounds: the low and the high are those of the rounds.
OF_ROUNDS = ("seconds", "times as fast", "share of our epoch", "share of decoding")
# What the README shows, and what each figure is of: a file, and words that one row of it alone has,
# or (with !) has not. {n} is the number of pictures or trials, {seconds} what it took.
HEADLINES = {
    f"355 {PHOTOS} named right, after learning from 507 (89 more chose the epoch)": {
        "linear head on the package's ResNet-18": ("transfer_photos", "test linear head"),
        "the same net fine-tuned": ("transfer_photos", "test fine-tuning"),
        "from scratch": ("transfer_photos", "test from scratch"),
        "linear head on EfficientNet-Lite0, pre-trained on ImageNet": (
            "imagenet_features",
            "test EfficientNet-Lite0",
        ),
    },
    f"fine-tuning ResNet-34 on 951 {PHOTOS} at 224 px, one epoch (the first left out)": {
        "with `train_and_eval`": ("fine_tuning_speed", "seconds per epoch train_and_eval"),
        "of an epoch, in another run, the steps alone take": ("fine_tuning_speed_bare", "share"),
        "as fast as a tutorial's loop": ("fine_tuning_speed", "times tutorial"),
        "as fast as fastai as it comes": ("fine_tuning_speed", "times fastai comes"),
        "as fast as Lightning in bf16": ("fine_tuning_speed", "times Lightning bf16"),
        "with `train_and_eval` on an NVIDIA H200": (
            "fine_tuning_speed_gpu",
            "seconds per epoch train_and_eval",
        ),
    },
    "ten epochs of a head on a frozen ResNet-34, the same photos": {
        "with features computed once": ("feature_extraction_speed", "seconds features once"),
        "as fast as a tutorial's loop": (
            "feature_extraction_speed",
            "fast features times !published",
        ),
    },
    f"exact mean and deviation of 951 {PHOTOS}": {
        "of the speed of decoding them and no more": ("reading_speed", "share mean_std")
    },
    "ResNet-20 on CIFAR-10: test pictures named right": {
        "of {n} at hand, after 48 epochs, the net in the package": (
            "cifar10_ours_48_growing",
            "test",
        ),
        "of {n} at hand, after 20 epochs": ("cifar10_ours_20", "test"),
        "of {n} at hand, after 60 epochs, {seconds} s on an NVIDIA H200": (
            "cifar10_gpu_60",
            "test",
        ),
    },
    "training ResNet-20 on CIFAR-10": {
        "as fast as a tutorial's loop": ("cifar10_speed", "fast !16 !compile"),
        "as fast with pictures that grow from 16 to 32 px": ("cifar10_speed", "fast 16"),
    },
    "ResNet-14 on MNIST: test pictures named right": {
        "after 4 epochs": ("ten_class_sets_mnist", "test")
    },
    "the package's ResNet-18 on Tiny ImageNet, 200 classes: val pictures named right": {
        "of {n}": ("pretraining", "float16 accuracy !top-5")
    },
    f"5 % of the labels of {PHOTOS} swapped": {
        "of them found by `label_suspects`": ("label_suspects", "photos 10 recall"),
        "of its suspects are swapped ones": ("label_suspects", "photos 10 precision"),
        "found by cleanlab": ("label_suspects", "photos low_self_confidence recall"),
        "of cleanlab's suspects are swapped ones": (
            "label_suspects",
            "photos low_self_confidence precision",
        ),
    },
    "trainings killed at random moments and resumed": {
        "promises broken in {n} of them": ("reliability", "SIGKILL random")
    },
}


def documents() -> dict[str, dict]:
    """Return what each file of results/ holds, by its name."""
    paths = sorted((ROOT / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def place_of(document: dict) -> str:
    return f"{document['hardware']}; torch {document['versions']['torch']}; {document['date']}"


def table_of(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Return a table of Markdown; a stroke within a cell, as code has, does not end it."""
    lines = [header, ("---",) * len(header), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def headlines() -> str:
    """Return the README's table: what was measured, the figures, where they are told in full."""
    found, lines = documents(), []
    for question, measurements in HEADLINES.items():
        figures = [
            figure_of(the_row(found[name], name, words), label)
            for label, (name, words) in measurements.items()
        ]
        files = dict.fromkeys(name for name, _ in measurements.values())
        links = ", ".join(f"[{name}](results/README.md#{name})" for name in files)
        lines.append((question, "<br>".join(figures), links))
    return table_of(lines, ("what", "measured", "in full"))


def the_row(document: dict, name: str, words: str) -> dict:
    """Return the row that has all of these words, and none of those after an exclamation mark."""
    wanted = [word for word in words.split() if not word.startswith("!")]
    unwanted = [word[1:] for word in words.split() if word.startswith("!")]
    rows = []
    for row in shown(document["rows"]):
        text = " ".join(cells(row))
        if all(x in text for x in wanted) and not any(x in text for x in unwanted):
            rows.append(row)
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows of results/{name}.json have {words!r}; expected one")
    return rows[0]


def figure_of(row: dict, label: str) -> str:
    """Return a row's value with its unit, what it is, and in brackets its range or interval."""
    is_share = any(word in row["metric"] for word in ("accuracy", "recall", "precision", "share"))
    if is_share:
        unit = " %"
    elif "seconds" in row["metric"]:
        unit = " s"
    elif "times as fast" in row["metric"]:
        unit = " times"
    else:
        unit = ""

    def text(key: str) -> str:
        return f"{100 * row[key]:.1f}" if is_share else f"{row[key]:.3g}"

    seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
    about = label.format(n=f"{row['n']:,}", seconds=seconds)
    return f"**{text('value')}{unit}** {about}{spread_of(row, text)}"


def spread_of(row: dict, text: Callable[[str], str]) -> str:
    """Return in brackets what a row's `low` and `high` are: of several runs, or an interval."""
    if row["low"] is None:
        return ""
    around = f"{text('low')} to {text('high')}"
    if runs := re.search(r"\(runs: (\d+)\)", row["metric"]):
        return f" ({runs[1]} runs: {around})"
    if any(words in row["metric"] for words in OF_ROUNDS):
        return f" ({row['n']} rounds: {around})"
    return f" (95 % interval {around})"


def all_results() -> str:
    """Return results/README.md: each file with its command, its machine and its rows."""
    text = f"# Results\n\n{ABOUT}\n"
    for name, document in documents().items():
        about = f"[{name}.json]({name}.json): `{document['command']}`  \n{place_of(document)}"
        rows = table_of([cells(row) for row in shown(document["rows"])], HEADER)
        text += f"\n## {name}\n\n{about}\n\n{rows}"
    return text


def shown(rows: list[dict]) -> list[dict]:
    """Return what there is room for: one row for all seeds, all pictures, scores only."""
    rows = [row for row in rows if row.get("fraction", 1) == 1]  # of the pictures
    several = {(row["split"], row["recipe"]) for row in rows if "seeds" in row["metric"]}
    rows = [
        row
        for row in rows
        if "seeds" in row["metric"] or (row["split"], row["recipe"]) not in several
    ]
    scored = {row["recipe"] for row in rows if row["split"] in ("val", "test")}
    return [row for row in rows if row["split"] != "train" or row["recipe"] not in scored]


def cells(row: dict) -> tuple[str, ...]:
    percent = "accuracy" in row["metric"] or "error" in row["metric"]

    def text(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.1%}" if percent else f"{value:.0f}" if value >= 100 else f"{value:.3g}"

    data = f"{row['data']}, {row['split']}"
    what = f"{row['model']}: {row['recipe']}"
    seed = "" if row["seed"] is None else f", seed {row['seed']}"
    interval = f"{text(row['low'])} to {text(row['high'])}" if row["low"] is not None else ""
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
    return data, what, row["metric"] + seed, text(row["value"]), interval, str(row["n"]), seconds


def main() -> None:
    readme, table = ROOT / "README.md", headlines()
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BETWEEN.sub(lambda x: x[1] + table + x[2], text), encoding="utf-8")
    (ROOT / "results" / "README.md").write_text(all_results(), encoding="utf-8")


if __name__ == "__main__":
    main()
