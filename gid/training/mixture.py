"""Several training sets drawn from by share: scenes and the few real clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, WeightedRandomSampler

from foundation.batches import ByWeight, RowBatches
from foundation.training import TrainingConfig


@dataclass(frozen=True)
class MixtureRunConfig(TrainingConfig):
    """A run on several prepared training sets.

    Attributes:
        data: folders of prepared sets, scenes and clips.
        shares: how often a row comes from each of them.
        exclude: names of scenes left out of all of them.
    """

    data: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    exclude: tuple[str, ...] = ()


class NamedRows(Protocol):
    """A data set whose rows belong to named scenes."""

    names: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


class Mixture(ConcatDataset[dict[str, Tensor]]):
    """Data sets one after the other; each gets its share of the rows drawn, and each name in it as much as another."""

    def __init__(self, parts: Sequence[NamedRows], shares: Sequence[float]) -> None:
        """Join ``parts``.

        Raises:
            ValueError: unless there is one positive share for each part.
        """
        if not parts or len(parts) != len(shares) or min(shares) <= 0:
            raise ValueError(f"{len(parts)} data sets and shares {tuple(shares)}; give one positive share for each set")
        super().__init__(cast("Sequence[Dataset[dict[str, Tensor]]]", parts))
        self.weights: list[float] = []
        for part, share in zip(parts, shares, strict=True):
            counts = Counter(part.names)
            self.weights += [share / len(counts) / counts[name] for name in part.names]

    def sampler(self, rows: int) -> WeightedRandomSampler:
        """Draws ``rows`` rows by share, with replacement."""
        return WeightedRandomSampler(self.weights, rows)

    def batches(self, config: TrainingConfig) -> RowBatches:
        """The rows of each step of a run, drawn by share."""
        return RowBatches(self, ByWeight(self.weights, config.batch_size, config.seed))
