"""Pictures that are decoded once: the same batches, less work, no more memory than is free."""

import gc
import os
import random

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

import resnet_kit as rk
from conftest import write_picture
from resnet_kit import devices
from resnet_kit.data import UnreadableImageError, folders, pictures
from resnet_kit.data.crops import NUMBERS, TRIES, drawn_crops, resized_crops


@pytest.fixture
def reads(monkeypatch) -> list:
    """Every file that is decoded, once for each time."""
    files = []

    def counting(read):
        return lambda file: files.append(file) or read(file)

    for name in ("read_image", "read_rgb"):
        monkeypatch.setattr(pictures, name, counting(getattr(pictures, name)))
    return files


def folder_of(folder, pixels: tuple[int, int]):
    """Two classes of three pictures of (width, height) to learn from, and one each to score."""
    for seed, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("ant", "bee")):
            for index in range(3 if split == "train" else 1):
                number = 100 * seed + 10 * label + index
                write_picture(folder / split / name / f"{index}.png", number, pixels)
    return folder


def all_batches(loaders) -> list:
    """Two epochs of train, and the other splits."""
    found = [*loaders.train, *loaders.train, *loaders.val, *loaders.test, *loaders.plain("train")]
    return [tensor for batch in found for tensor in batch]


@pytest.mark.usefixtures("on_cpu")  # bit for bit
@pytest.mark.parametrize("augment", ["standard", "trivial", "none", v2.RandomCrop(8)])
@pytest.mark.parametrize("balanced", [False, True])
def test_kept_and_streamed_pictures_give_the_same_batches(tmp_path, augment, balanced):
    folder = folder_of(tmp_path, (15, 12))
    options = {"size": 8, "augment": augment, "batch_size": 4, "balanced": balanced}
    kept, streamed = (
        all_batches(rk.image_folders(folder, keep=keep, **options)) for keep in (True, False)
    )
    assert len(kept) == len(streamed) == 2 * (2 * 2 + 1 + 1 + 2)
    assert all(torch.equal(a, b) for a, b in zip(kept, streamed, strict=True))


def test_every_file_is_decoded_once_in_any_number_of_epochs(tmp_path, reads):
    loaders = rk.image_folders(folder_of(tmp_path, (15, 12)), size=8, mean=[0] * 3, std=[1] * 3)
    reads.clear()  # the augmentation was tried
    for _ in range(3):
        for loader in (loaders.train, loaders.val, loaders.test):
            list(loader)
    assert sorted(reads) == sorted(file for files in loaders.files.values() for file in files)


def test_mean_and_deviation_come_from_the_same_reading(tmp_path, reads):
    folder = folder_of(tmp_path, (40, 30))
    loaders = rk.image_folders(folder, size=8)
    stats = rk.mean_std(folder / "train")
    assert (loaders.mean, loaders.std) == (stats.mean, stats.std)
    list(loaders.train)
    tried = 1
    assert len(reads) == len(loaders.files["train"]) + tried


def test_large_pictures_keep_a_short_side_of_twice_the_size(tmp_path):
    folder = folder_of(tmp_path, (80, 60))
    loaders = rk.image_folders(folder, size=8)
    streamed = rk.image_folders(folder, size=8, keep=False)
    list(loaders.train)
    assert {tuple(x.shape) for x in loaders.train.dataset.decoded.pictures} == {(3, 16, 21)}
    for kept, read in zip(loaders.val, streamed.val, strict=True):
        assert torch.allclose(kept[0].cpu(), read[0], atol=1e-5)  # prepared from the whole picture
    own = rk.image_folders(folder, size=8, augment=v2.RandomCrop(8))
    list(own.train)
    assert {tuple(x.shape) for x in own.train.dataset.decoded.pictures} == {(3, 60, 80)}


def test_an_augmentation_that_writes_into_its_picture_leaves_the_kept_one_alone(tmp_path):
    def darken(picture):
        return picture.sub_(picture)[:, :8, :8]

    loaders = rk.image_folders(
        folder_of(tmp_path, (15, 12)), size=8, augment=darken, mean=[0] * 3, std=[1] * 3
    )
    images, _ = next(iter(loaders.train))
    assert images.max() == 0
    assert all(picture.max() > 0 for picture in loaders.train.dataset.decoded.pictures)


def test_loaders_of_one_folder_share_pictures_until_the_last_is_gone(tmp_path, reads):
    folder = folder_of(tmp_path, (15, 12))
    options = {"size": 8, "mean": [0] * 3, "std": [1] * 3}
    one = rk.image_folders(folder, **options)
    list(one.train)
    two = rk.image_folders(folder, batch_size=2, seed=1, **options)
    reads.clear()
    list(two.train)
    assert not reads
    del one, two
    gc.collect()
    three = rk.image_folders(folder, **options)
    reads.clear()
    list(three.train)
    assert len(reads) == 6


