"""The download of the photos, against a local server with archives of the true layout."""

import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

import resnet_kit as rk
from resnet_kit import files
from resnet_kit.data import datasets
from resnet_kit.data.images import picture_files

FILES = {
    "hymenoptera_data/train/ants/a b.jpg": "train/2_ants/a b.jpg",
    "hymenoptera_data/val/bees/b.jpg": "eval/3_bees/b.jpg",
    "cats_and_dogs_filtered/train/cats/cat.129.jpg": "train/0_cat/cat.129.jpg",
    "cats_and_dogs_filtered/train/cats/cat.130.jpg": "eval/0_cat/cat.130.jpg",
    "cats_and_dogs_filtered/train/dogs/dog.221.jpg": "train/1_dog/dog.221.jpg",
    "cats_and_dogs_filtered/train/dogs/dog.222.jpg": "eval/1_dog/dog.222.jpg",
}
OTHERS = (
    "hymenoptera_data/train/ants/imageNotFound.gif",
    "cats_and_dogs_filtered/train/cats/cat.500.jpg",
    "cats_and_dogs_filtered/validation/cats/cat.2000.jpg",
    "cats_and_dogs_filtered/vectorize.py",
)


def content(name: str) -> bytes:
    return hashlib.sha512(name.encode()).digest() * 500


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`, from an offset where one is asked for; `server.cuts` ends replies."""

    def do_GET(self):
        data = self.server.files[self.path]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.starts.append(start)
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start and self.server.ranges else 200)
        rest = data[start:] if self.server.ranges else data
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cuts.pop(0) if self.server.cuts else None])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of both archives, which the package takes for the true ones, and their manifest."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.files, httpd.starts, httpd.cuts, httpd.ranges = {}, [], [], True
        httpd.address = f"http://127.0.0.1:{httpd.server_port}"
        for name in ("hymenoptera_data", "cats_and_dogs_filtered"):
            members = [f for f in (*FILES, *OTHERS) if f.startswith(name)]
            httpd.files[f"/{name}.zip"] = archive(tmp_path / f"{name}.zip", members)
        urls = [httpd.address + path for path in httpd.files]
        monkeypatch.setattr(datasets, "ARCHIVES", urls)
        lines = [f"{hashlib.sha256(content(f)).hexdigest()}  {path}" for f, path in FILES.items()]
        (tmp_path / "manifest").write_text("\n".join(lines))
        monkeypatch.setattr(datasets, "MANIFEST", tmp_path / "manifest")
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


def archive(path, members) -> bytes:
    with ZipFile(path, "w") as file:
        for name in members:
            file.writestr(name, content(name))
    return path.read_bytes()


def test_exactly_the_files_of_the_manifest_are_laid_out(server, tmp_path):
    folder = tmp_path / "root" / "cat_dog_ants_bees"
    datasets.download_photos(folder)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {path: content(name) for name, path in FILES.items()}
    assert [path.name for path in folder.parent.iterdir()] == ["cat_dog_ants_bees"]


def test_a_cut_connection_is_continued_where_it_stopped(server, tmp_path):
    server.cuts = [1000, 5000]
    datasets.download_photos(tmp_path / "root" / "photos")
    assert server.starts == [0, 1000, 6000, 0] and (tmp_path / "root" / "photos").is_dir()


def test_a_server_that_cannot_continue_starts_again(server, tmp_path):
    server.cuts, server.ranges = [1000], False
    datasets.download_photos(tmp_path / "root" / "photos")
    assert (tmp_path / "root" / "photos" / "train").is_dir()


def test_a_connection_cut_every_time_is_an_error_and_the_next_call_goes_on(server, tmp_path):
    folder = tmp_path / "root" / "photos"
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(OSError, match="hymenoptera_data.zip cannot be downloaded.*after 3000 of"):
        datasets.download_photos(folder)
    assert not folder.exists()
    datasets.download_photos(folder)
    assert server.starts[:4] == [0, 1000, 2000, 3000] and folder.is_dir()


def test_without_a_server_the_error_names_the_address(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
    with pytest.raises(OSError, match=r"/a.zip cannot be downloaded.*refused"):
        files.fetch(url, tmp_path / "a.zip")


def test_wrong_bytes_name_the_files_and_nothing_is_kept(server, tmp_path):
    text = datasets.MANIFEST.read_text().splitlines()
    datasets.MANIFEST.write_text("\n".join(["0" * 64 + text[0][64:], *text[1:]]))
    with pytest.raises(ValueError, match=r"1 of 6 photos are missing or .*2_ants/a b.jpg"):
        datasets.download_photos(tmp_path / "root" / "photos")
    assert not list((tmp_path / "root").iterdir())


def test_a_damaged_archive_is_no_archive(server, tmp_path):
    path = "/cats_and_dogs_filtered.zip"
    server.files[path] = server.files[path][:-300]
    with pytest.raises(ValueError, match=r"cats_and_dogs_filtered.zip is damaged"):
        datasets.download_photos(tmp_path / "root" / "photos")
    assert not list((tmp_path / "root").iterdir())


def test_damaged_contents_are_no_archive(server, tmp_path):
    path = tmp_path / "deflated.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as file:
        file.writestr(next(iter(FILES)), content("a"))
    data = bytearray(path.read_bytes())
    data[60:120] = b"\xff" * 60
    server.files["/hymenoptera_data.zip"] = bytes(data)
    with pytest.raises(ValueError, match=r"hymenoptera_data.zip is damaged"):
        datasets.download_photos(tmp_path / "root" / "photos")
    assert not list((tmp_path / "root").iterdir())


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    part = tmp_path / "root" / "photos.download" / "hymenoptera_data.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(server.files["/hymenoptera_data.zip"]) + 1))
    datasets.download_photos(tmp_path / "root" / "photos")
    assert (tmp_path / "root" / "photos" / "train").is_dir()


@pytest.mark.parametrize("name", ["../evil.jpg", "hymenoptera_data/../../evil.jpg", "/evil.jpg"])
def test_nothing_is_written_outside_the_folder(server, tmp_path, name):
    server.files["/hymenoptera_data.zip"] = archive(tmp_path / "bad.zip", [*FILES, name])
    server.files["/cats_and_dogs_filtered.zip"] = archive(tmp_path / "two.zip", [*FILES, name])
    datasets.download_photos(tmp_path / "root" / "photos")
    assert (tmp_path / "root" / "photos" / "train").is_dir()
    assert not list(tmp_path.rglob("evil.jpg")) and not os.path.exists("/evil.jpg")


def test_missing_photos_are_named(server, tmp_path):
    server.files["/hymenoptera_data.zip"] = archive(tmp_path / "few.zip", list(FILES)[:1])
    with pytest.raises(ValueError, match="1 of 6 photos are missing .*: eval/3_bees/b.jpg"):
        datasets.download_photos(tmp_path / "root" / "photos")


def test_the_call_downloads_once_and_not_in_quick_mode(server, data_root, monkeypatch, capsys):
    with pytest.raises(FileNotFoundError, match="quick mode downloads nothing"):
        rk.cat_dog_ants_bees("photos")
    assert server.starts == []
    monkeypatch.delenv("RESNET_KIT_QUICK")
    folder = rk.cat_dog_ants_bees("photos")
    assert len(picture_files(folder)) == 6 and len(server.starts) == 2
    assert rk.cat_dog_ants_bees("photos") == rk.cat_dog_ants_bees() == folder
    assert len(server.starts) == 2 and "Downloading" in capsys.readouterr().out


def test_the_manifest_is_that_of_the_real_photos(real_data):
    manifest = datasets.read_manifest()
    assert len(manifest) == 951
    for path, digest in manifest.items():
        data = (real_data / "cat_dog_ants_bees" / path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest, path
