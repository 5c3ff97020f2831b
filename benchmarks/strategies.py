"""Six kinds of transfer on the cat/dog/ants/bees pictures, from a few of them to all.

    python benchmarks/strategies.py photos           needs the photos in the data root
    python benchmarks/strategies.py drawn

`rk.compare_strategies` with the weights that travel with the package, three seeds, and 5 %, 20 %
and all of the training pictures. Of the photos 15 % of `train` are held out to choose by, and
eval/ is the test. Writes results/strategies_photos.json or results/strategies_drawn.json.
"""

import argparse
import time
from pathlib import Path
from statistics import mean

import resnet_kit as rk
from resnet_kit.strategies import Comparison

RESULTS = Path(__file__).resolve().parent.parent / "results"
FRACTIONS = (0.05, 0.2, 1.0)
SEEDS = (0, 1, 2)


def rows_of(comparison: Comparison, data: str, recipe: str) -> list[dict]:
    """Return a row per run and split, and one of the means over the seeds."""
    rows = []
    for (fraction, strategy), runs in comparison.groups().items():
        common = {"data": data, "model": "resnet18", "recipe": f"{strategy}, {recipe}"}
        more = {"fraction": fraction, "strategy": strategy, "pictures": runs[0].pictures}
        more["tied"] = strategy in comparison.tied(fraction)
        for split in ("val", "test"):
            found = [
                rk.accuracy_row(
                    getattr(run, split), split=split, seed=run.seed, seconds=run.seconds, **common
                )
                for run in runs
            ]
            values = [row["value"] for row in found]
            summary = {**found[0], "seed": None, "value": mean(values)}
            summary |= {"low": min(values), "high": max(values)}
            summary["metric"] = f"accuracy, mean and range over seeds (runs: {len(values)})"
            summary["seconds"] = mean(row["seconds"] for row in found)
            rows += [{**row, **more} for row in (*found, summary)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", choices=["photos", "drawn"])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    folder = rk.cat_dog_ants_bees(given.pictures)
    share = None if (folder / "test").is_dir() else 0.15
    start = time.perf_counter()
    comparison = rk.compare_strategies(
        folder, weights=rk.weights("resnet18", "tiny"), epochs=given.epochs, seeds=SEEDS,
        fractions=FRACTIONS, size=given.size, val_from_train=share,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if not comparison.finished:
        raise SystemExit("not finished, so nothing is recorded")
    data, recipe = f"cat_dog_ants_bees {given.pictures}", f"{given.size} px, {given.epochs} epochs"
    rows = rows_of(comparison, data, recipe)
    whole = {"data": data, "split": "train + val + test", "model": "resnet18", "recipe": recipe}
    whole |= {"metric": "seconds of the whole comparison", "value": seconds, "low": None}
    rows.append({**whole, "high": None, "n": len(comparison.runs), "seed": None, "seconds": None})
    command = f"python benchmarks/strategies.py {given.pictures} --size {given.size}"
    rk.write_results(
        RESULTS / f"strategies_{given.pictures}.json",
        rows,
        command=f"{command} --epochs {given.epochs}",
    )
    print(comparison.to_frame().round(3).to_string())
    print(comparison, f"{seconds:.0f} s in all")


if __name__ == "__main__":
    main()
