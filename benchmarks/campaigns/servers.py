"""Download from hostile servers and unpack evil archives.

The end is our error, nothing lies outside of the folder, and the next call, of a good server,
succeeds. Everything is served from this machine; no address of another one is opened.
"""

import contextlib
import hashlib
import io
import random
import shutil
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from common import Outcome, Part, quiet
from damage import KINDS, damaged

from resnet_kit import files
from resnet_kit.data import datasets

NAMES = ("hymenoptera_data", "cats_and_dogs_filtered")
PHOTOS = {  # in the archives: where the package puts it
    "hymenoptera_data/train/ants/a b.jpg": "train/2_ants/a b.jpg",
    "hymenoptera_data/val/bees/b.jpg": "eval/3_bees/b.jpg",
    "cats_and_dogs_filtered/train/cats/cat.129.jpg": "train/0_cat/cat.129.jpg",
    "cats_and_dogs_filtered/train/cats/cat.130.jpg": "eval/0_cat/cat.130.jpg",
    "cats_and_dogs_filtered/train/dogs/dog.221.jpg": "train/1_dog/dog.221.jpg",
    "cats_and_dogs_filtered/train/dogs/dog.222.jpg": "eval/1_dog/dog.222.jpg",
}


def photo(name: str) -> bytes:
    """Return the bytes that stand for a photo, 16 KB."""
    return hashlib.sha512(name.encode()).digest() * 256


