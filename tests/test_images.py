import io
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import UnreadableImageError
from resnet_kit.data.images import Room, is_one_picture, is_picture, picture_files, rgb_pixels

RED_LEFT = np.zeros((4, 6, 3), np.uint8)
RED_LEFT[:, :3, 0] = 255  # (H, W, 3): the left half red, the right half black


def pixels(path):
    return rk.read_image(path).permute(1, 2, 0).numpy()


def test_png_gives_its_exact_pixels(tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    image = rk.read_image(path)
    assert image.dtype == torch.uint8 and image.shape == (3, 20, 24)
    assert np.array_equal(pixels(path), np.asarray(Image.open(path)))


def test_jpeg_equals_pillows_decoder(tmp_path):
    path = write_picture(tmp_path / "a.jpg", 1, (67, 45))
    assert np.array_equal(pixels(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, RED_LEFT),
        (2, RED_LEFT[:, ::-1]),
        (3, RED_LEFT[::-1, ::-1]),
        (4, RED_LEFT[::-1]),
        (5, RED_LEFT.transpose(1, 0, 2)),
        (6, RED_LEFT.transpose(1, 0, 2)[:, ::-1]),
        (7, RED_LEFT.transpose(1, 0, 2)[::-1, ::-1]),
        (8, RED_LEFT.transpose(1, 0, 2)[::-1]),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix, options in ((".png", {}), (".jpg", {"quality": 100, "subsampling": 0})):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(RED_LEFT).save(path, exif=exif, **options)
        assert np.abs(pixels(path).astype(int) - turned).max() < 60, suffix


def test_transparent_parts_lie_over_white(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0] = (255, 0, 0, 255)
    rgba[1] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 0]
    assert pixels(tmp_path / "a.png")[1, 0].tolist() == [127, 127, 127]


def test_palette_with_a_transparent_colour_lies_over_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert pixels(tmp_path / name)[0, :, 0].tolist() == [0, 128, 255]


def test_grey_and_cmyk_become_rgb(tmp_path):
    Image.new("L", (3, 2), 77).save(tmp_path / "grey.jpg")
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert pixels(tmp_path / "grey.jpg").shape == (2, 3, 3)
    red = pixels(tmp_path / "cmyk.jpg")[0, 0]
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="floating-point picture has no fixed range"):
        rk.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_pictures_are_refused_by_name(tmp_path, suffix):
    path = write_picture(tmp_path / f"half{suffix}", 1, (200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError, match=f"half{suffix}.*expected a complete picture"):
        rk.read_image(path)


def test_empty_text_and_missing_files_say_what_they_are(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UnreadableImageError, match="the file is empty"):
        rk.read_image(tmp_path / "empty.jpg")
    with pytest.raises(UnreadableImageError, match="it is no picture"):
        rk.read_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        rk.read_image(tmp_path / "none.jpg")


UNREADABLE = {
    "PILLOW-LICENSE.txt", "bmp_b_shortfile.bmp", "broken_data_stream.png", "decompression_bomb.gif",
    "text_named.png", "truncated_image.png", "ultrahdr.jpg", "unknown_compression_method.png",
}  # fmt: skip


def test_awkward_files_are_read_or_refused_by_name(real_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted((real_data / "awkward").iterdir()):
            if path.name in UNREADABLE:
                with pytest.raises(UnreadableImageError, match=path.name):
                    rk.read_image(path)
            else:
                image = rk.read_image(path)
                assert image.dtype == torch.uint8 and image.shape[0] == 3, path.name


def test_turned_photo_equals_its_upright_twin(real_data):
    turned = rk.read_image(real_data / "awkward" / "hopper_orientation_3.jpg").double()
    upright = rk.read_image(real_data / "awkward" / "hopper.png").double()
    assert (turned - upright).abs().mean() < 6
    assert (turned.flip(1) - upright).abs().mean() > 30


def test_hidden_files_and_folders_are_no_pictures(tmp_path):
    write_picture(tmp_path / "a.JPG")
    write_picture(tmp_path / "deep" / "b.png")
    write_picture(tmp_path / ".ipynb_checkpoints" / "c.png")
    write_picture(tmp_path / "._d.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in picture_files(tmp_path)]
    assert names == ["a.JPG", "b.png"]
    assert not is_picture(tmp_path / "folder.png")


def test_mean_std_counts_every_pixel_the_same(tmp_path):
    sizes = [(5, 4), (50, 40), (9, 30)]
    for index, size in enumerate(sizes):
        write_picture(tmp_path / f"{index}.png", index, size)
    stats = rk.mean_std(tmp_path)
    every = np.concatenate([pixels(p).reshape(-1, 3) for p in picture_files(tmp_path)]) / 255
    assert stats.pixels == sum(w * h for w, h in sizes) and stats.pictures == 3
    assert np.allclose(stats.mean, every.mean(0), rtol=0, atol=1e-12)
    assert np.allclose(stats.std, every.std(0), rtol=0, atol=1e-12)


def test_mean_std_is_no_average_of_per_picture_deviations():
    array = np.stack([np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)])
    assert rk.mean_std(array).std == (0.5,)  # the average of per-picture deviations would be 0


def test_mean_std_of_folder_array_and_data_set_agree(tmp_path):
    for index in range(5):
        write_picture(tmp_path / f"{index}.png", index)
    array = np.stack([pixels(path) for path in picture_files(tmp_path)])
    expected = rk.mean_std(tmp_path)
    floats = torch.from_numpy(array).permute(0, 3, 1, 2).double() / 255
    for source in (array, torch.from_numpy(array), TensorDataset(floats, torch.zeros(5))):
        found = rk.mean_std(source)
        assert np.allclose([found.mean, found.std], [expected.mean, expected.std], atol=1e-12)
    pictures = [(Image.fromarray(a), 0) for a in array]
    assert rk.mean_std(pictures) == expected


def test_mean_std_names_every_unreadable_file_after_one_pass(tmp_path):
    write_picture(tmp_path / "good.png")
    for name in ("bad1.jpg", "bad2.png"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UnreadableImageError, match=r"2 of 3 .*\n.*bad1.jpg.*\n.*bad2.png"):
        rk.mean_std(tmp_path)


def test_mean_std_refuses_what_it_cannot_mean(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        rk.mean_std(tmp_path / "none")
    with pytest.raises(ValueError, match="no pictures in"):
        rk.mean_std(tmp_path)
    with pytest.raises(ValueError, match="expected uint8 pictures"):
        rk.mean_std(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="9 channels last"):
        rk.mean_std(np.zeros((2, 3, 9, 9), np.uint8))
    with pytest.raises(ValueError, match="of 3 and of 1 channels"):
        rk.mean_std([torch.zeros(3, 2, 2), torch.zeros(1, 2, 2)])


def test_mean_std_of_the_photos_equals_plain_numpy(real_data):
    folder = real_data / "cat_dog_ants_bees" / "eval" / "1_dog"
    files = picture_files(folder)
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for path in files:
        values = np.asarray(Image.open(path).convert("RGB"), np.float64).reshape(-1, 3) / 255
        count += len(values)
        total, squares = total + values.sum(0), squares + (values**2).sum(0)
    mean = total / count
    stats = rk.mean_std(folder)
    assert stats.pictures == 102 and stats.pixels == count
    assert np.allclose(stats.mean, mean, rtol=0, atol=1e-9)
    assert np.allclose(stats.std, np.sqrt(squares / count - mean**2), rtol=0, atol=1e-9)


def test_linked_folders_are_entered_unless_they_lead_back_up(tmp_path):
    write_picture(tmp_path / "far" / "a.png")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set")
    found = picture_files(tmp_path / "set")
    assert found == [tmp_path / "set" / "dog" / "a.png"]
    assert rk.mean_std(tmp_path / "set") == rk.mean_std(found) == rk.mean_std([str(found[0])])


def test_mean_std_sees_pil_pictures_as_people_do():
    red = Image.new("RGB", (4, 4), "red")
    for mode in ("P", "RGBA", "CMYK"):
        found = rk.mean_std([(red.convert(mode), 0)], progress=False)
        assert np.allclose(found.mean, [1, 0, 0], atol=0.01), mode
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert rk.mean_std([clear], progress=False).mean == (1, 1, 1)
    for grey in (Image.new("L", (4, 4), 51), Image.new("1", (4, 4), 1)):
        assert len(rk.mean_std([grey], progress=False).mean) == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.full((3, 4, 4), 128, dtype=torch.int32), "int32 with values from 128 to 128"),
        (torch.full((3, 4, 4), 128.0), "float32 with values from 128 to 128; expected uint8"),
        (torch.full((3, 4, 4), -1.0), "values from -1 to -1"),
        (torch.zeros(4, 4), r"Tensor of shape torch.Size\(\[4, 4\]\); expected a PIL picture or"),
        (torch.zeros(1, 3, 4, 4), r"Tensor of shape torch.Size\(\[1, 3, 4, 4\]\); expected a PIL"),
        ("none", "No such file"),
    ],
)
def test_mean_std_refuses_items_that_are_no_pictures(item, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        rk.mean_std([item], progress=False)


def test_a_picture_that_is_too_large_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = write_picture(tmp_path / "large.png")
    with pytest.raises(UnreadableImageError, match="raise PIL.Image.MAX_IMAGE_PIXELS if you trust"):
        rk.read_image(file)


def test_transparent_pixels_of_16_bits_lie_over_white(tmp_path):
    wide = np.full((4, 4), 30_000, np.uint16)
    wide[0] = 5
    Image.fromarray(wide).save(tmp_path / "a.png", transparency=5)
    grey = pixels(tmp_path / "a.png")[..., 0]
    assert (grey[0] == 255).all() and (grey[1:] == round(30_000 / 257)).all()


def test_a_damaged_fax_scan_says_one_line(tmp_path, capfd):
    noise = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(bool)
    Image.fromarray(noise).save(tmp_path / "a.tif", compression="group4")
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0] > 0, noise)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for place in range(200, len(data) - 200, 50):
        data[place] ^= 0xFF
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.warns(UserWarning, match="a damaged scan: Fax4Decode: .*more"):
        rk.read_image(tmp_path / "a.tif")
    assert not capfd.readouterr().err


