"""How many planted copies of photos does `rk.inspect_folder` find, and how many pairs are false?

    python benchmarks/duplicates.py PHOTOS

PHOTOS is the folder with train/ and eval/ of the cat/dog/ants/bees photos. First the originals are
inspected: the pairs it names are listed, to be looked at. Then copies of training photos are
planted in eval/ of a temporary copy: as they are, at two thirds of the size, saved again at quality
40, and mirrored. Writes results/duplicates.json.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image

import resnet_kit as rk

RESULTS = Path(__file__).resolve().parent.parent / "results"
CHANGES = ("copied", "resized", "saved again", "mirrored")
TRUE_PAIRS = {("train/1_dog/dog.180.jpg", "train/1_dog/dog.74.jpg")}  # looked at: one photo twice


def plant(folder: Path, every: int) -> dict[str, tuple[str, str]]:
    """Plant a changed copy of every so many training photos; return copy: (original, change)."""
    planted = {}
    for number, file in enumerate(sorted((folder / "train").rglob("*.jpg"))[::every]):
        target = folder / "eval" / file.parent.name / f"planted{number}.jpg"
        change, picture = CHANGES[number % len(CHANGES)], Image.open(file).convert("RGB")
        if change == "copied":
            shutil.copy(file, target)
        elif change == "resized":
            picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)).save(target)
        elif change == "saved again":
            picture.save(target, quality=40)
        else:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target, quality=90)
        planted[target.name] = (file.name, change)
    return planted


def names(table) -> set[tuple[str, str]]:
    return {(row.file.split("/")[-1], row.other.split("/")[-1]) for row in table.itertuples()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=5)
    given = parser.parse_args()
    start = time.perf_counter()
    originals = rk.inspect_folder(given.photos, progress=False)
    seconds = time.perf_counter() - start
    pairs = set(originals.duplicates()[["file", "other"]].itertuples(index=False, name=None))
    print("pairs among the originals:", *sorted(pairs), sep="\n  ")
    with tempfile.TemporaryDirectory() as folder:
        photos = shutil.copytree(given.photos, Path(folder) / "photos")
        planted = plant(photos, given.every)
        found = names(rk.inspect_folder(photos, progress=False).leaks())
    usable = int(originals.to_frame()["usable"].sum())
    counts = {
        ("as they are", "pairs that are one photo"): (len(pairs & TRUE_PAIRS), usable),
        ("as they are", "pairs that are not"): (len(pairs - TRUE_PAIRS), usable),
    }
    for change in CHANGES:
        copies = [(copy, source) for copy, (source, how) in planted.items() if how == change]
        hits = sum(pair in found for pair in copies)
        counts[f"{change}, across splits", "planted copies that were found"] = hits, len(copies)
    rows = [
        {"data": "cat_dog_ants_bees photos", "split": "train + eval", "model": "inspect_folder",
         "recipe": recipe, "metric": metric, "value": value, "low": None, "high": None, "n": n,
         "seed": None, "seconds": seconds if recipe == "as they are" else None}
        for (recipe, metric), (value, n) in counts.items()
    ]  # fmt: skip
    for row in rows:
        print(f"{row['recipe']}, {row['metric']}: {row['value']} of {row['n']}")
    command = f"python benchmarks/duplicates.py PHOTOS --every {given.every}"
    rk.write_results(RESULTS / "duplicates.json", rows, command=command)


if __name__ == "__main__":
    main()
