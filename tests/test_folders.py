import gc
import multiprocessing
import shutil
import sys
import weakref

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, SequentialSampler
from torchvision.transforms import v2

import resnet_kit as rk
from conftest import small_net, write_picture
from resnet_kit.data import UnreadableImageError
from resnet_kit.data import folders as module
from resnet_kit.data.datasets import COUNTS
from resnet_kit.data.images import picture_files, trimmed
from resnet_kit.data.loaders import EpochSampler, prepare_worker
from resnet_kit.data.pictures import PictureLoader, Prepare


def batches(loader):
    return torch.cat([images for images, _ in loader])


def test_two_splits_become_loaders(folder):
    loaders = rk.image_folders(folder, size=16, batch_size=4)
    assert (len(loaders.train.dataset), len(loaders.val.dataset), loaders.test) == (11, 5, None)
    assert loaders.classes == ("a", "b") and loaders.size == 16
    images, labels = next(iter(loaders.val))
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.float32
    assert labels.tolist() == [0, 0, 0, 1] and labels.dtype == torch.int64
    assert [path.parent.name for path in loaders.files["val"]] == ["a", "a", "a", "b", "b"]
    loaders = rk.image_folders(folder, size=16, keep=False)
    assert repr(loaders) == "Loaders(train 11, val 5 pictures of 16 px; 2 classes: a, b)"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder_has_several_names_and_test_is_found(folder, name):
    (folder / "eval").rename(folder / name)
    shutil.copytree(folder / name, folder / "test")
    loaders = rk.image_folders(folder, size=16)
    assert len(loaders.val.dataset) == 5 and len(loaders.test.dataset) == 5
    assert loaders.plain("test") is loaders.test


@pytest.mark.usefixtures("on_cpu")  # bit for bit
def test_validation_is_neither_the_training_folder_nor_augmented(folder):
    loaders = rk.image_folders(folder, size=16)
    assert not set(loaders.files["train"]) & set(loaders.files["val"])
    prepare = Prepare("none", 16, loaders.mean, loaders.std)
    plain = torch.stack([prepare(rk.read_image(path)) for path in loaders.files["val"]])
    assert torch.equal(batches(loaders.val), plain)
    assert torch.equal(batches(loaders.plain("train")), batches(loaders.plain("train")))
    assert isinstance(loaders.val.sampler, SequentialSampler)
    assert not torch.equal(batches(loaders.train), batches(loaders.train))


def test_validation_pictures_are_resized_and_centre_cropped(tmp_path):
    for split in ("train", "val"):
        write_picture(tmp_path / split / "a" / "1.png", 1, (60, 40))
    loaders = rk.image_folders(tmp_path, size=28, mean=[0, 0, 0], std=[1, 1, 1])
    picture = rk.read_image(loaders.files["val"][0])
    resized = v2.functional.resize(picture, 32, antialias=True)  # 28 * 256 / 224
    expected = v2.functional.center_crop(resized, 28) / 255
    assert torch.allclose(next(iter(loaders.val))[0][0].cpu(), expected)


def test_statistics_are_the_training_pictures_or_those_of_the_weights(folder):
    stats = rk.mean_std(folder / "train")
    loaders = rk.image_folders(folder, size=16)
    assert loaders.mean == stats.mean and loaders.std == stats.std
    source = rk.weights("resnet18", None)
    loaders = rk.image_folders(folder, like=source, size=16)
    assert loaders.mean == source.mean and loaders.std == source.std
    assert rk.image_folders(folder, like=source).size == source.size == 224
    own = rk.image_folders(folder, like=source, mean=[0, 0, 0], std=[1, 1, 1], size=16)
    assert own.mean == (0, 0, 0)
    with pytest.raises(ValueError, match="only one of mean and std"):
        rk.image_folders(folder, mean=[0, 0, 0])


