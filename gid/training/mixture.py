"""Several training sets drawn from by share: scenes and the few real clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, WeightedRandomSampler

from gid.training.common import RunConfig


@dataclass(frozen=True)
class MixtureRunConfig(RunConfig):
    """A run on several prepared training sets.

    Attributes:
        data: folders of prepared sets, scenes and clips.
        shares: how often a row comes from each of them.
        exclude: names of scenes left out of all of them.
    """

    data: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    exclude: tuple[str, ...] = ()


class Mixture(ConcatDataset[dict[str, Tensor]]):
    """Data sets one after the other, with weights that give each its share of the rows drawn."""

    def __init__(self, parts: Sequence[Dataset[dict[str, Tensor]]], shares: Sequence[float]) -> None:
        """Join ``parts``.

        Raises:
            ValueError: unless there is one positive share for each part.
        """
        if not parts or len(parts) != len(shares) or min(shares) <= 0:
            raise ValueError(f"{len(parts)} data sets and shares {tuple(shares)}; give one positive share for each set")
        super().__init__(parts)
        sizes = [len(part) for part in parts]  # type: ignore[arg-type]
        self.weights = [share / size for size, share in zip(sizes, shares, strict=True) for _ in range(size)]

    def sampler(self, rows: int) -> WeightedRandomSampler:
        """Draws ``rows`` rows by share, with replacement."""
        return WeightedRandomSampler(self.weights, rows)
