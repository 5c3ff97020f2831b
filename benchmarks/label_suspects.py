"""How many swapped labels does `rk.label_suspects` find in the photos, and how many cleanlab?

    pip install -r benchmarks/requirements.txt
    python benchmarks/label_suspects.py

Needs the photos in the data root. 5 % of the labels of the 596 training pictures are swapped for
another class at random, three times. Both tools get the same out-of-fold probabilities. Recall:
of the swapped labels, how many are listed. Precision: of the listed pictures, how many were
swapped; a label that was wrong before counts as a false alarm. The cut of `label_suspects` was
chosen on the drawn pictures, which are measured first, with other swaps: recall and precision
together are best at 5 and 10 times, and 10 is the shorter list. Where it lists as many pictures as
cleanlab's default does, the two rankings are compared, not the two cuts. Writes
results/label_suspects.json.
"""

import time
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from cleanlab import __version__ as cleanlab_version
from cleanlab.filter import find_label_issues

import resnet_kit as rk
from resnet_kit.data.duplicates import groups_of_files
from resnet_kit.evaluation import wilson_interval
from resnet_kit.features import Features
from resnet_kit.suspects import out_of_fold

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHARE = 0.05
SEEDS = {"drawn": (100, 101, 102), "photos": (0, 1, 2)}
CUTS = {"drawn": (3, 5, 10, 20, 40), "photos": (10,)}  # 10 is the default
FILTERS = ("prune_by_noise_rate", "low_self_confidence")  # cleanlab's; the first is its default


def swap_labels(labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """Return labels of which a share, drawn at random, is another class, drawn at random."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(labels), round(SHARE * len(labels)), replace=False)
    swapped = labels.copy()
    swapped[places] += rng.integers(1, num_classes, len(places))
    return swapped % num_classes


def lists_of(features: Features, groups: np.ndarray, cuts) -> dict[str, np.ndarray]:
    """Return which training pictures each tool lists, `(N,)` bool, by its name."""
    dataset = features.train.dataset
    labels, found = dataset.labels[0].numpy(), {}
    ranked = rk.label_suspects(features, times=0)
    for cut in cuts:
        listed = ranked["picture"][ranked["times"] >= cut]
        found[f"label_suspects, {cut} times as likely"] = np.isin(np.arange(len(labels)), listed)
    rows = dataset.features[0].cpu().double().numpy()
    chances, _ = out_of_fold(rows, labels, groups, features.classes)
    for name in FILTERS:
        listed = find_label_issues(labels, chances, filter_by=name, n_jobs=1)
        found[f"cleanlab {cleanlab_version}, {name}"] = listed
    as_many = ranked["picture"][: found[f"cleanlab {cleanlab_version}, {FILTERS[0]}"].sum()]
    found[f"label_suspects, as many as {FILTERS[0]}"] = np.isin(np.arange(len(labels)), as_many)
    return found


def rows_of(pictures: str) -> list[dict]:
    """Swap, list and score with each seed; return recall and precision of each tool."""
    source = rk.weights("resnet18", "tiny")
    loaders = rk.image_folders(rk.cat_dog_ants_bees(pictures), like=source, announce=False)
    model = rk.pretrained(source, num_classes=len(loaders.classes))
    features = rk.extract_features(model, loaders, precision="fp32")
    groups = np.array(groups_of_files(features.files["train"]))
    dataset, rows = features.train.dataset, []
    true = dataset.labels[0].numpy()
    about = {"data": f"cat_dog_ants_bees {pictures}, 5 % swapped", "split": "train"}
    for seed in SEEDS[pictures]:
        start = time.perf_counter()
        swapped = swap_labels(true, len(loaders.classes), seed)
        dataset.labels = torch.from_numpy(swapped)[None]
        lists = lists_of(features, groups, CUTS[pictures])
        seconds = time.perf_counter() - start
        for recipe, listed in lists.items():
            counts = {"recall": (swapped != true).sum(), "precision": listed.sum()}
            hits = int((listed & (swapped != true)).sum())
            for metric, count in counts.items():
                low, high = wilson_interval(hits, int(count))
                value = hits / max(1, int(count))
                measured = {"metric": metric, "value": value, "low": low, "high": high}
                measured |= {"n": int(count), "seed": seed, "seconds": seconds}
                rows.append({**about, "model": source.arch, "recipe": recipe, **measured})
                print(pictures, seed, recipe, f"{metric} {hits} of {count}", flush=True)
    return rows


def summaries(rows: list[dict]) -> list[dict]:
    """Return mean and range over the seeds of each tool's recall and precision."""
    found = {}
    for row in rows:
        found.setdefault((row["recipe"], row["metric"]), []).append(row)
    several = []
    for (_, metric), same in found.items():
        values = [row["value"] for row in same]
        changed = {"metric": f"{metric}, mean and range over seeds (runs: {len(same)})"}
        changed |= {"value": mean(values), "low": min(values), "high": max(values)}
        changed |= {"n": round(mean(row["n"] for row in same)), "seed": None, "seconds": None}
        several.append(same[0] | changed)
    return several


def main() -> None:
    rows = []
    for pictures in ("drawn", "photos"):
        found = rows_of(pictures)
        rows += found + summaries(found)
    command = "python benchmarks/label_suspects.py"
    rk.write_results(RESULTS / "label_suspects.json", rows, command=command)


if __name__ == "__main__":
    main()
