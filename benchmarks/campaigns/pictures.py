"""Read awkward pictures: tiny, huge, damaged, of odd modes, and files that are no pictures.

`read_image` gives uint8 RGB or an `UnreadableImageError` that names the file; `inspect_folder`
raises nothing and says the same of what is usable; `predict` gives a row for each; and next to
nothing is printed on stderr, by libraries in C neither.
"""

import contextlib
import io
import os
import random
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Outcome, Part, quiet
from damage import KINDS, damaged, saved_classifier
from PIL import Image, ImageDraw, TiffImagePlugin

import resnet_kit as rk
from resnet_kit.data.images import UnreadableImageError

PRINTED = 20  # lines on stderr that one picture may cost; its warnings have two each


def photo(width: int = 40, height: int = 30) -> Image.Image:
    """Return a colourful picture."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def in_mode(mode: str, kind: str, **options) -> bytes:
    """Return the picture in another mode."""
    return encoded(photo().convert(mode), kind, **options)


def oriented(number: int) -> bytes:
    """Return a JPEG whose EXIF data ask for a turn."""
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(photo(), "JPEG", exif=exif)


def sixteen_bits(transparent: bool) -> bytes:
    """Return a grey 16-bit PNG; its darkest value may be transparent."""
    values = np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    return with_clear(data, struct.pack(">H", 0)) if transparent else data


def with_clear(png: bytes, colour: bytes) -> bytes:
    """Return a PNG in which a colour is transparent, as a chunk before its pixels says."""
    place = png.index(b"IDAT") - 4
    body = b"tRNS" + colour
    chunk = struct.pack(">I", len(colour)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:place] + chunk + png[place:]


def palette(transparent: bytes | int | None) -> bytes:
    """Return a PNG with a palette."""
    picture = photo().quantize(16)
    options = {} if transparent is None else {"transparency": transparent}
    return encoded(picture, "PNG", **options)


def animation(kind: str) -> bytes:
    """Return three frames."""
    frames = [photo().rotate(90 * turn) for turn in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def header(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims another size."""
    size = struct.pack(">II", width, height) + bytes([8, 2, 0, 0, 0])
    data = encoded(photo(), "PNG")
    checked = struct.pack(">I", zlib.crc32(b"IHDR" + size))
    return data[:16] + size + checked + data[33:]


def flat(width: int, height: int) -> bytes:
    """Return a PNG of one colour, small as a file."""
    return encoded(Image.new("RGB", (width, height), "teal"), "PNG")


def bad_tiff(seed: int) -> bytes:
    """Return a TIFF whose tags are scrambled."""
    data, chance = bytearray(encoded(photo(), "TIFF", compression="tiff_lzw")), random.Random(seed)
    start = struct.unpack("<I", data[4:8])[0]
    for _ in range(12):
        data[start + chance.randrange(len(data) - start)] = chance.randrange(256)
    return bytes(data)