def test_threads_hold_few_pixels_at_once():
    """Large pictures wait for each other; one that is too large for the room is held alone."""
    room, held, most, lock = Room(100), [], [], threading.Lock()
    files = [picture_file(8, 4)] * 8 + [picture_file(30, 10)] * 3  # 32 and 300 pixels

    def hold(file):
        with room.for_picture(io.BytesIO(file)):
            with lock:
                held.append(len(file))
                most.append((len(held), len(file)))
            time.sleep(0.02)
            with lock:
                held.remove(len(file))

    with ThreadPoolExecutor(11) as pool:
        list(pool.map(hold, files))
    small = len(files[0])
    assert max(count for count, size in most if size == small) == 3
    assert max(count for count, size in most if size != small) == 1 and room.taken == 0


def picture_file(width, height):
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_was_given_is_not_changed():
    picture = Image.new("RGB", (6, 4))
    picture.getexif()[0x0112] = 6
    assert rgb_pixels(picture).shape == (6, 4, 3)
    assert picture.size == (6, 4) and picture.getexif()[0x0112] == 6


def test_one_picture_is_told_from_several():
    for shape in ((8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4)):
        assert is_one_picture(np.zeros(shape)) and is_one_picture(torch.zeros(shape)), shape
    for shape in ((1, 8, 8), (3, 8, 8)):
        assert is_one_picture(torch.zeros(shape)) and not is_one_picture(np.zeros(shape)), shape
    for shape in ((2, 8, 8), (5, 8, 8), (1, 3, 8, 8), (8, 8, 5)):
        assert not is_one_picture(torch.zeros(shape)), shape