def test_random_numbers_of_a_picture_follow_from_seed_epoch_and_index(folder):
    dataset = rk.image_folders(folder, size=16, seed=3).train.dataset
    first, again = dataset[1, 4][0], dataset[1, 4][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, dataset[2, 4][0])
    other = rk.image_folders(folder, size=16, seed=4).train.dataset
    assert not torch.equal(first, other[1, 4][0])


@pytest.mark.parametrize("augment", ["standard", "trivial"])
def test_batches_are_the_same_for_any_number_of_workers(folder, augment):
    runs = []
    for workers in (0, 1, 2):
        options = {"size": 16, "augment": augment, "batch_size": 4, "keep": False}
        loaders = rk.image_folders(folder, workers=workers, **options)
        runs.append(torch.cat([batches(loaders.train), batches(loaders.train)]))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][:11], runs[0][11:])


def test_persistent_workers_see_new_epochs(folder):
    plain = rk.image_folders(folder, size=16, workers=0, keep=False).train
    lasting = DataLoader(plain.dataset, batch_size=4, num_workers=2, persistent_workers=True,
                         sampler=EpochSampler(11, 0))  # fmt: skip
    for _ in range(3):
        assert torch.equal(batches(plain), batches(lasting))


def test_set_epoch_repeats_an_epoch(folder):
    loader = rk.image_folders(folder, size=16).train
    first = batches(loader)
    assert not torch.equal(first, batches(loader))
    loader.sampler.set_epoch(1)
    assert torch.equal(first, batches(loader))
    assert sorted(index for _, index in loader.sampler) == list(range(11))


def test_loading_leaves_the_callers_random_numbers_alone(folder):
    loader = rk.image_folders(folder, size=16, workers=0).plain("train")
    dataset = rk.image_folders(folder, size=16).train.dataset
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    dataset[1, 2]
    next(iter(loader))
    assert torch.equal(torch.rand(2), expected)
    assert len(loader) == 1


@pytest.fixture
def no_forks(processes):
    """New processes are no copies of this one, as on Windows and macOS."""
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(processes.get_start_method(), force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)


@pytest.mark.usefixtures("no_forks")
def test_workers_that_are_no_copies_of_this_process_give_the_same(folder):
    plain, sent = (
        rk.image_folders(
            folder, size=16, augment="trivial", batch_size=4, workers=workers, keep=False
        ).train
        for workers in (0, 1)
    )
    assert sent.num_workers == 1 and sent.persistent_workers
    for _ in range(2):
        assert torch.equal(batches(sent), batches(plain))


def collect_garbage(picture):
    gc.collect()
    return v2.functional.resize(picture, [16, 16])


class Unreachable:
    """Holds a loader's iterator in a cycle, so that only the garbage collector can find it."""

    def __init__(self, iterator):
        self.iterator, self.cycle = iterator, self


def test_workers_leave_dropped_loaders_of_the_main_process_alone(folder, capfd, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest's does not print
    loaders = rk.image_folders(folder, size=16, workers=2, batch_size=3, augment=collect_garbage)
    gc.disable()
    try:
        dropped = weakref.ref(Unreachable(iter(loaders.val)))
        assert len(batches(loaders.train)) == 11
        dropped().cycle = None  # freed at once; the collector would wait 5 seconds per worker
    finally:
        gc.enable()
    assert "can only test a child process" not in capfd.readouterr().err


def test_workers_follow_mode_device_and_platform(folder, monkeypatch):
    def workers(augment="standard") -> int:
        options = {"size": 16, "mean": [0] * 3, "std": [1] * 3, "keep": False}
        return rk.image_folders(folder, augment=augment, **options).train.num_workers

    monkeypatch.setattr(module, "cpu_count", lambda: 6)
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cpu")
    monkeypatch.setattr(module, "workers_fork", lambda: True)
    assert workers() == 0
    monkeypatch.delenv("RESNET_KIT_QUICK")
    assert workers() == 2
    monkeypatch.setattr(module, "workers_fork", lambda: False)
    assert workers() == 0
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cuda")
    assert workers() == 4
    own = v2.CenterCrop(16)
    assert workers(own) == 4
    own.__module__ = "__main__"  # of a notebook, which a spawned process cannot import
    assert workers(own) == 0
    monkeypatch.setattr(module, "workers_fork", lambda: True)
    assert workers(own) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; expected a whole number of at least 1"),
        ({"size": {1: 64}}, "size is {1: 64}; expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"mean": [0], "std": [1]}, "expected one number each per channel"),
        ({"mean": [0, 0, 0], "std": [1, 0, 1]}, "deviations above 0"),
    ],
)
def test_impossible_sizes_and_statistics_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        rk.image_folders(folder, **options)


