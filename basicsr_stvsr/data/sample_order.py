"""The order of the training samples, and their random augmentation.

Both depend only on the seed and on the position of a sample in an endless stream. They do not depend on the number of
processes and workers, or on earlier random draws. Resumed training therefore continues exactly.
"""
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler


class SizedDataset(Protocol):
    """A data set with a length, ours or BasicSR's."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class BuiltDataset(SizedDataset, Protocol):
    """A data set built from its options, ours or BasicSR's."""

    opt: dict[str, Any]


class SeededIndex(int):
    """The index of a sample, with the seed of its random parts: crop, flips, noise."""

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]  # to pickle it for a worker; int has one
        return int(self), self.seed


class SampleStream(Sampler[list[SeededIndex]]):
    """Endless batches of one process, epoch after epoch, each epoch in a new order.

    Batch k of all processes together holds the samples k n to (k + 1) n - 1 of the stream, with n = batch_size *
    world_size, for any world_size. A batch may span two epochs.

    Args:
        num_samples: samples of the data set.
        batch_size: samples of a batch of this process.
        rank, world_size: number of this process, and number of processes.
        seed: seed of the order and of the samples.
        enlarge_ratio: number of times that an epoch repeats every sample, as BasicSR's dataset_enlarge_ratio.
        shuffle: False: keep the order of the data set.
        start: number of samples that all processes together have already seen.

    Attributes:
        global_batch: samples of a batch of all processes together.
        epoch_length: samples of an epoch.
    """

    def __init__(self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1, seed: int = 0,
                 enlarge_ratio: float = 1, shuffle: bool = True, start: int = 0):
        self.num_samples, self.batch_size, self.rank, self.world_size = num_samples, batch_size, rank, world_size
        self.global_batch = batch_size * world_size
        self.epoch_length = int(num_samples * enlarge_ratio)
        self.seed, self.shuffle, self.start = seed, shuffle, start

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        order = lru_cache(maxsize=2)(self.epoch_order)
        position = self.start
        while True:
            end = position + self.global_batch
            yield [self.sample(place, order) for place in range(position + self.rank, end, self.world_size)]
            position = end

    def epoch_order(self, epoch: int) -> np.ndarray:
        order = np.arange(self.epoch_length)
        return np.random.default_rng((self.seed, epoch)).permutation(order) if self.shuffle else order

    def sample(self, place: int, order: Any) -> SeededIndex:
        epoch, offset = divmod(place, self.epoch_length)
        # One number more than for the order of an epoch, so that the two never share a seed.
        seed = int(np.random.SeedSequence((self.seed, place, 1)).generate_state(1)[0])
        return SeededIndex(order(epoch)[offset] % self.num_samples, seed)


class SeededDataset(Dataset[Any]):
    """Any data set, ours or BasicSR's; the seed of an index determines what is random in its sample."""

    metainfo: dict[str, Any]  # set by `openmmlab.data`

    def __init__(self, dataset: SizedDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: SeededIndex) -> Any:
        with seeded(index.seed):
            return self.dataset[int(index)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch (on the CPU) temporarily, and restore their states afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
