"""Labels that the other pictures contradict: probes judge pictures that they did not learn from."""

import warnings
from collections.abc import Sequence

import numpy as np

from .data.duplicates import groups_of_files
from .features import Features, rows_of
from .settings import counted, wrong

FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of the probe, from stiff to supple: scikit-learn's C


def label_suspects(
    features: Features, *, splits: str | Sequence[str] = "train", times: float = 10.0
):
    """Return a pandas table of the pictures whose label the other pictures contradict.

    A logistic regression learns from four fifths of the pictures and says how likely each class is
    for the pictures of the last fifth; five times, so that others judge every picture. Copies and
    near copies of a file do not judge each other. Listed are those pictures for which another class
    is at least `times` as likely as their label, worst first. Some are only unusual, so look at
    each. Of labels swapped among photos the default lists about seven in ten
    (results/label_suspects.json). The same features give the same table.

    Its columns are `file` (where there are files), `split` and `picture` (the number in the split),
    `label`, `suggested` (the likeliest other class), how likely these two are in 0…1
    (`label_chance`, `suggested_chance`), and `times`, the one divided by the other. Classes are
    named as in `features.classes`, and so as their folders.

    Args:
        features: of `extract_features` with one view.
        splits: which are judged, together: "train", or ("train", "val") and so on.
        times: the cut; a lower one lists more pictures, 0 all of them.

    Raises:
        ValueError: no such split, several views, or fewer than two classes with two different
            pictures.
    """
    import pandas as pd

    names = [splits] if isinstance(splits, str) else list(dict.fromkeys(splits))
    if not names:
        raise wrong("splits", splits, '"train", or several such as ("train", "val")')
    parts = [_rows_of_one_view(features, name) for name in names]
    rows, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    places = [(name, k) for name, (x, _) in zip(names, parts, strict=True) for k in range(len(x))]
    table = pd.DataFrame(places, columns=["split", "picture"])
    groups = np.arange(len(labels))
    if features.files:
        files = [file for name in names for file in features.files[name]]
        groups = np.array(groups_of_files(files))
        table.insert(0, "file", files)
    chances, judged = out_of_fold(rows, labels, groups, features.classes)
    every, classes = np.arange(len(labels)), np.array(features.classes)
    others = chances.copy()
    others[every, labels] = -1
    table["label"], table["suggested"] = classes[labels], classes[others.argmax(1)]
    table["label_chance"], table["suggested_chance"] = chances[every, labels], others.max(1)
    table["times"] = table["suggested_chance"] / table["label_chance"].clip(lower=1e-12)
    table = table[judged & (table["times"] >= times)]
    return table.sort_values("times", ascending=False, kind="stable", ignore_index=True)


def _rows_of_one_view(features: Features, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features `(N, D)` float64 and labels `(N,)` of a split."""
    rows, labels = rows_of(features, split)
    if len(rows) > 1:
        raise ValueError(
            f"the features of {split} have {len(rows)} augmented views in another order each; "
            "expected one: rk.extract_features(model, loaders)"
        )
    return rows[0].astype(np.float64), labels[0]


def out_of_fold(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how likely each class is for each picture, `(N, K)`, by probes that never saw it.

    And which pictures are judged, `(N,)` bool: those whose class the probe had learned. Pictures of
    one group are in one fold. Of the probe's strengths the one with the least loss is taken.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = _number_of_folds(labels, groups, classes)
    present, judged, found = np.unique(labels), np.zeros(len(labels), bool), []
    with warnings.catch_warnings():  # of small classes, of which a line was said
        warnings.filterwarnings("ignore", "The least populated class|Number of classes in train")
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        folds = [pair for pair in splitter.split(rows, labels, groups) if len(pair[1])]
        for train, test in folds:
            judged[test] = np.isin(labels[test], labels[train])
        for strength in STRENGTHS:
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
            found.append(cross_val_predict(probe, rows, labels, cv=folds, method="predict_proba"))
    losses = [log_loss(labels[judged], x[judged], labels=present) for x in found]
    chances = np.zeros((len(labels), len(classes)))
    chances[:, present] = found[int(np.argmin(losses))]
    return chances, judged


def _number_of_folds(labels: np.ndarray, groups: np.ndarray, classes: Sequence[str]) -> int:
    """Return how many folds the classes allow, and say which are too small to be judged well."""
    different = {classes[k]: len(np.unique(groups[labels == k])) for k in np.unique(labels)}
    if sum(number > 1 for number in different.values()) < 2:
        raise ValueError(
            f"{counted(len(labels), 'picture')} of {len(different)} of {len(classes)} classes; "
            "expected two different pictures (no copies) of each of two classes at least"
        )
    few = [f"{name} ({number})" for name, number in different.items() if number < FOLDS]
    if few:
        print(f"Too few different pictures to judge them well, or one at all: {', '.join(few)}.")
    return min(FOLDS, max(different.values()))
