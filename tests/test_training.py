import copy
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from tqdm import tqdm

import resnet_kit as rk
from conftest import same, small_net, tensor_loader, without_times, write_picture
from resnet_kit import settings
from resnet_kit.data import TransformedLoader, UnreadableImageError
from resnet_kit.files import read_weights
from resnet_kit.models import replace_head
from resnet_kit.training import loop
from resnet_kit.training import state as state_of_runs
from resnet_kit.training.state import RunningAverage, load_state


def run(model=None, epochs=2, train=None, val=None, *, lr=0.1, momentum=0.9, **options):
    """Train the small net with SGD; return the model and the history."""
    model = model if model is not None else small_net()
    optimizer = options.pop("optimizer", None)
    if optimizer is None:
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, lr=lr, momentum=momentum)
    scheduler = options.pop("scheduler", None)
    history = rk.train_and_eval(
        model,
        epochs,
        options.pop("criterion", nn.CrossEntropyLoss()),
        optimizer,
        train if train is not None else tensor_loader(shuffle=True),
        val if val is not None else tensor_loader(12, seed=1),
        scheduler=scheduler(optimizer) if scheduler else None,
        **options,
    )
    return model, history


def state(model):
    return {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}


class Scripted:
    """A val loader whose accuracy per epoch is given: the model must always answer class 0."""

    def __init__(self, accuracies):
        self.accuracies, self.epoch = accuracies, 0

    def __iter__(self):
        right = round(10 * self.accuracies[self.epoch])
        self.epoch += 1
        yield torch.zeros(10, 3, 8, 8), torch.tensor([0] * right + [1] * (10 - right))


class AlwaysZero(nn.Module):
    """Answers class 0; its weight counts the steps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        logits = images.new_zeros(len(images), 3) + 0 * self.weight
        logits[:, 0] += 5
        return logits - self.weight.sum() * images.new_ones(3)


class Counting(torch.optim.SGD):
    """Adds 1 to the weight at each step."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.data += 1


# What is learned, and what is kept


def test_it_learns_and_reports_every_epoch():
    model, history = run(epochs=12, lr=0.3)
    assert history.best_accuracy > 0.8
    assert [row["epoch"] for row in history.rows] == list(range(1, 13))
    keys = {"epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "seconds"}
    assert set(history.rows[0]) == keys
    assert history.stopped == "finished" and history.seconds > 0
    assert history.to_frame().index.tolist() == list(range(1, 13))
    assert not any(module.training for module in model.modules())
    assert history.plot()._repr_png_().startswith(b"\x89PNG")
    assert "12 epochs" in repr(history)


def test_best_weights_are_a_copy_and_ties_keep_the_earlier():
    model = AlwaysZero()
    optimizer = Counting(model.parameters(), lr=1)
    val = Scripted([0.2, 0.6, 0.6, 0.4])
    _, history = run(model, 4, tensor_loader(4, batch_size=4), val, optimizer=optimizer)
    assert (history.best_epoch, history.best_accuracy) == (2, 0.6)
    assert model.weight.item() == 2  # one step an epoch: the weights of epoch 2, not of epoch 4


def test_best_accuracy_is_what_evaluate_finds():
    val = tensor_loader(30, seed=1, batch_size=7)
    model, history = run(epochs=4, val=val, precision="fp32")
    assert rk.evaluate(model, val).accuracy == history.best_accuracy


@pytest.mark.usefixtures("on_cpu")
def test_short_last_batch_is_weighted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    loaders = [tensor_loader(10, batch_size=size) for size in (10, 8)]
    whole, parts = (run(model, 1, train=x, val=x, lr=0, momentum=0)[1].rows[0] for x in loaders)
    for split in ("train", "val"):
        assert parts[f"{split}_loss"] == pytest.approx(whole[f"{split}_loss"], rel=1e-6)
        assert parts[f"{split}_accuracy"] == whole[f"{split}_accuracy"]


@pytest.mark.usefixtures("on_cpu")
def test_frozen_backbone_is_bit_identical():
    model = small_net()
    images = torch.randn(5, 3, 8, 8)
    rk.freeze(model, "0", "1")
    model.eval()
    before, features = state(model), model[:5](images).clone()
    run(model, 3)
    assert torch.equal(model[:5](images), features)
    after = state(model)
    assert all(torch.equal(after[k], before[k]) for k in after if k[0] in "01")
    assert not torch.equal(after["6.weight"], before["6.weight"])


def test_unfrozen_batchnorm_does_drift():
    model = small_net()
    model[1].requires_grad_(True)
    before = model[1].running_mean.clone()
    run(model, 1)
    assert not torch.equal(model[1].running_mean.cpu(), before)


def test_features_train_a_head_with_the_same_loop():
    loader = [(torch.eye(6).repeat(4, 1), torch.arange(24) % 6 % 3)]
    head = nn.Linear(6, 3)
    assert run(head, 30, [*loader], [*loader, *loader], lr=0.5)[1].best_accuracy == 1


# The optimizer, the scheduler and the arithmetic


def test_stale_optimizer_is_refused():
    model = small_net()
    rk.freeze(model, "0", "1")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    rk.unfreeze(model)
    message = (
        r"4 trainable parameters are not in the optimizer \(first: 0.weight\); "
        r"build the optimizer after unfreeze\(\)"
    )
    with pytest.raises(ValueError, match=message):
        run(model, optimizer=optimizer)
    rk.freeze(model)
    with pytest.raises(ValueError, match="whole model is frozen"):
        run(model, optimizer=optimizer)


def test_scheduler_of_another_optimizer_is_refused():
    other = torch.optim.SGD(small_net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="belongs to another optimizer"):
        run(scheduler=lambda optimizer: CosineAnnealingLR(other, 2))


def test_scheduler_steps_by_epoch_or_by_step():
    halve = {"lr_lambda": lambda count: 0.5**count}
    _, history = run(epochs=3, scheduler=lambda o: LambdaLR(o, **halve))
    assert [row["lr"] for row in history.rows] == [0.1, 0.05, 0.025]
    _, history = run(epochs=2, scheduler=lambda o: LambdaLR(o, **halve), scheduler_every="step")
    assert [row["lr"] for row in history.rows] == [0.1 / 2**3, 0.1 / 2**6]  # 3 steps an epoch


def test_plateau_scheduler_gets_the_val_loss():
    seen = []

    class Watched(ReduceLROnPlateau):
        def step(self, metrics):
            seen.append(metrics)
            super().step(metrics)

    _, history = run(epochs=3, scheduler=Watched)
    assert seen == [row["val_loss"] for row in history.rows]
    with pytest.raises(ValueError, match="needs the val loss"):
        run(scheduler=ReduceLROnPlateau, scheduler_every="step")


def test_accumulated_batches_equal_one_large_batch():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    run(nets[0], 1, train=tensor_loader(20, batch_size=15), precision="fp32")
    run(nets[1], 1, train=tensor_loader(20, batch_size=5), accumulate=3, precision="fp32")
    assert torch.allclose(nets[0][1].weight, nets[1][1].weight, atol=1e-6)


def test_gradients_are_clipped():
    norms = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
            norms.append(torch.cat(grads).norm().item())
            super().step(closure)

    for clip in (None, 1e-3):
        model = small_net()
        run(model, 1, optimizer=Watched(model.parameters(), lr=0.1), clip_norm=clip)
    assert min(norms[:3]) > 1e-2 and max(norms[3:]) == pytest.approx(1e-3, rel=1e-2)


def test_running_average_is_what_is_validated_and_kept():
    model = AlwaysZero()
    optimizer = Counting(model.parameters(), lr=1)
    train = tensor_loader(12, batch_size=4)
    run(model, 1, train, Scripted([0.5]), optimizer=optimizer, average=0.5)
    # Weights 1, 2, 3 after the steps: the average starts at 1, then 1.5, then 2.25.
    assert model.weight.item() == pytest.approx(2.25)


def test_compiled_training_gives_a_trained_plain_model(monkeypatch, tmp_path):
    calls = []
    compiled = torch.compile

    def eager(module):
        calls.append(module)
        return compiled(module, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    model, history = run(epochs=2, compile=True, checkpoint=tmp_path)
    assert calls == [model] and type(model) is nn.Sequential
    assert set(load_file(tmp_path / "best.safetensors")) == set(model.state_dict())
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert "_orig_mod" not in str(last)
    assert history.rows[1]["train_loss"] < history.rows[0]["train_loss"]


def test_precision_and_memory_format_during_and_after():
    seen, last = [], torch.channels_last

    def note(layer, inputs, output):
        formats = [t.is_contiguous(memory_format=last) for t in (inputs[0], layer.weight)]
        seen.append((output.dtype, layer.weight.dtype, *formats))

    model = small_net()
    model[0].register_forward_hook(note)
    strides = model[0].weight.stride()
    run(model, 1, precision="bf16")
    assert set(seen[:3]) == {(torch.bfloat16, torch.float32, True, True)}
    assert model[0].weight.stride() == strides and model[0].weight.dtype == torch.float32
    seen.clear()
    run(model, 1, precision="fp32")
    assert set(seen) == {(torch.float32, torch.float32, False, False)}


def test_saved_tensors_are_contiguous(tmp_path):
    run(epochs=1, checkpoint=tmp_path, precision="bf16")
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    tensors = [*saved["model"].values(), *saved["best"].values()]
    assert all(tensor.is_contiguous() for tensor in tensors)


def test_fp16_trains_with_a_scaler(tmp_path):
    for precision in ("fp16", "fp32"):
        _, history = run(epochs=2, precision=precision, checkpoint=tmp_path / precision)
        assert history.stopped == "finished"
    assert load_state(tmp_path / "fp16" / "last.pt")["scaler"]["scale"] > 1
    assert load_state(tmp_path / "fp32" / "last.pt")["scaler"] == {}, "full precision needs none"


def test_no_tensor_is_read_during_the_steps(monkeypatch):
    """Reading a tensor's value makes a GPU wait; count the reads for 3 and for 30 steps."""
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original, name=name):
            reads.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    counts = []
    for steps in (3, 30):
        train = [(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))] * steps
        reads.clear()
        run(None, 1, train, tensor_loader(4), progress=False)
        counts.append(len(reads))
    assert counts[0] == counts[1]


