"""FID, KID, FVD and DTFVD: distances between the features of real and of generated videos.

The networks are the user's: TorchScript files given by path (Inception for FID and KID, I3D trained on Kinetics for
FVD, I3D trained on the Dynamic Textures Database for DTFVD), or features computed elsewhere as .npy. Nothing is
downloaded.

Protocol of the paper (section 6): frames of 256x128, the centre of the video; FID and KID over all frames; FVD and
DTFVD over windows of 16 and of 32 frames; and FID and DTFVD over sliding windows of 30 and of 16 frames, which tells
whether videos get worse over time. How far windows lie apart is not stated there; here it is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.video import read_video
from gid.data.videos import clips_in

PAPER_SIZE = (256, 128)
Scaling = Literal["uint8", "unit", "signed"]
Network = Callable[[Tensor], Tensor]


# -- distances ----------------------------------------------------------------------------------------------------


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the Gaussians through features (N, D) and (M, D).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    complex rounding errors, and it holds for singular covariances.

    Raises:
        ValueError: fewer than two samples on a side, or features of different sizes.
    """
    x, y = _checked(real, generated)
    mean = (x.mean(0) - y.mean(0)).square().sum()
    c1, c2 = _covariance(x), _covariance(y)
    root = _root(c1)
    roots = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    return max(0.0, float(mean + c1.trace() + c2.trace() - 2 * roots))


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """KID: unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, over all samples.

    May be slightly negative where the two agree.

    Raises:
        ValueError: fewer than two samples on a side, or features of different sizes.
    """
    x, y = _checked(real, generated)
    n, m = len(x), len(y)
    own = [_kernel(part, part) for part in (x, y)]
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in own]
    return float(within[0] + within[1] - 2 * _kernel(x, y).sum() / (n * m))


