"""Files: written whole or not at all, loaded without running code, downloaded in pieces."""

import errno
import hashlib
import json
import os
import shutil
import time
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from .settings import progress_bar, user_path

# Where other programs keep weights in a checkpoint, and what wrappers put before their names.
WEIGHT_ENTRIES = ("state_dict", "model_state_dict", "model", "weights", "net")
SUM = "weights_sha256"  # in the metadata of a file of weights
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; it becomes `path` when the block succeeds.

    After an exception, a Ctrl-C or a killed process, `path` is what it was before.
    """
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name, hours=1)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private, results are not
        os.replace(temporary, path)
    except Exception as error:  # torch and safetensors have words of their own for a full disk
        if "No space left" in str(error) or shutil.disk_usage(path.parent).free < 1 << 20:
            raise OSError(
                errno.ENOSPC, "No space left on device: free some, then write again", str(path)
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "*", *, hours: float = 0) -> None:
    """Remove temporary files of `atomic_file` that a killed process left, if they are so old."""
    pattern = "*" if name == "*" else escape(name)
    for file in folder.glob(f".{pattern}.????????"):  # as NamedTemporaryFile names them
        with suppress(OSError):
            if time.time() - file.stat().st_mtime >= 3600 * hours:
                file.unlink()


@contextmanager
def only_one(path: Path, *, seconds: float | None = None, refusal: str = "") -> Iterator[None]:
    """Hold a lock file inside, so that other processes stay out; it goes with this process.

    Where another one is inside, wait for its end, which a line says, or at most so many seconds.

    Raises:
        RuntimeError: another process is still inside; the message is `refusal`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0 if seconds is None else seconds)
    except NotImplementedError:
        print(f"The file system of {path.parent} has no locks: start one process at a time.")
    except Timeout:
        if seconds is not None:
            raise RuntimeError(refusal) from None
        print(f"Another process is at work on {path.stem.strip('.')}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # who waits opens it by name, again and again
            path.unlink()
        lock.release()


def weights_path(path: str | Path) -> Path:
    """Return a path that weights can be written to; its folder is made.

    Raises:
        ValueError: the path does not end in .safetensors.
    """
    path = user_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, not {path.name}; rename the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save_weights(
    model: nn.Module | Mapping[str, Tensor], path: str | Path, *, metadata: dict | None = None
) -> Path:
    """Write weights as safetensors, contiguous, with `metadata` as JSON in the header.

    Return the path. A file that is there is replaced when the new one is whole.

    Raises:
        ValueError: the path does not end in .safetensors.
        TypeError: metadata that JSON does not know (NumPy's and torch's numbers are taken).
    """
    path = weights_path(path)
    state = model.state_dict() if isinstance(model, nn.Module) else model
    about = _as_json(metadata or {})  # checked before anything costs time
    dense = torch.contiguous_format
    tensors = {  # copies, because safetensors refuses two names for one memory
        name: tensor.detach().cpu().clone(memory_format=dense) for name, tensor in state.items()
    }
    about[SUM] = digest_of(tensors)
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {"resnet_kit": json.dumps(about)})
    return path


def _as_json(metadata: dict) -> dict:
    """Return metadata as JSON gives them back: arrays and tensors as lists, paths as strings."""

    def plain(value):
        if isinstance(value, np.generic | np.ndarray | Tensor):
            return value.tolist()
        if isinstance(value, Path):
            return str(value)
        raise TypeError(
            f"metadata hold a {type(value).__name__}; expected numbers, strings, lists and dicts"
        )

    return json.loads(json.dumps(metadata, default=plain))


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors of a `.safetensors`, `.pth` or `.pt` file, and its metadata (or {}).

    Nothing in the file is executed: PyTorch's own format is read with `weights_only=True`. Of a
    checkpoint that holds weights beside other things the weights are taken, and a line says so.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds something else than weights.
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path.absolute()}; expected weights (.safetensors, .pth or .pt)"
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {}).get("resnet_kit", "{}"))
                names = file.keys()  # copies: what is read must not change with the file
                tensors = {name: file.get_tensor(name).clone() for name in names}
            if not isinstance(header, dict):
                raise ValueError("its metadata are no JSON object")
            if SUM in header and header.pop(SUM) != digest_of(tensors):  # older files have none
                raise ValueError("its content has another digest than when it was written")
            return tensors, header
        check_sums(path)
        with safe_globals([Namespace]):  # what argparse gives; many scripts save theirs
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged or no weights file: {error}") from error
    except Exception as error:  # pickle.UnpicklingError: the file wants to run code
        raise ValueError(
            f"{path} holds more than tensors, or is no weights file at all, and is not loaded; "
            "expected a state_dict: in the program that made it, save model.state_dict() instead "
            f"of the model ({error})"
        ) from error
    return _weights_in(state, path), {}


