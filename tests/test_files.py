import argparse
import errno
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn

import resnet_kit as rk
from conftest import small_net
from resnet_kit.files import atomic_file, digest_of, only_one, read_weights
from resnet_kit.training.state import load_state


def test_weights_come_back_exactly(tmp_path):
    model, other = small_net(), small_net()
    nn.init.normal_(model[0].weight)
    model = model.to(memory_format=torch.channels_last)
    path = rk.save_weights(model, tmp_path / "new" / "a.safetensors", metadata={"epoch": 3})
    rk.load_weights(other, path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    state, header = read_weights(path)
    assert header == {"epoch": 3}
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    path = rk.save_weights({"a": torch.ones(5000)}, tmp_path / "a.safetensors")
    tensors, _ = read_weights(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert (tensors["a"] == 1).all()


def test_pth_weights_are_loaded(tmp_path):
    torch.save(small_net().state_dict(), tmp_path / "a.pth")
    rk.load_weights(small_net(), tmp_path / "a.pth")


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"a": Trap(tmp_path / "trap")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"more than tensors.*save model.state_dict\(\) instead"):
        read_weights(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no resume state"):
        load_state(tmp_path / "a.pth")
    assert not (tmp_path / "trap").exists()


def test_whole_pickled_models_are_refused(tmp_path):
    torch.save(small_net(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        read_weights(tmp_path / "a.pth")


def test_damaged_foreign_and_missing_files_say_so(tmp_path):
    path = rk.save_weights(small_net(), tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(path.read_bytes()[:-20])
    (tmp_path / "c.pth").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "d.pth")
    for name in ("b.safetensors", "c.pth"):
        with pytest.raises(ValueError, match=f"{name} (is damaged|holds more)"):
            read_weights(tmp_path / name)
    with pytest.raises(ValueError, match="d.pth holds a list; expected names and tensors"):
        read_weights(tmp_path / "d.pth")
    with pytest.raises(FileNotFoundError, match="expected weights"):
        read_weights(tmp_path / "e.pth")
    with pytest.raises(ValueError, match=r"written as \.safetensors, not a.pth"):
        rk.save_weights(small_net(), tmp_path / "a.pth")


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    path = rk.save_weights(small_net(3), tmp_path / "a.safetensors")
    model = small_net(4)
    before = model[6].weight.clone()
    with pytest.raises(ValueError, match=r"6.weight is \(3, 4\), the model's \(4, 4\)"):
        rk.load_weights(model, path)
    with pytest.raises(ValueError, match=r"2 missing \(first: weight\).*unexpected \(first: 0"):
        rk.load_weights(nn.Linear(2, 2), path)
    assert torch.equal(model[6].weight, before)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_contents_of_any_type_have_a_digest():
    tensors = [torch.ones(3, dtype=t) for t in (torch.bfloat16, torch.float16, torch.bool)]
    digests = {digest_of({"x": tensor}) for tensor in (*tensors, torch.tensor(1.0))}
    assert len(digests) == 4


def test_tied_weights_are_written(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    path = rk.save_weights(model, tmp_path / "tied.safetensors")
    again = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    rk.load_weights(again, path)
    assert torch.equal(again[1].weight, model[0].weight)


def test_files_without_the_count_of_batches_are_loaded(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    old = {k: t for k, t in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    rk.load_weights(model, rk.save_weights(old, tmp_path / "old.safetensors"))
    torch.save(old, tmp_path / "old.pth")
    rk.load_weights(model, tmp_path / "old.pth")


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "net", "generator"])
def test_weights_inside_a_checkpoint_are_taken_and_said(tmp_path, capsys, entry):
    state = small_net().state_dict()
    torch.save({"epoch": 3, entry: state, "best": 0.5}, tmp_path / "a.pth")
    rk.load_weights(small_net(), tmp_path / "a.pth")
    said = capsys.readouterr().out
    assert (
        f"a.pth: taking the weights in its entry {entry!r} (it holds epoch, {entry}, best)" in said
    )


def test_a_checkpoint_of_many_things_names_its_entries(tmp_path):
    state = small_net().state_dict()
    torch.save({"generator": state, "discriminator": state}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="but generator, discriminator; save one of them alone"):
        read_weights(tmp_path / "a.pth")
    torch.save({"epoch": 3}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="holds no state_dict .* but epoch"):
        read_weights(tmp_path / "b.pth")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_what_wrappers_put_before_the_names_is_left_out_and_said(tmp_path, capsys, prefix):
    source, model = small_net(), small_net()
    nn.init.constant_(source[0].weight, 0.5)
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    rk.load_weights(model, tmp_path / "a.pth")
    assert (model[0].weight == 0.5).all()
    assert f"every name begins with {prefix!r}, which is left out" in capsys.readouterr().out


def test_a_model_whose_own_names_begin_so_is_left_alone(tmp_path, capsys):
    model = nn.Sequential()
    model.add_module("model", nn.Linear(2, 2))
    rk.load_weights(model, rk.save_weights(model, tmp_path / "a.safetensors"))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"2 missing \(first: weight\)"):
        rk.load_weights(nn.Linear(2, 2), rk.save_weights({}, tmp_path / "b.safetensors"))


def test_files_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rk.save_weights(small_net(), "~/a.safetensors") == tmp_path / "a.safetensors"
    rk.load_weights(small_net(), "~/a.safetensors")
    rk.write_results("~/r.json", [], command="none")
    assert rk.read_results("~/r.json")["rows"] == []
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no file {tmp_path}/none.pth"):
        read_weights("none.pth")


def test_metadata_may_hold_numpys_numbers_tensors_and_paths(tmp_path):
    about = {"a": np.float32(0.5), "b": np.arange(2), "c": torch.tensor([1.0]), "d": Path("x")}
    path = rk.save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors", metadata=about)
    assert read_weights(path)[1] == {"a": 0.5, "b": [0, 1], "c": [1.0], "d": "x"}


def test_metadata_that_cannot_be_written_are_refused_first(tmp_path):
    with pytest.raises(TypeError, match="metadata hold a object; expected numbers, strings, lists"):
        rk.save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors", metadata={"x": object()})
    assert not list(tmp_path.iterdir())


def test_weights_beside_the_arguments_of_a_script_are_read(tmp_path, capsys):
    args = argparse.Namespace(lr=0.1)
    torch.save({"model": {"w": torch.ones(2)}, "args": args}, tmp_path / "reference.pth")
    tensors, _ = read_weights(tmp_path / "reference.pth")
    assert tensors["w"].tolist() == [1, 1]


def test_a_flipped_bit_in_a_pth_file_is_seen(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(1000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="has another sum than when it was written"):
        read_weights(path)


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 576 vs 534"), OSError(28, "full")])
def test_a_full_disk_is_called_full(tmp_path, monkeypatch, error):
    full = shutil._ntuple_diskusage(10**9, 10**9, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    said = "No space left on device: free some.*x.pt"
    with pytest.raises(OSError, match=said) as caught, atomic_file(tmp_path / "x.pt"):
        raise error
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_temporary_files_of_killed_writes_are_removed(tmp_path):
    old, new, other = (tmp_path / name for name in (".w.pt.abcdefgh", ".w.pt.ABCDEFGH", ".v.pt"))
    for file in (old, new, other):
        file.touch()
    os.utime(old, (0, 0))
    with atomic_file(tmp_path / "w.pt"):
        pass
    assert {file.name for file in tmp_path.iterdir()} == {"w.pt", new.name, other.name}


def test_one_process_waits_for_another_or_is_told(tmp_path, capsys):
    order, inside = [], threading.Event()

    def first():
        with only_one(tmp_path / ".photos.lock"):
            inside.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    refused = only_one(tmp_path / ".photos.lock", seconds=0, refusal="it is taken")
    with pytest.raises(RuntimeError, match="it is taken"), refused:
        pass
    with only_one(tmp_path / ".photos.lock"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "Another process is at work on photos: waiting for it.\n"
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_used_and_said(tmp_path, monkeypatch, capsys):
    def acquire(self, timeout=None):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with only_one(tmp_path / "new" / ".lock", seconds=0):
        pass
    assert "has no locks: start one process at a time" in capsys.readouterr().out
