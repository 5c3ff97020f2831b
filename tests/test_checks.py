"""What image_folders says of a folder, and what keeps a score on it honest."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image, features
from torchvision.transforms import v2

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import checks, duplicates


@pytest.fixture
def films(tmp_path):
    """Four films of six frames in each of two classes, in no splits yet."""
    rng = np.random.default_rng(0)
    for name in ("door", "gate"):
        for film in range(4):
            scene = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
            scene = np.asarray(scene.resize((80, 80), Image.Resampling.BICUBIC)).astype(int)
            for frame in range(6):
                path = tmp_path / "films" / name / f"film{film}_{frame}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noisy = scene + rng.integers(-6, 6, scene.shape)
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return tmp_path / "films"


def film_of(file):
    return file.parent.name, file.name[:5]


def split_films(loaders):
    """The films that lie in train and in val."""
    return {film_of(f) for f in loaders.files["train"]} & {film_of(f) for f in loaders.files["val"]}


def test_near_copies_that_a_split_tears_apart_are_counted(films, capsys):
    loaders = rk.image_folders(films, size=16)
    said = capsys.readouterr().out
    assert split_films(loaders)
    assert f"{len(loaders.files['val'])} in val are nearly the same as one in train" in said
    assert "groups=rk.inspect_folder(root).group_of keeps them together" in said


@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_on_one_side_of_a_split(films, seed, capsys):
    loaders = rk.image_folders(films, size=16, groups=film_of, seed=seed)
    assert not split_films(loaders)
    assert {f.parent.name for f in loaders.files["val"]} == {"door", "gate"}
    assert "nearly the same" not in capsys.readouterr().out


def test_a_report_knows_which_pictures_belong_together(films, capsys):
    report = rk.inspect_folder(films, progress=False)
    near = len(report.duplicates())
    assert near == 8 * 15  # every frame with every other one of its film
    assert f"no splits yet: {near} near pairs can be torn apart by one" in repr(report)
    assert not split_films(rk.image_folders(films, size=16, groups=report.group_of))
    assert len({report.group_of(file) for file in films.rglob("*.jpg")}) == 8


def test_groups_in_two_splits_that_someone_made_are_counted(films, tmp_path, capsys):
    for file in films.rglob("*.jpg"):
        split = "val" if file.stem.endswith("_5") else "train"
        target = tmp_path / "made" / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    rk.image_folders(tmp_path / "made", size=16, groups=film_of)
    said = capsys.readouterr().out
    assert "8 pictures of 8 in val are of groups that are in train too." in said
    assert "nearly the same" not in said, "rk.inspect_folder looks at splits that someone made"


def test_a_class_in_one_group_cannot_be_split(films):
    with pytest.raises(
        ValueError, match=r"class door has 24 pictures, too few different ones \(or"
    ):
        rk.image_folders(films, groups=lambda file: file.parent.name)
    with pytest.raises(ValueError, match="groups is 'film'; expected a function from a file"):
        rk.image_folders(films, groups="film")


def test_strategies_are_compared_with_groups_kept_together(films):
    source = rk.weights("resnet18", "tiny")
    options = {"strategies": ["features + kNN"], "seeds": [0], "progress": False}
    found = rk.compare_strategies(films, weights=source, size=32, groups=film_of, **options)
    val = found.runs[0].val
    learned = {file for file in films.rglob("*.jpg")} - set(val.files)
    assert not {film_of(f) for f in learned} & {film_of(f) for f in val.files}


def test_near_copies_are_not_looked_for_among_very_many_pictures(films, capsys, monkeypatch):
    monkeypatch.setattr(checks, "MOST", 10)
    monkeypatch.setattr(checks, "near_copied_from", None)
    rk.image_folders(films, size=16)
    assert "Near copies were not looked for in 48 pictures" in capsys.readouterr().out


def test_a_picture_that_cannot_be_read_is_no_near_copy(films):
    broken = films / "door" / "broken.jpg"
    broken.write_bytes(b"no picture")
    files = sorted(films.rglob("film*.jpg"))
    assert duplicates.near_copied_from([*files[:5], broken], files[5:6]) == 1
    assert duplicates.near_copied_from([broken], [broken]) == 0


def test_copies_in_two_classes_are_counted(folder, capsys):
    shutil.copy(folder / "train" / "a" / "0.png", folder / "train" / "b" / "copy.png")
    report = rk.inspect_folder(folder / "train", progress=False)
    assert "pairs of duplicates: 1, across classes: 1" in repr(report)
    rk.image_folders(folder, size=16)
    said = "2 pictures of train are byte for byte in another class too; rk.inspect_folder names"
    assert said in capsys.readouterr().out


def test_an_empty_class_folder_in_val_is_allowed_and_said(folder, capsys):
    shutil.rmtree(folder / "eval" / "b")
    (folder / "eval" / "b").mkdir()
    assert rk.image_folders(folder, size=16).val.dataset.labels == (0, 0, 0)
    assert "eval has no pictures of b, whose recall stays unknown" in capsys.readouterr().out
    shutil.rmtree(folder / "eval" / "a")
    with pytest.raises(ValueError, match="no pictures in .*eval; expected some"):
        rk.image_folders(folder, size=16)


def test_test_pictures_in_one_unknown_folder_have_no_classes(folder, capsys):
    write_picture(folder / "test" / "unknown" / "1.png")
    assert rk.image_folders(folder, size=16).test is None
    assert "test has pictures without classes, which cannot be scored" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["@eaDir", "__pycache__", "System Volume Information", "#recycle"])
def test_folders_of_systems_are_no_classes(folder, name):
    write_picture(folder / "train" / name / "0.png")
    assert rk.image_folders(folder, size=16).classes == ("a", "b")


@pytest.mark.usefixtures("no_heif")
def test_avif_is_read_where_pillow_can_and_heic_is_announced(folder, capsys):
    Image.new("RGB", (20, 20)).save(folder / "train" / "a" / "x.jp2")
    (folder / "train" / "a" / "y.HEIC").touch()
    count = 12
    if features.check("avif"):
        Image.new("RGB", (20, 20)).save(folder / "train" / "a" / "x.avif")
        count = 13
    assert len(rk.image_folders(folder, size=16).train.dataset) == count
    said = capsys.readouterr().out
    assert "read here: 1 .heic. HEIC pictures, as phones take them, need one package more" in said
    assert "pip install pillow-heif." in said


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ([v2.CenterCrop(16)], r"augment is \[CenterCrop.*expected a transform that is called"),
        (v2.RandomHorizontalFlip, "augment is the class RandomHorizontalFlip"),
        (lambda picture: picture.rotate(3), "augment fails with AttributeError: .*'rotate'"),
        (v2.RandomHorizontalFlip(), r"returned torch.uint8 of shape \(3, 20, 24\)"),
    ],
)
def test_an_augmentation_is_tried_on_the_first_picture(folder, augment, said):
    with pytest.raises(ValueError, match=said):
        rk.image_folders(folder, size=16, augment=augment)


def test_many_classes_are_listed_in_part(tmp_path):
    for number in range(40):
        for picture in range(2):
            write_picture(tmp_path / f"class{number:02d}" / f"{picture}.png", 2 * number + picture)
    loaders = rk.image_folders(tmp_path, size=16)
    assert "class10, class11, …;" in repr(loaders) and "40 classes: class00" in repr(loaders)


def test_a_worker_of_a_killed_process_ends(folder, monkeypatch):
    from resnet_kit.data import loaders

    ended = []
    monkeypatch.setattr(loaders.signal, "signal", lambda *x: None)
    monkeypatch.setattr(loaders.gc, "freeze", lambda: None)
    monkeypatch.setattr(loaders.os, "_exit", ended.append)
    parent = type("Parent", (), {"pid": os.getppid()})()
    monkeypatch.setattr(loaders.multiprocessing, "parent_process", lambda: parent)
    loaders.prepare_worker(0)
    assert not ended
    parent.pid += 1  # who started it is not who it belongs to now
    loaders.prepare_worker(0)
    assert ended == [1]