def test_a_bar_reads_at_most_four_times_a_second(monkeypatch):
    reads, original = [], loop.Meter.read

    def bar(total, show):
        return tqdm(total=total, file=io.StringIO(), disable=False)

    monkeypatch.setattr(loop, "progress_bar", bar)
    monkeypatch.setattr(loop.Meter, "read", lambda self: reads.append(1) or original(self))

    class Slow:
        def __iter__(self):
            for _ in range(60):
                time.sleep(0.01)
                yield torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)

    start = time.perf_counter()
    run(None, 1, Slow(), tensor_loader(4))
    assert 2 < len(reads) <= 2 + 4 * (time.perf_counter() - start)


def test_a_bar_counts_the_training_batches_of_all_epochs(monkeypatch, tmp_path):
    bars = []

    def bar(total, show):
        bars.append(tqdm(total=total, file=io.StringIO(), disable=False))
        return bars[-1]

    monkeypatch.setattr(loop, "progress_bar", bar)
    loaders = {"train": tensor_loader(12, batch_size=4), "val": tensor_loader(4, batch_size=4)}
    run(epochs=2, checkpoint=tmp_path, **loaders)
    run(epochs=5, checkpoint=tmp_path, resume=True, **loaders)
    assert [(bar.total, bar.n) for bar in bars] == [(6, 6), (15, 15)]


# Same seed, same run; resume


@pytest.mark.usefixtures("on_cpu")
def test_same_seed_same_run_and_the_callers_random_numbers_stay():
    first, _ = run(epochs=2, precision="fp32")
    model = small_net()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second, _ = run(epochs=2, precision="fp32", model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(first), state(second))
    assert not same(state(first), state(run(epochs=2, precision="fp32", seed=1)[0]))


def test_callers_random_numbers_are_put_back():
    model, loaders = small_net(), (tensor_loader(shuffle=True), tensor_loader(12, seed=1))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(model, 1, *loaders)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wrap", [lambda loader: loader, TransformedLoader])
def test_loaders_own_generator_is_seeded_too(workers, wrap):
    data = tensor_loader(20).dataset

    def trained():
        generator = torch.Generator().manual_seed(torch.randint(1000, ()).item())
        loader = DataLoader(data, 8, shuffle=True, generator=generator, num_workers=workers)
        return state(run(train=wrap(loader), precision="fp32")[0])

    assert same(trained(), trained())


SCHEDULERS = {
    "none": {},
    "epoch": {"scheduler": lambda o: MultiStepLR(o, [2, 3])},
    "step": {"scheduler": lambda o: OneCycleLR(o, 0.2, total_steps=12), "scheduler_every": "step"},
    "chain": {
        "scheduler": lambda o: SequentialLR(
            o, [LambdaLR(o, lambda n: (n + 1) / 4), CosineAnnealingLR(o, 8)], [4]
        ),
        "scheduler_every": "step",
    },
}


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, name):
    options = {"precision": "fp32", "average": 0.9, **SCHEDULERS[name]}
    whole, history = run(epochs=4, **options)

    class Stop(Exception):
        pass

    def stop(history):
        if len(history.rows) == 2:
            raise Stop

    with pytest.raises(Stop):
        run(epochs=4, checkpoint=tmp_path, on_epoch_end=stop, **options)
    model = small_net()
    torch.nn.init.zeros_(model[6].weight)  # a resumed run takes nothing from its model
    parts, resumed = run(model, 4, checkpoint=tmp_path, resume=True, **options)
    assert same(state(whole), state(parts))
    assert without_times(history) == without_times(resumed)


