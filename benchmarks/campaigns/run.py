"""Attack what the package promises, and record how often a promise was broken.

    python benchmarks/campaigns/run.py                    # everything, about 15 minutes
    python benchmarks/campaigns/run.py kills --trials 20  # one campaign, fewer attacks

Writes results/reliability.json: a row per kind of attack with the broken promises as `value` and
the attacks as `n`. Rows of campaigns that did not run are kept.
"""

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import Outcome, Part

import resnet_kit as rk

CAMPAIGNS = (
    "ctrl_c", "kills", "damage", "disk", "processes", "pictures", "servers", "payloads", "memory",
)  # fmt: skip
RESULTS = Path(__file__).resolve().parent.parent.parent / "results" / "reliability.json"


def row_of(part: Part, found: Outcome, seed: int, seconds: float) -> dict:
    """Return a part as a row of results."""
    about = {"data": part.data, "split": part.split, "model": part.model, "recipe": part.recipe}
    about |= {"metric": "broken promises", "value": len(found.lost), "low": None, "high": None}
    return about | {"n": found.tried, "seed": seed, "seconds": round(seconds, 1)}


def record(path: Path, rows: list[dict]) -> None:
    """Put rows in the place of those of the same recipes; keep the others."""
    kept = {row["recipe"]: row for row in rk.read_results(path)["rows"]} if path.is_file() else {}
    rows = [*(kept | {row["recipe"]: row for row in rows}).values()]
    rk.write_results(path, rows, command="python benchmarks/campaigns/run.py")


def run(name: str, trials: int | None, seed: int) -> int:
    """Run the parts of one campaign, record each at once, and return how many attacks are lost."""
    lost = 0
    for part in importlib.import_module(name).PARTS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            count = part.trials if trials is None else min(trials, part.trials)
            found = part.run(count, Path(folder), seed)
        seconds = time.perf_counter() - start
        record(RESULTS, [row_of(part, found, seed, seconds)])
        print(f"{part.recipe}: {len(found.lost)} of {found.tried} lost, {seconds:.0f} s")
        print("   ", ", ".join(f"{count} {end}" for end, count in found.endings.most_common(12)))
        for text in found.lost[:40]:
            print("    lost:", text)
        sys.stdout.flush()
        lost += len(found.lost)
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(CAMPAIGNS)}")
    parser.add_argument("--trials", type=int, help="at most so many attacks of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = given.names or CAMPAIGNS
    if unknown := [name for name in names if name not in CAMPAIGNS]:
        parser.error(f"no campaign {unknown[0]!r}; expected one of: {', '.join(CAMPAIGNS)}")
    os.environ.update(RESNET_KIT_DEVICE="cpu", TQDM_DISABLE="1")
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lost = [run(name, given.trials, given.seed) for name in names]
    print(f"{sum(lost)} attacks broke a promise")


if __name__ == "__main__":
    main()
