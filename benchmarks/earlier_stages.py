"""How early may a net be cut? Linear heads and SVMs on the features of each of its four stages.

    python benchmarks/earlier_stages.py photos           needs the photos in the data root
    python benchmarks/earlier_stages.py drawn

The pictures, seeds and shares are those of benchmarks/strategies.py: three seeds, and 5 %, 20 %
and all of the training pictures; of the photos 15 % of `train` are held out to choose by, and
eval/ is the test. Features are the means of a stage's maps. C is chosen by cross-validation on the
training pictures. Writes results/earlier_stages_photos.json or results/earlier_stages_drawn.json.
"""

import argparse
import time
from dataclasses import replace

import torch
from strategies import FRACTIONS, RESULTS, SEEDS, rows_of
from torch import nn

import resnet_kit as rk
from resnet_kit.data import Loaders
from resnet_kit.features import Features, features_of, score_probe
from resnet_kit.features import rows_of as arrays_of
from resnet_kit.strategies import Comparison, Run

STAGES = ("layer1", "layer2", "layer3", "layer4")
HEADS = {"linear head": {}, "linear SVM": {"kernel": "linear"}, "RBF SVM": {"kernel": "rbf"}}


def cut_behind(stage: str, classes: int) -> nn.Module:
    """Return the shipped ResNet-18 without the stages that follow this one."""
    model = rk.pretrained(rk.weights("resnet18", "tiny"), num_classes=classes)
    for later in STAGES[STAGES.index(stage) + 1 :]:
        setattr(model, later, nn.Identity())
    model.fc = nn.Linear(getattr(model, stage)[-1].bn2.num_features, classes)
    return model


def features_by_file(stage: str, everything: Loaders) -> dict:
    """Return the features `(D,)` and the label of every picture of a folder."""
    model = cut_behind(stage, len(everything.classes))
    features, found = rk.extract_features(model, everything), {}
    for split, files in everything.files.items():
        rows, labels = (torch.from_numpy(array[0]) for array in arrays_of(features, split))
        found |= dict(zip(files, zip(rows, labels, strict=True), strict=True))
    return found


def some_of(found: dict, loaders: Loaders, seed: int) -> Features:
    """Return the features of the pictures of some loaders."""
    parts = {}
    for split, files in loaders.files.items():
        rows, labels = zip(*(found[file] for file in files), strict=True)
        parts[split] = torch.stack(rows)[None], torch.stack(labels)[None]
    return features_of(parts, loaders.classes, batch_size=32, seed=seed)


def run(head: str, stage: str, found: dict, loaders: Loaders, fraction: float, seed: int) -> Run:
    features, start = some_of(found, loaders, seed), time.perf_counter()
    if head == "linear head":
        val, estimator = rk.logistic_probe(features)
    else:
        val, estimator = rk.svm_probe(features, **HEADS[head])
    test = score_probe(estimator, features, "test")
    val, test = (replace(x, files=loaders.files[y]) for x, y in ((val, "val"), (test, "test")))
    seconds, pictures = time.perf_counter() - start, len(loaders.files["train"])
    return Run(f"{head}, {stage}", fraction, seed, pictures, val, test, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", choices=["photos", "drawn"])
    parser.add_argument("--size", type=int, default=160)
    given = parser.parse_args()
    folder = rk.cat_dog_ants_bees(given.pictures)
    options = {"like": rk.weights("resnet18", "tiny"), "size": given.size}
    options["val_from_train"] = None if (folder / "test").is_dir() else 0.15
    everything, runs = rk.image_folders(folder, **options), []
    found = {stage: features_by_file(stage, everything) for stage in STAGES}
    for seed in SEEDS:
        for fraction in FRACTIONS:
            loaders = rk.image_folders(
                folder, train_share=fraction, seed=seed, announce=False, **options
            )
            for stage in STAGES:
                for head in HEADS:
                    runs.append(run(head, stage, found[stage], loaders, fraction, seed))
    comparison = Comparison(tuple(runs), finished=True)
    data = f"cat_dog_ants_bees {given.pictures}"
    rows = rows_of(comparison, data, f"{given.size} px")
    command = f"python benchmarks/earlier_stages.py {given.pictures} --size {given.size}"
    name = f"earlier_stages_{given.pictures}.json"
    rk.write_results(RESULTS / name, rows, command=command)
    print(comparison.to_frame().round(3).to_string())


if __name__ == "__main__":
    main()
