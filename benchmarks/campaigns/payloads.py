"""Give every loader files that try to run code, and listen to what the interpreter does.

Nothing of a payload is executed: no file, program, import or connection that it wants comes about,
and audit hooks hear neither unpickled foreign functions nor compiled code. The loader raises.
"""

import collections
import contextlib
import io
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Outcome, Part, environment, quiet, small_net
from damage import KINDS, Resuming, damaged, saved_classifier, tiny_mnist

import resnet_kit as rk
from resnet_kit.training.state import load_state

FORBIDDEN = (
    *("compile", "exec", "pickle.find_class", "ctypes.dlopen"),
    *("os.remove", "os.rename", "shutil.rmtree"),
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
)


class Ears:
    """Counts forbidden events while it listens; a hook can never be taken away again."""

    def __init__(self):
        self.listening, self.heard = False, collections.Counter()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.listening:
            return
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        literal = event == "compile" and arguments[1] == "<unknown>"  # parsed, not to be run
        lock = event == "os.remove" and str(arguments[0]).endswith(".lock")  # the package's own
        if (event in FORBIDDEN and not literal and not lock) or writes:
            self.heard[event] += 1

    @contextlib.contextmanager
    def listen(self):
        """Listen inside, and begin to count anew."""
        self.heard.clear()
        self.listening = True
        try:
            yield self.heard
        finally:
            self.listening = False


class Payload:
    """An object that, unpickled, calls a function."""

    def __init__(self, function: Callable, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def payloads(proof: Path) -> dict[str, Payload]:
    """Return objects that would leave the file `proof`, or another trace."""
    write = f"open({str(proof)!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, f"touch {proof}"),
        "eval": Payload(eval, write),
        "exec": Payload(exec, write),
        "open": Payload(open, str(proof), "w"),
        "Path.touch": Payload(Path.touch, proof),
        "os.mkdir": Payload(os.mkdir, str(proof)),
        "a module": Payload(__import__, "this"),
        "np.save": Payload(np.save, str(proof), np.zeros(2)),
        "torch.save": Payload(torch.save, {}, str(proof)),
        "torch.load": Payload(torch.load, str(proof)),
        "exit": Payload(sys.exit, 3),
    }


def carriers(payload: Payload) -> dict[str, object]:
    """Return contents that carry a payload where a loader may look."""
    state = small_net().state_dict()
    return {
        "alone": payload,
        "in a dict": {"model": payload},
        "beside weights": {"state_dict": state, "epoch": payload},
        "as a weight": {**state, "fc.bias": payload},
        "as a key": {payload: torch.zeros(1)},
        "in a list": [state, payload],
    }


def _of_torch(content, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _npz(content) -> bytes:
    file = io.BytesIO()
    array = np.empty(1, object)
    array[0] = content
    np.savez(file, **tiny_mnist() | {"train_images": array})
    return file.getvalue()


def _npz_of_pickles(content) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in tiny_mnist():
            archive.writestr(f"{name}.npy", pickle.dumps(content))
    return file.getvalue()


FORMATS: dict[str, Callable[[object], bytes]] = {
    "torch": lambda content: _of_torch(content, False),
    "legacy torch": lambda content: _of_torch(content, True),
    "pickle": pickle.dumps,
    "old pickle": lambda content: pickle.dumps(content, 0),
    ".npz": _npz,
    ".npz of pickles": _npz_of_pickles,
}


def loaders(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Return all that loads a file: its path, and the call."""
    root, run = folder / "root", folder / "run"
    root.mkdir()
    run.mkdir()
    with quiet():
        resume = Resuming(run)
    weights = [folder / name for name in ("w.pth", "w.pt", "w.safetensors")]
    found = {f"load_weights {x.suffix}": (x, lambda x=x: rk.load_weights(small_net(), x))
             for x in weights}  # fmt: skip
    net = folder / "net.pth"
    classifier = folder / "classifier.safetensors"

    def named():
        with environment(RESNET_KIT_DATA=root):
            return rk.named_dataset("mnist", download=False, val_from_train=0.25)

    return found | {
        "weights": (net, lambda: rk.pretrained(rk.weights("resnet18", net), num_classes=2)),
        "load_classifier": (classifier, lambda: rk.load_classifier(classifier)),
        "load_classifier .pth": (net, lambda: rk.load_classifier(net)),
        "resume": (run / "last.pt", lambda: resume.train(run, small_net(), 3)),
        "load_state": (run / "last.pt", lambda: load_state(run / "last.pt")),
        "named_dataset": (root / "mnist.npz", named),
    }


def loaded(path: Path, data: bytes, call: Callable, ears: Ears, proof: Path) -> tuple[str, list]:
    """Load a file that carries a payload; return the ending, and what was executed."""
    path.write_bytes(data)
    ending, broken = "loaded", []
    with quiet(), ears.listen() as heard:
        try:
            call()
        except Exception as error:
            ending = type(error).__name__
        except SystemExit:
            broken.append("the payload ended the process")
    broken += [f"{event} was heard" for event in heard]
    if proof.exists():
        broken.append("the payload was executed")
        proof.rmdir() if proof.is_dir() else proof.unlink()
    if sys.modules.pop("this", None):
        broken.append("a module was imported")
    path.unlink()
    return ending, broken


def every_loader(trials: int, folder: Path, seed: int) -> Outcome:
    """Give payloads in all formats to all loaders."""
    proof, ears, found = folder / "proof", Ears(), Outcome()
    calls = loaders(folder)
    cases = [
        (loader, kind, where, what)
        for loader in calls
        for kind in FORMATS
        for what, payload in payloads(proof).items()
        for where in carriers(payload)
    ]
    random.Random(seed).shuffle(cases)
    _warm_up(calls)
    for loader, kind, where, what in cases[:trials]:
        path, call = calls[loader]
        data = FORMATS[kind](carriers(payloads(proof)[what])[where])
        end = loaded(path, data, call, ears, proof)
        found.add(*end, about=f"{loader}: {what} {where}, {kind}")
    return found


def _warm_up(calls: dict) -> None:
    """Have everything imported and compiled that a load needs."""
    for path, call in calls.values():
        whole = _of_torch(small_net().state_dict(), False)
        for data in (b"", whole, _npz(1), _npz_of_pickles(1)):
            path.write_bytes(data)
            with quiet(), contextlib.suppress(Exception):
                call()
            path.unlink(missing_ok=True)


def damaged_classifiers(trials: int, folder: Path, seed: int) -> Outcome:
    """Load damaged classifiers and listen."""
    path, ears, chance, found = saved_classifier(folder), Ears(), random.Random(seed), Outcome()
    data, proof = path.read_bytes(), folder / "proof"
    _warm_up({"load_classifier": (path, lambda: rk.load_classifier(path))})
    for number in range(trials):
        kind = KINDS[number % len(KINDS)]
        changed = damaged(data, kind, chance)
        if changed == data:
            found.add("the damage changed nothing")
            continue
        ending, broken = loaded(path, changed, lambda: rk.load_classifier(path), ears, proof)
        if ending != "ValueError":
            broken.append(f"it ends in {ending}")
        found.add(ending, broken, f"{kind}, trial {number}")
    return found


PARTS = (
    Part("pickle payloads on every loader", every_loader, 1000, "files that want to run code"),
    Part("damaged classifiers, heard by an audit hook", damaged_classifiers, 1000,
         "damaged files", "val", "ResNet-8"),
)  # fmt: skip
