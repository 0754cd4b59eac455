"""Which rows a step of training is shown: decided by its number and the seed alone, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

# (step, process, processes) -> this process's part of the batch of that step.
Batches = Callable[[int, int, int], Any]


class Rows(Protocol):
    """A data set: so many rows, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


# Classes rather than closures: loader processes may have to unpickle them.


@dataclass(frozen=True)
class InPasses:
    """The ``size`` rows of each step: passes over all of ``count`` rows, each pass in its own order."""

    count: int
    size: int
    seed: int

    def __call__(self, step: int) -> list[int]:
        """Rows of one step."""
        first = step * self.size
        chosen: list[int] = []
        for number in range(first // self.count, (first + self.size - 1) // self.count + 1):
            order = np.random.default_rng([self.seed, number]).permutation(self.count)
            start, stop = max(first - number * self.count, 0), min(first + self.size - number * self.count, self.count)
            chosen += order[start:stop].tolist()
        return chosen


@dataclass(frozen=True)
class ByWeight:
    """The ``size`` rows of each step, drawn with replacement, each as often as its weight says."""

    weights: Sequence[float]
    size: int
    seed: int

    def __call__(self, step: int) -> list[int]:
        """Rows of one step."""
        chances = np.asarray(self.weights, np.float64)
        generator = np.random.default_rng([self.seed, step])
        chosen: list[int] = generator.choice(len(chances), self.size, p=chances / chances.sum()).tolist()
        return chosen


class RowBatches:
    """Batches of the rows that each step takes of a data set."""

    def __init__(
        self, dataset: Rows, rows: Callable[[int], list[int]], collate: Callable[[list[Any]], Any] = default_collate
    ) -> None:
        """Join them. Raises ValueError if the data set is empty."""
        if not len(dataset):
            raise ValueError("there is nothing to train on: the data set is empty")
        self.dataset, self.rows, self.collate = dataset, rows, collate

    def __call__(self, step: int, process: int, processes: int) -> Any:
        """One process's part of the batch of a step."""
        return self.collate([self.dataset[index] for index in self.rows(step)[process::processes]])


class Steps(Dataset[Any]):
    """Item n is this process's part of the batch of step n, for a loader."""

    def __init__(self, batches: Batches, steps: int, seed: int, process: int, processes: int) -> None:
        self.batches, self.steps, self.seed, self.process, self.processes = batches, steps, seed, process, processes

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        # What a data set draws by torch's or numpy's own generator depends on the step alone, too.
        seed = seed_of(self.seed, step, self.process)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        return self.batches(step, self.process, self.processes)


def seed_of(seed: int, step: int, process: int) -> int:
    """The seed of what is drawn at one step by one process."""
    return seed * 1_000_003 + step + process * 500_000_003