def train_from_files(root, checkpoint, kill):
    """Train four epochs of three steps each; with `kill` be killed in the middle of the third."""
    os.environ["RESNET_KIT_DEVICE"] = "cpu"  # where a run is the same bit for bit
    torch.set_num_threads(1)  # of several such processes at once
    usual = multiprocessing.get_all_start_methods()[0]
    multiprocessing.set_start_method(usual, force=True)  # of the workers
    workers, every = checkpoint.name.split("-")
    loaders = rk.image_folders(root, size=16, batch_size=4, workers=int(workers), augment="trivial")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(4, 2),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = OneCycleLR(optimizer, 0.05, total_steps=12) if every == "step" else None
    steps = 0

    def count(*args):
        nonlocal steps
        steps += model.training
        if kill and steps == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(count)
    rk.train_and_eval(
        model, 4, nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val,
        scheduler=scheduler, scheduler_every="step", precision="fp32", checkpoint=checkpoint,
        resume=True, progress=False,
    )  # fmt: skip
    rk.save_weights(model, checkpoint / "final.safetensors")


def test_killed_and_resumed_runs_are_bit_identical(folder, tmp_path, processes):
    """With 0 and with 2 workers, with and without a scheduler that steps every step."""

    def start(place, kill=False):
        process = processes.Process(target=train_from_files, args=(folder, tmp_path / place, kill))
        process.start()
        return process

    def ends(running):
        for process in running:
            process.join()
        return [process.exitcode for process in running]

    names = [f"{workers}-{every}" for workers in (0, 2) for every in ("none", "step")]
    whole = [start(f"whole/{name}") for name in names]
    killed = [start(f"parts/{name}", kill=True) for name in names]
    assert ends(killed) == [-signal.SIGKILL] * len(names)
    for name in names:
        assert len(load_state(tmp_path / "parts" / name / "last.pt")["history"]["rows"]) == 2
    assert ends([*whole, *[start(f"parts/{name}") for name in names]]) == [0] * 2 * len(names)
    for name in names:
        parts, uninterrupted = (
            read_weights(tmp_path / kind / name / "final.safetensors")[0]
            for kind in ("parts", "whole")
        )
        assert same(parts, uninterrupted), name


def test_finished_run_resumes_to_itself_and_can_be_prolonged(tmp_path):
    model, history = run(epochs=2, checkpoint=tmp_path)
    again, other = run(small_net(), 2, checkpoint=tmp_path, resume=True)
    assert same(state(model), state(again)) and other.rows == history.rows
    _, longer = run(small_net(), 3, checkpoint=tmp_path, resume=True)
    assert len(longer.rows) == 3 and longer.rows[:2] == history.rows


def test_a_run_is_not_written_over_by_accident(tmp_path):
    run(epochs=1, checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="a training of 1 epoch; resume=True goes on"):
        run(epochs=1, checkpoint=tmp_path)


def test_a_file_in_the_checkpoints_place_is_refused_before_training(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError, match="run is a file; expected a folder"):
        run(checkpoint=tmp_path / "run")


def test_another_run_is_not_resumed(tmp_path, capsys):
    _, history = run(epochs=1, checkpoint=tmp_path / "new", resume=True)
    assert "Nothing to resume" in capsys.readouterr().out and len(history.rows) == 1
    run(epochs=1, checkpoint=tmp_path / "a")
    with pytest.raises(ValueError, match="not the training in .*seed was 0, is 1"):
        run(checkpoint=tmp_path / "a", resume=True, seed=1)
    with pytest.raises(ValueError, match="scheduler was None, is 'CosineAnnealingLR'"):
        run(checkpoint=tmp_path / "a", resume=True, scheduler=lambda o: CosineAnnealingLR(o, 2))
    with pytest.raises(ValueError, match="does not fit this Sequential"):
        run(small_net(5), checkpoint=tmp_path / "a", resume=True)
    model = small_net()
    halves = [{"params": model[:6].parameters()}, {"params": model[6].parameters()}]
    with pytest.raises(ValueError, match="lr of parameter group 2 was None, is 0.1"):
        run(model, checkpoint=tmp_path / "a", resume=True, optimizer=torch.optim.SGD(halves, 0.1))
    (tmp_path / "a" / "last.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="damaged or no resume state"):
        run(checkpoint=tmp_path / "a", resume=True)


def test_numpys_numbers_can_be_resumed(tmp_path):
    options = {"checkpoint": tmp_path, "seed": np.int64(3), "clip_norm": np.float64(1)}
    run(epochs=1, lr=np.float64(0.1), **options)
    assert len(run(epochs=2, lr=np.float64(0.1), resume=True, **options)[1].rows) == 2


@pytest.mark.usefixtures("on_cpu")
def test_gradients_of_an_earlier_cell_do_not_count():
    models = [small_net(), small_net()]
    models[0][6].weight.grad = torch.full_like(models[0][6].weight, 1e6)
    assert same(*[state(run(model, precision="fp32")[0]) for model in models])


def test_weights_that_the_last_step_broke_are_never_the_best():
    class Exploding(torch.optim.SGD):
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                parameter.data *= float("inf")

    model = small_net()
    optimizer = Exploding(model.parameters(), 0.1)
    _, history = run(model, 1, train=tensor_loader(4), optimizer=optimizer)
    assert (history.stopped, history.best_epoch) == ("non-finite", None)


def test_streams_and_volumes_can_be_trained_on():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(3, 8, 8), 0), (torch.ones(3, 8, 8), 1)])

    assert len(run(train=DataLoader(Stream(), 2))[1].rows) == 2
    volumes = [(torch.randn(2, 1, 4, 4, 4), torch.tensor([0, 1]))]
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(16, 2))
    assert len(run(net, 1, train=volumes, val=[*volumes])[1].rows) == 1


def test_the_best_weights_are_written_only_when_they_are_better(tmp_path, monkeypatch):
    written, original = [], state_of_runs._save_best

    def save_best(run, folder):
        written.append(run.history.best_epoch)
        original(run, folder)

    monkeypatch.setattr(state_of_runs, "_save_best", save_best)
    run(epochs=3, checkpoint=tmp_path, lr=1e-30)  # nothing changes after epoch 1
    assert written == [1]


