"""The photos of cats, dogs, ants and bees: downloaded, every file checked, laid out in folders."""

import hashlib
import shutil
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile, ZipFile

from ..settings import progress_bar

ARCHIVES = (
    "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
    "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
)
MANIFEST = Path(__file__).with_name("photos.sha256")  # of all 951: SHA-256, path
ATTEMPTS, TIMEOUT = 3, 30.0  # seconds without a byte


def download_photos(folder: Path, *, check: bool = True, progress: bool = True) -> None:
    """Put the 951 photos into a new folder: whole or not at all.

    What was downloaded of a file before an interruption is kept beside the folder and continued.

    Raises:
        OSError: no connection, or it was cut again and again.
        ValueError: an archive is damaged or unsafe, or photos differ from the manifest; with
            `check=False` different ones are taken, missing ones still not.
    """
    work = folder.with_name(folder.name + ".download")
    photos = work / "photos"
    shutil.rmtree(photos, ignore_errors=True)
    archives = [fetch(url, work / PurePosixPath(url).name, progress=progress) for url in ARCHIVES]
    manifest = read_manifest()
    try:
        for archive in archives:
            _unpack(archive, photos, manifest)
        _check(photos, manifest, check)
    except ValueError:
        shutil.rmtree(work)  # so that the next call downloads anew
        raise
    photos.replace(folder)
    shutil.rmtree(work)


def read_manifest() -> dict[str, str]:
    """Return the SHA-256 of every photo by its path, such as "train/0_cat/cat.0.jpg"."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def fetch(url: str, path: Path, *, progress: bool = True) -> Path:
    """Download a file once; go on where an earlier call or a cut connection stopped."""
    part = path.with_suffix(path.suffix + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        if path.is_file():
            break
        try:
            _continue(url, part, progress)
            part.replace(path)
        except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
            if attempt == ATTEMPTS:
                raise OSError(f"{url} cannot be downloaded: {error}; try again later") from error
    return path


def _continue(url: str, part: Path, progress: bool) -> None:
    """Append what is missing of a file."""
    done = part.stat().st_size if part.is_file() else 0
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # the part is no beginning of this file
            part.unlink()
        raise
    with response:
        done = done if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = done + int(length) if length else None
        with (
            part.open("ab" if done else "wb") as file,
            progress_bar(total=total, description=part.stem, show=progress) as bar,
        ):
            bar.update(done)
            while block := response.read(1 << 16):
                bar.update(file.write(block))
    if total is not None and (size := part.stat().st_size) != total:
        raise ConnectionError(f"the connection was cut after {size} of {total} bytes")


def _unpack(archive: Path, photos: Path, manifest: dict[str, str]) -> None:
    """Write the photos that the manifest names into their folders."""
    try:
        with ZipFile(archive) as file:
            names = set(file.namelist())
            for name in names:
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"{archive.name} is unsafe: {name!r} leaves its folder")
            for path in manifest:
                if _member(path) in names:
                    (photos / path).parent.mkdir(parents=True, exist_ok=True)
                    (photos / path).write_bytes(file.read(_member(path)))
    except (BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive.name} is damaged ({error}); call again") from error


def _member(path: str) -> str:
    """Return the name that a photo of the manifest has in its archive."""
    split, folder, file = path.split("/")
    kind = folder.split("_")[1]
    if kind in ("ants", "bees"):
        return f"hymenoptera_data/{'train' if split == 'train' else 'val'}/{kind}/{file}"
    return f"cats_and_dogs_filtered/train/{kind}s/{file}"


def _check(photos: Path, manifest: dict[str, str], sums: bool) -> None:
    missing = [path for path in manifest if not (photos / path).is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(manifest)} photos are missing: {_some(missing)}")
    changed = [
        path
        for path, digest in manifest.items()
        if sums and hashlib.sha256((photos / path).read_bytes()).hexdigest() != digest
    ]
    if changed:
        raise ValueError(
            f"{len(changed)} of {len(manifest)} photos are not those of the manifest: "
            f"{_some(changed)}; check=False takes them as they are"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