def test_own_augmentation_ends_in_uint8_of_the_right_size(folder):
    flip = v2.Compose([v2.Resize((16, 16)), v2.RandomHorizontalFlip()])
    assert next(iter(rk.image_folders(folder, size=16, augment=flip).train))[0].shape[-1] == 16
    with pytest.raises(ValueError, match=r"uint8 of shape \(3, 16, 16\).*crop to 32 px"):
        rk.image_folders(folder, size=32, augment=flip)
    floats = v2.Compose([v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)])
    with pytest.raises(ValueError, match="float32.*leave out conversion"):
        rk.image_folders(folder, size=16, augment=floats)
    with pytest.raises(ValueError, match="'strong'; expected none, standard, trivial"):
        rk.image_folders(folder, augment="strong")


def test_no_augmentation_trains_on_validation_transforms(folder):
    loaders = rk.image_folders(folder, size=16, augment="none", batch_size=11)
    images, _ = next(iter(loaders.train))
    order = [index for _, index in EpochSampler(11, 0)]
    assert torch.equal(images, batches(loaders.plain("train"))[order])


def test_one_folder_of_classes_is_split_by_file_hash(folder):
    loaders = rk.image_folders(folder / "train", size=16)
    assert len(loaders.val.dataset) == 2 and len(loaders.train.dataset) == 9
    again = rk.image_folders(folder / "train", size=16)
    assert again.files == loaders.files
    others = {rk.image_folders(folder / "train", size=16, seed=s).files["val"] for s in range(1, 6)}
    assert len(others | {loaders.files["val"]}) > 1


def test_hold_out_is_stratified_and_the_other_folder_becomes_test(folder):
    loaders = rk.image_folders(folder, size=16, val_from_train=0.4)
    labels = [path.parent.name for path in loaders.files["val"]]
    assert labels == ["a", "a", "b", "b"]
    assert len(loaders.test.dataset) == 5 and "eval" in str(loaders.files["test"][0])
    parts = set(loaders.files["train"]) | set(loaders.files["val"])
    assert len(parts) == 11


def test_copies_of_a_picture_stay_together(tmp_path):
    for name in "ab":
        for index in range(8):
            path = write_picture(tmp_path / name / f"{index}.png", index)
            shutil.copy(path, path.with_name(f"copy of {index}.png"))
    loaders = rk.image_folders(tmp_path, size=16)
    held = {path.name.removeprefix("copy of ") for path in loaders.files["val"]}
    kept = {path.name.removeprefix("copy of ") for path in loaders.files["train"]}
    assert held and not held & kept


def test_hidden_folders_are_no_class(folder):
    write_picture(folder / "train" / ".ipynb_checkpoints" / "1.png")
    write_picture(folder / "train" / "a" / ".ipynb_checkpoints" / "0-checkpoint.png")
    loaders = rk.image_folders(folder, size=16)
    assert loaders.classes == ("a", "b") and len(loaders.train.dataset) == 11


def test_missing_folders_and_files_for_folders_are_refused(folder):
    with pytest.raises(FileNotFoundError, match="no folder .*expected one with train and val"):
        rk.image_folders(folder / "none")
    shutil.rmtree(folder / "eval")
    with pytest.raises(ValueError, match="none of val, eval, .*val_from_train=0.15"):
        rk.image_folders(folder)
    (folder / "eval").touch()
    with pytest.raises(NotADirectoryError, match="eval is a file; expected a folder"):
        rk.image_folders(folder)