def test_numbered_and_best_checkpoints(tmp_path):
    model, history = run(epochs=5, checkpoint=tmp_path / "new" / "run", checkpoint_every=2)
    names = sorted(path.name for path in (tmp_path / "new" / "run").iterdir())
    numbered = ["epoch_0002.safetensors", "epoch_0004.safetensors"]
    assert names == ["best.safetensors", *numbered, "last.pt"]
    best, header = read_weights(tmp_path / "new" / "run" / "best.safetensors")
    assert same(state(model), best)
    assert header == {"epoch": history.best_epoch, "val_accuracy": history.best_accuracy}
    with pytest.raises(ValueError, match="is a resume state; take best.safetensors"):
        rk.load_weights(model, tmp_path / "new" / "run" / "last.pt")


def test_patience_stops_and_survives_a_resume(tmp_path):
    def scripted():
        model = AlwaysZero()
        return model, Counting(model.parameters(), lr=1)

    train, accuracies = tensor_loader(4, batch_size=4), [0.5, 0.4, 0.3, 0.9]
    model, optimizer = scripted()
    _, history = run(model, 4, train, Scripted(accuracies), optimizer=optimizer, patience=2)
    assert (len(history.rows), history.stopped, model.weight.item()) == (3, "patience", 1)
    model, optimizer = scripted()
    run(model, 2, train, Scripted(accuracies), optimizer=optimizer, checkpoint=tmp_path)
    model, optimizer = scripted()
    _, history = run(model, 4, train, Scripted(accuracies[2:]), optimizer=optimizer, patience=2,
                     checkpoint=tmp_path, resume=True)  # fmt: skip
    assert (len(history.rows), history.stopped, model.weight.item()) == (3, "patience", 1)


# Interrupted, broken and wrong


class Interrupting:
    """A loader that is interrupted at a batch, counted over all epochs."""

    def __init__(self, loader, at):
        self.loader, self.at, self.count = loader, at, 0

    def __iter__(self):
        for batch in self.loader:
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("place", ["train", "val"])
def test_interrupt_leaves_the_best_weights_and_the_history(place, capsys):
    loaders = {"train": tensor_loader(shuffle=True), "val": tensor_loader(12, seed=1)}
    whole, full = run(epochs=2, train=loaders["train"], val=loaders["val"], precision="fp32")
    per_epoch = {"train": 3, "val": 2}[place]
    loaders[place] = Interrupting(loaders[place], 2 * per_epoch + 2)
    model, history = run(epochs=9, train=loaders["train"], val=loaders["val"], precision="fp32")
    assert history.stopped == "interrupted" and len(history.rows) == 2
    assert same(state(model), state(whole)) and history.best_epoch == full.best_epoch
    out = capsys.readouterr().out
    assert "Stopped by hand after 2 epochs; the model holds the best weights so far" in out
    assert not any(module.training for module in model.modules())


