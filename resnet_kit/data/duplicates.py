"""Copies of a picture, exact and near: hashes find the candidates, correlation confirms them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..settings import in_threads
from .images import ROOM, rgb_pixels

NEAR_BITS, NEAR_CORRELATION = 12, 0.96  # of 64 bits; of thumbnails 32 x 32
BLOCK = 512  # pictures that are compared with all others at a time: memory stays bounded


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What copies are found by: a digest of the file, hashes and a thumbnail of the picture."""

    digest: bytes
    bits: np.ndarray
    mirrored_bits: np.ndarray
    thumbnail: np.ndarray

    @classmethod
    def of(cls, digest: bytes, grey: np.ndarray) -> "Fingerprint":
        """Return that of a grey picture `(H, W)`; the size does not matter, the content does."""
        import cv2

        small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        thumbnail = (small - small.mean()) / max(float(small.std()), 1e-6)
        return cls(digest, _hash(small), _hash(small[:, ::-1]), thumbnail)


def _hash(grey: np.ndarray) -> np.ndarray:
    """Return 64 signs: which low frequencies of a 32 x 32 picture are above the median (pHash)."""
    import cv2

    low = cv2.dct(np.ascontiguousarray(grey))[:8, :8].ravel()
    return np.where(low > np.median(low[1:]), 1, -1).astype(np.float32)


@dataclass(frozen=True)
class Pair:
    """Two pictures, by their places, that are the same; `kind` is exact, near or mirrored."""

    one: int
    other: int
    kind: str
    correlation: float


def find_pairs(prints: Sequence[Fingerprint]) -> list[Pair]:
    """Return all pairs: near hashes first, confirmed by correlation."""
    if len(prints) < 2:
        return []
    bits = np.stack([x.bits for x in prints])
    mirrored = np.stack([x.mirrored_bits for x in prints])
    least = 64 - 2 * NEAR_BITS  # of the sum of 64 products of signs
    found = {}
    for start in range(0, len(prints), BLOCK):
        for flipped, others in ((False, bits), (True, mirrored)):
            near = np.argwhere(bits[start : start + BLOCK] @ others.T >= least)
            for i, j in (near + (start, 0)).tolist():
                if i < j and (i, j) not in found:
                    pair = _confirmed(prints, i, j, flipped)
                    if pair:
                        found[i, j] = pair
    return [found[places] for places in sorted(found)]


def _confirmed(prints: Sequence[Fingerprint], i: int, j: int, flipped: bool) -> Pair | None:
    one, other = prints[i], prints[j]
    if one.digest == other.digest:
        return Pair(i, j, "exact", 1.0)
    theirs = other.thumbnail[:, ::-1] if flipped else other.thumbnail
    correlation = float((one.thumbnail * theirs).mean())
    if correlation < NEAR_CORRELATION:
        return None
    return Pair(i, j, "mirrored" if flipped else "near", correlation)


def groups_of(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return for each of `count` pictures the first one that it is tied to by pairs, or itself."""
    first = list(range(count))

    def root(place: int) -> int:
        while first[place] != place:
            place = first[place]
        return place

    for pair in pairs:
        low, high = sorted((root(pair.one), root(pair.other)))
        first[high] = low
    return [root(place) for place in range(count)]


def copied_from(train: Sequence[Path], others: Sequence[Path]) -> int:
    """Return how many of the others are copies, byte for byte, of training files."""
    sizes = {file: file.stat().st_size for file in (*train, *others)}
    shared = {sizes[file] for file in train} & {sizes[file] for file in others}
    digests = {_digest(file) for file in train if sizes[file] in shared}
    return sum(sizes[file] in shared and _digest(file) in digests for file in others)


def in_several_classes(pictures: Sequence[tuple[Path, int]]) -> int:
    """Return how many files have a copy, byte for byte, under another label."""
    sizes = Counter(file.stat().st_size for file, _ in pictures)
    twins = [(file, label) for file, label in pictures if sizes[file.stat().st_size] > 1]
    labels = defaultdict(list)
    for file, label in twins:
        labels[_digest(file)].append(label)
    return sum(len(found) for found in labels.values() if len(set(found)) > 1)


def near_copied_from(train: Sequence[Path], others: Sequence[Path]) -> int:
    """Return how many of the others are nearly the same as a training picture, not quite.

    What cannot be read is left out.
    """
    pairs = _quick_pairs([*train, *others])
    torn = {x.other for x in pairs if x.one < len(train) <= x.other and x.kind != "exact"}
    return len(torn)


def groups_of_files(files: Sequence[Path]) -> list[int]:
    """Return for each file the place of the first one that is the same picture, or its own."""
    return groups_of(len(files), _quick_pairs(files))


def _quick_pairs(files: Sequence[Path]) -> list[Pair]:
    """Return all pairs of files; JPEG files are decoded at an eighth of their size."""
    found = dict(enumerate(in_threads(_quick_print, files)))
    places = [place for place, fingerprint in found.items() if fingerprint is not None]
    pairs = find_pairs([found[place] for place in places])
    return [replace(pair, one=places[pair.one], other=places[pair.other]) for pair in pairs]


def _quick_print(file: Path) -> Fingerprint | None:
    import cv2

    try:
        with ROOM.for_picture(file), Image.open(file) as picture:
            picture.draft("RGB", (64, 64))
            pixels = rgb_pixels(picture)
    except Exception:  # decoders raise anything; whoever needs the picture says it
        return None
    return Fingerprint.of(_digest(file), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
