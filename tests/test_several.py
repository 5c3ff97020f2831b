"""Several processes: real ones, over gloo, with tiny nets."""

import contextlib
import io
import os
import signal
import threading
import time
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

import resnet_kit as rk
from conftest import same, small_net, tensor_loader, without_times, write_picture
from resnet_kit import devices
from resnet_kit.data import TransformedLoader
from resnet_kit.data.arrays import ColorJitter, Crop, Flip
from resnet_kit.data.loaders import EpochSampler, Part, splits_of
from resnet_kit.settings import own_random_numbers, seed_everything
from resnet_kit.training import loop
from resnet_kit.training import state as training_state
from resnet_kit.training.checks import pictures_a_step
from resnet_kit.training.state import load_state, save_state
from resnet_kit.world import World, this_world

pytest.importorskip("accelerate", reason="Accelerate is not installed: pip install accelerate")
pytestmark = pytest.mark.usefixtures("on_cpu")
AUGMENT = [Crop(1), Flip(), ColorJitter(0.2)]


def plain_net() -> nn.Module:
    """No batch statistics and no dropout: what a picture gives does not depend on its batch."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # other weights in each process
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def arrays(batch_size: int, count: int = 36, val: int = 7, **options):
    """Learnable noise of 8 px; of class 0 there are more."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count + val) % 5 % 3
    noise = torch.randint(0, 128, (count + val, 8, 8, 3), generator=generator)
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    splits = {"train": (images[:count], labels[:count]), "val": (images[count:], labels[count:])}
    return rk.array_loaders(**splits, batch_size=batch_size, augment=AUGMENT, **options)


def trained(loaders=None, epochs=3, model=None, *, train=None, weighted=False, **options):
    """Train with all that depends on what is in a step; return weights, history, size."""
    model = model if model is not None else plain_net()
    weight = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    history = rk.train_and_eval(
        model, epochs, nn.CrossEntropyLoss(weight), optimizer,
        train if train is not None else loaders.train,
        loaders.val if loaders is not None else tensor_loader(12, seed=1),
        precision="fp32", progress=False, **options,
    )  # fmt: skip
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, history


def close(first: dict, second: dict) -> bool:
    return all(torch.allclose(first[k], second[k], rtol=1e-4, atol=1e-6) for k in first)


# Steps


EVERYTHING = {"accumulate": 2, "clip_norm": 0.5, "average": 0.5, "weighted": True}


def train_arrays(batch_size, options):
    return trained(arrays(batch_size), **options)


