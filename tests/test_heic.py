"""HEIC pictures, as phones take them: read with pillow-heif, and without it plainly refused."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import UnreadableImageError
from resnet_kit.data.images import decode_picture, is_read

INSTALLED = importlib.util.find_spec("pillow_heif") is not None
with_heif = pytest.mark.skipif(not INSTALLED, reason="pillow-heif is not installed")
FAKE = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)  # how a HEIC file begins
HALVES = np.zeros((40, 60, 3), np.uint8)
HALVES[:, :30, 0] = 255  # the left half red, the right half black


def write_heic(path, orientation: int = 1):
    import pillow_heif

    pillow_heif.register_heif_opener()  # to write; that reading needs no such call is tested below
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(HALVES).save(path, "HEIF", quality=-1, exif=exif.tobytes())
    return path


def in_a_new_process(code: str, *arguments) -> str:
    """Run code in a Python that has read no picture yet; return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@with_heif
def test_heic_pictures_are_read_upright(tmp_path):
    image = rk.read_image(write_heic(tmp_path / "a.heic"))
    assert image.shape == (3, 40, 60)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - HALVES).mean() < 3
    turned = rk.read_image(write_heic(tmp_path / "b.HEIC", orientation=6))  # a quarter turn
    assert turned.shape == (3, 60, 40)
    assert turned[0, :25].float().mean() > 240 and turned[0, 35:].float().mean() < 15


@with_heif
def test_a_new_process_reads_heic_whatever_the_file_is_called(tmp_path):
    code = "import sys, resnet_kit as rk; print([*rk.read_image(sys.argv[1]).shape])"
    path = write_heic(tmp_path / "a.heic")
    assert in_a_new_process(code, path) == "[3, 40, 60]"
    renamed = path.rename(tmp_path / "a.jpg")  # as some programs save them
    assert in_a_new_process(code, renamed) == "[3, 40, 60]"


@with_heif
def test_folders_with_heic_are_loaded_and_inspected(folder, capsys):
    write_heic(folder / "train" / "a" / "x.heic")
    loaders = rk.image_folders(folder, size=16)
    assert len(loaders.train.dataset) == 12 and "Left out" not in capsys.readouterr().out
    assert [x.name for x in loaders.files["train"]].count("x.heic") == 1
    table = rk.inspect_folder(folder, progress=False).to_frame().set_index("file")
    row = table.loc["train/a/x.heic"]
    assert row["usable"] and (row["width"], row["height"]) == (60, 40) and row["problems"] == ""


@with_heif
def test_pillow_heif_is_imported_when_it_is_needed_and_not_before(tmp_path):
    code = (
        "import sys, resnet_kit as rk; print('pillow_heif' in sys.modules);"
        "rk.read_image(sys.argv[1]); print('pillow_heif' in sys.modules)"
    )
    path = write_picture(tmp_path / "a.png")
    assert in_a_new_process(code, path) == "False\nFalse"
    assert in_a_new_process(code, write_heic(tmp_path / "a.heic")) == "False\nTrue"


@pytest.mark.usefixtures("no_heif")
@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_without_pillow_heif_the_fix_is_named(tmp_path, name):
    assert not is_read(".heic") and not is_read(".HEIF") and is_read(".JPG")
    path = tmp_path / name
    path.write_bytes(FAKE)
    with pytest.raises(UnreadableImageError, match=f"{name}: HEIC .* pip install pillow-heif; or "):
        rk.read_image(path)
    with pytest.raises(ValueError, match="HEIC pictures, as phones take them, need one package"):
        decode_picture(FAKE)
    path.write_bytes(FAKE.replace(b"heic", b"text"))
    with pytest.raises(UnreadableImageError, match="no picture, or its beginning is damaged; exp"):
        rk.read_image(path)


@pytest.mark.usefixtures("no_heif")
def test_a_class_of_nothing_but_heic_is_refused_with_the_fix(folder):
    (folder / "train" / "c").mkdir()
    (folder / "train" / "c" / "x.HEIC").write_bytes(FAKE)
    with pytest.raises(ValueError, match=r"c in .* no pictures \(only .HEIC files\); HEIC .* pip"):
        rk.image_folders(folder, size=16)
    details = rk.inspect_folder(folder, progress=False).problems()["detail"]
    assert details.str.contains("pip install pillow-heif").sum() == 1
