"""Small things that many tests need."""

import ast
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import socket
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PACKAGE = Path(__file__).resolve().parent.parent / "resnet_kit"
REAL = os.environ.get("RESNET_KIT_REAL_DATA")
# What the processes of tests import; the slow ones would take each of them a second or more.
PRELOADED = [
    "resnet_kit", "resnet_kit.data.datasets", "sklearn.model_selection", "torch._dynamo",
    "accelerate.data_loader", "pytest",
]  # fmt: skip


def pytest_report_header() -> str:
    """The size of the package, without the drawn pictures: it is reported and not limited."""
    modules = [path for path in PACKAGE.rglob("*.py") if "drawn" not in path.parts]
    lines = {path.relative_to(PACKAGE).as_posix(): code_lines(path) for path in modules}
    largest = max(lines, key=lines.get)
    return f"resnet_kit: {sum(lines.values())} lines of code; most in {largest}: {lines[largest]}"


def code_lines(path: Path) -> int:
    """How many lines hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, documented)]
    strings = [n.body[0] for n in nodes if ast.get_docstring(n)]
    skipped = {i for s in strings for i in range(s.lineno, s.end_lineno + 1)}
    numbered = enumerate(text.splitlines(), 1)
    return sum(i not in skipped and bool(x.split("#")[0].strip()) for i, x in numbered)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures that RESNET_KIT_REAL_DATA names."""
    if not REAL:
        pytest.skip("RESNET_KIT_REAL_DATA is not set, so there are no real pictures to test with")
    return Path(REAL)


@pytest.fixture(scope="session")
def processes():
    """A maker of processes that have imported `PRELOADED`, once for all, and done nothing yet."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    multiprocessing.forkserver.ensure_running()  # before another list is set, as campaigns do
    return context


def take_environment(environment: dict[str, str]) -> None:
    """Take over the test's environment: a forked process has that of its server, which is older."""
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def elsewhere(processes):
    """Call a function in a process of its own, with this one's environment; return its result."""

    def call(function, *arguments):
        given = {"initializer": take_environment, "initargs": (dict(os.environ),)}
        with ProcessPoolExecutor(1, mp_context=processes, **given) as pool:
            return pool.submit(function, *arguments).result()

    return call


class Together:
    """Processes that form one world over gloo and call a function each."""

    def __init__(self, context, size: int, function, arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.running, self.answers = [], []
        for rank in range(size):
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            own |= {"LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
            own |= {"RESNET_KIT_DEVICE": "cpu", "OMP_NUM_THREADS": 1}
            environment = dict(os.environ) | {name: str(value) for name, value in own.items()}
            answer, sender = context.Pipe(duplex=False)
            given = environment, sender, function, arguments
            process = context.Process(target=call_in_world, args=given)
            process.start()
            sender.close()  # so that the end of the process ends the pipe
            self.running.append(process)
            self.answers.append(answer)

    def results(self, seconds: float = 60) -> list:
        """What each returned, or the text of its error; None where it was killed."""
        end = time.monotonic() + seconds
        found = []
        try:
            for answer in self.answers:
                assert answer.poll(max(0, end - time.monotonic())), f"no end after {seconds} s"
                try:
                    found.append(pickle.loads(answer.recv_bytes()))
                except EOFError:
                    found.append(None)
        finally:
            for process in self.running:
                process.join(max(0, end - time.monotonic()))
                process.kill()
        return found


def call_in_world(environment: dict[str, str], sender, function, arguments) -> None:
    take_environment(environment)
    torch.set_num_threads(1)
    usual = multiprocessing.get_all_start_methods()[0]
    multiprocessing.set_start_method(usual, force=True)  # of the workers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = function(*arguments)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    sender.send_bytes(pickle.dumps(answer))  # plain, so that it outlives the process


@pytest.fixture
def together(processes):
    """Start a function in several processes that form a world; see `Together`."""

    def start(function, *arguments, size: int = 2) -> Together:
        return Together(processes, size, function, arguments)

    return start


@pytest.fixture
def data_root(tmp_path, monkeypatch) -> Path:
    """An empty data root."""
    monkeypatch.setenv("RESNET_KIT_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def on_cpu(monkeypatch) -> None:
    """Compute on the CPU where there is a GPU too.

    For what holds there alone: runs that are the same bit for bit, which a GPU does not promise,
    and results that the test itself computes on the CPU.
    """
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cpu")


@pytest.fixture
def no_heif(monkeypatch) -> None:
    """No pillow-heif, wherever it is installed, and nothing of it in Pillow."""
    Image.init()  # now, because what it registers later is lost when the test ends
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for suffix in (".heic", ".heif"):
        monkeypatch.delitem(Image.EXTENSION, suffix, raising=False)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])


@pytest.fixture
def full_mode(monkeypatch) -> None:
    """Normal mode, as in JupyterLab."""
    monkeypatch.delenv("RESNET_KIT_QUICK")


@pytest.fixture
def ctrl_c():
    """A process that Ctrl-C interrupts; one that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    """Write a picture of noise, (width, height) in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures of noise: train 6 + 5, eval 3 + 2, of the classes a and b."""
    counts = {"train": {"a": 6, "b": 5}, "eval": {"a": 3, "b": 2}}
    for split, classes in counts.items():
        for label, (name, count) in enumerate(classes.items()):
            for index in range(count):
                seed = index + 10 * label + 100 * (split == "eval")
                write_picture(tmp_path / "set" / split / name / f"{index}.png", seed)
    return tmp_path / "set"


def same(first: dict, second: dict) -> bool:
    """Say whether two state_dicts are bit for bit one."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def without_times(history) -> list[dict]:
    """The rows of a history but for their seconds, the only thing that may differ."""
    return [{**row, "seconds": 0} for row in history.rows]


def small_net(outputs: int = 3) -> nn.Module:
    """A convolution, BatchNorm, dropout and a linear head, for pictures (N, 3, H, W)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4, outputs),
    )


def tensor_loader(
    count: int = 20, classes: int = 3, *, seed: int = 0, batch_size: int = 8, shuffle: bool = False
) -> DataLoader:
    """Batches of 8x8 noise whose brightness follows the class: learnable."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randn(count, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size, shuffle=shuffle)