def many_tags() -> bytes:
    """Return a TIFF with hundreds of unknown tags of a wrong type."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number in range(300):
        tags[50000 + number] = "odd"
    data = bytearray(encoded(photo(), "TIFF", tiffinfo=tags))
    start = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[start : start + 2])[0]):
        place = start + 2 + 12 * entry
        if struct.unpack("<H", data[place : place + 2])[0] >= 50000:
            data[place + 2 : place + 4] = b"\x0b\x00"
    return bytes(data)


def lines(width: int, height: int) -> Image.Image:
    """Return a picture with a diagonal."""
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).line((0, 0, width, height), "black")
    return picture


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


JPEG, PNG, WEBP, TIFF, GIF, BMP = "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"
# The file's name: how to make its bytes. Names say what is in it.
FILES: dict[str, Callable[[], bytes]] = {
    "one_pixel.png": lambda: encoded(photo(1, 1), PNG),
    "one_pixel.jpg": lambda: encoded(photo(1, 1), JPEG),
    "one_row.png": lambda: encoded(lines(5000, 1), PNG),
    "one_column.png": lambda: encoded(lines(1, 20000), PNG),
    "long.jpg": lambda: encoded(lines(8000, 3), JPEG),
    "bits.png": lambda: in_mode("1", PNG),
    "grey.png": lambda: in_mode("L", PNG),
    "grey_alpha.png": lambda: in_mode("LA", PNG),
    "alpha.png": lambda: in_mode("RGBA", PNG),
    "alpha.webp": lambda: in_mode("RGBA", WEBP),
    "cmyk.jpg": lambda: in_mode("CMYK", JPEG),
    "cmyk.tif": lambda: in_mode("CMYK", TIFF),
    "lab.tif": lambda: encoded(photo().convert("RGB").quantize().convert("RGB"), TIFF),
    "ycbcr.tif": lambda: in_mode("YCbCr", TIFF),
    "int32.tif": lambda: in_mode("I", TIFF),
    "float.tif": lambda: in_mode("F", TIFF),
    "premultiplied.tif": lambda: in_mode("RGBA", TIFF),
    "palette.png": lambda: palette(None),
    "palette_one_clear.png": lambda: palette(3),
    "palette_clear.png": lambda: palette(bytes(range(0, 256, 16))),
    "sixteen_bits.png": lambda: sixteen_bits(False),
    "sixteen_bits_clear.png": lambda: sixteen_bits(True),
    "sixteen_bits.pgm": lambda: b"P5 4 2 65535\n" + bytes(range(16)),
    "grey_clear.png": lambda: with_clear(in_mode("L", PNG), b"\x00\x80"),
    "rgb_clear.png": lambda: with_clear(encoded(photo(), PNG), bytes(6)),
    "animated.png": lambda: animation(PNG),
    "animated.webp": lambda: animation(WEBP),
    "animated_gif.png": lambda: animation(GIF),
    "pages.tif": lambda: animation(TIFF),
    "cut_early.jpg": lambda: cut(encoded(photo(400, 300), JPEG), 0.2),
    "cut_late.jpg": lambda: cut(encoded(photo(400, 300), JPEG), 0.95),
    "cut.png": lambda: cut(encoded(photo(400, 300), PNG), 0.6),
    "cut.webp": lambda: cut(encoded(photo(400, 300), WEBP), 0.6),
    "cut.bmp": lambda: cut(encoded(photo(), BMP), 0.6),
    "cut.tif": lambda: cut(encoded(photo(), TIFF), 0.6),
    "header_only.jpg": lambda: encoded(photo(), JPEG)[:20],
    "empty.jpg": lambda: b"",
    "zeros.jpg": lambda: bytes(5000),
    "text.jpg": lambda: b"This is no picture.\n" * 30,
    "page.jpg": lambda: b"<html><body>404 not found</body></html>",
    "drawing.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "png_inside.jpg": lambda: encoded(photo(), PNG),
    "jpeg_inside.png": lambda: encoded(photo(), JPEG),
    "postscript.jpg": lambda: encoded(photo(), "EPS"),
    "icon.bmp": lambda: encoded(photo(32, 32), "ICO"),
    "upper.JPG": lambda: encoded(photo(), JPEG),
    "progressive.jpg": lambda: encoded(photo(), JPEG, progressive=True),
    "huge_header.png": lambda: header(60000, 60000),
    "impossible_header.png": lambda: header(2**31 - 1, 2**31 - 1),
    "no_width.png": lambda: header(0, 30),
    "bomb.png": lambda: flat(20000, 20000),
    "large.png": lambda: flat(5000, 4500),
    "bad_tags.tif": many_tags,
    "bad_icc.jpg": lambda: encoded(photo(), JPEG, icc_profile=b"no profile" * 30),
    "bad_exif.jpg": lambda: encoded(photo(), JPEG, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"),
    "turned_9.jpg": lambda: oriented(9),
    **{f"turned_{number}.jpg": partial(oriented, number) for number in range(1, 9)},
    **{f"scrambled_{seed}.tif": partial(bad_tiff, seed) for seed in range(8)},
}


@contextlib.contextmanager
def standard_error() -> Iterator[list[str]]:
    """Give a list that holds, afterwards, the lines that went to file descriptor 2."""
    printed, saved = [], os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            printed += file.read().decode(errors="replace").splitlines()


def read(path: Path) -> tuple[bool, list[str]]:
    """Return whether a picture can be read, and what is wrong with how that ended."""
    try:
        picture = rk.read_image(path)
    except UnreadableImageError as error:
        return False, [] if path.name in str(error) else [f"the error does not name it: {error}"]
    except Exception as error:
        return False, [f"read_image: raw {error!r}"[:140]]
    sound = picture.dtype == torch.uint8 and picture.ndim == 3 and len(picture) == 3
    return True, [] if sound else [f"read_image gives {picture.dtype} {tuple(picture.shape)}"]


def inspected(root: Path, readable: bool) -> list[str]:
    """Return what is wrong with what inspect_folder says of the only picture of a folder."""
    try:
        report = rk.inspect_folder(root, progress=False)
        usable = report.to_frame()["usable"].tolist()
        repr(report), report.counts(), report.duplicates()
    except Exception as error:
        return [f"inspect_folder: raw {error!r}"[:140]]
    return [] if usable == [readable] else [f"readable: {readable}, but usable: {usable}"]


def predicted(classifier, path: Path, readable: bool) -> list[str]:
    """Return what is wrong with the row that predict gives."""
    try:
        table = classifier.predict([path])
    except Exception as error:
        return [f"predict: raw {error!r}"[:140]]
    if len(table) != 1 or bool(table["predicted"].notna()[0]) != readable:
        return [f"readable: {readable}, but predicted: {table.iloc[0].to_dict()}"[:140]]
    return []


def _print_warning(message, category, file_name, line, *given) -> None:
    os.write(2, warnings.formatwarning(message, category, file_name, line).encode())


def broken_by(data: bytes, name: str, folder: Path, classifier) -> tuple[str, list[str]]:
    """Write a file, read it in three ways, and take it away."""
    path = folder / "train" / "a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with quiet(), standard_error() as printed, warnings.catch_warnings():
        warnings.simplefilter("default")  # they count as printed, whoever catches them
        warnings.showwarning = _print_warning
        readable, broken = read(path)
        broken += inspected(folder, readable)
        broken += predicted(classifier, path, readable)
    path.unlink()
    if len(printed) > PRINTED:
        broken.append(f"{len(printed)} lines on stderr, such as {printed[-1][:60]}")
    return "readable" if readable else "unreadable", broken


def awkward(trials: int, folder: Path, seed: int) -> Outcome:
    """Read each awkward picture."""
    classifier, found = rk.load_classifier(saved_classifier(folder)), Outcome()
    names = list(FILES)
    random.Random(seed).shuffle(names)
    for name in names[:trials]:
        found.add(*broken_by(FILES[name](), name, folder / "set", classifier), about=name)
    return found


WHOLE = {
    "damaged.jpg": lambda: encoded(photo(200, 150), JPEG),
    "damaged.png": lambda: encoded(photo(200, 150), PNG),
    "damaged.webp": lambda: encoded(photo(200, 150), WEBP),
    "damaged.tif": lambda: encoded(photo(200, 150), TIFF, compression="tiff_deflate"),
    "damaged.bmp": lambda: encoded(photo(200, 150), BMP),
}


def damaged_pictures(trials: int, folder: Path, seed: int) -> Outcome:
    """Read pictures with one damage."""
    classifier, found = rk.load_classifier(saved_classifier(folder)), Outcome()
    chance = random.Random(seed)
    whole = {name: make() for name, make in WHOLE.items()}
    for number in range(trials):
        name = list(whole)[number % len(whole)]
        data = damaged(whole[name], KINDS[number % len(KINDS)], chance)
        end = broken_by(data, name, folder / "set", classifier)
        found.add(*end, about=f"{name}, trial {number}")
    return found


PARTS = (
    Part("awkward pictures", awkward, len(FILES), "drawn pictures", "val", "ResNet-8"),
    Part("damaged pictures", damaged_pictures, 300, "drawn pictures", "val", "ResNet-8"),
)
