"""Write the README's table of results from results/*.json: `python benchmarks/results_table.py`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BETWEEN = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)
HEADER = ("data", "what", "measured", "value", "95 % interval, or range", "n", "seconds", "where")
MACHINES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def table() -> str:
    """Return all rows of all files as a Markdown table, and a line for each machine and day."""
    lines, places = [HEADER, ("---",) * len(HEADER)], []
    for path in sorted((ROOT / "results").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = shown(path.stem, document["rows"])
        torch = document["versions"]["torch"]
        place = f"{document['hardware']}; torch {torch}; {document['date']}"
        if rows and place not in places:
            places.append(place)
        lines += [(*cells(row), MACHINES[places.index(place)]) for row in rows]
    found = zip(MACHINES, places, strict=False)
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return rows + "\n" + " \n".join(f"**{letter}** {place}." for letter, place in found) + "\n"


def shown(name: str, rows: list[dict]) -> list[dict]:
    """Return what the README has room for: no trials, one row for all seeds, scores only."""
    if name in ("pretraining_short", "transfer_photos_variants", "cifar10_ablations"):
        return []  # notebooks draw them
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
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BETWEEN.sub(rf"\1{table()}\2", text), encoding="utf-8")


if __name__ == "__main__":
    main()
