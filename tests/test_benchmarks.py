import copy
import importlib
import itertools
import shlex
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import ColorJitter, Flip, ResizedCrop
from resnet_kit.files import read_weights
from resnet_kit.models import weights

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def run_script(script, monkeypatch):
    """Run a benchmark by its name, as with these words on the command line."""

    def run(name: str, *words) -> None:
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        script(name).main()

    return run


@pytest.fixture
def pretraining(script, monkeypatch, tmp_path):
    """The script, writing into an empty folder."""
    pretraining = script("pretraining")
    monkeypatch.setattr(pretraining, "ROOT", tmp_path)
    return pretraining


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Ten classes of 64 px noise, laid out as Tiny ImageNet is."""
    root = tmp_path / "tiny-imagenet-200"
    wnids = [f"n{number:08}" for number in range(10)]
    for number, wnid in enumerate(wnids):
        for index in range(3):
            file = root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG"
            write_picture(file, 10 * number + index, (64, 64))
        write_picture(root / "val" / "images" / f"val_{number}.JPEG", 100 + number, (64, 64))
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t9\t9" for number, wnid in enumerate(wnids)]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(wnids)))
    (root / "words.txt").write_text(
        "\n".join(f"{w}\tthing {i}, a thing" for i, w in enumerate(wnids))
    )
    return root


def test_a_long_run_is_resumed_and_ships_a_file_that_loads(
    pretraining, tiny, tmp_path, monkeypatch
):
    recipe = pretraining.Recipe(2, {1: 32}, batch_size=15, average=0.5)
    monkeypatch.setattr(rk, "train_and_eval", interrupted_after_one_epoch(rk.train_and_eval))
    given = {"seed": 0, "epochs": 2, "until": None, "no_checkpoint": False, "transfer_size": None}
    pretraining.long_run(tiny, recipe, Namespace(**given, score_at=None), "a command")
    assert not (tmp_path / "resnet_kit").exists()
    monkeypatch.undo()
    monkeypatch.setattr(pretraining, "ROOT", tmp_path)
    given |= {"transfer_size": 48}
    pretraining.long_run(tiny, recipe, Namespace(**given, score_at=40), "a command")
    document = rk.read_results(tmp_path / "results" / "pretraining.json")
    assert len(document["curves"]["long run"]) == 2 and len(document["rows"]) == 4
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "resnet_kit" / "models" / "shipped")
    source = rk.weights("resnet18", "tiny")
    assert source.classes[:2] == ("thing 0", "thing 1") and source.size == 48
    best = read_weights(tiny / "pretraining" / "best.safetensors")[0]
    model = rk.pretrained(source, num_classes=4)
    assert torch.allclose(model.conv1.weight, best["conv1.weight"], atol=1e-3)
    assert torch.equal(model.bn1.running_mean, best["bn1.running_mean"])


def interrupted_after_one_epoch(train_and_eval):
    def train(*arguments, **options):
        def stop(history):
            raise KeyboardInterrupt

        return train_and_eval(*arguments, **{**options, "on_epoch_end": stop})

    return train


def test_tiny_imagenet_is_read_in_the_order_of_its_wnids(pretraining, tiny):
    data = pretraining.read_tiny_imagenet(tiny)
    assert data["train_images"].shape == (30, 64, 64, 3)
    assert data["train_labels"].tolist() == [k for k in range(10) for _ in range(3)]
    assert data["val_labels"].tolist() == list(range(10))
    file = tiny / "train" / "n00000003" / "images" / "n00000003_1.JPEG"
    assert (data["train_images"][10] == rk.read_image(file).permute(1, 2, 0).numpy()).all()
    again = pretraining.read_tiny_imagenet(tiny)
    assert all((data[name] == again[name]).all() for name in data)


@pytest.mark.parametrize("schedule", ["trapezoid", "cosine"])
def test_the_rate_rises_and_ends_at_nothing(pretraining, schedule):
    shape = {"steps": 1000, "warm_up": 100, "schedule": schedule}
    factors = [pretraining.lr_factor(step, **shape) for step in range(1001)]
    assert factors[0] == 0.01 and factors[99] == 1 and factors[1000] == pytest.approx(0)
    assert factors[99:] == sorted(factors[99:], reverse=True)


@pytest.fixture
def cifar10(data_root) -> Path:
    """400 pictures of noise to learn from, 20 to test on, as cifar10.npz in the data root."""
    data_root.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 400), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(data_root / "cifar10.npz", **arrays)
    return data_root / "cifar10.npz"


def test_degradation_is_recorded_net_by_net(
    cifar10, tmp_path, script, run_script, monkeypatch, capsys
):
    degradation = script("degradation")
    monkeypatch.setattr(degradation, "RESULTS", tmp_path / "degradation.json")
    monkeypatch.setattr(
        degradation, "NETS", {"plain 8": {"depth": 8, "plain": True}, "residual 8": {"depth": 8}}
    )
    monkeypatch.setattr(degradation, "VAL", 100)
    options = (cifar10, "--epochs", "2", "--pictures", "120", "--search", "1")
    monkeypatch.setattr(degradation, "FIRST_RATES", (0.01, 0.1))
    monkeypatch.setattr(degradation, "RATES", (0.01, 0.1))
    run_script("degradation", *options)
    document = rk.read_results(tmp_path / "degradation.json")
    assert [len(rows) for rows in document["curves"].values()] == [2, 2]
    last = document["curves"]["plain 8, seed 0"][-1]
    *searched, train, val = document["rows"][:4]
    assert [row["lr"] for row in searched] == [0.01, 0.1]
    assert train["lr"] == max(searched, key=lambda row: row["value"])["lr"]
    assert train["value"] == 1 - last["train_accuracy"] and train["low"] < train["value"]
    assert val["value"] == 1 - last["val_accuracy"] and val["n"] == 100
    capsys.readouterr()
    run_script("degradation", *options)
    assert capsys.readouterr().out == "", "nets that are done are not trained again"


def test_degradation_measures_train_in_eval_mode_and_goes_on_within_a_net(
    cifar10, tmp_path, script, monkeypatch
):
    degradation = script("degradation")
    monkeypatch.setattr(degradation, "VAL", 100)
    data, net = degradation.cifar10(cifar10, 120), {"depth": 8}
    whole = degradation.train(data, net, 0.1, 3, 0, tmp_path / "whole")
    real = rk.train_and_eval
    monkeypatch.setattr(rk, "train_and_eval", interrupted_after_one_epoch(real))
    with pytest.raises(SystemExit, match="the same command goes on"):
        degradation.train(data, net, 0.1, 3, 0, tmp_path / "parts")
    monkeypatch.setattr(rk, "train_and_eval", real)
    parts = degradation.train(data, net, 0.1, 3, 0, tmp_path / "parts")
    first, second = (
        degradation.curve_of(net, history, tmp_path / folder, data)
        for history, folder in ((whole, "whole"), (parts, "parts"))
    )
    for row, other in zip(first, second, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=0.05)
    model = degradation.cifar_resnet(**net)
    rk.load_weights(model, tmp_path / "whole" / "epoch_0002.safetensors")
    model.to(rk.default_device()).eval()
    with torch.no_grad():
        found = [model(x).argmax(1).cpu() == labels for x, labels in data.plain("train")]
    share = torch.cat(found).float().mean().item()
    assert first[1]["train_accuracy"] == pytest.approx(share, abs=0.02)


def test_the_search_goes_on_while_the_best_rate_is_at_an_edge(script, monkeypatch):
    degradation, tried = script("degradation"), []

    def train(loaders, net, lr, epochs, seed, folder):
        tried.append(lr)
        rows = [{"val_accuracy": 0.9 - abs(lr - 0.003)}]
        return Namespace(rows=rows, stopped="non-finite" if lr == 0.1 else "finished")

    monkeypatch.setattr(degradation, "train", train)
    given = Namespace(search=1, pictures=120)
    found = degradation.search("plain 20", None, given, 0)
    assert tried == [0.01, 0.03, 0.1, 0.003, 0.001]
    assert max(found, key=found.get) == 0.003 and found[0.1] == 0.0


def test_cifar10_is_trained_both_ways_and_scored(
    cifar10, tmp_path, script, run_script, monkeypatch
):
    module = script("cifar10")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    few = rk.named_dataset
    monkeypatch.setattr(
        rk, "named_dataset", lambda name, **options: few(name, val_from_train=0.5, **options)
    )
    for what in ("ours", "tutorial"):
        run_script("cifar10", what, "--epochs", "1", "--depth", "8")
        rows = rk.read_results(tmp_path / f"cifar10_{what}_1.json")["rows"]
        assert [(row["split"], row["model"]) for row in rows] == [
            ("val", "ResNet-8"),
            ("test", "ResNet-8"),
        ]
        assert rows[1]["n"] == 20
    given = []  # without the minutes of a compiler, which this is not about
    monkeypatch.setattr(torch, "compile", lambda module: given.append(module) or module)
    run_script("cifar10", "speed", "--rounds", "1")
    assert len(given) == 1
    rows = rk.read_results(tmp_path / "cifar10_speed.json")["rows"]
    theirs, same, compiled, growing, bare, compiling, *ratios = (row["value"] for row in rows)
    assert rows[2]["recipe"].endswith("compile=True") and compiling is not None
    fast = [same / theirs, compiled / theirs, growing / theirs]
    assert ratios == pytest.approx([*fast, same / bare])
    monkeypatch.setattr(module, "ABLATIONS", {"our recipe": {}, "rate 1": {"lr": 1.0}})
    run_script("cifar10", "ablations", "--epochs", "2", "--depth", "8", "--pictures", "100")
    document = rk.read_results(tmp_path / "cifar10_ablations.json")
    assert [row["recipe"] for row in document["rows"]] == ["our recipe", "rate 1"]
    first, second = (rows[1]["train_loss"] for rows in document["curves"].values())
    assert first != second and document["rows"][0]["n"] == 200


def test_the_shipped_cifar_net_is_scored_in_right_and_wrong_ways(
    cifar10, tmp_path, script, run_script, monkeypatch
):
    monkeypatch.setattr(script("cifar10"), "RESULTS", tmp_path)
    run_script("cifar10", "shipped")
    val, test, *wrong_ways = rk.read_results(tmp_path / "cifar10_shipped.json")["rows"]
    assert (val["n"], test["n"]) == (40, 20) and val["classes"][3] == "cat"
    confusion = np.array(val["confusion"])
    assert confusion.sum() == 40 and confusion.trace() == round(40 * val["value"])
    most = val["confused"][0]
    row, column = (val["classes"].index(most[name]) for name in ("actual", "predicted"))
    np.fill_diagonal(confusion, 0)
    assert confusion.max() == confusion[row, column] == most["times"]
    assert val["mistakes"][0]["confidence"] >= val["mistakes"][-1]["confidence"] > 0.1
    for other in wrong_ways:
        lead = other["only shipped"] - other["only this"]
        assert lead == round(40 * (val["value"] - other["value"])) and 0 <= other["p"] <= 1


def test_a_forgotten_eval_makes_a_score_depend_on_the_batches(script):
    scored_in_train_mode = script("cifar10").scored_in_train_mode
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    data = rk.array_loaders(train=(images, np.arange(20) % 10))
    net = rk.cifar_resnet(8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    order = torch.randperm(20)
    whole = scored_in_train_mode(net, data.plain("train"), 20)
    again = scored_in_train_mode(net, data.plain("train"), 20, order)
    parts = scored_in_train_mode(net, data.plain("train"), 5)
    assert np.allclose(whole.probabilities, again.probabilities, atol=1e-5)
    assert (whole.labels == again.labels).all()
    assert not np.allclose(whole.probabilities, parts.probabilities, atol=1e-3)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_ten_class_set_is_trained_and_scored(tmp_path, script, run_script, monkeypatch):
    monkeypatch.setattr(script("ten_class_sets"), "RESULTS", tmp_path)
    run_script("ten_class_sets", "digits", "--epochs", "2", "--depth", "8")
    rows = rk.read_results(tmp_path / "ten_class_sets_digits.json")["rows"]
    assert [(row["split"], row["data"], row["n"]) for row in rows] == [
        ("val", "digits", 150),
        ("test", "digits", 297),
    ]
    assert rows[0]["recipe"] == "ours, 2 epochs of 1,350 pictures"


def test_strategies_are_compared_and_recorded(data_root, tmp_path, script, run_script, monkeypatch):
    strategies = script("strategies")
    monkeypatch.setattr(strategies, "RESULTS", tmp_path)
    monkeypatch.setattr(strategies, "SEEDS", (0,))
    monkeypatch.setattr(strategies, "FRACTIONS", (0.5, 1.0))
    two = ("feature extraction", "full fine-tuning")  # all of them are measured in test_strategies
    monkeypatch.setitem(rk.compare_strategies.__kwdefaults__, "strategies", two)
    run_script("strategies", "drawn", "--size", "16", "--epochs", "1")
    rows = rk.read_results(tmp_path / "strategies_drawn.json")["rows"]
    assert len(rows) == 2 * 2 * 2 * 2 + 1
    assert {row.get("pictures") for row in rows} == {24, 48, None}
    assert rows[0]["recipe"] == "feature extraction, 16 px, 1 epochs"
    assert rows[-1]["metric"] == "seconds of the whole comparison" and rows[-1]["value"] > 0


def test_features_once_are_timed_against_a_frozen_loop(folder, script, monkeypatch):
    module = script("feature_extraction_speed")
    for name in ("c", "d"):  # the benchmark has four classes
        shutil.copytree(folder / "train" / "a", folder / "train" / name)
        shutil.copytree(folder / "eval" / "a", folder / "eval" / name)
    pictures = torch.randn(2, 3, 32, 32)
    small = rk.pretrained(rk.weights("resnet18", "tiny"), num_classes=4).eval()
    grown = module.new_model().eval()
    assert len(grown.layer3) == 6
    small.fc.load_state_dict(grown.fc.state_dict())
    assert torch.allclose(grown(pictures), small(pictures), atol=1e-4)
    monkeypatch.setattr(module, "new_model", lambda: copy.deepcopy(grown))
    for run, times in ((module.tutorial, 2), (module.ours, 1), (module.bare_forward, 1)):
        seconds, accuracy = run(folder, 16, 2)
        assert len(seconds) == times and min(seconds) > 0
        assert accuracy is None if run is module.bare_forward else 0 <= accuracy <= 1


def test_fine_tuning_is_timed_side_by_side(folder, script):
    module = script("side_by_side")
    for name in ("c", "d"):  # the benchmark has four classes
        shutil.copytree(folder / "train" / "a", folder / "train" / name)
        shutil.copytree(folder / "eval" / "a", folder / "eval" / name)
    source = rk.weights("resnet18", None)
    for run in (module.ours, module.tutorial, module.bare_steps):
        seconds = run(folder, source, 32, 2)
        assert len(seconds) == 2 and min(seconds) > 0, run
    given = Namespace(arch="resnet18", size=32, epochs=3)
    tutorial = "tutorial loop, batch 6"
    measured = {module.OURS: [[5.0, 2.0, 4.0]], tutorial: [[9.0, 9.0, 9.0]]}
    measured[module.BARE] = [[7.0, 1.5, 1.5]]
    rows = {(r["recipe"], r["metric"]): r["value"] for r in module.rows_of(given, measured)}
    assert rows[module.OURS, f"times as fast as {tutorial}"] == 3.0
    assert rows[module.OURS, "share of our epoch that bare steps take"] == 0.5
    assert rows[tutorial, "seconds per epoch, from the second on"] == 9.0
    assert rows[module.OURS, "seconds of the first epoch"] == 5.0
    assert rows[module.OURS, "seconds of all 3 epochs"] == 11.0


def test_reading_and_overhead_are_measured(folder, tmp_path, script, monkeypatch):
    overhead, reading_speed = script("overhead"), script("reading_speed")
    for name, way in reading_speed.WAYS.items():
        assert reading_speed.seconds_of(way, folder / "train") > 0, name
    reading_speed.write_noise(tmp_path / "noise", 5)
    assert rk.inspect_folder(tmp_path / "noise", progress=False).problems().empty
    monkeypatch.setattr(overhead, "STEPS", 3)
    threads = torch.get_num_threads()
    bare, more = overhead.seconds_per_step(2)
    torch.set_num_threads(threads)
    assert bare > 0 and more > -bare
    torchs, ours = overhead.seconds_to_import()
    assert torchs > ours > 0


def test_augmentations_are_named_on_the_command_line(pretraining):
    found = pretraining.augmentation("crop:0.25,flip,jitter:0.4")
    assert found == (ResizedCrop(0.25), Flip(), ColorJitter(0.4))
    assert pretraining.augmentation("crop") == (ResizedCrop(),)


def test_recorded_recipes_are_those_of_their_commands(pretraining):
    """The recipe that is noted in the shipped file is the one that its command gives."""
    about = read_weights(next(weights.SHIPPED.glob("resnet18-tiny-*.safetensors")))[1]
    words = shlex.split(about["command"])
    given = dict(itertools.pairwise(words))
    assert f"augment={pretraining.augmentation(given['--augment'])}" in about["recipe"]
    assert f"lr={given['--lr']}, " in about["recipe"]
    assert f"batch_size={given['--batch-size']}," in about["recipe"]
    assert about["size"] == int(given["--transfer-size"])


def test_code_in_a_table_does_not_end_its_cell(script):
    table = script("results_table").table_of([("int | float", "2")], ("what", "value"))
    assert table.splitlines()[-1] == "| int \\| float | 2 |"


def test_the_figure_of_the_readme_shows_what_the_results_say(script):
    readme_figure, results_table = script("readme_figure"), script("results_table")
    figure = readme_figure.readme_figure()
    shown = {text.get_text() for text in figure.findobj(Text)}
    document = results_table.documents()["transfer_photos"]
    row = results_table.the_row(document, "transfer_photos", "test from scratch")
    assert {f"{100 * row['value']:.1f} %", "from scratch", "cat", "bees"} <= shown
