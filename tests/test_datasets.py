"""`named_dataset`: files in the data root, downloads in their true formats, stand-ins."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import Crop, Flip
from resnet_kit.drawn import VERSION


def some_arrays(shape: tuple[int, ...], train: int = 120) -> dict[str, np.ndarray]:
    """Noise of ten classes; ten pictures to test on."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", 10)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    return arrays


@pytest.fixture
def server(tmp_path):
    """A local web server: its folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_digits_are_split_by_class(data_root):
    data = rk.named_dataset("digits")
    assert [len(x.dataset) for x in (data.train, data.val, data.test)] == [1350, 150, 297]
    counts = torch.bincount(data.val.dataset.labels)
    assert counts.min() >= 14 and counts.max() <= 16 and data.classes == tuple("0123456789")
    again, other = rk.named_dataset("digits"), rk.named_dataset("digits", seed=1)
    assert torch.equal(data.val.dataset.images, again.val.dataset.images)
    assert not torch.equal(data.val.dataset.images, other.val.dataset.images)


def test_the_file_in_the_data_root_is_taken(data_root, monkeypatch):
    data_root.mkdir()
    arrays = some_arrays((32, 32, 3))
    np.savez(data_root / "cifar10.npz", **arrays)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)
    data = rk.named_dataset("cifar10", val_from_train=0.25)
    assert data.classes[:2] == ("airplane", "automobile") and data.size == 32
    assert [len(x.dataset) for x in (data.train, data.val, data.test)] == [90, 30, 10]
    assert torch.bincount(data.val.dataset.labels).tolist() == [3] * 10
    held = data.test.dataset.images.permute(0, 2, 3, 1).cpu().numpy()
    assert (held == arrays["test_images"]).all()
    seen = torch.cat([data.train.dataset.images, data.val.dataset.images]).cpu().numpy()
    expected = arrays["train_images"].transpose(0, 3, 1, 2)
    assert {x.tobytes() for x in seen} == {x.tobytes() for x in expected}


def test_characters_are_not_mirrored_and_photos_are(data_root):
    data_root.mkdir()
    expected = {  # windows of the picture moved by an eighth of its side
        "mnist": ((28, 28), [Crop(3)]),
        "fashion_mnist": ((28, 28), [Crop(3), Flip()]),
        "svhn": ((32, 32, 3), [Crop(4)]),
        "cifar10": ((32, 32, 3), [Crop(4), Flip()]),
    }
    for name, (shape, steps) in expected.items():
        np.savez(data_root / f"{name}.npz", **some_arrays(shape))
        assert list(rk.named_dataset(name).train.dataset.augment) == steps, name


def test_mnist_is_downloaded_in_its_true_format_once(data_root, full_mode, server, monkeypatch):
    arrays, (folder, address) = some_arrays((28, 28)), server
    resources = []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for part, magic in (("images", "idx3"), ("labels", "idx1")):
            values = arrays[f"{split}_{part}"].astype(np.uint8)
            header = struct.pack(f">{values.ndim + 1}i", 2048 + values.ndim, *values.shape)
            file = folder / f"{prefix}-{part}-{magic}-ubyte.gz"
            file.write_bytes(gzip.compress(header + values.tobytes()))
            resources.append((file.name, md5(file)))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    data = rk.named_dataset("mnist")
    assert (data.test.dataset.images[:, 0].cpu().numpy() == arrays["test_images"]).all()
    assert data.classes == tuple("0123456789")
    assert sorted(path.name for path in data_root.iterdir()) == ["mnist.npz"]
    for file in folder.iterdir():
        file.unlink()
    again = rk.named_dataset("mnist")
    assert torch.equal(again.train.dataset.images, data.train.dataset.images)


def test_what_was_downloaded_outlives_a_full_disk(data_root, full_mode, monkeypatch):
    def downloaded(folder, **options):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "archive").touch()
        images = np.arange(200 * 64, dtype=np.uint8).reshape(200, 8, 8)
        return SimpleNamespace(data=images, targets=np.arange(200) % 10, classes=None)

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(torchvision.datasets, "MNIST", downloaded)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(FileNotFoundError, match="No space left on device"):
            rk.named_dataset("mnist")
    assert [path.name for path in data_root.iterdir()] == ["mnist.download"]
    assert (data_root / "mnist.download" / "archive").is_file()
    assert len(rk.named_dataset("mnist").test.dataset) == 200


def cifar_archive(folder: Path, arrays: dict[str, np.ndarray]) -> dict:
    """Write an archive as CIFAR-10's; return what torchvision's class knows of it."""
    about = {"train_list": [], "test_list": []}
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:

        def add(name: str, content: dict) -> list[str]:
            data = pickle.dumps(content)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            return [name, hashlib.md5(data).hexdigest()]

        for split in ("train", "test"):
            images = arrays[f"{split}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
            content = {"data": images, "labels": arrays[f"{split}_labels"].tolist()}
            about[f"{split}_list"].append(add(f"{split}_batch", content))
        name, digest = add("batches.meta", {"label_names": [f"kind {i}" for i in range(10)]})
    about["meta"] = {"filename": name, "key": "label_names", "md5": digest}
    return about | {"filename": "cifar.tar.gz", "tgz_md5": md5(folder / "cifar.tar.gz")}


def test_cifar_is_downloaded_in_its_true_format(data_root, full_mode, server, monkeypatch):
    arrays, (folder, address) = some_arrays((32, 32, 3)), server
    about = cifar_archive(folder, arrays) | {"url": address + "cifar.tar.gz"}
    for name, value in about.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, value)
    data = rk.named_dataset("cifar10")
    found = data.test.dataset.images.permute(0, 2, 3, 1).cpu().numpy()
    assert (found == arrays["test_images"]).all() and data.classes[0] == "airplane"
    assert data.test.dataset.labels.tolist() == arrays["test_labels"].tolist()
    assert sorted(path.name for path in data_root.iterdir()) == ["cifar10.npz"]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(data_root, full_mode, server, monkeypatch):
    folder, address = server
    about = cifar_archive(folder, some_arrays((32, 32, 3))) | {"url": address + "cifar.tar.gz"}
    for name, value in {**about, "tgz_md5": "0" * 32}.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, value)
    with pytest.raises(FileNotFoundError, match="cifar10.npz is not there and cannot be downloa"):
        rk.named_dataset("cifar10")
    assert not (data_root / "cifar10.npz").exists()


@pytest.mark.parametrize("name, shape", [("svhn", (32, 32, 3)), ("stl10", (96, 96, 3))])
def test_sets_with_channels_first_become_arrays(name, shape, data_root, full_mode, monkeypatch):
    arrays = some_arrays(shape)

    def stand_in(root, split, download):
        assert download
        Path(root).mkdir(parents=True, exist_ok=True)
        images = arrays[f"{split}_images"].transpose(0, 3, 1, 2)
        return SimpleNamespace(data=images, labels=arrays[f"{split}_labels"])

    monkeypatch.setattr(torchvision.datasets, name.upper(), stand_in)
    data = rk.named_dataset(name)
    assert (
        data.test.dataset.images.permute(0, 2, 3, 1).cpu().numpy() == arrays["test_images"]
    ).all()
    assert data.size == shape[0] and len(data.classes) == 10


@pytest.mark.parametrize("name, kind", [("kmnist", "KMNIST"), ("fashion_mnist", "FashionMNIST")])
def test_sets_with_tensors_become_arrays(name, kind, data_root, full_mode, monkeypatch):
    arrays = some_arrays((28, 28))

    def stand_in(root, train, download):
        Path(root).mkdir(parents=True, exist_ok=True)
        split = "train" if train else "test"
        images, labels = (torch.from_numpy(arrays[f"{split}_{x}"]) for x in ("images", "labels"))
        return SimpleNamespace(
            data=images, targets=labels, classes=[f"kind {i}" for i in range(10)]
        )

    monkeypatch.setattr(torchvision.datasets, kind, stand_in)
    data = rk.named_dataset(name)
    assert data.classes[0] == "kind 0" and len(data.test.dataset) == 10
    assert rk.named_dataset(name).classes == data.classes  # from the file that was kept


def flowers_archive(folder: Path) -> dict:
    """Write 306 pictures of 102 kinds as Oxford does; return what torchvision knows of them."""
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        for number in range(1, 307):
            data = io.BytesIO()
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data, "JPEG")
            info = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            info.size = data.tell()
            data.seek(0)
            archive.addfile(info, data)
    savemat(folder / "imagelabels.mat", {"labels": np.arange(306) % 102 + 1})
    numbers = np.arange(1, 307)
    splits = {"trnid": numbers[:102], "valid": numbers[102:204], "tstid": numbers[204:]}
    savemat(folder / "setid.mat", splits)
    names = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    return {key: (name, md5(folder / name)) for key, name in names.items()}


def test_flowers_are_downloaded_in_their_true_format_once(
    data_root, full_mode, server, monkeypatch
):
    folder, address = server
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", flowers_archive(folder))
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_download_url_prefix", address)
    data = rk.named_dataset("flowers102", size=8)
    assert [len(x.dataset) for x in (data.train, data.val, data.test)] == [102, 102, 102]
    first = data.files["train"][0]
    assert first.name == "image_00001.jpg" and first.parent.name.startswith("001")
    assert len(data.classes) == 102 and data.classes[101].startswith("102")
    images, labels = next(iter(data.val))
    assert images.shape[1:] == (3, 8, 8) and labels[:3].tolist() == [0, 1, 2]
    assert [path.name for path in data_root.iterdir()] == ["flowers102"]
    for file in folder.iterdir():
        file.unlink()
    assert rk.named_dataset("flowers102").classes == data.classes


def test_flowers_without_names_in_torchvision_have_numbers(data_root, full_mode, monkeypatch):
    def before_0_22(root, split, download):
        files = [write_picture(Path(root) / f"{split}_{label}.jpg", label) for label in range(102)]
        return SimpleNamespace(_image_files=files, _labels=range(102))

    monkeypatch.setattr(torchvision.datasets, "Flowers102", before_0_22)
    classes = rk.named_dataset("flowers102", size=8).classes
    assert (len(classes), classes[0], classes[101]) == (102, "001", "102")


def test_flowers_that_cannot_be_had_are_explained(data_root, full_mode, monkeypatch, capsys):
    def unreachable(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "Flowers102", unreachable)
    with pytest.raises(FileNotFoundError, match="flowers102 is not there .*a folder per class"):
        rk.named_dataset("flowers102")
    assert rk.named_dataset("flowers102", stand_in="digits").size == 8


def test_drawn_flowers_are_drawn_once_and_stand_in(data_root, capsys):
    data = rk.named_dataset("flowers102", stand_in="drawn_flowers", size=32, batch_size=8)
    assert "quick mode takes the stand-in; using drawn_flowers instead" in capsys.readouterr().out
    assert [len(x.dataset) for x in (data.train, data.val, data.test)] == [144, 48, 48]
    assert data.classes[0] == "01_4 round red" and len(data.classes) == 48
    folder = data.files["train"][0].parents[2]
    before = folder.stat().st_mtime_ns
    assert rk.named_dataset("drawn_flowers").files == data.files
    assert folder.stat().st_mtime_ns == before


def test_without_file_and_connection_the_error_says_what_to_do(data_root, full_mode, monkeypatch):
    def unreachable(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "SVHN", unreachable)
    with pytest.raises(FileNotFoundError, match="svhn.npz is not there .*no route.*train_images.*"):
        rk.named_dataset("svhn")


def test_a_stand_in_is_announced_in_one_line(data_root, full_mode, monkeypatch, capsys):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *a, **o: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rk.named_dataset("mnist", stand_in="digits")  # a bug is no reason for a stand-in
    capsys.readouterr()

    def unreachable(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    assert rk.named_dataset("mnist", stand_in="digits").size == 8
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("Wanted mnist, but ") and lines[-1].endswith(
        "using digits instead."
    )


def test_without_leave_nothing_is_downloaded(data_root, full_mode, monkeypatch, capsys):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)
    data = rk.named_dataset("cifar10", stand_in="digits", download=False)
    assert data.size == 8
    assert capsys.readouterr().out == (
        f"Wanted cifar10, but {data_root / 'cifar10.npz'} is not there "
        '(rk.named_dataset("cifar10") downloads it); using digits instead.\n'
    )
    with pytest.raises(FileNotFoundError, match="flowers102 is not there"):
        rk.named_dataset("flowers102", download=False)


def test_quick_mode_takes_the_stand_in_and_opens_no_connection(data_root, monkeypatch, capsys):
    data_root.mkdir()
    np.savez(data_root / "cifar10.npz", **some_arrays((32, 32, 3)))
    data = rk.named_dataset("cifar10", stand_in="drawn10")
    assert data.classes[0] == "boat" and len(data.test.dataset) == 50
    assert "quick mode takes the stand-in; using drawn10 instead" in capsys.readouterr().out
    assert len(rk.named_dataset("cifar10").train.dataset) == 108
    monkeypatch.setattr(torchvision.datasets, "MNIST", None)
    with pytest.raises(FileNotFoundError, match="quick mode downloads nothing"):
        rk.named_dataset("mnist")


def test_damaged_and_unfit_files_are_refused(data_root):
    data_root.mkdir()
    path = data_root / "mnist.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"mnist.npz cannot be read .*delete it"):
        rk.named_dataset("mnist")
    np.savez(path, train_images=np.zeros(3))
    with pytest.raises(ValueError, match="lacks train_labels, test_images, test_labels"):
        rk.named_dataset("mnist")
    np.savez(path, **(some_arrays((28, 28)) | {"train_labels": np.array([{}] * 120)}))
    with pytest.raises(ValueError, match="cannot be read"):
        rk.named_dataset("mnist")
    np.savez(path, **some_arrays((28, 28)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        rk.named_dataset("mnist")


@pytest.mark.parametrize("name", ["mnist", f"drawn10_quick_v{VERSION}"])
def test_a_file_that_names_no_classes_has_ten_all_the_same(data_root, name):
    data_root.mkdir()
    np.savez(data_root / f"{name}.npz", **some_arrays((28, 28)))
    assert rk.named_dataset(name.partition("_")[0]).classes == tuple("0123456789")


def test_too_few_pictures_to_hold_some_out_are_refused(data_root):
    data_root.mkdir()
    np.savez(data_root / "mnist.npz", **some_arrays((28, 28), train=20))
    with pytest.raises(ValueError, match=r"val_from_train=0.1 of 20 pictures: .*classes = 10"):
        rk.named_dataset("mnist")


def test_an_unknown_name_names_the_known_ones():
    for arguments in (("imagenet", None), ("mnist", "imagenet")):
        with pytest.raises(ValueError, match="no data set 'imagenet'; expected one of: mnist"):
            rk.named_dataset(arguments[0], stand_in=arguments[1])