def check_sums(path: Path) -> None:
    """Refuse a file of `torch.save` with a damaged part: torch writes sums and does not read them.

    Files of before 2020 have none.
    """
    if is_zipfile(path):
        with ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"{damaged} has another sum than when it was written")


def _weights_in(content, path: Path) -> dict[str, Tensor]:
    """Return the weights of a file's content: it is a state_dict, or one of its entries is."""
    if _is_state_dict(content):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected names and tensors")
    if "history" in content:
        raise ValueError(f"{path} is a resume state; take best.safetensors beside it")
    entries = ", ".join(map(str, content))
    found = [name for name, value in content.items() if _is_state_dict(value)]
    named = [name for name in WEIGHT_ENTRIES if name in found]
    if not named and len(found) != 1:
        raise ValueError(
            f"{path} holds no state_dict (names and tensors) but {entries}; save one of them alone"
        )
    taken = (named or found)[0]
    print(f"{path.name}: taking the weights in its entry {taken!r} (it holds {entries}).")
    return content[taken]


def _is_state_dict(value) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(t, Tensor) for t in value.values())
    )


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of names and contents, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        content = tensors[name].detach().cpu().contiguous().flatten()
        digest.update(name.encode() + content.view(torch.uint8).numpy().tobytes())  # any dtype
    return digest.hexdigest()


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights from a file into the model, in place; every name and shape must fit.

    Raises:
        ValueError: names the first tensors that are missing, unexpected or of another shape.
    """
    state, _ = read_weights(path)
    fit_weights(model, state, str(path))


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load `state` into the model, or say where `origin` and the model differ."""
    own = model.state_dict()
    state = without_prefixes(state, own, origin)
    versions = getattr(state, "_metadata", None)
    counts = {name: own[name] for name in own if name.endswith("num_batches_tracked")}
    state = {**counts, **state}  # files from before 2018 do not have them
    shapes = [
        f"{name} is {tuple(state[name].shape)}, the model's {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    found = [
        f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names
    ]
    if found:
        hint = "build the model with the architecture and number of classes it was saved with"
        if any(name.startswith("model.") for name in problems["unexpected"]):
            hint += " (rk.load_classifier loads what save_classifier wrote)"
        raise ValueError(
            f"{origin} does not fit this {type(model).__name__}: {'; '.join(found)}; {hint}"
        )
    put_weights(model, state, versions)


def without_prefixes(state: Mapping[str, Tensor], own: Mapping, origin: str) -> Mapping:
    """Return the state with names as the model has them, where a wrapper put something before."""
    found, dropped = state, ""
    while found and not any(name in own for name in found):
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in found)]
        if not shared:
            return state
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
        dropped += shared[0]
    if dropped:
        print(f"{origin}: every name begins with {dropped!r}, which is left out.")
    return found


def put_weights(model: nn.Module, state: Mapping[str, Tensor], versions=None) -> None:
    """Load what fits, with the versions of modules that a state_dict keeps and a dict does not."""
    state = OrderedDict(state)
    state._metadata = versions or model.state_dict()._metadata
    model.load_state_dict(state)


ATTEMPTS, TIMEOUT = 3, 30.0  # seconds without a byte


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
