from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import resnet_kit as rk
from conftest import write_picture
from resnet_kit import strategies
from resnet_kit.evaluation import Evaluation
from resnet_kit.strategies import FROM_FEATURES, STRATEGIES, Comparison, Run

SMALL = {"epochs": 1, "size": 16, "batch_size": 8, "workers": 0, "progress": False}


@pytest.fixture
def colors(tmp_path):
    """Pictures of noise, reddish and bluish: train 12 + 12, eval 6 + 6."""
    for split, count in (("train", 12), ("eval", 6)):
        for name, channel in (("blue", 2), ("red", 0)):
            for index in range(count):
                path = tmp_path / "colors" / split / name / f"{index}.png"
                seed = 100 * channel + 20 * len(split) + index
                picture = rk.read_image(write_picture(path, seed=seed)).permute(1, 2, 0).numpy()
                picture[:, :, channel] = 255 - picture[:, :, channel] // 8
                Image.fromarray(picture).save(path)
    return tmp_path / "colors"


@pytest.fixture
def tiny():
    return rk.weights("resnet18", "tiny")


def test_every_strategy_is_measured_for_each_seed_and_fraction(colors, tiny):
    found = rk.compare_strategies(
        colors, weights=tiny, seeds=(0, 1), fractions=(1.0, 0.5), val_from_train=0.25, **SMALL
    )
    assert found.finished and len(found.runs) == 2 * 2 * len(STRATEGIES)
    table = found.to_frame()
    assert table["strategy"].tolist() == [*STRATEGIES] * 2
    assert table["pictures"].unique().tolist() == [8, 18] and (table["seeds"] == 2).all()
    assert (table["lowest"] <= table["test"]).all() and (table["test"] <= table["highest"]).all()
    assert table.groupby("fraction")["tied"].any().all() and (table["seconds"] > 0).all()
    assert found.recommendation.startswith("With 18 training pictures: ")
    first = found.runs[0]
    assert len(first.test.labels) == 12 and first.test.files[0].parent.parent.name == "eval"
    axes = found.plot().axes[0]
    assert axes.get_title(loc="left") == "test accuracy in %"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "18"]


def test_features_are_computed_once_and_are_those_of_each_picture(colors, tiny, monkeypatch):
    calls, seen = [], []
    original = strategies.extract_features
    monkeypatch.setattr(
        strategies, "extract_features", lambda *a, **o: calls.append(1) or original(*a, **o)
    )
    score = strategies.score_probe
    monkeypatch.setattr(
        strategies, "score_probe", lambda e, f, s: seen.append((f, s)) or score(e, f, s)
    )
    rk.compare_strategies(
        colors, weights=tiny, strategies=["features + kNN"], seeds=(0, 3), fractions=(0.5, 1),
        val_from_train=0.25, **SMALL,
    )  # fmt: skip
    assert len(calls) == 1
    features = seen[-1][0]
    loaders = rk.image_folders(colors, like=tiny, size=16, val_from_train=0.25, seed=3, workers=0)
    model = rk.pretrained(tiny, num_classes=2)
    alone = rk.extract_features(model, loaders, batch_size=1)
    for split in ("train", "val", "test"):
        ours, theirs = (getattr(x, split).dataset for x in (features, alone))
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.allclose(ours.features, theirs.features, atol=0.05)


def evaluation(correct: list[int]) -> Evaluation:
    probabilities = np.array([[0.9, 0.1] if right else [0.2, 0.8] for right in correct])
    labels = np.zeros(len(correct), dtype=np.int64)
    return Evaluation(0.5, labels, probabilities, ("a", "b"), files=tuple(range(len(correct))))


def runs_of(**right: list[int]) -> tuple[Run, ...]:
    """Runs of one seed whose val and test are right for these pictures; seconds count up."""
    return tuple(
        Run(name, 1.0, 0, 100, evaluation(correct), evaluation(correct), float(seconds + 1))
        for seconds, (name, correct) in enumerate(right.items())
    )


def test_a_tie_goes_to_the_cheapest_and_says_so():
    found = Comparison(
        runs_of(cheap=[1] * 89 + [0] * 11, bad=[1] * 40 + [0] * 60, dear=[1] * 90 + [0] * 10), True
    )
    assert found.best(1.0) == "dear" and found.tied(1.0) == ["cheap", "dear"]
    assert found.recommendation == (
        "With 100 training pictures: cheap, not told apart from dear by the val pictures, and it "
        "takes 1.0 s instead of 3.0 s."
    )
    near = (replace(run, seconds=2.0 + run.seconds) for run in found.runs)  # 3 s and 5 s
    assert Comparison(tuple(near), True).recommended == "dear", "not half the time"
    alone = Comparison(runs_of(good=[1] * 90 + [0] * 10, bad=[1] * 40 + [0] * 60), True)
    assert alone.recommendation == "With 100 training pictures: good, best on val (90.0%)."


def test_a_comparison_stopped_at_once_says_so():
    nothing = Comparison((), False)
    assert nothing.recommended is None and "(interrupted). Nothing was measured" in repr(nothing)
    assert nothing.to_frame().empty
    with pytest.raises(ValueError, match="nothing was measured"):
        nothing.plot()


