import numpy as np
import pytest
import torch
from PIL import Image

import resnet_kit as rk
from conftest import write_picture
from resnet_kit import suspects
from resnet_kit.features import features_of
from resnet_kit.suspects import out_of_fold

CLASSES = ("0_ant", "1_bee", "2_cat")


def parts_of(train: list[int], val: list[int] = (2, 2, 2)) -> dict:
    """Features `(1, N, 8)` and labels `(1, N)` per split: clouds around a centre for each class."""
    rng = np.random.default_rng(0)
    centres, parts = 3 * rng.standard_normal((len(CLASSES), 8)), {}
    for split, numbers in (("train", train), ("val", val)):
        labels = np.repeat(np.arange(len(numbers)), numbers)
        rows = centres[labels] + rng.standard_normal((len(labels), 8))
        parts[split] = torch.tensor(rows)[None].float(), torch.tensor(labels)[None]
    return parts


def features_with(parts):
    return features_of(parts, CLASSES, batch_size=8, seed=0)


@pytest.fixture
def swapped():
    """Three clouds; pictures 3, 33 and 70 of train, and 5 of val, have another cloud's label."""
    parts = parts_of([30, 30, 30], [10, 10, 10])
    for split, place, label in [("train", 3, 1), ("train", 33, 2), ("train", 70, 0), ("val", 5, 2)]:
        parts[split][1][0, place] = label
    return parts


def test_swapped_labels_are_found_with_what_they_should_be(swapped):
    table = rk.label_suspects(features_with(swapped))
    assert sorted(table["picture"]) == [3, 33, 70] and set(table["split"]) == {"train"}
    row = table.set_index("picture").loc[33]
    assert (row["label"], row["suggested"]) == ("2_cat", "1_bee"), "the names of the folders"
    assert row["times"] == pytest.approx(row["suggested_chance"] / row["label_chance"])
    assert table["times"].is_monotonic_decreasing and table["times"].min() >= 10
    assert "file" not in table


def test_train_and_val_are_judged_together(swapped):
    table = rk.label_suspects(features_with(swapped), splits=("train", "val"))
    found = set(zip(table["split"], table["picture"], strict=True))
    assert found == {("train", 3), ("train", 33), ("train", 70), ("val", 5)}
    assert rk.label_suspects(features_with(swapped), splits="val")["picture"].tolist() == [5]


def test_the_cut_only_shortens_the_list_and_the_list_is_always_the_same(swapped):
    features = features_with(swapped)
    everything = rk.label_suspects(features, times=0)
    assert len(everything) == 90 and everything["picture"].nunique() == 90
    tenth = everything["times"].iloc[9]
    short = rk.label_suspects(features, times=tenth)
    assert short.equals(everything[:10])
    assert short.equals(rk.label_suspects(features, times=tenth))


def test_no_picture_is_judged_by_a_probe_that_learned_from_it_or_from_its_group(monkeypatch):
    seen = []

    class Spy(suspects_probe()):
        def fit(self, rows, labels):
            seen.append(("fit", set(rows[:, 0])))
            return super().fit(rows, labels)

        def predict_proba(self, rows):
            seen.append(("judge", set(rows[:, 0])))
            return super().predict_proba(rows)

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Spy)
    monkeypatch.setattr("sklearn.preprocessing.StandardScaler", lambda: "passthrough")
    (rows, labels), groups = parts_of([12, 12, 12])["train"], np.arange(36) // 3
    rows[0, :, 0] = torch.tensor(groups)  # so that the spy knows the group of a picture
    out_of_fold(rows[0].double().numpy(), labels[0].numpy(), groups, CLASSES)
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 4 * len(suspects.STRENGTHS), "four groups a class, so four folds"
    for (fit, learned), (judge, judged) in pairs:
        assert (fit, judge) == ("fit", "judge") and judged and not learned & judged


def suspects_probe():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression


def colours(folder):
    """Red and blue pictures with noise, 20 of each, for a net that sees their mean colour."""
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        for index in range(20):
            noise = rng.integers(-40, 40, (20, 20, 3))
            path = folder / "train" / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
        write_picture(folder / "val" / name / "0.png", 1)
    return folder


class MeanColour(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, pictures):
        return self.fc(pictures.mean((2, 3)))


def suspects_in(folder):
    loaders = rk.image_folders(folder, size=16, mean=[0] * 3, std=[1] * 3, workers=0)
    return rk.label_suspects(rk.extract_features(MeanColour(), loaders, progress=False))


def test_a_misplaced_file_is_named_and_its_copy_does_not_vouch_for_it(tmp_path, monkeypatch):
    folder = colours(tmp_path)
    misplaced = folder / "train" / "blue" / "x.png"
    (folder / "train" / "red" / "03.png").rename(misplaced)
    with Image.open(misplaced) as picture:
        for index in range(2):  # the same picture twice more, all in the wrong folder
            picture.save(misplaced.with_name(f"x{index}.bmp"))
    found = suspects_in(folder)
    assert len(found) == 3 and set(found["suggested"]) == {"red"}
    assert misplaced in set(found["file"]) and set(found["label"]) == {"blue"}
    monkeypatch.setattr(suspects, "groups_of_files", lambda files: range(len(files)))
    vouched_for = suspects_in(folder)  # every file for itself
    assert not set(vouched_for["file"]) & set(found["file"])


def test_small_classes_are_said_and_a_single_picture_is_not_judged(capsys):
    parts = parts_of([20, 3, 1])
    everything = rk.label_suspects(features_with(parts), times=0)
    assert sorted(everything["picture"]) == [*range(23)], "all but the single one"
    said = capsys.readouterr().out
    assert said == (
        "Too few different pictures to judge them well, or one at all: 1_bee (3), 2_cat (1).\n"
    )
    rk.label_suspects(features_with(parts_of([9, 9, 0])))
    assert capsys.readouterr().out == "", "a class without a picture needs no word"


def test_what_cannot_be_judged_is_refused(swapped):
    features = features_with(swapped)
    with pytest.raises(ValueError, match="no split 'test'; this data set has: train, val"):
        rk.label_suspects(features, splits=("train", "test"))
    with pytest.raises(ValueError, match=r"splits is \[\]; expected"):
        rk.label_suspects(features, splits=[])
    views = {split: (x.repeat(2, 1, 1), y.repeat(2, 1)) for split, (x, y) in swapped.items()}
    with pytest.raises(ValueError, match="train have 2 augmented views"):
        rk.label_suspects(features_with(views))
    one = features_with(parts_of([9, 1]))
    with pytest.raises(ValueError, match="10 pictures of 2 of 3 classes; expected two different"):
        rk.label_suspects(one)