def test_the_bar_is_gone_before_it_is_said_why_a_training_stopped(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(settings, "in_notebook", lambda: True)  # bar and words in one place
    run(epochs=3, train=Interrupting(tensor_loader(), 3))
    words = [line.split("\r")[-1] for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("Stopped by hand") for line in words), words


def test_interrupt_before_the_first_validation_leaves_the_weights_as_they_are(capsys):
    train = Interrupting(tensor_loader(), 3)
    model, history = run(epochs=3, train=train)
    assert (history.stopped, history.rows, history.best_epoch) == ("interrupted", [], None)
    assert not torch.equal(model[6].weight.cpu(), small_net()[6].weight)  # two steps were made
    assert "Stopped by hand before the first validation" in capsys.readouterr().out
    assert history.to_frame().empty and "no validation yet" in repr(history)


def test_training_goes_on_after_a_real_interrupt_with_workers(folder, ctrl_c):
    loaders = rk.image_folders(folder, size=16, batch_size=2, workers=2)
    model = small_net(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val
    timer = threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    history = rk.train_and_eval(model, 300, *arguments)
    timer.join()
    assert history.stopped == "interrupted"
    assert rk.train_and_eval(model, 2, *arguments).stopped == "finished"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("place", ["train", "val"])
def test_interrupt_that_python_drops_in_a_destructor_is_heard(place, ctrl_c):
    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def interrupting():
        for number, batch in enumerate(tensor_loader(30)):
            if number == 1:
                Dropping()  # freed at once
            yield batch

    _, history = run(epochs=1, **{place: interrupting()})
    assert (history.stopped, history.rows) == ("interrupted", [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_corrupt_picture_in_an_epoch_loses_nothing(folder, capsys):
    loaders = rk.image_folders(folder, size=16, batch_size=4, keep=False)
    model = small_net(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def spoil(history):
        if len(history.rows) == 2:
            spoil.best = state(model) if history.best_epoch == 2 else spoil.first
            write_picture(folder / "train" / "b" / "9.png")
            (folder / "train" / "a" / "2.png").write_bytes(b"broken")
        spoil.first = state(model)

    with pytest.raises(UnreadableImageError, match="2.png") as caught:
        rk.train_and_eval(model, 5, nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val,
                          on_epoch_end=spoil)  # fmt: skip
    assert len(caught.value.history.rows) == 2
    assert same(state(model), spoil.best)
    assert "Stopped by an error after 2 epochs; the model holds" in capsys.readouterr().out


def exploding(at: int):
    """A criterion whose loss is not finite at one training batch."""

    class Exploding(nn.CrossEntropyLoss):
        count = 0

        def forward(self, logits, labels):
            self.count += logits.requires_grad
            return super().forward(logits, labels) * (float("nan") if self.count == at else 1)

    return Exploding()


def test_non_finite_loss_stops_with_the_best_weights(capsys):
    model, history = run(epochs=5, criterion=exploding(7))
    assert (history.stopped, len(history.rows)) == ("non-finite", 2)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    said = capsys.readouterr().out
    assert "a loss that is not finite (batch 1 of epoch 3) after 2 epochs; the model holds" in said


def test_labels_beyond_the_head_and_grey_pictures_are_explained():
    with pytest.raises(
        ValueError, match=r"labels from 0 to 4.*3 outputs \(labels 0 to 2\).*num_classes=5"
    ):
        run(train=tensor_loader(10, classes=5))
    grey = DataLoader(TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"have 1 channel\(s\).*expects 3.*grey to colour"):
        run(train=grey)
    inputs = torch.zeros(4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"have 3 channel\(s\).*expects 1.*colour to grey"):
        rk.evaluate(rk.cifar_resnet(8, in_channels=1), [(inputs, torch.zeros(4, dtype=torch.long))])
    with pytest.raises(ValueError, match=r"have 8 channel\(s\).*channels come first"):
        rk.evaluate(small_net(), [(inputs.permute(0, 2, 3, 1), torch.zeros(4, dtype=torch.long))])


def test_a_head_with_too_few_outputs_is_refused_before_pictures_are_read(folder):
    loaders = rk.image_folders(folder, like=rk.weights("resnet18", None), size=16)
    for file in folder.rglob("*.png"):
        file.unlink()  # whoever reads one fails otherwise
    model, message = rk.cifar_resnet(8, num_classes=1), "labels from 0 to 1, but the model has 1 "
    with pytest.raises(ValueError, match=message):
        run(model, train=loaders.train, val=loaders.val)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, loaders.train)
    with pytest.raises(ValueError, match=message):
        rk.evaluate(model, loaders.val)


def test_a_head_that_ends_in_no_linear_layer_is_taken_as_it_is(folder):
    loaders = rk.image_folders(folder, like=rk.weights("resnet18", None), size=16)
    model = rk.cifar_resnet(8, num_classes=2)
    model.fc = nn.Sequential(nn.Linear(64, 1), nn.ConstantPad1d((1, 0), 0.0))  # two logits
    assert len(run(model, 1, train=loaders.train, val=loaders.val)[1].rows) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs is 2.5; expected a whole number"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"average": 1.0}, "average is 1.0; expected a decay between 0 and 1"),
        ({"clip_norm": 0}, "clip_norm is 0; expected a number above 0"),
        ({"precision": "half"}, "precision is 'half'; expected one of"),
        ({"scheduler_every": "batch"}, "is 'batch'; expected \"epoch\" or"),
        ({"resume": True}, 'resume needs checkpoint="a/folder"'),
        ({"checkpoint_every": 2}, 'checkpoint_every needs checkpoint="a/folder"'),
        ({"seed": -1}, "an integer of at least 0"),
        ({"train": []}, "train_loader is empty; expected at least one batch"),
        ({"val": []}, "val_loader is empty"),
        ({"train": iter([])}, "the loader is empty"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_validating_on_the_training_data_is_called_out():
    loader = tensor_loader()
    with pytest.warns(UserWarning, match="validated on its training data"):
        run(epochs=1, train=loader, val=loader)


def test_callback_sees_each_epoch():
    seen = []
    run(epochs=3, on_epoch_end=lambda history: seen.append(len(history.rows)))
    assert seen == [1, 2, 3]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("order", [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_fused_optimizer_goes_through_changes_of_the_memory_format(order):
    train = tensor_loader(16, batch_size=8)
    weights = []
    for fused in (False, True):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 3)
        )
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        for precision in order:
            run(model, 2, train, optimizer=optimizer, precision=precision)
        for parameter, remembered in optimizer.state.items():
            assert remembered["exp_avg"].stride() == parameter.stride()
        weights.append(model[2].weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-5)


class Versioned(nn.Linear):
    """Refuses weights that do not say of which version they are, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        assert metadata.get("version") == 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("average", [None, 0.5])
def test_models_that_ask_for_their_version_are_trained_kept_and_resumed(tmp_path, average):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), Versioned(192, 3))

    options = {"checkpoint": tmp_path / "run", "average": average}
    run(net(), 1, **options)
    model, history = run(net(), 2, resume=True, **options)
    assert [row["epoch"] for row in history.rows] == [1, 2]
    again = net()
    rk.load_weights(again, tmp_path / "run" / "best.safetensors")
    assert same(state(model), state(again))


@pytest.mark.parametrize(
    ("first", "then", "changed"),
    [
        (lambda o: CosineAnnealingLR(o, 4), lambda o: CosineAnnealingLR(o, 8), "T_max was 4, is 8"),
        (
            lambda o: OneCycleLR(o, 0.1, total_steps=24),
            lambda o: OneCycleLR(o, 0.1, total_steps=48),
            "total_steps was 24, is 48",
        ),
    ],
)
def test_a_schedule_of_another_length_is_not_resumed(tmp_path, first, then, changed):
    run(epochs=2, checkpoint=tmp_path, scheduler=first)
    with pytest.raises(ValueError, match=f"the scheduler's {changed}"):
        run(epochs=4, checkpoint=tmp_path, scheduler=then, resume=True)


def test_a_foreign_file_in_place_of_the_resume_state_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="is damaged or no resume state"):
        run(checkpoint=tmp_path, resume=True)


def test_the_running_average_is_torchs():
    rk.seed_everything(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    follow = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    ours = RunningAverage(model, 0.9)
    for _ in range(3):
        model(torch.randn(2, 3, 5, 5))
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter)
        ours.update(model)
        theirs.update_parameters(model)
    for name, tensor in theirs.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(ours.module.state_dict()[name], tensor)


def weighted_run(batch_size, **options):
    """Validate and train once with class weights; return the row and the weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    loader = tensor_loader(24, batch_size=batch_size)
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2]))
    _, history = run(
        net, 1, loader, tensor_loader(24, batch_size=batch_size), criterion=criterion,
        precision="fp32", **options,
    )  # fmt: skip
    return history.rows[0], net[1].weight.detach()


@pytest.mark.parametrize("batch_size", [8, 5, 1])
def test_the_loss_with_class_weights_does_not_depend_on_the_batches(batch_size):
    whole, _ = weighted_run(24, lr=0)
    parts, _ = weighted_run(batch_size, lr=0)
    for split in ("train", "val"):
        assert parts[f"{split}_loss"] == pytest.approx(whole[f"{split}_loss"], rel=1e-5)


def test_accumulated_batches_with_class_weights_equal_one_large_batch():
    _, whole = weighted_run(24)
    _, parts = weighted_run(7, accumulate=4)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_a_summed_loss_is_reported_per_picture():
    rows = []
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        criterion = nn.CrossEntropyLoss(reduction=reduction)
        rows.append(run(net, 1, criterion=criterion, lr=0, momentum=0)[1].rows[0])
    for split in ("train", "val"):
        assert rows[1][f"{split}_loss"] == pytest.approx(rows[0][f"{split}_loss"], rel=1e-2)
    with pytest.raises(ValueError, match='gives no single number; expected reduction="mean"'):
        run(criterion=nn.CrossEntropyLoss(reduction="none"))


class Recording(torch.autograd.Function):
    """The identity; notes on the way back whether convolutions and products are exact."""

    seen = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        products = torch.get_float32_matmul_precision()
        Recording.seen.append((torch.backends.cudnn.allow_tf32, products))
        return gradient


def switches_on_the_way_back() -> list:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 3)

        def forward(self, x):
            return Recording.apply(self.fc(x.flatten(1)))

    run(Net(), 1, precision="fp32")
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, tensor_loader(), steps=2)
    return Recording.seen