def test_empty_classes_and_folders_without_classes_are_refused(folder):
    shutil.rmtree(folder / "train" / "b")
    (folder / "train" / "b").mkdir()
    (folder / "train" / "b" / "a.gif").touch()
    with pytest.raises(ValueError, match=r"class b in .*train has no pictures \(only .gif files"):
        rk.image_folders(folder)
    with pytest.raises(ValueError, match="no folders in .*expected one folder of pictures per"):
        rk.image_folders(folder / "train" / "a")


def test_a_class_that_cannot_be_learned_is_refused_by_name(folder):
    write_picture(folder / "eval" / "c" / "1.png")
    with pytest.raises(ValueError, match=r"class c is in .*eval but not in .*train, where it"):
        rk.image_folders(folder)


def test_a_class_without_pictures_to_score_is_allowed_and_said(folder, capsys):
    for index in range(3):
        write_picture(folder / "train" / "aa" / f"{index}.png", 50 + index)
    loaders = rk.image_folders(folder, size=16)
    assert "eval has no pictures of aa, whose recall stays unknown" in capsys.readouterr().out
    assert loaders.classes == loaders.val.dataset.classes == ("a", "aa", "b")
    assert loaders.val.dataset.labels == (0, 0, 0, 2, 2)
    table = rk.evaluate(small_net(3), loaders.val, progress=False).per_class()
    assert np.isnan(table.loc["aa", "recall"]) and table.loc["b", "pictures"] == 2


def test_test_pictures_without_classes_are_left_out_and_said(folder, capsys):
    for index in range(3):
        write_picture(folder / "test" / f"{index}.png", 70 + index)
    assert rk.image_folders(folder, size=16).test is None
    assert "test has pictures without classes, which cannot be scored" in capsys.readouterr().out


@pytest.mark.usefixtures("no_heif")
def test_what_is_left_out_is_counted_in_one_line(folder, capsys):
    for name in ("1.heic", "2.heic", "3.gif", ".hidden.gif", "notes"):
        (folder / "train" / "a" / name).touch()
    (folder / "train" / "@eaDir").mkdir()
    write_picture(folder / "train" / "@eaDir" / "a" / "thumbnail.png")
    loaders = rk.image_folders(folder, size=16)
    said = capsys.readouterr().out
    assert "that is read here: 1 without a suffix, 1 .gif, 2 .heic." in said
    assert loaders.classes == ("a", "b") and len(loaders.files["train"]) == 11
    report = rk.inspect_folder(folder, progress=False).to_frame().set_index("file")
    assert not report.loc["train/@eaDir/a/thumbnail.png", "usable"]


def test_classes_named_like_splits_are_classes_where_they_hold_pictures(tmp_path):
    for name in ("train", "train_station", "test_tube"):
        for index in range(6):
            write_picture(tmp_path / name / f"{index}.png", index + 10 * len(name))
    loaders = rk.image_folders(tmp_path, size=16)
    assert loaders.classes == ("test_tube", "train", "train_station")
    counts = rk.inspect_folder(tmp_path, progress=False).counts()
    assert counts.index.tolist() == ["test_tube", "train", "train_station"]


def test_one_folder_too_many_is_pointed_at(tmp_path, capsys):
    for name in ("cat", "dog"):
        for index in range(5):
            write_picture(tmp_path / "set" / "pets" / name / f"{index}.png", index + len(name) * 9)
    rk.image_folders(tmp_path / "set", size=16)
    said = capsys.readouterr().out
    assert "one class only (pets)" in said and f"seem to be in {tmp_path}/set/pets" in said
    problems = rk.inspect_folder(tmp_path / "set", progress=False).problems()
    assert "is the only class" in problems["detail"].tolist()


