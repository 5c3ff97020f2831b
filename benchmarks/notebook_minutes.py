"""Run notebooks in normal mode, each in a fresh kernel, and write down how long each takes.

    python benchmarks/notebook_minutes.py [--only 01 04] [--at-once 1] [--limit 60] [--out FOLDER]

`--at-once` runs several together, each of which then takes longer than alone; what is still running
after `--limit` minutes is stopped and left out. `--out` keeps the notebooks with their new outputs.
Needs nbclient, which jupyterlab brings. Writes results/notebook_minutes_cpu.json or _gpu.json.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import resnet_kit as rk

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def run(path: Path, deadline: float, out: Path | None) -> tuple[float, str]:
    """Run a notebook; return its seconds and "", or how it ended instead."""
    notebook, start = nbformat.read(path, 4), time.time()
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, resources=resources, record_timing=False)
    client.timeout_func = lambda cell: max(1, round(deadline - time.time()))
    ended = ""
    try:
        client.execute()
    except Exception as error:  # of any cell, or the deadline's
        ended = f"{type(error).__name__}: {str(error)[-300:]}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, out / path.name)
    seconds = time.time() - start
    print(f"{path.name}: {seconds:.0f} s {ended}", flush=True)
    return seconds, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NN", help="their numbers; default: all")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60, help="minutes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if rk.quick_mode():
        parser.error("RESNET_KIT_QUICK is set, but normal mode is measured; unset it")
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    paths = [path for path in paths if not given.only or path.name[:2] in given.only]
    if not paths:
        parser.error(f"no notebook has a number of {given.only}; expected such as 01 04")
    deadline, count = time.time() + 60 * given.limit, len(paths)
    with ProcessPoolExecutor(given.at_once) as pool:
        found = list(pool.map(run, paths, [deadline] * count, [given.out] * count))
    about = {"data": "notebooks", "split": None, "metric": "seconds", "n": 1, "seed": None}
    about |= {"low": None, "high": None}
    at_once = min(given.at_once, count)
    recipe = "alone" if at_once == 1 else f"{at_once} at once"
    rows = [
        about | {"model": path.stem, "recipe": recipe, "value": seconds, "seconds": seconds}
        for path, (seconds, ended) in zip(paths, found, strict=True)
        if not ended
    ]
    device = "gpu" if rk.default_device().type == "cuda" else "cpu"
    command = f"python benchmarks/notebook_minutes.py --at-once {given.at_once}"
    command += f" --only {' '.join(given.only)}" if given.only else ""
    rk.write_results(RESULTS / f"notebook_minutes_{device}.json", rows, command=command)
    if len(rows) < count:
        raise SystemExit(f"{count - len(rows)} of {count} notebooks did not end well")


if __name__ == "__main__":
    main()
