"""Motions that leave out a part of the method, for the rows of the ablation table: each is a real spectral volume.

`still` and `uniform sway` know nothing of the picture. `envelope alone` is what a regression of motion energy gives
without a diffusion model: the right places swing with the mean spectrum of the training clips, every band with one
random phase for the whole picture. `K = n` is the model's own motion (or the measured one) cut after n bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gid.data.videos import Pair
from gid.diffusion.pipeline import GIDPipeline
from gid.motion.spectrum import SpectralVolume

Samples = list[list[SpectralVolume]]  # a list of seeds for each pair
CUTS = (4, 8)


def truncated(volume: SpectralVolume, bands: int) -> SpectralVolume:
    """The volume without its bands from `bands` on; they stay as zeros, so that spectra compare.

    Raises:
        ValueError: fewer than 2 bands (the constant one and one that moves).
    """
    if bands < 2:
        raise ValueError(f"{bands} bands keep no motion; at least 2 are needed")
    coefficients = volume.coefficients.clone()
    coefficients[bands:] = 0
    return volume.with_coefficients(coefficients)


def swaying_in_step(
    energy: Tensor, spectrum: Tensor, image_size: tuple[int, int], seed: int, num_frames: int = 150, fps: float = 30.0
) -> SpectralVolume:
    """Motion of a given energy whose bands each have one random phase and direction for the whole picture.

    Args:
        energy: (h, w) rms displacement, a fraction of sqrt(width * height) of the picture.
        spectrum: (K,) relative amplitudes of the bands; the constant one is left out.
        image_size: (width, height) of the photo in pixels.
        seed: of phases and directions.
        num_frames, fps: of the volume.

    Returns:
        a volume whose isotropic motion energy is `energy`.

    Raises:
        ValueError: a spectrum that does not move.
    """
    shares = spectrum.double().clone()
    shares[0] = 0
    if not float(shares.sum()) > 0:
        raise ValueError("the spectrum has no band that moves")
    shares = shares / (2 * shares.square().sum()).sqrt()
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(3, len(shares), generator=generator, dtype=torch.float64)
    direction = torch.stack([angles[0].cos(), angles[0].sin()], 1)
    phases = torch.polar(torch.ones_like(angles[1:]), angles[1:]).T
    field = (shares[:, None] * direction * phases)[:, :, None, None] * energy.double()
    width, height = image_size
    root = math.sqrt(width * height)
    field = field * torch.tensor([root / width, root / height], dtype=torch.float64)[:, None, None]
    return SpectralVolume(field.to(torch.complex64), fps, num_frames, image_size, "in step", seed)


def predicted_envelope(pipeline: GIDPipeline, photo: Tensor) -> Tensor | None:
    """(h, w) the predicted rms displacement, a fraction of sqrt(width * height); None without an envelope head."""
    columns, rows = pipeline.motion_size(photo.shape[-1], photo.shape[-2])
    with torch.inference_mode(), pipeline._precision():
        _, envelope = pipeline._condition(photo, columns, rows)
    return None if envelope is None else envelope[0, 0].float().cpu()


def ablation_rows(
    pairs: Sequence[Pair],
    sampled: Sequence[Sequence[SpectralVolume]],
    reference: Sequence[Pair],
    envelope: Callable[[Tensor], Tensor | None] | None = None,
    name: str = "model",
) -> Mapping[str, Samples]:
    """Volumes of every row that needs no other weights.

    Args:
        pairs: the clips evaluated.
        sampled: the model's motions of each pair.
        reference: training pairs; their mean spectrum and mean energy are what `still` and the like go by.
        envelope: photo -> envelope map of the model (`predicted_envelope`), if it has one.
        name: the model's.

    Raises:
        ValueError: without training pairs.
    """
    if not reference:
        raise ValueError("ablation rows take their spectrum from training clips, and there are none")
    spectrum = torch.stack([p.volume.band_amplitudes() for p in reference]).mean(0)
    size = pairs[0].volume.coefficients.shape[-2:]
    level = float(torch.stack([p.volume.motion_energy().mean() for p in reference]).mean())
    rows: dict[str, Samples] = {
        "still": [[p.volume.magnify(0.0)] for p in pairs],
        "uniform sway": [
            [swaying_in_step(torch.full(size, level), spectrum, _size(p), seed) for seed in range(len(volumes))]
            for p, volumes in zip(pairs, sampled, strict=True)
        ],
    }
    if envelope is not None:
        maps = [envelope(pair.photo.float() / 255) for pair in pairs]
        rows["envelope alone, bands in step"] = [
            [swaying_in_step(energy, spectrum, _size(pair), seed) for seed in range(len(volumes))]
            for pair, energy, volumes in zip(pairs, maps, sampled, strict=True)
            if energy is not None
        ]
        if len(rows["envelope alone, bands in step"]) != len(pairs):
            del rows["envelope alone, bands in step"]
    for bands in CUTS:
        rows[f"{name}, cut to K = {bands}"] = [[truncated(v, bands) for v in volumes] for volumes in sampled]
    for bands in CUTS:
        rows[f"measured, cut to K = {bands}"] = [[truncated(p.volume, bands)] for p in pairs]
    return rows


def _size(pair: Pair) -> tuple[int, int]:
    return pair.volume.image_size or (pair.photo.shape[2], pair.photo.shape[1])