def test_fp32_is_fp32_on_the_way_back_too(elsewhere):
    assert set(elsewhere(switches_on_the_way_back)) == {(False, "highest")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": "swap"}, "criterion is a SGD; expected a loss such as CrossEntropyLoss"),
        ({"criterion": nn.CrossEntropyLoss}, "criterion is the class CrossEntropyLoss; expected"),
        ({"criterion": "loss"}, "criterion is 'loss'; expected a loss such as"),
        ({"optimizer": torch.optim.SGD}, "optimizer is the class SGD; expected one such as"),
        ({"optimizer": nn.CrossEntropyLoss()}, "optimizer is a CrossEntropyLoss; expected"),
        ({"epochs": None}, "epochs is None; expected a whole number of at least 1"),
        ({"epochs": True}, "epochs is True; expected a whole number"),
        ({"model": small_net}, "model is a function; expected a torch.nn.Module"),
        ({"scheduler": lambda o: "cosine"}, "scheduler is 'cosine'; expected one of torch.optim"),
    ],
)
def test_what_stands_in_the_wrong_place_is_named(change, message):
    options = dict(change)
    if options.get("criterion") == "swap":
        options["criterion"] = torch.optim.SGD(small_net().parameters(), lr=0.1)
    if "model" in options:
        options["optimizer"] = torch.optim.SGD(small_net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_an_optimizer_of_another_model_is_told_so():
    other = torch.optim.SGD(small_net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds 6 of another model, or of a head that"):
        run(optimizer=other)
    model = nn.Sequential()
    model.flatten, model.fc = nn.Flatten(), nn.Linear(192, 7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replace_head(model, 3)
    with pytest.raises(ValueError, match=r"first: fc.weight\); it holds 2 of another model"):
        run(model, optimizer=optimizer)


def test_one_epoch_is_not_said_in_the_plural(tmp_path, capsys):
    _, history = run(epochs=1)
    assert repr(history).startswith("1 epoch in ")
    run(epochs=3, train=Interrupting(tensor_loader(), 5))
    assert "Stopped by hand after 1 epoch;" in capsys.readouterr().out


def test_statistics_that_are_not_the_weights_are_called_out(folder, capsys):
    source = rk.weights("resnet18", "tiny")

    def said(**options):
        loaders = rk.image_folders(folder, size=32, workers=0, **options)
        model = rk.pretrained(source, num_classes=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rk.train_and_eval(
            model, 1, nn.CrossEntropyLoss(), optimizer, loaders.train, loaders.val, progress=False
        )
        return "other statistics than those that the weights" in capsys.readouterr().out

    assert said() and not said(like=source)


def test_checkpoints_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(epochs=1, checkpoint="~/run")
    assert (tmp_path / "run" / "last.pt").is_file()


def test_a_loss_that_is_not_finite_in_the_first_epoch_ruins_nothing(capsys):
    model = small_net()
    before, optimizer = state(model), torch.optim.Adam(model.parameters(), lr=0.01)
    _, history = run(model, 3, optimizer=optimizer, criterion=exploding(2))
    assert (history.stopped, history.rows) == ("non-finite", [])
    assert same(state(model), before)
    assert "(batch 2 of epoch 1) before the first validation; the weights are those of the beg" in (
        capsys.readouterr().out
    )
    _, history = run(model, 2, optimizer=optimizer)
    assert history.stopped == "finished", "the optimizer has learned nothing from it"
    assert all(torch.isfinite(tensor).all() for tensor in state(model).values())


def test_the_optimizer_is_as_it_was_when_a_loss_is_not_finite():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run(model, 1, optimizer=optimizer)
    before = copy.deepcopy(optimizer.state_dict())
    run(
        model,
        5,
        optimizer=optimizer,
        criterion=exploding(5),
        scheduler=lambda o: LambdaLR(o, lambda n: 0.5**n),
    )
    after = optimizer.state_dict()
    for number, moments in before["state"].items():
        assert torch.equal(after["state"][number]["momentum_buffer"], moments["momentum_buffer"])


def pressing():
    """Batches of which the second comes with a press of Ctrl-C."""
    for number, batch in enumerate(tensor_loader()):
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        yield batch


def test_a_press_in_a_step_is_heard_after_it(ctrl_c):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.steps = small_net(), 0

        def forward(self, images):
            if self.training:
                self.steps += 1
                if self.steps == 5:
                    signal.raise_signal(signal.SIGINT)
            return self.net(images)

    optimizer_steps = []
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: optimizer_steps.append(1))
    _, history = run(model, 9, optimizer=optimizer)
    assert (history.stopped, len(history.rows), len(optimizer_steps)) == ("interrupted", 1, 5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("on_cpu")
def test_presses_while_things_are_put_back_are_ignored(ctrl_c, monkeypatch):
    original = loop.put_weights

    def pressing(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        original(*arguments)
        signal.raise_signal(signal.SIGINT)

    whole, _ = run(epochs=1, precision="fp32")
    monkeypatch.setattr(loop, "put_weights", pressing)
    train = Interrupting(tensor_loader(shuffle=True), 5)
    model, history = run(epochs=9, train=train, precision="fp32")
    assert (history.stopped, len(history.rows)) == ("interrupted", 1)
    assert same(state(model), state(whole)) and not model.training


def test_an_interrupted_evaluation_or_search_leaves_all_as_it_was(ctrl_c):
    model = small_net()
    model.train()
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        rk.evaluate(model, pressing(), progress=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, pressing())
    assert same(state(model), before) and model.training and torch.is_grad_enabled()
    assert optimizer.param_groups[0]["lr"] == 0.1 and not optimizer.state
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def sgd(lr=0.1, momentum=0.9, decay=0.0):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, weight_decay=decay)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": sgd(lr=0.2)}, "lr of parameter group 1 was 0.1, is 0.2"),
        ({"optimizer": sgd(momentum=0.5)}, "momentum of parameter group 1 was 0.9, is 0.5"),
        ({"optimizer": sgd(decay=0.1)}, "weight_decay of parameter group 1 was 0.0, is 0.1"),
        ({"optimizer": lambda p: torch.optim.Adam(p, lr=0.1)}, "optimizer was 'SGD', is 'Adam'"),
        ({"batch_size": 5}, "batch size was 8, is 5"),
        ({"pictures": 21}, "training pictures was 20, is 21"),
        ({"frozen": "0"}, "frozen was 'nothing', is '2 parameters, the first 0.weight'"),
        ({"scheduler": lambda o: MultiStepLR(o, [2, 9])}, r"milestones was \[2, 3\], is \[2, 9\]"),
        ({"scheduler": lambda o: CosineAnnealingLR(o, 8)}, "scheduler was 'MultiStepLR', is 'Cos"),
    ],
)
def test_what_differs_is_named_before_anything_is_touched(tmp_path, change, said):
    def resumable(optimizer=sgd(), batch_size=8, pictures=20, frozen=None, scheduler=None):  # noqa: B008
        model = small_net()
        if frozen:
            rk.freeze(model, frozen)
        built = optimizer([p for p in model.parameters() if p.requires_grad])
        return model, {
            "optimizer": built, "train": tensor_loader(pictures, batch_size=batch_size),
            "scheduler": scheduler or (lambda o: MultiStepLR(o, [2, 3])),
            "checkpoint": tmp_path,
        }  # fmt: skip

    model, options = resumable()
    run(model, 2, **options)
    model, options = resumable(**change)
    before, optimizer = state(model), copy.deepcopy(options["optimizer"].state_dict())
    with pytest.raises(ValueError, match=f"this is not the training in .*{said}"):
        run(model, 4, resume=True, **options)
    assert same(state(model), before)
    assert options["optimizer"].state_dict()["state"] == optimizer["state"] == {}
    model, options = resumable()
    assert len(run(model, 4, resume=True, **options)[1].rows) == 4


def test_a_run_may_be_resumed_with_the_objects_that_it_used(tmp_path):
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = OneCycleLR(optimizer, 0.05, total_steps=12)
    options = {"optimizer": optimizer, "scheduler": lambda o: schedule, "scheduler_every": "step"}
    train = Interrupting(tensor_loader(), 8)
    assert run(model, 4, train, checkpoint=tmp_path, **options)[1].stopped == "interrupted"
    train = Interrupting(tensor_loader(), 99)
    assert len(run(model, 4, train, checkpoint=tmp_path, resume=True, **options)[1].rows) == 4


def test_damage_in_a_resume_state_or_in_weights_is_seen(tmp_path):
    def weights_in(path):
        return load_state(path)["best"] if path.suffix == ".pt" else read_weights(path)[0]

    run(epochs=1, checkpoint=tmp_path)
    chance = np.random.default_rng(0)
    for name in ("last.pt", "best.safetensors"):
        whole, good = (tmp_path / name).read_bytes(), weights_in(tmp_path / name)
        for _ in range(60):
            damaged, place = bytearray(whole), int(chance.integers(len(whole)))
            damaged[place] ^= 1 << int(chance.integers(8))
            (tmp_path / name).write_bytes(damaged)
            try:
                read = weights_in(tmp_path / name)
            except ValueError as error:
                assert "is damaged or no" in str(error)
                continue
            assert same(read, good), "the damage changed nothing"


class OwnOrder:
    """A batch sampler with random numbers of its own."""

    def __init__(self, source):
        self.source, self.epochs = source, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        if isinstance(self.source, np.random.Generator):
            order = self.source.permutation(20).tolist()
        else:
            order = torch.randperm(20, generator=self.source).tolist()
        return iter([order[:10], order[10:]])

    def __len__(self):
        return 2


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("source", [np.random.default_rng, torch.Generator])
def test_samplers_with_numbers_of_their_own_are_resumed_bit_for_bit(tmp_path, source):
    data = tensor_loader(20).dataset

    def trained(epochs, **options):
        sampler = OwnOrder(source())
        loader = DataLoader(data, batch_sampler=sampler)
        model, _ = run(epochs=epochs, train=loader, precision="fp32", **options)
        return state(model), sampler.epochs

    whole, epochs = trained(3)
    assert epochs == [1, 2, 3]
    trained(1, checkpoint=tmp_path)
    assert same(whole, trained(3, checkpoint=tmp_path, resume=True)[0])


def test_several_processes_without_accelerate_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    needed = "4 processes at once need Accelerate: pip install accelerate"
    with pytest.raises(RuntimeError, match=needed):
        run()
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match=needed):
        rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, tensor_loader())
    with pytest.raises(RuntimeError, match=needed):
        rk.evaluate(model, tensor_loader())