def test_a_very_long_picture_costs_no_more_than_its_result(folder):
    file = write_picture(folder / "eval" / "a" / "long.png", size=(12000, 1))
    assert trimmed(rk.read_image(file)).shape == (3, 1, 8)
    loaders = rk.image_folders(folder, size=224, mean=[0] * 3, std=[1] * 3, batch_size=9)
    assert next(iter(loaders.val))[0].shape == (6, 3, 224, 224)
    wide = rk.read_image(write_picture(folder / "wide.png", size=(70, 10)))
    assert torch.equal(trimmed(wide), wide), "up to eight times as long it is left alone"


def test_ambiguous_and_impossible_splits_are_refused(folder):
    shutil.copytree(folder / "eval", folder / "val")
    with pytest.raises(ValueError, match="val and eval: expected one validation folder"):
        rk.image_folders(folder)
    (folder / "val").rename(folder / "test")
    with pytest.raises(ValueError, match="eval and test, so there is nothing to hold out"):
        rk.image_folders(folder, val_from_train=0.2)
    with pytest.raises(ValueError, match="val_from_train is 1.5; expected a share"):
        rk.image_folders(folder, val_from_train=1.5)
    write_picture(folder.parent / "one" / "a" / "1.png")
    with pytest.raises(ValueError, match="class a has 1 picture, too few .*to hold 20% out"):
        rk.image_folders(folder.parent / "one")


@pytest.mark.parametrize("name", ["Train", "training_set", "test", "Validation"])
def test_splits_are_not_taken_for_classes(folder, name):
    (folder / "train").rename(folder / "rest")
    (folder / "rest").rename(folder / name)
    with pytest.raises(ValueError, match="looks like a split, not like a class"):
        rk.image_folders(folder)


def test_unknown_split_names_the_known(folder):
    with pytest.raises(ValueError, match="no split 'test'; this data set has: train, val"):
        rk.image_folders(folder, size=16).plain("test")


def test_corrupt_picture_is_named_through_a_worker(folder):
    (folder / "train" / "a" / "3.png").write_bytes(b"broken")
    loaders = rk.image_folders(folder, size=16, mean=[0] * 3, std=[1] * 3, workers=2)
    message = ""
    try:
        list(loaders.train)
    except UnreadableImageError as error:  # pytest.raises would keep the workers alive
        message = str(error)
    assert "3.png" in message


def test_photos_are_596_and_355(real_data):
    loaders = rk.image_folders(real_data / "cat_dog_ants_bees", like=rk.weights("resnet18", None))
    assert (len(loaders.train.dataset), len(loaders.val.dataset)) == (596, 355)
    counts = np.bincount(loaders.train.dataset.labels).tolist()
    assert counts == list(COUNTS["train"]) and sum(COUNTS["eval"]) == 355


def test_shares_of_train_are_nested_by_class_and_leave_val_alone(folder):
    def files(share, seed=0):
        loaders = rk.image_folders(folder, train_share=share, seed=seed, size=8, workers=0)
        return set(loaders.files["train"]), loaders.files["val"]

    all_of_them, val = files(1.0)
    half, same_val = files(0.5)
    least, _ = files(0.01)
    assert len(all_of_them) == 11 and least < half < all_of_them and same_val == val
    assert sorted(path.parent.name for path in half) == ["a"] * 3 + ["b"] * 2
    assert sorted(path.parent.name for path in least) == ["a", "b"]
    assert files(0.5, seed=1)[0] != half
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=rf"train_share is {share}; expected a share above 0"):
            files(share)


def test_a_single_last_picture_is_not_trained_on_alone(folder):
    loaders = rk.image_folders(folder, size=16, batch_size=5, workers=0)
    assert len(loaders.train.dataset) == 11 and len(loaders.train) == 2
    assert [len(labels) for _, labels in loaders.train] == [5, 5]
    assert [len(labels) for _, labels in loaders.plain("train")] == [5, 5, 1]
    whole = rk.image_folders(folder, size=16, batch_size=4, workers=0)
    assert [len(labels) for _, labels in whole.train] == [4, 4, 3]


