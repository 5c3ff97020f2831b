"""At how many pixels do the shipped weights transfer best? Chosen without the test pictures.

    python benchmarks/transfer_size.py photos          needs the photos in the data root
    python benchmarks/transfer_size.py drawn

A logistic regression on the features of the training pictures, scored by ten-fold cross-validation
at each size. Writes results/transfer_size_photos.json or results/transfer_size_drawn.json; the best
size on the photos stands in the metadata of the weights, where `like=` finds it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import resnet_kit as rk
from resnet_kit.evaluation import Evaluation

RESULTS = Path(__file__).resolve().parent.parent / "results"
SIZES, FOLDS = (96, 128, 160, 192, 224), 10


def score_at(size: int, folder: Path, source, seed: int) -> Evaluation:
    """Return the predictions of the ten folds, each by a net that has not learned from it."""
    loaders = rk.image_folders(folder, like=source, size=size, announce=False)
    model = rk.pretrained(source, num_classes=len(loaders.classes))
    rows = rk.extract_features(model, loaders, precision="fp32").train.dataset
    features, labels = rows.features[0].cpu().numpy(), rows.labels[0].numpy()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    found = cross_val_predict(probe, features, labels, cv=folds, method="predict_proba")
    loss = float(-np.log(found[np.arange(len(labels)), labels]).mean())
    return Evaluation(loss, labels, found, loaders.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", choices=["photos", "drawn"])
    parser.add_argument("--weights", default="tiny", help="a file, or what rk.weights takes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder, source = rk.cat_dog_ants_bees(given.pictures), rk.weights("resnet18", given.weights)
    about = {"data": f"cat_dog_ants_bees {given.pictures}", "split": f"train, {FOLDS} folds"}
    about |= {"model": "resnet18", "seed": given.seed}
    rows = []
    for size in SIZES:
        start = time.perf_counter()
        result = score_at(size, folder, source, given.seed)
        recipe = f"logistic regression on features, {size} px"
        seconds = time.perf_counter() - start
        rows.append(rk.accuracy_row(result, recipe=recipe, seconds=seconds, **about))
        print(size, "px:", result, flush=True)
    command = f"python benchmarks/transfer_size.py {given.pictures} --seed {given.seed}"
    rk.write_results(RESULTS / f"transfer_size_{given.pictures}.json", rows, command=command)


if __name__ == "__main__":
    main()