@pytest.mark.usefixtures("on_cpu")
def test_pictures_without_a_label_count_nowhere():
    """-100 is torch's `ignore_index`; losses and shares are of those that have a label."""
    images, labels = next(iter(tensor_loader(8)))
    known = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.bool)
    some = torch.where(known, labels, -100)
    loaders = [(images, some)], [(images[known], labels[known])]
    results = [run(None, 2, loader, loader, precision="fp32") for loader in loaders]
    (one, first), (other, second) = results
    assert same(state(one), state(other))
    assert without_times(first) == without_times(second)
    scores = [rk.evaluate(one, loader, progress=False) for loader in loaders]
    assert len(scores[0].labels) == 6 and scores[0].accuracy == scores[1].accuracy
    with pytest.raises(ValueError, match="a batch without a single label"):
        rk.evaluate(one, [(images, torch.full((8,), -100))], progress=False)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            (torch.zeros(4, 3, 8, 8).double(), torch.zeros(4).long()),
            "inputs are torch.float64, the",
        ),
        ((torch.zeros(4, 8, 8, 3), torch.zeros(4).long()), "images.permute"),
        ((torch.zeros(4, 1, 8, 8), torch.zeros(4).long()), "images.expand"),
        ((torch.zeros(4, 3, 8, 8), torch.zeros(3).long()), "as many labels as inputs"),
        ({"image": 1, "label": 2}, "a batch is a dict of 2; expected a pair .*collate_fn"),
    ],
)
def test_a_first_batch_that_does_not_fit_is_explained(batch, said):
    for call in (lambda: run(None, 1, [batch], [batch], precision="fp32"),
                 lambda: rk.evaluate(small_net(), [batch], progress=False)):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"criterion": nn.CrossEntropyLoss(label_smoothing=0.1)},
            "criterion was 'CrossEntropyLoss",
        ),
        ({"criterion": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))}, "criterion was"),
        ({"criterion": nn.functional.cross_entropy}, "is 'cross_entropy'"),
        ({"classes": ("a", "b", "d")}, "classes was 'a, b, c', is 'a, b, d'"),
        ({"labels": (2, 1, 0) * 4}, "labels and names of files was"),
    ],
)
def test_another_loss_or_other_data_are_not_resumed(tmp_path, change, said):
    def loader(classes=("a", "b", "c"), labels=(0, 1, 2) * 4):
        found = tensor_loader(12)
        found.dataset.classes, found.dataset.labels = classes, labels
        return found

    options = {"checkpoint": tmp_path, "precision": "fp32"}
    run(None, 1, loader(), **options)
    criterion = change.pop("criterion", nn.CrossEntropyLoss())
    model = small_net()
    before = state(model)
    with pytest.raises(ValueError, match=f"this is not the training in .*{said}"):
        run(model, 2, loader(**change), criterion=criterion, resume=True, **options)
    assert same(before, state(model))


