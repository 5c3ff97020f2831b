"""Write results/README.md, and the README's table, from results/*.json.

python benchmarks/results_table.py
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BETWEEN = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)
HEADER = ("data", "what", "measured", "value", "95 % interval, or range", "n", "seconds")
MACHINES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HEADLINES = (  # what the README shows: of this file the rows that speak of this
    ("transfer_photos", "test"),
    ("imagenet_features", "test"),
    ("fine_tuning_speed", "times as fast"),
    ("feature_extraction_speed", "times as fast"),
    ("feature_extraction_speed", "accuracy"),
    ("strategies_photos", "whole comparison"),
    ("cifar10_ours_60", "test"),
    ("cifar10_ours_20", "test"),
    ("cifar10_ours_48_growing", "test"),
    ("03_cifar10_training_cifar10", "test"),
    ("cifar10_speed", "times as fast"),
    ("ten_class_sets_mnist", "test"),
    ("pretraining", "shipped: float16 accuracy"),
    ("reliability", "SIGKILL at random"),
    ("reliability", "Ctrl-C twice in trainings, at random executed"),
)


def documents() -> dict[str, dict]:
    """Return what each file of results/ holds, by its name."""
    paths = sorted((ROOT / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def place_of(document: dict) -> str:
    return f"{document['hardware']}; torch {document['versions']['torch']}; {document['date']}"


def table_of(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def headlines() -> str:
    """Return the README's table, and a line for each machine and day."""
    found, lines, places = documents(), [], []
    for name, words in HEADLINES:
        rows = [row for row in shown(found[name]["rows"]) if words in " ".join(cells(row))]
        if not rows:
            raise ValueError(f"no row of results/{name}.json speaks of {words!r}; see HEADLINES")
        if (place := place_of(found[name])) not in places:
            places.append(place)
        lines += [(*cells(row), MACHINES[places.index(place)]) for row in rows]
    told = (f"**{letter}** {place}." for letter, place in zip(MACHINES, places, strict=False))
    return table_of(lines, (*HEADER, "where")) + "\n" + " \n".join(told) + "\n"


def all_results() -> str:
    """Return results/README.md: each file with its command, its machine and its rows."""
    text = "# Results\n\nWritten by `benchmarks/results_table.py` from the files of this folder.\n"
    for name, document in documents().items():
        about = f"`{document['command']}`  \n{place_of(document)}"
        rows = table_of([cells(row) for row in shown(document["rows"])], HEADER)
        text += f"\n## [{name}]({name}.json)\n\n{about}\n\n{rows}"
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
