"""Damage a saved classifier at random, 2,000 times, and load it: what happens?

    python benchmarks/damaged_files.py --files 2000

A file of `rk.save_classifier` gets flipped bits, foreign bytes, a cut, a gap or an insertion, half
of them in its header. Loading must end in our ValueError: counted are other endings, and whatever
the interpreter did meanwhile that a file must not make it do (run code, unpickle, start programs,
open sockets, write files; heard through `sys.addaudithook`). A crash of the process ends the
campaign with an error. Writes results/damaged_files.json.
"""

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import resnet_kit as rk
from resnet_kit.models.resnets import cifar_resnet

RESULTS = Path(__file__).resolve().parent.parent / "results"
OURS = (" is damaged", " is no classifier; expected ")  # what load_classifier says
FORBIDDEN = (
    *("compile", "exec", "pickle.find_class", "ctypes.dlopen", "os.remove", "os.rename"),
    *("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"),
)


def damage(data: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Return the bytes with one damage, whose kind and half of the file follow from the number."""
    damaged = bytearray(data)
    place = int(rng.integers(len(data))) if number % 2 else int(rng.integers(3000))
    kind = number % 5
    if kind == 0:
        damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        damaged[place : place + 50] = rng.bytes(50)
    elif kind == 2:
        del damaged[place:]
    elif kind == 3:
        del damaged[place : place + int(rng.integers(1, 100))]
    else:
        damaged[place:place] = rng.bytes(int(rng.integers(1, 100)))
    return bytes(damaged)


class Ears:
    """Counts forbidden events while it listens; a hook can never be taken away again."""

    def __init__(self):
        self.listening, self.heard = False, collections.Counter()
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if self.listening and (event in FORBIDDEN or writes):
            self.heard[event] += 1


def campaign(path: Path, files: int, seed: int) -> tuple[collections.Counter, list[float], Ears]:
    """Return how the loads ended, the seconds that each took, and what was heard."""
    data, rng, ears = path.read_bytes(), np.random.default_rng(seed), Ears()
    damaged, endings, seconds = path.with_name("changed.safetensors"), collections.Counter(), []
    for number in range(files):
        changed = damage(data, number, rng)
        if changed == data:
            endings["the damage changed nothing"] += 1
            continue
        damaged.write_bytes(changed)
        start, ears.listening = time.perf_counter(), number > 0  # the first load imports
        try:
            rk.load_classifier(damaged)
            endings["loaded"] += 1
        except ValueError as error:
            ours = any(text in str(error) for text in OURS)
            endings["our error" if ours else f"other: {error}"] += 1
        except Exception as error:
            endings[f"other: {error!r}"] += 1
        ears.listening = False
        seconds.append(time.perf_counter() - start)
    return endings, seconds, ears


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rk.seed_everything(given.seed)
        model, data = cifar_resnet(8, in_channels=1), rk.named_dataset("digits")
        path = rk.save_classifier(Path(folder) / "whole.safetensors", model, data, calibrate=True)
        assert rk.load_classifier(path).classes == data.classes
        endings, seconds, ears = campaign(path, given.files, given.seed)
    count = given.files - endings["the damage changed nothing"]
    print(dict(endings), dict(ears.heard), f"slowest {max(seconds):.2f} s")
    measured = {
        "files refused with our ValueError": endings["our error"],
        "files that loaded, or ended otherwise": count - endings["our error"],
        "events such as running code or writing": ears.heard.total(),
        "seconds of the slowest load": max(seconds),
    }
    rows = [
        {"data": "damaged files", "split": "header and body", "model": "ResNet-8",
         "recipe": "load_classifier", "metric": metric, "value": value, "low": None, "high": None,
         "n": count, "seed": given.seed, "seconds": sum(seconds)}
        for metric, value in measured.items()
    ]  # fmt: skip
    command = f"python benchmarks/damaged_files.py --files {given.files} --seed {given.seed}"
    rk.write_results(RESULTS / "damaged_files.json", rows, command=command)


if __name__ == "__main__":
    main()
