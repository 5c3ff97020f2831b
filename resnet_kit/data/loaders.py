"""What all data sets have in common: `Loaders`, and orders that follow from seed and epoch."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ..settings import check_count, listed, mixed_seed, wrong


@dataclass(frozen=True, repr=False, eq=False)
class Loaders:
    """Batches of (pictures `(N, C, size, size)` float32 normalised, labels `(N,)` int64) per split.

    `mean` and `std` are what the pictures were normalised with; `files` holds the path of every
    picture by split, in the order of `plain`, or is None for pictures that come from no files.
    """

    train: DataLoader | None
    val: DataLoader | None
    test: DataLoader | None
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: dict[str, tuple[Path, ...]] | None
    unaugmented: DataLoader | None

    def plain(self, split: str = "train") -> DataLoader:
        """Return "train", "val" or "test" in order and unaugmented, as validation sees pictures."""
        found = split_of(self, split)
        return self.unaugmented if split == "train" else found

    def __repr__(self) -> str:
        about = f"{counts_of(self)} pictures of {self.size} px; {listed(self.classes)}"
        loaders = [*splits_of(self).values(), self.unaugmented]
        datasets = [loader.dataset for loader in loaders if loader is not None]
        kept = [found.decoded for found in datasets if getattr(found, "decoded", None) is not None]
        if kept:
            taken = sum(decoded.bytes for decoded in kept)
            about += f"; decoded once, {f'{taken / 1e6:.1f} MB' if taken else 'at the first use'}"
        return f"Loaders({about})"


def splits_of(data) -> dict[str, DataLoader]:
    """Return the loaders of `Loaders` or `Features` by the name of the split, without a None."""
    loaders = {name: getattr(data, name) for name in ("train", "val", "test")}
    return {name: loader for name, loader in loaders.items() if loader is not None}


def split_of(data, name: str) -> DataLoader:
    """Return one of them, or say which there are."""
    splits = splits_of(data)
    if name not in splits:
        raise ValueError(f"no split {name!r}; this data set has: {', '.join(splits)}")
    return splits[name]


def counts_of(data) -> str:
    """Return how many pictures the splits have, in words."""
    return ", ".join(f"{name} {len(x.dataset)}" for name, x in splits_of(data).items())


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order shuffled by (seed, epoch).

    With `weights` `(N,)` it draws each index that often on average, with repetitions, and yields
    (epoch, index, draw), so that each draw of a picture has random numbers of its own. The epoch
    travels with the index, so that workers that live on know it too. It counts up by itself from
    1; `set_epoch` (which `train_and_eval` calls) sets it.
    """

    def __init__(self, count: int, seed: int | None, weights: Tensor | None = None):
        self.count, self.seed, self.weights, self.epoch = count, seed, weights, 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def next_order(self) -> tuple[int, Tensor]:
        """Return the epoch and its order; without seed nothing is shuffled, and the epoch is 0."""
        if self.seed is None:
            return 0, torch.arange(self.count, device="cpu")
        epoch = self.epoch
        self.epoch += 1
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        if self.weights is not None:
            return epoch, self.weights.multinomial(self.count, True, generator=generator)
        return epoch, torch.randperm(self.count, generator=generator, device="cpu")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        epoch, order = self.next_order()
        for draw, index in enumerate(order.tolist()):
            yield (epoch, index) if self.weights is None else (epoch, index, draw)


def check_loader(name: str, loader) -> None:
    """Refuse what is no loader of (inputs, labels) and say what to pass instead."""
    several = hasattr(loader, "train") and hasattr(loader, "val")
    if several or isinstance(loader, type | str) or not hasattr(loader, "__iter__"):
        which = "such as loaders.train or loaders.val (loaders.test is None without a test split)"
        raise wrong(name, loader, f"one loader of (inputs, labels), {which}, or a DataLoader")


def check_loaders(loaders) -> None:
    """Refuse what does not hold the loaders of a whole data set."""
    if not isinstance(loaders, Loaders):
        makers = "image_folders, array_loaders and named_dataset"
        raise wrong("loaders", loaders, f"the Loaders of a whole data set, as of {makers}")


def check_options(batch_size: int, mean, std, channels: int) -> None:
    """Refuse what no loader can work with; grey pictures may be normalised as RGB."""
    check_count("batch_size", batch_size)
    if (mean is None) != (std is None):
        raise ValueError("only one of mean and std is given; expected both or neither")
    if mean is None:
        return
    lengths = {len(mean), len(std)}
    if lengths not in ({channels}, {3}) or not min(std) > 0:
        raise ValueError(
            f"mean {tuple(mean)} and std {tuple(std)} for pictures of {channels} channels; "
            "expected one number each per channel in 0…1, and deviations above 0"
        )


class EpochBatchSampler(EpochSampler):
    """Yields (epoch, indices) batch by batch, shuffled by (seed, epoch), or else in order.

    With `weights` it yields (epoch, indices, draws). A single last picture joins the batch before
    it, because BatchNorm cannot train on one.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int | None = None, weights: Tensor | None = None
    ):
        super().__init__(count, seed, weights)
        self.batch_size = batch_size

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest > 1 or full == 0)

    def __iter__(self) -> Iterator[tuple]:
        epoch, order = self.next_order()
        draws = torch.arange(self.count)
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            batch = epoch, order[start:end]
            yield batch if self.weights is None else (*batch, draws[start:end])


def batch_loader(
    dataset, batch_size: int, *, seed: int | None = None, weights: Tensor | None = None
) -> DataLoader:
    """Return a loader for a data set whose items are whole batches; a seed shuffles it."""
    sampler = EpochBatchSampler(len(dataset), batch_size, seed, weights)
    # A generator of its own: torch's is left alone.
    return DataLoader(dataset, batch_size=None, sampler=sampler, generator=torch.Generator())


class TransformedLoader:
    """Another loader's batches after `transforms`, each from and to (inputs, labels).

    Works around any loader and with torchvision's MixUp and CutMix, whose labels are shares of
    classes `(N, K)`; CrossEntropyLoss takes those too. Their random numbers are torch's own, which
    `train_and_eval` seeds in each epoch.

    >>> train = TransformedLoader(loaders.train, v2.CutMix(num_classes=10))
    """

    def __init__(self, loader, *transforms: Callable):
        self.loader, self.transforms = loader, transforms

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            for transform in self.transforms:
                batch = transform(*batch)
            yield batch

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str):  # dataset, sampler, generator, batch_size, …
        if name == "loader" or name.startswith("__"):  # asked while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)


def balancing_weights(labels) -> Tensor:
    """Return how often each picture must come up, `(N,)`, for all classes to come up equally."""
    labels = torch.as_tensor(labels)
    return 1 / torch.bincount(labels)[labels]


def prepare_worker(worker: int) -> None:
    """Leave a Ctrl-C to the main process, and leave alone what a fork took over from it.

    Without the freeze the worker's garbage collector finds loaders that the main process has just
    dropped, and prints "can only test a child process" for each of their workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    parent = multiprocessing.parent_process()
    if workers_fork() and parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it was killed before torch's own watch over it began


def workers_fork() -> bool:
    """True where a new process is a copy of this one, which takes milliseconds."""
    method = multiprocessing.get_start_method(allow_none=True)
    return (method or multiprocessing.get_all_start_methods()[0]) == "fork"