def archive(name: str, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of the layout of the true archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for member in PHOTOS:
            if member.startswith(name):
                zipped.writestr(member, photo(member))
    return file.getvalue()


@dataclass
class Behaviour:
    """How a server answers: `reply(handler, data, start)` sends everything, headers too."""

    archives: dict[str, bytes] = field(default_factory=lambda: {x: archive(x) for x in NAMES})
    reply: Callable | None = None
    pause: float = 0.0  # seconds after each block


class Handler(BaseHTTPRequestHandler):
    """Serves the archives as `server.behaviour` says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        behaviour = self.server.behaviour
        data = behaviour.archives[Path(self.path).stem]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.close_connection = True
        with contextlib.suppress(OSError):  # they may have gone
            (behaviour.reply or good)(self, data, start)

    def head(self, status: int, **headers) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments):
        pass


def good(handler: Handler, data: bytes, start: int) -> None:
    """Send what is asked for."""
    if start >= len(data):
        handler.head(416, Content_Length=0)
        return
    handler.head(206 if start else 200, Content_Length=len(data) - start)
    for place in range(start, len(data), 4096):
        handler.wfile.write(data[place : place + 4096])
        time.sleep(handler.server.behaviour.pause)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """Serve the archives; inside, the package takes them for the true ones."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.behaviour = True, Behaviour()
        server.handle_error = lambda *arguments: None
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        lines = [f"{hashlib.sha256(photo(x)).hexdigest()}  {path}" for x, path in PHOTOS.items()]
        (folder / "manifest").write_text("\n".join(lines))
        with patched(f"http://127.0.0.1:{server.server_port}", folder / "manifest"):
            yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def patched(address: str, manifest: Path) -> Iterator[None]:
    """Have the package download from this address, inside."""
    urls = tuple(f"{address}/{name}.zip" for name in NAMES)
    with (
        mock.patch.object(datasets, "ARCHIVES", urls),
        mock.patch.object(datasets, "MANIFEST", manifest),
    ):
        yield


def is_whole(folder: Path) -> bool:
    """Say whether a folder holds the photos, and nothing else."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    return found == {path: photo(name) for name, path in PHOTOS.items()}


def cut(handler: Handler, data: bytes, start: int) -> None:
    """Send a third of what is announced."""
    handler.head(206 if start else 200, Content_Length=len(data) - start)
    handler.wfile.write(data[start : start + len(data) // 10])


def cut_at_once(handler: Handler, data: bytes, start: int) -> None:
    """Close the connection without a word."""


def chunked(cut_after: int) -> Callable:
    """Send in chunks, the last of which announces more than it holds."""

    def reply(handler: Handler, data: bytes, start: int) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n" % len(data) + data[:cut_after])

    return reply


def longer(handler: Handler, data: bytes, start: int) -> None:
    """Announce less than comes."""
    handler.head(200, Content_Length=len(data) // 2)
    handler.wfile.write(data)


def no_length(handler: Handler, data: bytes, start: int) -> None:
    """Announce no length, and send half."""
    handler.head(200)
    handler.wfile.write(data[: len(data) // 2])


def odd_length(text: str) -> Callable:
    """Announce a length that is no number."""

    def reply(handler: Handler, data: bytes, start: int) -> None:
        handler.head(200, Content_Length=text)
        handler.wfile.write(data)

    return reply


def status(code: int, **headers) -> Callable:
    """Answer with an error."""

    def reply(handler: Handler, data: bytes, start: int) -> None:
        handler.head(code, Content_Length=0, **headers)

    return reply


def portal(handler: Handler, data: bytes, start: int) -> None:
    """Send a page that asks for a password, whatever was wanted."""
    page = b"<html><body>Welcome to our hotel! Please log in.</body></html>" * 50
    handler.head(200, Content_Type="text/html", Content_Length=len(page))
    handler.wfile.write(page)


def other_range(handler: Handler, data: bytes, start: int) -> None:
    """Cut the first reply; to a wish to go on answer with another part of the file."""
    if not start:
        cut(handler, data, start)
        return
    handler.head(206, Content_Length=len(data) - start, Content_Range=f"bytes 0-9/{len(data)}")
    handler.wfile.write(data[: len(data) - start])


def slow(handler: Handler, data: bytes, start: int) -> None:
    """Send a little and then nothing for longer than anybody waits."""
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data[:1000])
    handler.wfile.flush()
    time.sleep(0.6)


def no_http(handler: Handler, data: bytes, start: int) -> None:
    """Answer in no language of the web."""
    handler.wfile.write(b"\x16\x03\x01 220 ftp ready\r\n" * 20)


REPLIES = {
    "the connection is cut": cut,
    "nothing is answered": cut_at_once,
    "a chunk is cut": chunked(5000),
    "a chunk is cut at once": chunked(0),
    "more comes than announced": longer,
    "half comes, without a length": no_length,
    "the length is text": odd_length("many"),
    "the length is negative": odd_length("-5"),
    "404": status(404),
    "403": status(403),
    "416": status(416),
    "500": status(500),
    "503": status(503),
    "a redirection to itself": status(302, Location="/hymenoptera_data.zip"),
    "a redirection to a file": status(302, Location="file:///etc/passwd"),
    "a portal": portal,
    "another part of the file": other_range,
    "silence": slow,
    "no HTTP": no_http,
}


def attempt(server, folder: Path, behaviour: Behaviour) -> tuple[str, list[str]]:
    """Download with a hostile server, then with a good one; return the ending and what broke."""
    photos, broken = folder / "root" / "cat_dog_ants_bees", []
    server.behaviour = behaviour
    try:
        with quiet():
            datasets.download_photos(photos, progress=False)
        ending = "downloaded all the same"
        if not is_whole(photos):
            broken.append("no error, and no whole folder")
    except (ValueError, OSError) as error:
        ending = type(error).__name__
        if photos.exists():
            broken.append("an error, and a folder")
    except Exception as error:
        ending, broken = "raw error", [f"raw {error!r}"[:120]]
    server.behaviour = Behaviour()
    if not photos.exists():
        broken += _again(photos)
    outside = [path.name for path in folder.iterdir() if path.name != "root"]
    broken += [f"{name} lies outside" for name in outside]
    return ending, broken


def _again(photos: Path) -> list[str]:
    try:
        with quiet():
            datasets.download_photos(photos, progress=False)
    except Exception as error:
        return [f"the next call fails: {error!r}"[:160]]
    if not is_whole(photos):
        return ["the next call gives other photos"]
    left = [path.name for path in photos.parent.iterdir() if path.name != photos.name]
    return [f"{name} is left" for name in left if not name.endswith(".lock")]


def replies(trials: int, folder: Path, seed: int) -> Outcome:
    """Answer in hostile ways."""
    names, found = list(REPLIES), Outcome()
    random.Random(seed).shuffle(names)
    with serving(folder) as server, mock.patch.object(files, "TIMEOUT", 0.2):
        for number, name in enumerate(names[:trials]):
            place = folder / f"{number}" / "inner"
            place.mkdir(parents=True)
            found.add(*attempt(server, place, Behaviour(reply=REPLIES[name])), about=name)
    return found


def _zip(members: dict, **options) -> bytes:
    """Return a zip of members; a name may be a ZipInfo."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return file.getvalue()


def _members(name: str) -> dict:
    return {member: photo(member) for member in PHOTOS if member.startswith(name)}


def slip(name: str) -> bytes:
    """Return an archive with names that lead out of the folder."""
    evil = {f"{up}evil.jpg": b"evil" for up in ("../", "../../", f"{name}/../../../", "/evil/../")}
    return _zip(_members(name) | evil)


def links(name: str) -> bytes:
    """Return an archive whose photos are symbolic links."""
    members = {}
    for member in _members(name):
        info = zipfile.ZipInfo(member)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        members[info] = b"/etc/passwd"
    return _zip(members)


def bomb(name: str) -> bytes:
    """Return an archive whose photos would be 60 MB each."""
    zeros = bytes(60 << 20)
    return _zip(dict.fromkeys(_members(name), zeros), compression=zipfile.ZIP_DEFLATED)


def declared(field_at: int, value: bytes) -> Callable[[str], bytes]:
    """Return a maker of archives whose every entry declares something else, in both headers."""

    def make(name: str) -> bytes:
        data = bytearray(archive(name))
        for mark, place in ((b"PK\x01\x02", field_at + 2), (b"PK\x03\x04", field_at)):
            start = data.find(mark)
            while start >= 0:
                data[start + place : start + place + len(value)] = value
                start = data.find(mark, start + 4)
        return bytes(data)

    return make


def twice(name: str) -> bytes:
    """Return an archive with each name twice, the second time with another content."""
    file = io.BytesIO()
    with quiet(), zipfile.ZipFile(file, "w") as zipped:
        for member in (*_members(name), *_members(name)):
            zipped.writestr(member, photo(member) if member not in zipped.namelist() else b"x")
    return file.getvalue()


ZIPS = {
    "names that lead out": slip,
    "links": links,
    "bombs": bomb,
    "huge sizes declared": declared(22, struct.pack("<I", 0xFFFFFFF0)),
    "encrypted": declared(6, b"\x01\x00"),
    "an unknown compression": declared(8, b"\x63\x00"),
    "a newer version needed": declared(4, b"\xff\x00"),
    "stored although compressed": declared(8, b"\x00\x00"),
    "names twice": twice,
    "folders for files": lambda name: _zip({f"{member}/": b"" for member in _members(name)}),
    "no members": lambda name: _zip({}),
    "an empty file": lambda name: b"",
    "LZMA": lambda name: archive(name, zipfile.ZIP_LZMA),
    "BZIP2": lambda name: archive(name, zipfile.ZIP_BZIP2),
}


def evil_zips(trials: int, folder: Path, seed: int) -> Outcome:
    """Serve archives that were made to do harm."""
    names, found = list(ZIPS), Outcome()
    random.Random(seed).shuffle(names)
    with serving(folder) as server:
        for number, name in enumerate(names[:trials]):
            place = folder / f"{number}" / "inner"
            place.mkdir(parents=True)
            behaviour = Behaviour({x: ZIPS[name](x) for x in NAMES})
            found.add(*attempt(server, place, behaviour), about=name)
            shutil.rmtree(place.parent)
    return found


def mutated_zips(trials: int, folder: Path, seed: int) -> Outcome:
    """Serve archives with one damage, mostly in what describes their members."""
    chance, found = random.Random(seed), Outcome()
    whole = {name: archive(name) for name in NAMES}
    with serving(folder) as server:
        for number in range(trials):
            place, kind = folder / f"{number}" / "inner", KINDS[number % len(KINDS)]
            place.mkdir(parents=True)
            name = NAMES[number % 2]
            changed = {**whole, name: damaged(whole[name], kind, chance)}
            end = attempt(server, place, Behaviour(changed))
            found.add(*end, about=f"{kind}, trial {number}")
            shutil.rmtree(place.parent)
    return found


PARTS = (
    Part("hostile photo servers", replies, len(REPLIES), "6 photos"),
    Part("evil archives of photos", evil_zips, len(ZIPS), "6 photos"),
    Part("damaged archives of photos", mutated_zips, 200, "6 photos"),
)
