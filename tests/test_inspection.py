import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_images import UNREADABLE

import resnet_kit as rk
from resnet_kit.data.duplicates import _hash
from resnet_kit.drawn import draw, draw_folder

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def save(picture: np.ndarray, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Drawn pictures of 96 px: train 12 + 12, eval 6 + 6."""
    counts = {"train": {"0_cat": 12, "1_dog": 12}, "eval": {"0_cat": 6, "1_dog": 6}}
    return draw_folder(tmp_path_factory.mktemp("drawn") / "set", counts, size=96, progress=False)


@pytest.fixture
def pets(drawn, tmp_path):
    """A copy of them, to be spoiled."""
    return shutil.copytree(drawn, tmp_path / "pets")


def inspect(folder):
    return rk.inspect_folder(folder, progress=False)


def kinds_of(report, file: str) -> set[str]:
    table = report.problems()
    return set(table.loc[table["file"] == file, "problem"])


def test_a_sound_folder_has_no_problem(pets):
    report = inspect(pets)
    assert report.problems().empty and report.duplicates().empty and report.leaks().empty
    assert list(report.leaks().columns) == list(report.duplicates().columns) != []
    assert report.counts().to_dict() == {
        "eval": {"0_cat": 6, "1_dog": 6}, "train": {"0_cat": 12, "1_dog": 12}
    }  # fmt: skip
    assert repr(report).splitlines()[0].endswith("36 files, 36 usable pictures.")
    assert len(report.to_frame()) == 36 and report.to_frame()["width"].min() >= 96


def first(pets, name: str = "train/0_cat"):
    return sorted((pets / name).iterdir())[0]


def planted(pets) -> dict[str, tuple[str, bool]]:
    """Plant one trouble of each kind; return file: (kind, usable still)."""
    cat = pets / "train" / "0_cat"
    picture = np.asarray(Image.open(first(pets)))
    data, rng = first(pets).read_bytes(), np.random.default_rng(0)
    (cat / "empty.jpg").touch()
    (cat / "cut.jpg").write_bytes(data[: len(data) // 2])
    (cat / "text.png").write_text("no picture")
    (cat / "note.txt").write_text("a note")
    (cat / "sign.gif").write_bytes(b"GIF89a")
    (cat / ".hidden.jpg").write_bytes(data)
    (pets / "train" / ".ipynb_checkpoints").mkdir()
    (pets / "train" / ".ipynb_checkpoints" / "x.jpg").write_bytes(data)
    (pets / "loose.jpg").write_bytes(data)
    (pets / "train" / "loose.jpg").write_bytes(data)
    save(draw("cat", 900, size=96), pets / "spare" / "0_cat" / "a.jpg")
    save(draw("cat", 901, size=96), cat / "png.png").rename(cat / "really_png.jpg")
    frames = [Image.fromarray(draw("cat", 902 + k, size=96)) for k in range(2)]
    frames[0].save(cat / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(draw("cat", 904, size=96), cat / "turned.jpg", exif=exif)
    Image.fromarray(draw("cat", 905, size=96)).convert("CMYK").save(cat / "cmyk.jpg")
    Image.fromarray(draw("cat", 906, size=96)).convert("RGBA").save(cat / "alpha.png")
    save(cv2.resize(draw("cat", 907, size=96), (20, 24)), cat / "small.png")
    save(rng.integers(0, 256, (40, 400, 3), dtype=np.uint8), cat / "long.png")
    save((draw("cat", 908, size=96) * 0.04).astype(np.uint8), cat / "dark.png")
    save(np.full((96, 96, 3), 252, np.uint8), cat / "bright.png")
    save(cv2.GaussianBlur(draw("cat", 909, size=256), (0, 0), 12), cat / "blurred.png")
    save(np.zeros((4500, 4500, 3), np.uint8), cat / "large.png")
    save(picture, pets / "eval" / "2_fox" / "a.png")
    return {
        "train/0_cat/empty.jpg": ("unreadable", False),
        "train/0_cat/cut.jpg": ("unreadable", False),
        "train/0_cat/text.png": ("unreadable", False),
        "train/0_cat/note.txt": ("ignored", False),
        "train/0_cat/sign.gif": ("ignored", False),
        "train/0_cat/.hidden.jpg": ("ignored", False),
        "train/.ipynb_checkpoints/x.jpg": ("ignored", False),
        "loose.jpg": ("ignored", False),
        "train/loose.jpg": ("ignored", False),
        "spare/0_cat/a.jpg": ("ignored", False),
        "train/0_cat/really_png.jpg": ("wrong extension", True),
        "train/0_cat/moves.webp": ("animated", True),
        "train/0_cat/turned.jpg": ("rotated", True),
        "train/0_cat/cmyk.jpg": ("mode", True),
        "train/0_cat/alpha.png": ("mode", True),
        "train/0_cat/small.png": ("small", True),
        "train/0_cat/long.png": ("long", True),
        "train/0_cat/dark.png": ("dark", True),
        "train/0_cat/bright.png": ("bright", True),
        "train/0_cat/blurred.png": ("blurred", True),
        "train/0_cat/large.png": ("large", True),
        "2_fox": ("class", False),
    }


def assert_reported(report, expected: dict[str, tuple[str, bool]]) -> None:
    usable = report.to_frame().set_index("file")["usable"]
    for file, (kind, still_usable) in expected.items():
        assert kind in kinds_of(report, file), (file, kinds_of(report, file))
        assert file == "2_fox" or usable[file] == still_usable, file


def test_every_kind_of_planted_trouble_is_reported_by_name(pets):
    expected = planted(pets)
    assert len(expected) >= 20
    report = inspect(pets)
    assert_reported(report, expected)
    others = set(report.problems()["file"]) - set(expected)
    assert not others, "sound files are not accused"
    assert "3 unreadable (first: train/0_cat/cut.jpg, " in repr(report)


@pytest.mark.parametrize(
    ("kind", "fine", "odd"),  # (height, width, grey value): the last that passes, the first not
    [
        ("small", (32, 40, 128), (31, 40, 128)),
        ("long", (32, 128, 128), (32, 129, 128)),
        ("large", (4000, 5000, 128), (4000, 5001, 128)),
        ("dark", (96, 96, 16), (96, 96, 15)),  # 6 % of 255 is 15.3
        ("bright", (96, 96, 244), (96, 96, 245)),  # 96 % of 255 is 244.8
    ],
)
def test_each_limit_lies_where_it_is_said(tmp_path, kind, fine, odd):
    for name, (height, width, value) in (("fine", fine), ("odd", odd)):
        save(np.full((height, width, 3), value, np.uint8), tmp_path / "a" / f"{name}.bmp")
    report = inspect(tmp_path)
    assert kind not in kinds_of(report, "a/fine.bmp") and kind in kinds_of(report, "a/odd.bmp")


def test_every_orientation_but_the_first_is_said(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(draw("cat", orientation, size=64), tmp_path / "a" / f"{orientation}.jpg", exif=exif)
    report = inspect(tmp_path)
    turned = [k for k in range(1, 9) if "rotated" in kinds_of(report, f"a/{k}.jpg")]
    assert turned == [2, 3, 4, 5, 6, 7, 8]


def test_sharpness_is_relative_to_the_contrast(tmp_path):
    for width in (1, 4):  # of the blur in pixels: sharpness 0.022 and 0.0018; the limit is 0.005
        picture = cv2.GaussianBlur(draw("cat", 3, size=256), (0, 0), width)
        save(picture, tmp_path / "a" / f"{width}.png")
    report = inspect(tmp_path)
    assert "blurred" in kinds_of(report, "a/4.png")
    assert "blurred" not in kinds_of(report, "a/1.png")


def test_a_stray_file_is_told_where_it_lies(pets):
    planted(pets)
    details = inspect(pets).problems().set_index("file")["detail"]
    assert details["loose.jpg"] == "the root is no split folder"
    assert details["spare/0_cat/a.jpg"] == "spare is no split folder"
    assert details["train/loose.jpg"] == "lies in no class folder"


def test_a_hash_splits_the_low_frequencies_into_halves():
    for seed in range(5):
        bits = _hash(np.random.default_rng(seed).random((32, 32), np.float32))
        assert (bits[1:] > 0).sum() == 31, "31 of 63 lie above their median"


def test_duplicates_of_every_kind_are_found_across_splits(pets):
    source = [np.asarray(Image.open(file)) for file in sorted((pets / "train/1_dog").iterdir())]
    folder = pets / "eval" / "1_dog"
    shutil.copy(first(pets, "train/1_dog"), folder / "copy.jpg")
    height, width = source[1].shape[:2]
    save(cv2.resize(source[1], (width // 2, height // 2), interpolation=cv2.INTER_AREA),
         folder / "resized.png")  # fmt: skip
    save(source[2], folder / "again.jpg", quality=30)
    save(np.ascontiguousarray(source[3][:, ::-1]), folder / "mirrored.jpg", quality=80)
    table = inspect(pets).leaks()
    found = {row.file.split("/")[-1]: row.kind for row in table.itertuples()}
    assert found == {
        "copy.jpg": "exact", "resized.png": "near", "again.jpg": "near", "mirrored.jpg": "mirrored"
    }  # fmt: skip
    assert (table["correlation"] > 0.95).all() and not table["across classes"].any()
    figure = inspect(pets).plot_pairs(n=2)
    assert len(figure.axes) == 4
    with pytest.raises(ValueError, match="there is no pair to draw"):
        inspect(pets).plot_pairs(table[:0])


def test_a_file_named_twice_is_moved_once(pets, monkeypatch):
    monkeypatch.chdir(pets)
    report, name = inspect("."), first(pets).relative_to(pets).as_posix()
    folder = report.quarantine([name, name])
    assert folder == pets.with_name("pets_quarantine") and (folder / name).is_file()
    assert report.undo_quarantine() == 1 and (pets / name).is_file()


def test_quarantine_moves_and_undo_brings_everything_back(pets):
    before = sorted(p.relative_to(pets) for p in pets.rglob("*"))
    report, name = inspect(pets), first(pets).relative_to(pets).as_posix()
    data = (pets / name).read_bytes()
    folder = report.quarantine([name])
    assert folder.name == "pets_quarantine" and (folder / name).read_bytes() == data
    assert not (pets / name).exists() and len(inspect(pets).to_frame()) == 35
    with pytest.raises(FileNotFoundError, match=r"no file .*; nothing was moved"):
        report.quarantine(["train/1_dog/none.jpg"])
    (pets / name).write_bytes(b"new")
    with pytest.raises(FileExistsError, match="is there again; nothing was moved"):
        report.undo_quarantine()
    (pets / name).unlink()
    assert report.undo_quarantine() == 1 and report.undo_quarantine() == 0
    assert sorted(p.relative_to(pets) for p in pets.rglob("*")) == before


def test_a_folder_of_classes_needs_no_splits(drawn):
    report = inspect(drawn / "train")
    assert report.problems().empty and report.counts().sum().tolist() == [24]
    assert len(report.plot().axes) == 1
    assert report.counts().index.tolist() == ["0_cat", "1_dog"], "the names of the folders"
    names = [label.get_text() for label in report.plot().axes[0].get_yticklabels()]
    assert names == ["cat", "dog"]
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; expected a folder of pic"):
        inspect(drawn / "nowhere")


def test_the_originals_have_one_true_pair_and_all_that_is_planted_is_found(
    real_data, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from duplicates import TRUE_PAIRS, names, plant

    folder = (real_data / "cat_dog_ants_bees").resolve()
    originals = inspect(folder)
    assert kinds_of(originals, "train/2_ants/imageNotFound.gif") == {"ignored"}
    assert int(originals.to_frame()["usable"].sum()) == 951
    found = set(originals.duplicates()[["file", "other"]].itertuples(index=False, name=None))
    assert found >= TRUE_PAIRS and len(found - TRUE_PAIRS) <= 3
    photos = shutil.copytree(folder, tmp_path / "photos", copy_function=os.symlink)
    copies = {(copy, source) for copy, (source, _) in plant(photos, every=15).items()}
    troubles = planted(photos)
    report = inspect(photos)
    assert len(copies) >= 35 and copies <= names(report.leaks())
    assert_reported(report, troubles)


def test_awkward_files_are_told_usable_or_not(real_data, tmp_path):
    """Those that read_image reads are usable; GIF and ICO are no pictures here."""
    folder = shutil.copytree(real_data / "awkward", tmp_path / "set" / "awkward")
    table = inspect(folder.parent).to_frame().set_index("file")["usable"]
    ignored = {"PILLOW-LICENSE.txt", "black_and_white.ico", "chi.gif", "decompression_bomb.gif",
               "hopper.gif", "no_palette.gif"}  # fmt: skip
    assert len(table) == 32
    for file, usable in table.items():
        name = file.split("/")[-1]
        assert usable == (name not in ignored | set(UNREADABLE)), name


def test_linked_splits_are_inspected(pets):
    (pets / "eval").rename(pets.parent / "far")
    (pets / "eval").symlink_to(pets.parent / "far")
    report = inspect(pets)
    assert report.counts()["eval"].tolist() == [6, 6] and report.problems().empty


def test_splits_of_other_names_are_no_classes(pets):
    (pets / "train").rename(pets / "Train")
    with pytest.raises(ValueError, match="Train looks like a split, not like a class"):
        inspect(pets)


def test_an_orientation_that_means_nothing_is_no_trouble(pets):
    exif = Image.Exif()
    exif[0x0112] = 0
    save(draw("cat", 904, size=96), pets / "train" / "0_cat" / "zero.jpg", exif=exif)
    assert inspect(pets).problems().empty


def test_links_are_moved_and_brought_back(pets):
    link, dead = pets / "train" / "0_cat" / "link.png", pets / "train" / "0_cat" / "dead.png"
    link.symlink_to(first(pets))
    dead.symlink_to("nowhere.png")
    report = rk.inspect_folder(pets, progress=False)
    moved = ["train/0_cat/link.png", "train/0_cat/dead.png"]
    assert moved[0] in {*report.duplicates()["other"], *report.duplicates()["file"]}
    assert "unreadable" in kinds_of(report, moved[1])
    report.quarantine(moved)
    assert not link.is_symlink() and not dead.is_symlink()
    assert report.undo_quarantine() == 2 and link.is_symlink() and dead.is_symlink()


def test_one_name_is_one_file(pets):
    report, name = rk.inspect_folder(pets, progress=False), first(pets).relative_to(pets).as_posix()
    assert (report.quarantine(name) / name).is_file()