def test_val_chooses_and_test_only_reports():
    runs = runs_of(cheap=[1] * 60 + [0] * 40, dear=[1] * 90 + [0] * 10)
    on_test = evaluation([1] * 75 + [0] * 25)
    runs = tuple(replace(run, test=on_test) for run in runs)  # equal on test
    found = Comparison(runs, True)
    assert found.tied(1.0) == ["dear"] and ": dear, best on val" in found.recommendation
    assert found.to_frame()["test"].tolist() == [0.75, 0.75]


def test_differences_are_taken_picture_by_picture():
    # Both are right 50 times: unpaired a tie. Paired, the few that differ decide.
    near = Comparison(runs_of(a=[1] * 60 + [0] * 40, b=[1] * 50 + [0] * 50), True)
    assert near.tied(1.0) == ["a"], "10 pictures better and none worse is more than luck"
    mixed = Comparison(
        runs_of(a=[1] * 60 + [0] * 40, b=[0] * 20 + [1] * 30 + [0] * 10 + [1] * 20 + [0] * 20), True
    )
    assert mixed.tied(1.0) == ["a", "b"], "30 better and 20 worse may be luck"


def test_an_interrupted_comparison_returns_what_it_has(colors, tiny, monkeypatch, capsys):
    original, calls = strategies.train_and_eval, []

    def interrupted(*arguments, **options):
        calls.append(1)
        history = original(*arguments, **options)
        history.stopped = "interrupted" if len(calls) == 2 else "finished"
        return history

    monkeypatch.setattr(strategies, "train_and_eval", interrupted)
    names = ["feature extraction", "partial fine-tuning", "full fine-tuning"]
    found = rk.compare_strategies(colors, weights=tiny, strategies=names, seeds=(0,), **SMALL)
    assert not found.finished and [run.strategy for run in found.runs] == names[:1]
    assert "the comparison holds those" in capsys.readouterr().out
    assert "(interrupted)" in repr(found) and len(found.to_frame()) == 1


def test_what_is_trained_is_what_the_name_says(colors, tiny, monkeypatch):
    trained = {}

    def remember(module, *arguments, **options):
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        trained[len(trained)] = {name.split(".")[0] for name in names}
        return original(module, *arguments, **options)

    original = strategies.train_and_eval
    monkeypatch.setattr(strategies, "train_and_eval", remember)
    rest = [name for name in STRATEGIES if name not in FROM_FEATURES]
    rk.compare_strategies(colors, weights=tiny, strategies=rest, seeds=(0,), **SMALL)
    assert trained[0] == {"layer4", "fc"}
    assert trained[1] == trained[2] == {"conv1", "bn1", "layer1", "layer2", "layer3"} | trained[0]


def test_partial_fine_tuning_needs_the_stages_of_a_resnet(colors):
    source = rk.weights("vgg11", None)
    with pytest.raises(ValueError, match="trains layer4 of a ResNet, which vgg11 does not have"):
        rk.compare_strategies(colors, weights=source)


def test_wrong_names_are_refused(colors):
    with pytest.raises(ValueError, match="no strategy 'magic'; expected some of: feature extract"):
        rk.compare_strategies(colors, strategies=["magic"])
    with pytest.raises(ValueError, match="no strategies, seeds or fractions"):
        rk.compare_strategies(colors, seeds=())
    with pytest.raises(ValueError, match="nothing was measured at the fraction 0.5"):
        Comparison((), True).best(0.5)


@pytest.mark.usefixtures("on_cpu")
def test_the_order_of_strategies_and_the_callers_numbers_make_no_difference(colors, tiny):
    losses = []
    for names in (["feature extraction"], ["features + kNN", "feature extraction"]):
        torch.manual_seed(len(names))
        before = torch.get_rng_state()
        found = rk.compare_strategies(colors, weights=tiny, strategies=names, seeds=(0,), **SMALL)
        assert torch.equal(torch.get_rng_state(), before)
        losses.append(found.runs[-1].val.loss)
    assert losses[0] == losses[1]


@pytest.mark.usefixtures("no_heif")
def test_what_is_odd_about_a_folder_is_said_once_in_a_comparison(colors, tiny, capsys):
    (colors / "train" / "red" / "1.heic").touch()
    rk.compare_strategies(
        colors, weights=tiny, strategies=["features + kNN"], seeds=(0, 1), fractions=(0.5, 1),
        val_from_train=0.25, **SMALL,
    )  # fmt: skip
    assert capsys.readouterr().out.count("1 .heic") == 1


def test_two_stages_train_the_head_first_and_then_all(colors, tiny, monkeypatch):
    stages, original = [], strategies.train_and_eval

    def watched(model, epochs, *arguments, **options):
        stages.append((epochs, sum(p.requires_grad for p in model.parameters())))
        return original(model, epochs, *arguments, **options)

    monkeypatch.setattr(strategies, "train_and_eval", watched)
    options = {**SMALL, "epochs": 4, "strategies": ["two-stage fine-tuning"], "seeds": [0]}
    found = rk.compare_strategies(colors, weights=tiny, **options)
    assert stages == [(1, 2), (3, 62)] and found.runs[0].strategy == "two-stage fine-tuning"