@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_a_batch_in_several_processes_are_steps_on_all_of_it(size, together):
    """Accumulation, clipping, class weights and the average of weights included."""
    whole, history = train_arrays(12, EVERYTHING)
    found = together(train_arrays, 12 // size, EVERYTHING, size=size).results()
    assert all(same(found[0][0], weights) for weights, _ in found)
    assert close(found[0][0], whole)
    for _, other in found:
        assert other.rows == found[0][1].rows and other.best_epoch == history.best_epoch
        assert other.step_pictures == history.step_pictures == 24
    for ours, theirs in zip(without_times(found[0][1]), without_times(history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert not close(whole, train_arrays(12 // size, EVERYTHING)[0])  # steps of less are others


def train_own_loaders(batch_size, folder):
    """What comes of each kind of loader; of a folder of 12 pictures, too."""
    given = {"workers": 1, "mean": (0.5,) * 3, "std": (0.2,) * 3, "announce": False}
    pictures = rk.image_folders(folder, size=8, batch_size=batch_size // 2, **given)
    plain = tensor_loader(24, batch_size=batch_size)
    wrapped = TransformedLoader(plain, lambda images, labels: (images * 2, labels))
    loaders = {"DataLoader": plain, "wrapped": wrapped, "list": list(plain)}
    loaders["folder"] = pictures.train
    return {kind: trained(train=loader)[0] for kind, loader in loaders.items()}


def test_folders_and_loaders_of_ones_own_are_divided_too(folder, together):
    write_picture(folder / "train" / "a" / "more.png", 99)
    found = together(train_own_loaders, 4, folder).results()
    for kind, whole in train_own_loaders(8, folder).items():
        assert same(found[0][kind], found[1][kind]), kind
        assert close(found[0][kind], whole), kind


def train_unlabelled(batch_size):
    """Two thirds of the pictures of some batches have no label, and a loss is a sum."""
    images, labels = next(iter(tensor_loader(24, batch_size=24)))
    labels[[0, 1, 4, 5, 6, 9, 10, 20]] = -100
    loader = DataLoader(TensorDataset(images, labels), batch_size=batch_size)
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    val, criterion = tensor_loader(12, seed=1), nn.CrossEntropyLoss(reduction="sum")
    options = {"precision": "fp32", "progress": False}
    rk.train_and_eval(model, 1, criterion, optimizer, loader, val, **options)
    history = rk.train_and_eval(model, 1, nn.CrossEntropyLoss(), optimizer, loader, val, **options)
    return model.state_dict(), history


def test_pictures_without_a_label_and_summed_losses_weigh_the_same(together):
    whole, history = train_unlabelled(8)
    found = together(train_unlabelled, 4).results()
    assert same(found[0][0], found[1][0]) and close(found[0][0], whole)
    assert without_times(found[0][1])[0] == pytest.approx(without_times(history)[0], rel=1e-4)


def train_with_statistics():
    model = small_net()
    rk.freeze(model, "0", "1")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = before, trained(arrays(4), 2, model)[0]
    return trained(arrays(4), 2, small_net(), average=0.5)[0], frozen


def test_statistics_of_batchnorm_are_shared_and_frozen_ones_stay(together):
    """Each process normalises with its own batch: the steps are not those on the whole batch."""
    whole = trained(arrays(12), 2, small_net(), average=0.5)[0]
    found = together(train_with_statistics, size=3).results()
    assert all(same(found[0][0], weights) for weights, _ in found)
    assert not close(found[0][0], whole)
    for _, (before, after) in found:
        assert same(*({k: t for k, t in x.items() if k[0] in "01"} for x in (before, after)))
        assert not torch.equal(before["6.weight"], after["6.weight"])


class Recording(nn.Dropout):
    """Keeps what it drops while it trains."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def forward(self, inputs):
        if self.training:
            self.masks.append(super().forward(torch.ones_like(inputs)))
        return inputs


def draw_dropout():
    drawn = []
    for _ in range(2):
        model, masks = small_net(), []
        model[5] = Recording(masks)
        trained(arrays(6), 1, model)
        drawn.append(torch.cat(masks))
    return drawn, torch.rand(1)


def test_dropout_differs_between_processes_and_repeats_between_runs(together):
    (first, after), (second, later) = together(draw_dropout).results()
    assert torch.equal(*first) and torch.equal(*second)
    assert first[0].shape == second[0].shape and not torch.equal(first[0], second[0])
    assert torch.equal(after, later)  # the caller's random numbers are as they were


# Which picture goes where


class Place(World):
    """A place in a world that exchanges nothing."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


class Numbers(Dataset):
    """Item `index` or `(epoch, index)` is the index."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        return key[1] if isinstance(key, tuple) else key


def parts_of(loader, size, *, even):
    """What each process takes, batch by batch."""
    found = []
    for rank in range(size):
        part = Part(loader, Place(rank, size), even=even)
        generator = getattr(getattr(loader, "sampler", None), "generator", None)
        if generator is not None:  # which Accelerate gave it; a process has one of its own
            generator.manual_seed(0)
        with own_random_numbers(0):
            found.append(list(part))
        assert len(part) == len(found[-1])
    return found


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("count", range(3, 14))
def test_every_process_takes_as_many_steps_on_pictures_of_its_own(count, size):
    """Left out are fewer pictures than processes, and those that would be alone in a batch."""
    sampler = EpochSampler(count, seed=0, batch_size=3)
    loader = DataLoader(Numbers(count), batch_size=3, sampler=sampler, collate_fn=list)
    parts = []
    for rank in range(size):
        sampler.epoch = 1
        with own_random_numbers(0):
            parts.append(list(Part(loader, Place(rank, size), even=True)))
    assert len({tuple(map(len, batches)) for batches in parts}) == 1
    seen = list(chain(*chain(*parts)))
    assert len(seen) == len(set(seen))
    share = count // size
    assert len(seen) == size * (share - (share > 3 and share % 3 == 1))
    assert (sampler.rank, sampler.processes) == (0, 1)


def numbers_in(kind, count):
    if kind == "list":
        return [list(range(count))[start : start + 3] for start in range(0, count, 3)]
    options = {"collate_fn": list, "batch_size": 3, "shuffle": kind == "shuffled"}
    return DataLoader(Numbers(count), **options, drop_last=kind == "drop_last")


KINDS = ["in order", "shuffled", "drop_last", "list"]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_batch_is_evaluated_once(kind, size):
    for count in range(1, 20):
        loader = numbers_in(kind, count)
        if not len(loader):
            continue
        parts = parts_of(loader, size, even=False)
        assert len(set(map(len, parts))) == 1  # rounds, in which all hear of Ctrl-C
        ordered = [batch for found in zip(*parts, strict=True) for batch in found if batch]
        assert sorted(chain(*ordered)) == list(range(count - (kind == "drop_last") * count % 3))
        if kind != "shuffled":
            assert ordered == list(loader)


@pytest.mark.parametrize("kind", KINDS)
def test_loaders_of_ones_own_train_in_rounds(kind):
    """A DataLoader's last round is filled up, of anything else an incomplete one is left out."""
    for count in (6, 7, 11, 12, 13):
        parts = parts_of(numbers_in(kind, count), 2, even=True)
        assert len(parts[0]) == len(parts[1])
        seen = list(chain(*chain(*parts)))
        if kind in ("in order", "shuffled"):
            assert set(seen) == set(range(count)) and len(seen) - count < 6
        else:
            assert len(seen) == len(set(seen)) and count - len(seen) < 6


def test_fewer_pictures_than_processes_are_refused():
    loader = arrays(4, count=3).train
    message = "3 training pictures for 4 processes; expected at least one each"
    with pytest.raises(ValueError, match=message):
        Part(loader, Place(0, 4), even=True)


# Scores, features, rates


def score_everything(folder):
    """Results of every size of data and every kind of loader; those of shuffled ones sorted."""
    model, found = small_net(), []
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # each would shuffle otherwise
    for count in range(1, 8):
        dataset = tensor_loader(count).dataset
        for loader in (
            DataLoader(dataset, batch_size=2),
            DataLoader(dataset, batch_size=2, drop_last=count > 1),
            DataLoader(dataset, batch_size=2, shuffle=True),
            TransformedLoader(DataLoader(dataset, batch_size=2, shuffle=True)),
        ):
            result = rk.evaluate(model, loader, progress=False)
            rows = np.column_stack([result.probabilities, result.labels])
            in_order = isinstance(loader.sampler, SequentialSampler)
            found.append((rows if in_order else np.sort(rows, axis=0), result.loss))
        result = rk.evaluate(model, arrays(2, val=count).val, progress=False)
        found.append((result.probabilities, result.loss))
    loaders = rk.image_folders(folder, size=16, batch_size=2, workers=1, announce=False)
    result = rk.evaluate(small_net(2), loaders.val, progress=False)
    return [*found, (result.probabilities, result.loss)], result.files, loaders


def compute_everything(folder):
    """Scores, features and a search for a rate."""
    found, files, loaders = score_everything(folder)
    seed_everything(0)
    model = rk.cifar_resnet(8, num_classes=2)
    options = {"precision": "fp32", "progress": False, "batch_size": 4}
    features = rk.extract_features(model, loaders, views=2, **options)
    rows = {name: (x.dataset.features, x.dataset.labels) for name, x in splits_of(features).items()}
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train = arrays(6 // this_world().size).train
    search = rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, train, steps=20)
    return found, files, rows, (search.losses, search.suggestion)


@pytest.mark.parametrize("size", [2, 3])
def test_scores_features_and_rates_are_those_of_one_process(size, folder, together):
    """For every remainder of the size of the data by processes; in the order of the data."""
    alone = compute_everything(folder)
    for found in together(compute_everything, folder, size=size).results():
        for (ours, loss), (theirs, expected) in zip(found[0], alone[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
            assert loss == pytest.approx(expected, rel=1e-6)
        assert found[1] == alone[1] and len(alone[1]) == 5
        for name, (features, labels) in alone[2].items():
            assert torch.allclose(found[2][name][0], features, rtol=1e-6)
            assert torch.equal(found[2][name][1], labels)
        assert found[3][0] == pytest.approx(alone[3][0], rel=1e-4)
        assert found[3][1] == pytest.approx(alone[3][1])


# What ends, what is written, what goes on


def train_into(folder, epochs, options):
    """Train with a checkpoint; say how often this process wrote which file."""
    written, atomic = [], training_state.atomic_file
    training_state.atomic_file = lambda path: written.append(path.name) or atomic(path)
    try:
        weights, history = trained(arrays(4), epochs, small_net(), checkpoint=folder, **options)
    finally:
        training_state.atomic_file = atomic
    return weights, history, len(written)


def die_in_epoch_3(folder):
    model, steps = small_net(), []

    def count(*args):
        steps.append(model.training)
        if sum(steps) == 12 and os.environ["RANK"] == "1":  # 5 steps an epoch
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(count)
    trained(arrays(4), 4, model, checkpoint=folder)


def test_a_process_that_dies_ends_all_and_the_run_is_resumed(tmp_path, together):
    whole = together(train_into, tmp_path / "whole", 4, {}).results()
    assert [written for _, _, written in whole] == [4, 0]  # last.pt after each epoch
    start = time.monotonic()
    error, nothing = together(die_in_epoch_3, tmp_path / "parts").results(30)
    assert time.monotonic() - start < 30
    assert nothing is None
    assert "RuntimeError: process 0 (of 0 to 1) has lost another one, which ended" in error
    assert len(load_state(tmp_path / "parts" / "last.pt")["history"]["rows"]) == 2
    resumed = together(train_into, tmp_path / "parts", 4, {"resume": True}).results()
    for (weights, history, written), rank in zip(resumed, (0, 1), strict=True):
        assert same(weights, whole[0][0]) and written == 2 * (rank == 0)
        assert without_times(history) == without_times(whole[0][1])
        assert history.rows == resumed[0][1].rows


def test_another_number_of_processes_is_not_resumed(tmp_path, together):
    train_into(tmp_path, 1, {})
    refused = together(train_into, tmp_path, 2, {"resume": True}).results()
    for error in refused:
        assert "ValueError: this is not the training in" in error
        assert "processes was 1, is 2" in error
    for error in together(train_into, tmp_path, 2, {}).results():
        assert "FileExistsError" in error and "holds a training of 1 epoch" in error
    assert load_state(tmp_path / "last.pt")["plan"]["processes"] == 1


@pytest.mark.parametrize("lacking", ["plan", "processes"])
def test_runs_that_do_not_say_how_many_processes_there_were_are_resumed(lacking, tmp_path):
    train_into(tmp_path, 1, {})
    state = load_state(tmp_path / "last.pt")
    del (state if lacking == "plan" else state["plan"])[lacking]
    save_state(state, tmp_path / "last.pt")
    assert len(train_into(tmp_path, 2, {"resume": True})[1].rows) == 2


def wait_for_a_press():
    if os.environ["RANK"] == "1":
        threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT)).start()
    weights, history = trained(arrays(6), 10_000)
    result = rk.evaluate(plain_net(), arrays(6).val, progress=False)
    return weights, history, len(result.labels)


def test_ctrl_c_in_one_process_is_a_normal_end_of_all(together):
    start = time.monotonic()
    found = together(wait_for_a_press).results(30)
    assert time.monotonic() - start < 30
    assert [history.stopped for _, history, _ in found] == ["interrupted", "interrupted"]
    assert same(found[0][0], found[1][0]) and found[0][1].rows == found[1][1].rows
    assert [count for _, _, count in found] == [7, 7]  # and they still work together


class Damaged(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 3:  # the second batch is of process 1
            raise OSError("a damaged picture")
        return torch.zeros(3, 8, 8), 0


def train_on_damaged():
    return trained(train=DataLoader(Damaged(), batch_size=2))


def test_an_error_in_one_process_ends_the_others(together):
    ours, theirs = together(train_on_damaged).results(30)
    assert theirs == "OSError: a damaged picture"
    assert "RuntimeError: process 0 (of 0 to 1) has lost another one" in ours


def show_and_say():
    bars, output = [], io.StringIO()
    shown = loop.progress_bar
    loop.progress_bar = lambda **options: bars.append(options["show"]) or shown(**options)
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = arrays(6)
    with contextlib.redirect_stdout(output):
        rk.train_and_eval(model, 1, nn.CrossEntropyLoss(), optimizer, data.train, data.val)
    return bars, output.getvalue()


@pytest.mark.parametrize(
    ("rank", "accumulate", "said"),
    [
        (0, 1, "12 pictures a step: 2 processes with batches of 6. The best rate depends on it.\n"),
        (0, 3, "36 pictures a step: 2 processes with batches of 6, accumulate=3. The best "),
        (1, 1, ""),
    ],
)
def test_the_first_process_alone_says_how_many_pictures_a_step_takes(
    rank, accumulate, said, capsys
):
    world = SimpleNamespace(size=2, rank=rank)
    assert pictures_a_step(world, 6, accumulate) == 12 * accumulate
    shown = capsys.readouterr().out
    assert shown.startswith(said) and bool(shown) == (rank == 0)


def test_one_process_shows_a_bar_and_says_how_many_pictures_a_step_takes(together):
    said = "12 pictures a step: 2 processes with batches of 6. The best rate depends on it.\n"
    assert together(show_and_say).results() == [([True], said), ([False], "")]


# What each process uses of a machine


def test_each_process_has_a_gpu_of_its_own_and_a_share_of_the_rest(monkeypatch):
    monkeypatch.delenv("RESNET_KIT_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert rk.default_device() == torch.device("cuda")
    cores, memory = devices.cpu_count(), devices.free_memory(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert rk.default_device() == torch.device("cuda", 1)
    assert devices.cpu_count() == max(1, cores // 8)
    assert devices.free_memory(torch.device("cpu")) == pytest.approx(memory / 8, rel=0.2)


def test_processes_that_were_not_introduced_to_each_other_are_refused(elsewhere, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RESNET_KIT_DEVICE", "mps")
    with pytest.raises(RuntimeError, match="WORLD_SIZE is 3, but Accelerate finds 1: start"):
        elsewhere(this_world)