def kernel_distance_of_subsets(
    real: Tensor, generated: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID as it is reported: mean and standard deviation over random subsets of ``size``, or of all there are."""
    x, y = _checked(real, generated)
    size = min(size, len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    values = [
        kernel_distance(
            x[torch.randperm(len(x), generator=generator)[:size]], y[torch.randperm(len(y), generator=generator)[:size]]
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _checked(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"features are {tuple(real.shape)} and {tuple(generated.shape)}; both must be (N, D) of one D")
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"{len(real)} real and {len(generated)} generated samples; a distribution needs at least 2")
    return real.double(), generated.double()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


# -- videos to what networks take ---------------------------------------------------------------------------------


def centre(frames: Tensor, size: tuple[int, int] = PAPER_SIZE) -> Tensor:
    """Frames (N, 3, H, W) in [0, 1], scaled to cover ``size`` (width, height) and cut to its centre."""
    width, height = size
    scale = max(width / frames.shape[-1], height / frames.shape[-2])
    covering = (max(height, round(frames.shape[-2] * scale)), max(width, round(frames.shape[-1] * scale)))
    if covering != tuple(frames.shape[-2:]):
        frames = F.interpolate(frames, covering, mode="bilinear", antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return frames[..., top : top + height, left : left + width].clamp(0, 1)


def windows(frames: Tensor, length: int, stride: int) -> Tensor:
    """(N, ...) -> (n, length, ...): every window of ``length`` frames that starts ``stride`` after the last one.

    Raises:
        ValueError: the video is shorter than a window, or the stride is not positive.
    """
    if stride < 1 or length < 1 or len(frames) < length:
        raise ValueError(f"{len(frames)} frames, windows of {length}, {stride} apart: there is no such window")
    return torch.stack([frames[start : start + length] for start in range(0, len(frames) - length + 1, stride)])


@dataclass(frozen=True)
class Features:
    """A feature network and what it takes.

    Attributes:
        network: a batch of pictures (B, 3, H, W) or clips (B, 3, T, H, W) -> features (B, D).
        size: side of the square it sees, or None for the pictures as they are.
        scaling: ``uint8`` 0 to 255, ``unit`` [0, 1] or ``signed`` [-1, 1].
        batch: how many at once.
    """

    network: Network
    size: int | None = None
    scaling: Scaling = "signed"
    batch: int = 8

    @classmethod
    def load(
        cls,
        path: str | Path,
        size: int | None = None,
        scaling: Scaling = "signed",
        batch: int = 8,
        device: str | torch.device = "cpu",
    ) -> Features:
        """From a TorchScript file. A ``return_features`` argument of its forward, which usual files have, is set.

        Raises:
            ValueError: no such file, or not TorchScript.
        """
        try:
            script = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not a TorchScript file: save the network with torch.jit.save") from error
        options: dict[str, Any] = {}
        if any(argument.name == "return_features" for argument in script.forward.schema.arguments):
            options["return_features"] = True
        return cls(lambda x: script(x.to(device), **options), size, scaling, batch)

    def of_pictures(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, H, W) in [0, 1] -> features (N, D)."""
        return self._of(frames, lambda part: self._scaled(part))

    def of_clips(self, clips: Tensor) -> Tensor:
        """Clips (N, T, 3, H, W) in [0, 1] -> features (N, D)."""

        def prepared(part: Tensor) -> Tensor:
            flat = self._scaled(part.flatten(0, 1))
            return flat.unflatten(0, part.shape[:2]).movedim(2, 1)

        return self._of(clips, prepared)

    @torch.no_grad()
    def _of(self, values: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [self.network(prepare(values[i : i + self.batch])) for i in range(0, len(values), self.batch)]
        return torch.cat([part.flatten(1).float().cpu() for part in parts])

    def _scaled(self, frames: Tensor) -> Tensor:
        if self.size is not None:
            frames = F.interpolate(frames, (self.size, self.size), mode="bilinear", antialias=True).clamp(0, 1)
        if self.scaling == "uint8":
            return frames.mul(255).round().to(torch.uint8)
        return frames if self.scaling == "unit" else frames * 2 - 1


def read_videos(folder: str | Path) -> list[Tensor]:
    """Every video of a folder at the paper's size, (N, 3, 128, 256) in [0, 1], by name.

    Raises:
        ValueError: a folder without videos.
    """
    return [
        centre(torch.from_numpy(read_video(path)[0]).movedim(-1, 1).float() / 255) for path in sorted(clips_in(folder))
    ]


# -- the protocol -------------------------------------------------------------------------------------------------


def picture_distances(real: Iterable[Tensor], generated: Iterable[Tensor], network: Features) -> dict[str, float]:
    """FID and KID over all frames of videos (N, 3, H, W) in [0, 1]."""
    x, y = (torch.cat([network.of_pictures(centre(video)) for video in videos]) for videos in (real, generated))
    mean, deviation = kernel_distance_of_subsets(x, y)
    return {"FID": frechet_distance(x, y), "KID": mean, "KID deviation": deviation}


def video_distances(
    real: Iterable[Tensor],
    generated: Iterable[Tensor],
    network: Features,
    name: str = "FVD",
    lengths: Sequence[int] = (16, 32),
    stride: int = 4,
) -> dict[str, float]:
    """FVD (or DTFVD, by the network) over windows of each length."""
    sides = [[centre(video) for video in videos] for videos in (real, generated)]
    distances = {}
    for length in lengths:
        x, y = (torch.cat([network.of_clips(windows(video, length, stride)) for video in side]) for side in sides)
        distances[f"{name}{length}"] = frechet_distance(x, y)
    return distances


def sliding_distances(
    real: Sequence[Tensor], generated: Sequence[Tensor], network: Features, length: int, clips: bool
) -> list[float]:
    """Fréchet distance within each window of ``length`` frames after the photo, to the end of the shortest video.

    The t-th number compares the real videos' t-th windows with the generated videos' t-th: how quality changes over
    time. Windows follow one another without overlap. ``clips``: the network takes windows (DTFVD), else frames (FID).

    Raises:
        ValueError: if the shortest video is shorter than one window.
    """
    shortest = min(len(video) for video in (*real, *generated))
    if shortest < length:
        raise ValueError(f"the shortest video has {shortest} frames; windows of {length} do not fit")
    sides = [[centre(video) for video in videos] for videos in (real, generated)]
    results = []
    for start in range(0, shortest - length + 1, length):
        parts = [torch.stack([video[start : start + length] for video in side]) for side in sides]
        found = [network.of_clips(part) if clips else network.of_pictures(part.flatten(0, 1)) for part in parts]
        results.append(frechet_distance(*found) if min(map(len, found)) > 1 else math.nan)
    return results
