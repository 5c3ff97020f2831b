"""What all data sets have in common: `Loaders`, and orders that follow from seed and epoch."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from ..settings import check_count, listed, mixed_seed, own_random_numbers, seed_everything, wrong
from ..world import World


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

    BatchNorm cannot train on one picture: where `batch_size` would leave one alone in the last
    batch, it is left out, another one in each epoch.
    """

    def __init__(
        self,
        count: int,
        seed: int | None,
        weights: Tensor | None = None,
        batch_size: int | None = None,
    ):
        self.count, self.seed, self.weights, self.epoch = count, seed, weights, 1
        self.batch_size, self.rank, self.processes = batch_size, 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    @contextmanager
    def divided(self, world: World):
        """Inside, leave every process a part of each epoch, all of one size.

        Process r takes the places r, r + P, r + 2P, … of the order. The last ones, fewer than the
        P processes, are left out: other pictures in each epoch.
        """
        self.rank, self.processes = world.rank, world.size
        try:
            yield
        finally:
            self.rank, self.processes = 0, 1

    @property
    def share(self) -> int:
        """How many places of the order this process takes."""
        return self.count // self.processes

    def next_order(self) -> tuple[int, Tensor, Tensor]:
        """Return the epoch, its order, and the places in it: those of this process.

        Without seed nothing is shuffled, and the epoch is 0.
        """
        places = torch.arange(self.rank, self.share * self.processes, self.processes, device="cpu")
        if self.seed is None:
            return 0, places, places
        epoch = self.epoch
        self.epoch += 1
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        if self.weights is not None:
            order = self.weights.multinomial(self.count, True, generator=generator)
        else:
            order = torch.randperm(self.count, generator=generator, device="cpu")
        return epoch, order[places], places

    def __len__(self) -> int:
        size = self.batch_size
        one_is_left = size is not None and self.share > size and self.share % size == 1
        return self.share - one_is_left

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        epoch, order, places = self.next_order()
        pairs = zip(order.tolist(), places.tolist(), strict=True)
        for index, draw in islice(pairs, len(self)):
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
        super().__init__(count, seed, weights, batch_size)

    def __len__(self) -> int:
        full, rest = divmod(self.share, self.batch_size)
        return full + (rest > 1 or full == 0)

    def __iter__(self) -> Iterator[tuple]:
        epoch, order, draws = self.next_order()
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        for start, end in zip(starts, [*starts[1:], self.share], strict=True):
            batch = epoch, order[start:end]
            yield batch if self.weights is None else (*batch, draws[start:end])


def batch_loader(
    dataset, batch_size: int, *, seed: int | None = None, weights: Tensor | None = None
) -> DataLoader:
    """Return a loader for a data set whose items are whole batches; a seed shuffles it."""
    sampler = EpochBatchSampler(len(dataset), batch_size, seed, weights)
    # A generator of its own: torch's is left alone.
    return DataLoader(dataset, batch_size=None, sampler=sampler, generator=torch.Generator())


class Part:
    """What one of several processes takes of a loader's batches: one in each round, as all do.

    `even`, for training: all take as many. Our own loaders give each process batches of its own,
    and leave out what does not divide; Accelerate fills the last round of another DataLoader with
    pictures from its beginning; of anything else an incomplete round is left out. Once the first
    batch has come, so that the order was drawn alike, each process has random numbers of its own.

    Else, for evaluation: each batch goes to one process, as it is. Those that have none in the last
    round get None; `in_order` puts together what came of the batches.
    """

    def __init__(self, loader, world: World, *, even: bool):
        self.loader, self.world, self.even = loader, world, even
        sampler = getattr(loader, "sampler", None)
        self.sampler = sampler if even and isinstance(sampler, EpochSampler) else None
        self.prepared = None
        if self.sampler is not None and sampler.count < world.size:
            raise ValueError(
                f"{sampler.count} training pictures for {world.size} processes; expected at least "
                "one each: start fewer"
            )
        if self.sampler is None and _can_be_prepared(loader, even):
            from accelerate.data_loader import prepare_data_loader

            with own_random_numbers(0):  # it may draw a seed for the order, the same in all
                prepared = prepare_data_loader(
                    loader, num_processes=world.size, process_index=world.rank, even_batches=even
                )
            self.prepared = prepared.base_dataloader  # Accelerate's own would set another epoch

    def __len__(self) -> int:
        if self.sampler is not None:
            with self.sampler.divided(self.world):
                return len(self.loader)
        if self.prepared is not None and self.even:
            return len(self.prepared)
        full, rest = divmod(len(self.loader), self.world.size)
        return full + (rest > 0 and not self.even)

    def __iter__(self) -> Iterator:
        if not self.even:
            with own_random_numbers(0):  # whatever shuffles does it alike in all processes
                yield from self._rounds()
            return
        for number, batch in enumerate(self._rounds()):
            if number == 0:
                seed_everything(mixed_seed(torch.initial_seed(), self.world.rank))
            yield batch

    def _rounds(self) -> Iterator:
        if self.sampler is not None:
            with self.sampler.divided(self.world):
                yield from self.loader
        elif self.prepared is not None:
            yield from self.prepared
            yield from [None] * (len(self) - len(self.prepared))
        else:
            batches = iter(self.loader)
            while group := list(islice(batches, self.world.size)):
                group += [None] * (self.world.size - len(group))
                if not self.even or None not in group:
                    yield group[self.world.rank]


def _can_be_prepared(loader, even: bool) -> bool:
    """True for what Accelerate divides into batches of which none is lost."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    return type(loader.batch_sampler) is BatchSampler and (even or not loader.drop_last)


def part_of(loader, world: World, *, even: bool):
    """Return what this process takes of a loader, see `Part`; a process alone takes all of it."""
    return loader if world.size == 1 else Part(loader, world, even=even)


def in_order(batches: list, world: World) -> list:
    """Return what came of all batches of an uneven `Part`, in every process, as one would."""
    rounds = zip_longest(*world.gather(batches))
    return [batch for found in rounds for batch in found if batch is not None]


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
