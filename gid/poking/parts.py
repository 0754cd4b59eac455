"""What a hand takes hold of: the parts of a photo that move apart, each with modal coordinates of its own.

In an image-space modal basis a mode is a shape of the whole photo: who pulls one lantern moves all of them. Here every
segment of the motion (`gid.rendering.segments`) swings by itself, and so does the ground. Around a segment the ground
belongs to it more the nearer it lies, so that a stem bends with its blossom from the root up. The memberships of a cell
sum to one: what acts on all parts alike, as wind does, moves the photo as its modes say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from gid.rendering.segments import Segments

PULL_SHARE = 0.3
"""A part is pulled by at most this share of the root of its area: a flame further away than that has left its wick."""
AROUND = 0.75
"""The ground belongs to a part up to this many roots of its area away from it,"""
AROUND_LEAST = 4.0
"""or this many cells."""


@dataclass(frozen=True)
class Parts:
    """Who moves with whom, on a grid of (h, w) cells.

    owners: (h, w) int, the part each cell belongs to or is nearest to, from 1; 0 where there is none. shares: (h, w)
    in [0, 1], how much it belongs to it: 1 inside, less around; the rest belongs to part 0, the ground. limits: (n,)
    how far each part from 1 can be pulled, in fractions of the photo's long side.
    """

    owners: NDArray[Any]
    shares: NDArray[Any]
    limits: NDArray[Any]

    @property
    def count(self) -> int:
        """Number of parts, with the ground."""
        return len(self.limits) + 1

    def at(self, x: float, y: float) -> tuple[int, float]:
        """Owner and share of the cell at a point given in fractions of width and height."""
        height, width = self.owners.shape
        row, column = min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)
        return int(self.owners[row, column]), float(self.shares[row, column])

    def resize(self, height: int, width: int) -> Parts:
        """The same on another grid: each cell is as the one at its middle."""
        rows = ((np.arange(height) + 0.5) / height * self.owners.shape[0]).astype(int)
        columns = ((np.arange(width) + 0.5) / width * self.owners.shape[1]).astype(int)
        return Parts(self.owners[np.ix_(rows, columns)], self.shares[np.ix_(rows, columns)], self.limits)


def find_parts(segments: Segments, aspect: tuple[float, float]) -> Parts | None:
    """The parts of a photo whose width and height over the long side are `aspect`; None where nothing moves apart."""
    labels = segments.labels
    count = len(segments.strength) - 1
    if count < 1 or not labels.any():
        return None
    cells = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    limits = PULL_SHARE * np.sqrt(cells / labels.size * aspect[0] * aspect[1])
    distance, (rows, columns) = distance_transform_edt(labels == 0, return_indices=True)
    owners = labels[rows, columns]
    shares = np.zeros(labels.shape)
    for part in np.unique(owners):
        own = owners == part
        others = (labels > 0) & (labels != part)
        reach = max(AROUND * float(np.sqrt(cells[part - 1])), AROUND_LEAST)
        near = 1 - _smooth((distance - 1) / reach)
        if others.any():
            # Half way between two parts the ground belongs to neither: it would tear there.
            near = near * _smooth(2 * (distance_transform_edt(~others) - distance) / reach)
        shares[own] = np.where(labels == part, 1.0, near)[own]
    return Parts(owners.astype(np.int64), shares, limits)


def _smooth(x: NDArray[Any]) -> NDArray[Any]:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0, 1)
    smooth: NDArray[Any] = t * t * (3 - 2 * t)
    return smooth
