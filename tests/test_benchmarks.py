from pathlib import Path

import pytest
import torch

import resnet_kit as rk
from conftest import write_picture
from resnet_kit import transfer

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def pretraining(monkeypatch, tmp_path):
    """The script, writing into an empty folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pretraining

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
    pretraining.long_run(tiny, recipe, 0, 2, "a command")
    assert not (tmp_path / "resnet_kit").exists()
    monkeypatch.undo()
    monkeypatch.setattr(pretraining, "ROOT", tmp_path)
    pretraining.long_run(tiny, recipe, 0, 2, "a command", score_at=40)
    document = rk.read_results(tmp_path / "results" / "pretraining.json")
    assert len(document["curves"]["long run"]) == 2 and len(document["rows"]) == 4
    monkeypatch.setattr(transfer, "SHIPPED", tmp_path / "resnet_kit" / "weights")
    source = rk.weights("resnet18", "tiny")
    assert source.classes[:2] == ("thing 0", "thing 1") and source.size == 40
    best = rk.read_weights(tiny / "pretraining" / "best.safetensors")[0]
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
