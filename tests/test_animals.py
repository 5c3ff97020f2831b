import os
import shutil

import pytest

import resnet_kit as rk
from resnet_kit.data.images import picture_files


def test_quick_mode_takes_a_few_drawn_pictures_and_says_so(data_root, capsys):
    shutil.os.makedirs(data_root / "cat_dog_ants_bees")
    folder = rk.cat_dog_ants_bees()
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "Wanted the photos" in line and "drawn" in line
    assert 'rk.cat_dog_ants_bees("photos")' in line
    counts = {split: len(picture_files(folder / split)) for split in ("train", "eval", "test")}
    assert counts == {"train": 4 * 12, "eval": 4 * 6, "test": 4 * 4}
    stamp = os.stat(folder).st_mtime_ns
    assert rk.cat_dog_ants_bees("drawn") == folder and os.stat(folder).st_mtime_ns == stamp


def test_photos_in_the_data_root_are_taken(data_root, real_data, full_mode, capsys):
    data_root.mkdir()
    (data_root / "cat_dog_ants_bees").symlink_to(real_data / "cat_dog_ants_bees")
    assert rk.cat_dog_ants_bees() == data_root / "cat_dog_ants_bees"
    assert "951 photos" in capsys.readouterr().out


def test_incomplete_photos_are_refused(data_root, full_mode):
    (data_root / "cat_dog_ants_bees" / "train" / "0_cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="lacks 951 of the 951 photos"):
        rk.cat_dog_ants_bees()
    with pytest.raises(ValueError, match='"auto", "photos" or "drawn"'):
        rk.cat_dog_ants_bees("pictures")