def test_new_loaders_notice_a_file_that_changed(tmp_path):
    folder = folder_of(tmp_path, (15, 12))
    before = rk.image_folders(folder, size=8, augment="none")
    first = before.val.dataset[0][0]
    file = before.files["val"][0]
    write_picture(file, 999, (15, 12))
    os.utime(file, ns=(1, 1))
    assert torch.equal(before.val.dataset[0][0], first)  # as the documentation says
    after = rk.image_folders(folder, size=8, augment="none")
    assert not torch.equal(after.val.dataset[0][0], first)


def test_all_unreadable_files_are_named_before_the_first_batch(tmp_path):
    loaders = rk.image_folders(
        folder_of(tmp_path, (15, 12)), size=8, mean=[0] * 3, std=[1] * 3, seed=3
    )
    bad = loaders.files["train"][1], loaders.files["train"][4]
    for file in bad:
        file.write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match="2 of 6 pictures cannot be read") as caught:
        next(iter(loaders.train))
    assert all(str(file) in str(caught.value) for file in bad)


@pytest.mark.parametrize(
    ("device", "side", "place"),
    [("cuda", 64, "cuda"), ("cuda", None, "cpu"), ("cpu", 64, "cpu"), ("cpu", None, "cpu")],
)
def test_a_gpu_keeps_pictures_where_their_augmentation_is_ours(
    tmp_path, monkeypatch, device, side, place
):
    files = {"train": [write_picture(tmp_path / "a.png")]}
    monkeypatch.setattr(pictures, "default_device", lambda: torch.device(device))
    monkeypatch.setattr(pictures, "free_memory", lambda device: 1e9)
    assert pictures.place_of_decoded("auto", files, 32, side) == torch.device(place)


def test_pictures_that_do_not_fit_are_streamed_or_refused(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, (15, 12))
    needed = 6 * 3 * 15 * 12 + 4 * 3 * 8 * 8
    options = {"size": 8, "mean": [0] * 3, "std": [1] * 3}

    def kept(free: int, keep="auto") -> bool:
        monkeypatch.setattr(pictures, "free_memory", lambda device: free)
        return rk.image_folders(folder, keep=keep, **options).train.dataset.decoded is not None

    assert kept(3 * needed) and not kept(3 * needed - 3)
    assert kept(needed, keep=True) and not kept(3 * needed, keep=False)
    with pytest.raises(ValueError, match="take more than the 0.0 GB of memory that are free"):
        kept(needed - 1, keep=True)


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_batches_are_pinned_for_a_gpu_that_gains_by_it(folder, monkeypatch, device, pinned):
    monkeypatch.setattr(folders, "default_device", lambda: torch.device(device))
    assert rk.image_folders(folder, size=16, keep=False).train.pin_memory == pinned


@pytest.mark.parametrize("keep", [None, "always", 1])
def test_keep_is_one_of_three(folder, keep):
    with pytest.raises(ValueError, match=r'keep is .*; expected "auto", True or False'):
        rk.image_folders(folder, size=16, keep=keep)


def test_kept_pictures_need_no_workers_and_workers_stream(folder, monkeypatch):
    monkeypatch.delenv("RESNET_KIT_QUICK")
    assert rk.image_folders(folder, size=16).train.num_workers == 0
    asked = rk.image_folders(folder, size=16, workers=1)
    assert asked.train.num_workers == 1 and asked.train.dataset.decoded is None
    with pytest.raises(ValueError, match="keep=True needs no workers"):
        rk.image_folders(folder, size=16, workers=1, keep=True)


def test_a_loader_of_ones_own_gets_normalised_pictures(tmp_path):
    loaders = rk.image_folders(folder_of(tmp_path, (15, 12)), size=8, augment="none")
    own = DataLoader(Subset(loaders.plain("train").dataset, [2, 0]), batch_size=2)
    images, labels = next(iter(own))
    expected, numbers = next(iter(loaders.plain("train")))
    assert torch.equal(images, expected[[2, 0]]) and torch.equal(labels, numbers[[2, 0]])


def test_loaders_say_what_is_kept(tmp_path):
    loaders = rk.image_folders(folder_of(tmp_path, (400, 300)), size=200)
    assert repr(loaders).endswith("; decoded once, 2.2 MB)")  # mean_std has read train
    list(loaders.val)
    assert repr(loaders).endswith("; decoded once, 2.4 MB)")
    other = rk.image_folders(tmp_path, size=200, mean=[0] * 3, std=[1] * 3)
    assert repr(other).endswith("; decoded once, at the first use)")


def test_free_memory_is_what_a_container_leaves(tmp_path, monkeypatch):
    everything = devices.free_memory(torch.device("cpu"))
    for name, content in (("max", 5_000_000), ("current", 4_000_000)):
        (tmp_path / f"memory.{name}").write_text(f"{content}\n")
    (tmp_path / "memory.stat").write_text("active_file 7\ninactive_file 250000\n")
    monkeypatch.setattr(devices, "CONTAINERS", [(tmp_path, "memory.max", "memory.current")])
    assert devices.free_memory(torch.device("cpu")) == 1_250_000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(torch.device("cpu")) > everything / 2