def test_best_weights_that_were_deleted_are_written_again(tmp_path):
    run(None, 2, checkpoint=tmp_path)
    best = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").unlink()
    run(None, 2, checkpoint=tmp_path, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_the_callback_is_called_before_an_epoch_is_saved(tmp_path):
    """So that a killed training calls it again, rather than never; what it raises loses nothing."""
    there = []

    def callback(history):
        there.append((tmp_path / "last.pt").is_file())
        if len(history.rows) == 2:
            raise OSError("the log is full")

    with pytest.raises(OSError, match="the log is full"):
        run(None, 3, checkpoint=tmp_path, on_epoch_end=callback)
    assert there == [False, True]
    assert len(load_state(tmp_path / "last.pt")["history"]["rows"]) == 2


def test_two_trainings_cannot_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_kit.training.state.PATIENCE", 0.1)

    def second(history):
        with pytest.raises(
            RuntimeError, match="another training writes into .*a folder of its own"
        ):
            run(None, 1, checkpoint=tmp_path, resume=True)

    run(None, 1, checkpoint=tmp_path, on_epoch_end=second)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.safetensors", "last.pt"]
    run(None, 2, checkpoint=tmp_path, resume=True)  # the first one has left it


def test_what_a_killed_training_left_is_removed(tmp_path):
    (tmp_path / ".last.pt.abcdefgh").touch()
    run(None, 1, checkpoint=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.safetensors", "last.pt"]


def changed_states(whole):
    """Resume states that torch reads, each with one entry of another kind."""
    rows = whole["history"]["rows"]
    yield {k: v for k, v in whole.items() if k != "scheduler"}
    yield {**whole, "optimizer": [1]}
    yield {**whole, "best": {"w": torch.zeros(2)}}
    yield {**whole, "model": {name: [1] for name in whole["model"]}}
    halves = {name: tensor.half() for name, tensor in whole["model"].items()}
    yield {**whole, "model": halves, "best": halves}
    for other in (
        ["row"],
        [{}],
        [{**rows[0], "epoch": 2}],
        [{**rows[0], "lr": "x"}],
        [{**rows[0], "more": 1}],
    ):
        yield {**whole, "history": {**whole["history"], "rows": other}}
    yield {**whole, "optimizer": {"state": {}, "param_groups": [{"params": [1, 2]}]}}


def test_foreign_resume_states_are_refused_before_anything_is_touched(tmp_path):
    run(None, 1, checkpoint=tmp_path)
    whole = load_state(tmp_path / "last.pt")
    for number, other in enumerate(changed_states(whole)):
        torch.save(other, tmp_path / "last.pt")
        model = small_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        before, held = state(model), copy.deepcopy(optimizer.state_dict())
        said = "no resume state|last.pt is torch.float16|other parameter groups"
        with pytest.raises(ValueError, match=said):
            run(model, 2, optimizer=optimizer, checkpoint=tmp_path, resume=True)
        assert same(before, state(model)) and optimizer.state_dict() == held, number


class Drifting(nn.Module):
    """A net, or a loss, with numbers of its own that change in each step and are not saved."""

    def __init__(self, inner, persistent=False):
        super().__init__()
        self.inner = inner
        self.register_buffer("drift", torch.ones(()), persistent=persistent)

    def forward(self, *inputs):
        if torch.is_grad_enabled():
            self.drift.mul_(1.1)
        return self.inner(*inputs) * self.drift


class Noisy(torch.utils.data.Dataset):
    """A data set that draws from a generator of its own."""

    def __init__(self):
        self.labels, self.rng = [0, 1, 2] * 4, np.random.default_rng(0)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        noise = self.rng.standard_normal((3, 8, 8)).astype(np.float32)
        return torch.from_numpy(noise) + self.labels[index], self.labels[index]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    "what", ["model", "averaged model", "criterion", "saved", "dataset", "subset", "several"]
)
def test_what_else_changes_during_a_training_is_resumed(tmp_path, what):
    def parts():
        model, criterion, train = small_net(), nn.CrossEntropyLoss(), None
        if "model" in what:
            model = Drifting(model)
        if what in ("criterion", "saved"):
            criterion = Drifting(criterion, persistent=what == "saved")
        data = {
            "dataset": Noisy,
            "subset": lambda: torch.utils.data.Subset(Noisy(), range(9)),
            "several": lambda: torch.utils.data.ConcatDataset([Noisy(), Noisy()]),
        }
        if what in data:
            train = DataLoader(data[what](), batch_size=4)
        return model, criterion, train

    def trained(epochs, **options):
        model, criterion, train = parts()
        options |= {"precision": "fp32", "criterion": criterion, "lr": 0.01}
        options |= {"average": 0.9 if what == "averaged model" else None}
        return run(model, epochs, train, **options)

    whole, history = trained(3)
    trained(2, checkpoint=tmp_path)
    resumed, again = trained(3, checkpoint=tmp_path, resume=True)
    assert without_times(again) == without_times(history)
    assert same(state(whole), state(resumed))


def test_workers_that_live_on_are_announced_where_a_run_may_be_resumed(tmp_path, capsys):
    lasting = {"batch_size": 4, "num_workers": 1, "persistent_workers": True}
    run(None, 1, DataLoader(tensor_loader(8).dataset, **lasting), checkpoint=tmp_path)
    assert "train_loader keeps its workers from one epoch to the next" in capsys.readouterr().out
    run(None, 1, DataLoader(tensor_loader(8).dataset, **lasting))
    assert "keeps its workers" not in capsys.readouterr().out


def test_a_full_memory_is_given_free_and_what_fits_is_said():
    """On any device: the error of a GPU is raised by hand in the second step."""
    held, calls = [], []

    class Full(nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            calls.append(len(labels))
            if len(calls) == 2:
                held.append(weakref.ref(logits))
                raise torch.OutOfMemoryError("tried to allocate 2 GiB")
            return super().forward(logits, labels)

    model = small_net()
    with pytest.raises(
        torch.OutOfMemoryError, match="batches of 8 pictures; batch_size=4 with acc"
    ):
        run(model, 1, criterion=Full())
    assert held[0]() is None and all(p.grad is None for p in model.parameters())
    run(model, 1)  # the same kernel goes on


def test_a_loss_that_changes_is_resumed_as_the_same_object(tmp_path):
    criterion = Drifting(nn.CrossEntropyLoss(), persistent=True)
    run(None, 1, criterion=criterion, checkpoint=tmp_path)
    _, history = run(None, 2, criterion=criterion, checkpoint=tmp_path, resume=True)
    assert len(history.rows) == 2