def test_balanced_loaders_draw_every_class_equally_often(tmp_path):
    for name, count in {"a": 30, "b": 3}.items():
        for index in range(count):
            write_picture(tmp_path / "train" / name / f"{index}.png", index, (8, 8))
        write_picture(tmp_path / "val" / name / "0.png", 50, (8, 8))
    given = {"size": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3, "workers": 0}
    plain = rk.image_folders(tmp_path, **given)
    loaders = rk.image_folders(tmp_path, balanced=True, **given)
    rare = sum((labels == 1).sum().item() for _ in range(20) for _, labels in loaders.train)
    assert len(loaders.train.dataset) == 33 and 0.44 < rare / (20 * 33) < 0.56
    assert sum((labels == 1).sum().item() for _, labels in plain.train) == 3
    assert sum((labels == 1).sum().item() for _, labels in loaders.plain("train")) == 3


def test_balanced_arrays_are_drawn_equally_often_and_reproducibly():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0] * 36 + [1] * 4)
    pair = {"train": (images, labels), "val": (images[:4], labels[-4:])}
    one, two = (rk.array_loaders(**pair, balanced=True, batch_size=8) for _ in range(2))
    drawn = [torch.cat([labels for _, labels in one.train]) for _ in range(20)]
    assert 0.44 < torch.cat(drawn).float().mean() < 0.56
    again = [torch.cat([labels for _, labels in two.train]) for _ in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.cat([labels for _, labels in one.val]).tolist() == [1] * 4


@pytest.mark.parametrize("lasting", [False, True])
def test_workers_end_when_one_meets_an_error_and_start_again(folder, lasting):
    dataset = rk.image_folders(folder, size=16, keep=False).train.dataset
    loader = PictureLoader(
        dataset, batch_size=4, num_workers=2, persistent_workers=lasting,
        worker_init_fn=prepare_worker,
    )  # fmt: skip
    dataset.files[3].write_bytes(b"broken")
    with pytest.raises(UnreadableImageError):
        list(loader)
    assert not multiprocessing.active_children()
    write_picture(dataset.files[3])
    assert len(list(loader)) == 3
    if lasting:  # the error keeps them, and the garbage collector would wait 5 seconds for each
        loader._iterator._shutdown_workers()


def test_the_weights_say_how_pictures_are_resized(folder, full_mode):
    enum = torchvision.models.EfficientNet_B4_Weights.IMAGENET1K_V1
    source = rk.weights("efficientnet_b4", "imagenet")
    assert (source.size, source.resize, source.interpolation) == (380, 384, "bicubic")
    loaders = rk.image_folders(folder, like=source, workers=0)
    for file, picture in zip(loaders.files["val"], next(iter(loaders.val))[0], strict=True):
        expected = enum.transforms()(Image.open(file))
        assert torch.allclose(picture.cpu(), expected, atol=0.05)
    other = rk.image_folders(folder, like=source, size=190, workers=0).val.dataset.transform
    assert other.resize == 192 and other.interpolation.value == "bicubic"
    assert rk.weights("resnet50", "imagenet").resize == 232


def test_copies_in_classes_of_unequal_size_stay_together(tmp_path):
    for name, count in (("large", 40), ("small", 4)):
        for index in range(count):
            write_picture(tmp_path / name / f"{index}.png", index + 100 * (name == "small"))
    for index in range(12):
        shutil.copy(tmp_path / "large" / f"{index}.png", tmp_path / "small" / f"copy{index}.png")
    for seed in range(8):
        loaders = rk.image_folders(tmp_path, size=16, seed=seed, mean=[0] * 3, std=[1] * 3)
        train, val = ({f.read_bytes() for f in loaders.files[x]} for x in ("train", "val"))
        assert not train & val, seed


def test_a_picture_that_is_drawn_often_is_augmented_each_time_anew(tmp_path):
    for split in ("train", "val"):
        for name, count in (("many", 30), ("rare", 1)):
            for index in range(count):
                seed = index + 50 * (name == "rare") + 100 * (split == "val")
                write_picture(tmp_path / split / name / f"{index}.png", seed)
    runs = []
    for workers in (0, 1):
        loaders = rk.image_folders(tmp_path, size=16, balanced=True, workers=workers, keep=False)
        pictures, labels = map(torch.cat, zip(*loaders.train, strict=True))
        rare = [picture.numpy().tobytes() for picture in pictures[labels == 1]]
        assert len(rare) > 8 and len(set(rare)) == len(rare)
        runs.append(rare)
    assert runs[0] == runs[1]


def oddities_of(folder, capsys, **options) -> str:
    capsys.readouterr()
    rk.image_folders(folder, size=16, mean=[0] * 3, std=[1] * 3, **options)
    return capsys.readouterr().out


def test_what_makes_a_score_mean_less_is_said(tmp_path, folder, capsys):
    for index in range(6):
        write_picture(tmp_path / "one" / "cat" / f"{index}.png", index)
    assert "one class only (cat)" in oddities_of(tmp_path / "one", capsys)
    for split, count in (("train", 4), ("val", 6)):
        for name in ("cats", "dogs"):
            for index in range(count):
                seed = index + 10 * (name == "dogs") + 50 * (split == "val")
                write_picture(tmp_path / "two" / split / name / f"{index}.png", seed)
    said = oddities_of(tmp_path / "two", capsys)
    assert said == "val has 12 pictures, train 8: is it the other way round?\n"
    shutil.copy(tmp_path / "two/train/cats/0.png", tmp_path / "two/val/dogs/again.png")
    said = oddities_of(tmp_path / "two", capsys)
    assert "1 picture of 13 in val is byte for byte in train too, so its score is too good" in said
    assert "the other way round" in said and "the other way round" not in oddities_of(
        folder, capsys, train_share=0.1
    ), "a share of the training pictures was asked for"
    shutil.rmtree(tmp_path / "two" / "val")
    shutil.copytree(tmp_path / "two" / "train", tmp_path / "two" / "val")
    assert "8 pictures of 8 in val are byte for byte" in oddities_of(tmp_path / "two", capsys)
    assert "look like characters" in oddities_of(folder, capsys)
    assert oddities_of(folder, capsys, augment="none") == ""


def test_a_wrong_folder_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = str(tmp_path / "cats")
    for call in (rk.image_folders, rk.inspect_folder, rk.mean_std, rk.compare_strategies):
        with pytest.raises(FileNotFoundError, match=f"no folder {absolute}; expected"):
            call("cats")
    (tmp_path / "cats.zip").write_bytes(b"PK")
    for call in (rk.image_folders, rk.inspect_folder, rk.mean_std, rk.compare_strategies):
        with pytest.raises(NotADirectoryError, match=r"cats.zip is a file; .*must be unpacked"):
            call("cats.zip")


def test_folders_may_be_named_with_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(rk.image_folders("~/set", size=16).files["val"]) == 5
    assert len(rk.inspect_folder("~/set", progress=False).to_frame()) == 16
    assert rk.mean_std("~/set", progress=False).pictures == 16
    assert rk.read_image("~/set/train/a/0.png").shape == (3, 20, 24)


def test_weights_that_are_none_are_refused(folder):
    for call in (
        lambda given: rk.image_folders(folder, like=given),
        lambda given: rk.pretrained(given, num_classes=2),
        lambda given: rk.compare_strategies(folder, weights=given),
    ):
        with pytest.raises(ValueError, match=r"weights is 'resnet18'; expected what rk.weights"):
            call("resnet18")
    with pytest.raises(ValueError, match="weights is None; expected"):
        rk.pretrained(None, num_classes=2)
    with pytest.raises(ValueError, match="expected the Loaders of a whole data set"):
        rk.extract_features(rk.models.resnets.cifar_resnet(8), [1])


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    for name in "ab":
        for index in range(5):
            write_picture(tmp_path / name / f"{index}.png", index + 10 * (name == "b"))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(picture_files(tmp_path / "a")) == 10
    assert len(rk.inspect_folder(tmp_path, progress=False).to_frame()) == 20