def crops_of(sides, seed=0, size=24):
    numbers = np.random.default_rng(seed).random((len(sides), NUMBERS))
    return drawn_crops(sides, numbers, v2.RandomResizedCrop(size))


@pytest.mark.parametrize("sides", [((40, 70), (90, 30)), ((8, 8), (300, 17))])
def test_crops_resized_together_are_those_of_torchvision(sides):
    """Smaller and larger than their source, of both orientations, mirrored and not."""
    torch.manual_seed(0)
    given = [torch.randint(0, 256, (3, *side), dtype=torch.uint8) for side in sides] * 8
    crops = crops_of(sides * 8)
    assert set(crops[:, 4]) == {0, 1}
    for picture, crop, found in zip(given, crops, resized_crops(given, crops, 24), strict=True):
        *box, mirrored = crop.tolist()
        exact = V.resized_crop(picture.float(), *box, [24, 24], antialias=True)
        exact = exact.flip(2) if mirrored else exact
        assert (found - exact).abs().max() < 0.501  # rounded to whole levels


@pytest.mark.parametrize("side", [(60, 60), (40, 90), (120, 50)])
def test_crops_are_distributed_as_torchvisions(side):
    torch.manual_seed(0)
    single, picture = v2.RandomResizedCrop(24), torch.empty(3, *side)
    names = "top", "left", "height", "width"
    drawn = [single.make_params([picture]) for _ in range(4000)]
    theirs = np.array([[box[name] for name in names] for box in drawn])
    crops = crops_of([side] * 4000)
    assert (crops[:, :2] >= 0).all() and (crops[:, 2:4] > 0).all()
    assert (crops[:, 0] + crops[:, 2]).max() == side[0]
    assert (crops[:, 1] + crops[:, 3]).max() == side[1]
    for place, name in enumerate(names):
        assert ks_2samp(crops[:, place], theirs[:, place]).pvalue > 0.001, name
    assert abs(crops[:, 4].mean() - 0.5) < 0.03


@pytest.mark.parametrize("side", [(9, 200), (200, 9), (20, 27)])
def test_where_no_try_fits_the_crop_is_torchvisions(side):
    numbers = np.full((1, NUMBERS), 0.999)  # all of the area, and as wide as may be
    numbers[0, TRIES : 2 * TRIES] = 0.0 if side[1] > side[0] else 0.999
    found = drawn_crops([side], numbers, v2.RandomResizedCrop(24))[0, :4].tolist()
    never = v2.RandomResizedCrop(24, scale=(99, 99))
    box = never.make_params([torch.empty(3, *side)])
    assert found == [box["top"], box["left"], box["height"], box["width"]]


@pytest.mark.parametrize("balanced", [False, True])
def test_crops_of_a_batch_depend_on_seed_epoch_and_index_alone(tmp_path, monkeypatch, balanced):
    """As on a GPU."""
    monkeypatch.setattr(pictures.PictureFiles, "cropped_together", True)
    folder = folder_of(tmp_path, (15, 12))
    options = {"size": 8, "mean": [0] * 3, "std": [1] * 3, "balanced": balanced}

    def epochs(batch_size, seed=0):
        train = rk.image_folders(folder, batch_size=batch_size, seed=seed, **options).train
        found = [torch.cat([images for images, _ in train]) for _ in range(2)]
        assert [epoch.shape for epoch in found] == [(6, 3, 8, 8)] * 2
        return found

    first, second = epochs(4)
    assert all(torch.equal(a, b) for a, b in zip((first, second), epochs(3), strict=True))
    assert len({tuple(picture.flatten().tolist()) for picture in [*first, *second]}) == 12
    assert not torch.equal(first, epochs(4, seed=1)[0])


def test_pictures_of_a_batch_leave_the_callers_random_numbers_alone(tmp_path):
    loaders = rk.image_folders(folder_of(tmp_path, (15, 12)), size=8, augment="trivial")
    rk.seed_everything(3)
    expected = torch.rand(2), np.random.rand(), random.random()
    rk.seed_everything(3)
    list(loaders.train)
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(), random.random()) == expected[1:]


def test_workers_are_told_that_they_cannot_read_what_lies_on_a_gpu(tmp_path, monkeypatch):
    file = write_picture(tmp_path / "a.png")
    decoded = pictures.Decoded([file], pictures.Smaller(None, "bilinear"), torch.device("cuda"))
    monkeypatch.setattr(pictures, "get_worker_info", lambda: "some worker")
    with pytest.raises(RuntimeError, match="without workers, or image_folders.*keep=False"):
        decoded[0]
