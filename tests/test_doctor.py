import importlib.metadata as metadata
import os
import shutil
from collections import namedtuple

import pytest

import resnet_kit as rk
from resnet_kit.doctor import Line

Usage = namedtuple("Usage", "total used free")


def line(what: str) -> Line:
    return next(x for x in rk.doctor().lines if x.what == what)


def pretend(versions: dict[str, str | None], monkeypatch) -> None:
    """Let these packages be installed in these versions, or not at all."""
    installed = metadata.version

    def version(name: str) -> str:
        found = versions[name] if name in versions else installed(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_a_sound_machine_has_no_trouble(data_root):
    found = rk.doctor()
    assert [
        x.what for x in found.troubles() if x.what not in ("load", "shared memory", "data")
    ] == []
    text = repr(found)
    assert "torch, torchvision" in text and "drawn ones stand in" in text
    assert "own: cifar_resnet20-cifar10, resnet18-tiny" in text and "QUICK" in text
    assert len(text.splitlines()) == len(found.lines) + len(found.troubles())


def test_data_at_hand_is_named(data_root):
    data_root.mkdir()
    (data_root / "mnist.npz").touch()
    (data_root / "cat_dog_ants_bees").mkdir()
    assert line("data").found.endswith(": mnist, cat_dog_ants_bees")


@pytest.mark.parametrize(
    ("what", "versions", "fix"),
    [
        ("OpenCV", {"opencv-python": "4.1"}, "pip uninstall opencv-python opencv-python-headless"),
        ("progress bars", {"ipywidgets": None, "notebook": "7.0"}, "pip install ipywidgets"),
    ],
)  # fmt: skip
def test_known_troubles_come_with_their_fix(what, versions, fix, monkeypatch):
    pretend(versions, monkeypatch)
    assert fix in line(what).fix
    assert f"! {what}" in repr(rk.doctor()) and f"fix: {line(what).fix}" in repr(rk.doctor())


def test_where_no_notebook_is_shown_bars_are_text_and_no_trouble(monkeypatch):
    pretend(dict.fromkeys(("ipywidgets", "jupyterlab", "notebook")), monkeypatch)
    assert line("progress bars").found.startswith("text") and not line("progress bars").fix


def test_little_shared_memory_and_disk_are_troubles(monkeypatch, data_root):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 64 << 20))
    assert "--shm-size" in line("shared memory").fix or "no /dev/shm" in line("shared memory").found
    assert "RESNET_KIT_DATA" in line("data").fix


def test_pieces_that_do_not_fit_are_found(monkeypatch):
    import torchvision.ops

    def broken(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    assert "nms does not exist" in line("torch, torchvision").fix


def test_the_disk_of_a_data_root_to_come_is_looked_at(monkeypatch, data_root):
    looked = []
    monkeypatch.setenv("RESNET_KIT_DATA", str(data_root / "not" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda p: looked.append(p) or Usage(1, 1, 1 << 40))
    assert not line("data").fix and data_root.parent in looked


def test_a_busy_machine_is_a_trouble(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (100.0, 1.0, 1.0))
    assert "OMP_NUM_THREADS=1" in line("load").fix
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 100.0, 100.0))
    assert not line("load").fix
