"""Pictures per second of `mean_std` and `inspect_folder`, beside reading them and nothing else.

    python benchmarks/reading_speed.py PHOTOS [--rounds 3] [--files 1000 10000 100000]

PHOTOS is a folder of pictures. Four ways through all of them, each in a fresh process, which take
turns: decoding on all cores with Pillow to RGB arrays, which is the limit; a plain loop with Pillow
on one core; `mean_std`; and `inspect_folder`. Then the most memory that `mean_std` and
`inspect_folder` need for so many small pictures of noise, beyond what the process had before.
Writes results/reading_speed.json.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import RESULTS, in_a_fresh_process, median_row

import resnet_kit as rk
from resnet_kit.data.images import picture_files
from resnet_kit.settings import in_threads


def decoded(file: Path) -> int:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).nbytes


def raw_decoding(folder: Path) -> None:
    sum(in_threads(decoded, picture_files(folder)))


def plain_loop(folder: Path) -> None:
    sum(map(decoded, picture_files(folder)))


def mean_std(folder: Path) -> None:
    rk.mean_std(folder, progress=False)


def inspect_folder(folder: Path) -> None:
    rk.inspect_folder(folder, progress=False)


RAW = "decoding on all cores"
WAYS = {RAW: raw_decoding, "a loop with Pillow": plain_loop}
WAYS |= {"mean_std": mean_std, "inspect_folder": inspect_folder}


def seconds_of(way: Callable, folder: Path) -> float:
    start = time.perf_counter()
    way(folder)
    return time.perf_counter() - start


def megabytes_of(way: Callable, folder: Path) -> float:
    """Return by how much the most memory of this process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    way(folder)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000


def write_noise(folder: Path, files: int) -> None:
    """Write pictures of 32 x 32 pixels, no two alike, into two classes."""
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(files):
        pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number:06d}.bmp")


def row(model: str, recipe: str, metric: str, values: list[float], n: int) -> dict:
    data = "noise, 32 px" if "memory" in metric else "cat_dog_ants_bees photos"
    about = {"data": data, "split": "all", "model": model, "recipe": recipe, "metric": metric}
    return median_row(values, **about) | {"n": n}


def speed_rows(folder: Path, rounds: int) -> list[dict]:
    pictures = len(picture_files(folder))
    rates = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, way in WAYS.items():
            seconds = in_a_fresh_process(seconds_of, way, folder)
            rates[name].append(pictures / seconds)
            print(number + 1, name, f"{rates[name][-1]:.0f} pictures/s", flush=True)
    rows, reading = [], f"reading {pictures:,} pictures"
    for name, values in rates.items():
        rows.append(row(reading, name, "pictures per second", values, rounds))
        if name != RAW:
            shares = [mine / raw for mine, raw in zip(values, rates[RAW], strict=True)]
            rows.append(row(reading, name, f"share of {RAW}", shares, rounds))
    return rows


def memory_rows(counts: list[int]) -> list[dict]:
    rows = []
    for files in counts:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "noise"
            write_noise(folder, files)
            for name in ("mean_std", "inspect_folder"):
                grown = in_a_fresh_process(megabytes_of, WAYS[name], folder)
                print(f"{files:,} files, {name}: {grown:.0f} MB", flush=True)
                about = "memory", f"{name}, {files:,} files", "MB of memory it takes at most"
                rows.append(row(*about, [grown], files))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, nargs="*", default=[1000, 10_000, 100_000])
    given = parser.parse_args()
    rows = speed_rows(given.photos, given.rounds) + memory_rows(given.files)
    counts = " ".join(map(str, given.files))
    command = f"python benchmarks/reading_speed.py PHOTOS --rounds {given.rounds} --files {counts}"
    rk.write_results(RESULTS / "reading_speed.json", rows, command=command)


if __name__ == "__main__":
    main()
