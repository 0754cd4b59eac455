"""Numbers that compare predicted with measured motion, and that judge a loop. Pure functions, no model, no files.

Energy maps are `SpectralVolume.motion_energy()`: root mean square displacement over time, in fractions of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from gid.motion.spectrum import SpectralVolume

BACKGROUND_SHARE = 0.1
BACKGROUND_PERCENTILE = 0.95
INSIDE_SHARE = 0.3
INSIDE_CONFIDENCE = 0.1
INSIDE_CELLS = 40
AGREEMENT_DISTANCES = (1 / 56, 1 / 28, 1 / 14, 1 / 7, 2 / 7)
AGREEMENT_SHARE = 0.3
AGREEMENT_PERCENTILE = 0.98


def motion_energy_correlation(predicted: Tensor, measured: Tensor) -> float:
    """Pearson correlation of two energy maps (h, w); the predicted one is resampled to the measured one's size.

    A map without variation says nothing about where motion is: its correlation counts as 0.
    """
    x = _matched(predicted, measured).flatten().double()
    y = measured.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    scale = float(x.norm() * y.norm())
    # Rounding leaves a constant map a variation of about 1e-16 of its value.
    if scale <= 1e-12 * float(_matched(predicted, measured).abs().max() * measured.abs().max()) * x.numel():
        return 0.0
    return float(x @ y) / scale


def background_mask(measured: Tensor) -> Tensor:
    """(h, w) bool: where measured energy is under 10 % of its 95th percentile."""
    top = torch.quantile(measured.flatten().double(), BACKGROUND_PERCENTILE)
    return measured.double() < BACKGROUND_SHARE * top


def background_leakage(predicted: Tensor, measured: Tensor) -> float:
    """Mean predicted energy where the measured one is near zero, over the mean elsewhere; 0 is best, 1 is chance.

    NaN if the picture has no still region, or nothing is predicted to move elsewhere.
    """
    still = background_mask(measured)
    values = _matched(predicted, measured).double()
    if not bool(still.any()) or bool(still.all()):
        return math.nan
    elsewhere = float(values[~still].mean())
    return float(values[still].mean()) / elsewhere if elsewhere > 0 else math.nan


def band_differences(predicted: Tensor, measured: Tensor, floor: float = 0.01) -> Tensor:
    """(K,) level difference in dB, 20 log10(predicted / measured), of two amplitude spectra (K,).

    Both are held above `floor` times the largest measured band (0.01: 40 dB below it), so that a band that is empty in
    one clip does not decide.
    """
    least = floor * float(measured.max())
    if least <= 0:
        return torch.full_like(measured, math.nan, dtype=torch.float64)
    return 20 * torch.log10(predicted.double().clamp_min(least) / measured.double().clamp_min(least))


def log_spectral_distance(predicted: Tensor, measured: Tensor) -> float:
    """Root mean square over the moving bands k >= 1 of `band_differences`, in dB, of amplitude spectra (K,)."""
    return float(band_differences(predicted[1:], measured[1:]).square().mean().sqrt())


def spectral_shape_distance(predicted: Tensor, measured: Tensor) -> tuple[float, float]:
    """The log-spectral distance that is left after the best single factor a clip, in dB, and that factor.

    A prediction that is too strong or too weak misses every band by the same number of decibels; what is left tells
    whether the bands stand in the right proportion. Factors from 1/100 to 100 are tried, a quarter of a decibel apart.

    Returns:
        (distance in dB, factor); (NaN, NaN) if the measured one is empty, (its distance, NaN) if the predicted one is.
    """
    p, m = predicted[1:].double(), measured[1:].double()
    if not float(m.max()) > 0:
        return math.nan, math.nan
    if not float(p.max()) > 0:
        return log_spectral_distance(predicted, measured), math.nan
    gains = 10 ** (torch.arange(-160, 161, dtype=torch.float64) / 80)
    # A first guess by the sums, so that any two spectra come within reach of the factors tried.
    gains = gains * float(m.sum() / p.sum())
    distances = torch.tensor([float(band_differences(p * float(g), m).square().mean().sqrt()) for g in gains])
    best = int(distances.argmin())
    return float(distances[best]), float(gains[best])


def direction_agreement(predicted: SpectralVolume, measured: SpectralVolume) -> float:
    """Mean cos(2 angle) between the main axes of motion, weighted by how strongly the measured one has an axis.

    1: same axes everywhere; 0: chance; -1: perpendicular. Angles are those of the picture (`image_size`, or the maps').
    """
    height, width = measured.coefficients.shape[-2:]
    size = measured.image_size or (width, height)
    p = _axis(predicted.resize(height, width), size)
    m = _axis(measured, size)
    # (c, s) = (xx - yy, 2 xy) is the doubled-angle vector of the main axis, its length the axis's excess power.
    lengths = torch.linalg.vector_norm(p, dim=0) * torch.linalg.vector_norm(m, dim=0)
    cosine = torch.where(lengths > 0, (p * m).sum(0) / lengths.clamp_min(1e-300), 0.0)
    weight = torch.linalg.vector_norm(m, dim=0)
    total = float(weight.sum())
    return float((cosine * weight).sum()) / total if total > 0 else math.nan


def coherence_length(volume: SpectralVolume, threshold: float = math.exp(-1)) -> float:
    """Distance, as a fraction of the image width, at which neighbours' motions stop resembling each other.

    The normalised correlation C(d) = Re sum_p <S(p), S(p+d)> / sum_p |S(p)| |S(p+d)| over bands k >= 1, averaged over
    horizontal and vertical shifts of d cells, falls below 1/e there (linearly interpolated). If it never does, the
    longest shift tried (half the shorter side). Cells are taken as square, as in a volume of the picture's aspect.
    """
    field = volume.coefficients[1:].flatten(0, 1)
    rows, columns = field.shape[-2:]
    previous = 1.0
    longest = max(1, min(rows, columns) // 2)
    for distance in range(1, longest + 1):
        pairs = (
            (field[:, :, :-distance], field[:, :, distance:]),
            (field[:, :-distance], field[:, distance:]),
        )
        product = sum(float((a * b.conj()).real.sum()) for a, b in pairs)
        size = sum(float((_length(a) * _length(b)).sum()) for a, b in pairs)
        value = product / size if size > 0 else 0.0
        if value < threshold:
            return (distance - 1 + (previous - threshold) / (previous - value)) / columns
        previous = value
    return longest / columns


def motion_agreement(volume: SpectralVolume, distances: Sequence[float] = AGREEMENT_DISTANCES) -> list[float]:
    """How alike pixels move that are some way apart and both move: 1 as one body, 0 unrelated, -1 against each other.

    The mean over pairs of pixels of the cosine between their trajectories, <u_p, u_q> / |u_p| |u_q| over time, about
    their means, in pixels of the picture (`image_size`, or the maps'). Unlike `coherence_length` it asks only what
    moves (over 0.3 of the 98th percentile of energy), and how much does not count: a blossom that wobbles like jelly
    shows, however still its background.

    Args:
        volume: the motion.
        distances: fractions of the width, of horizontal and of vertical pairs alike; cells are taken as square.

    Returns:
        one number a distance; NaN where fewer than 20 pairs are left.
    """
    rows, columns = volume.coefficients.shape[-2:]
    width, height = volume.image_size or (columns, rows)
    scale = torch.tensor([width, height], device=volume.coefficients.device)[:, None, None]
    moving = torch.view_as_real(volume.coefficients[1:] * scale).movedim(-1, 0).flatten(0, 2)
    length = moving.square().sum(0).sqrt()
    counts = length > AGREEMENT_SHARE * torch.quantile(length.flatten(), AGREEMENT_PERCENTILE)
    unit = moving / length.clamp_min(1e-30)
    found = []
    for distance in distances:
        d = max(1, round(distance * columns))
        cosines = []
        for dim in (-1, -2):
            size = unit.shape[dim]
            if d < size:
                a, b = (unit.narrow(dim, start, size - d) for start in (0, d))
                both = counts.narrow(dim, 0, size - d) & counts.narrow(dim, d, size - d)
                cosines.append((a * b).sum(0)[both])
        found.append(float(torch.cat(cosines).mean()) if sum(map(len, cosines)) >= 20 else math.nan)
    return found


def agreement_error(predicted: SpectralVolume, measured: SpectralVolume) -> float:
    """Mean absolute difference of `motion_agreement` over the distances that both have; NaN if they share none."""
    pairs = zip(motion_agreement(predicted), motion_agreement(measured), strict=True)
    differences = [abs(p - m) for p, m in pairs if not math.isnan(p) and not math.isnan(m)]
    return sum(differences) / len(differences) if differences else math.nan


def seam_ratio(sequence: Tensor) -> float:
    """Step across the wrap over the median interior step of a loop (N, ...), N >= 3; steps are mean |difference|.

    1 is seamless. 0 if nothing moves at all; infinite if only the wrap moves. Displacements and rendered frames alike.

    Raises:
        ValueError: for fewer than 3 frames.
    """
    if sequence.shape[0] < 3:
        raise ValueError(f"a loop of {sequence.shape[0]} frames has no interior; at least 3 are needed")
    values = sequence.double() if sequence.is_floating_point() else sequence.to(torch.float64)
    steps = (values[1:] - values[:-1]).abs().reshape(len(values) - 1, -1).mean(1)
    wrap = float((values[0] - values[-1]).abs().mean())
    interior = float(steps.quantile(0.5))
    if interior == 0:
        return 0.0 if wrap == 0 else math.inf
    return wrap / interior


def diversity(volumes: Sequence[SpectralVolume]) -> float:
    """Mean over pairs of rms(S_a - S_b) / sqrt(rms(S_a) rms(S_b)), bands k >= 1.

    0: every seed gives the same motion; sqrt(2): unrelated motions of one strength. NaN for fewer than two volumes.
    """
    ratios = []
    for a, b in combinations(volumes, 2):
        x, y = a.coefficients[1:], b.coefficients[1:]
        scale = math.sqrt(float(x.abs().square().mean().sqrt()) * float(y.abs().square().mean().sqrt()))
        ratios.append(float((x - y).abs().square().mean().sqrt()) / scale if scale > 0 else 0.0)
    return sum(ratios) / len(ratios) if ratios else math.nan


def temporal_sharpness(frames: Tensor) -> Tensor:
    """(N,) mean gradient magnitude of each frame (N, 3, H, W) over that of frame 0; under 1 is blurrier."""
    grey = frames.double().mean(1)
    across = (grey[:, :-1, 1:] - grey[:, :-1, :-1]).square()
    down = (grey[:, 1:, :-1] - grey[:, :-1, :-1]).square()
    gradient = (across + down).sqrt().mean((1, 2))
    return gradient / gradient[0].clamp_min(1e-12)


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]; infinite if equal."""
    error = float((image.double() - reference.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def _matched(predicted: Tensor, measured: Tensor) -> Tensor:
    if predicted.ndim != 2 or measured.ndim != 2:
        raise ValueError(f"energy maps are {tuple(predicted.shape)} and {tuple(measured.shape)}; both must be (h, w)")
    if predicted.shape == measured.shape:
        return predicted
    shrinks = predicted.numel() > measured.numel()
    return F.interpolate(
        predicted[None, None].float(), measured.shape, mode="bilinear", align_corners=False, antialias=shrinks
    )[0, 0]


def _axis(volume: SpectralVolume, size: tuple[int, int]) -> Tensor:
    """(2, h, w) doubled-angle vector of the axis of motion, from the 2x2 covariance over time, in pixels squared."""
    moving = volume.coefficients[1:].to(torch.complex128)
    x, y = moving[:, 0] * size[0], moving[:, 1] * size[1]
    return torch.stack([(x.abs() ** 2 - y.abs() ** 2).sum(0), 2 * (x * y.conj()).real.sum(0)])


def _length(field: Tensor) -> Tensor:
    return field.abs().square().sum(0).sqrt()


def weighted_correlation(predicted: Tensor, measured: Tensor, confidence: Tensor) -> float:
    """Pearson correlation of log(1 + energy / mean), cells counted by how far flow can be believed there.

    Args:
        predicted: (h, w) energy, resampled to the measured one's size.
        measured: (h, w) energy.
        confidence: (h, w) in [0, 1].
    """
    return _weighted(_matched(predicted, measured), measured, confidence + 1e-3)


def inside_correlation(predicted: Tensor, measured: Tensor, confidence: Tensor) -> float:
    """:func:`weighted_correlation` of what moves alone: over 0.3 of the 95th percentile, confidence over 0.1.

    NaN where fewer than 40 cells are left.
    """
    moving = measured > INSIDE_SHARE * torch.quantile(measured.flatten().double(), BACKGROUND_PERCENTILE)
    weight = confidence * moving * (confidence > INSIDE_CONFIDENCE)
    if int((weight > 0).sum()) < INSIDE_CELLS:
        return math.nan
    return _weighted(_matched(predicted, measured), measured, weight)


def _weighted(predicted: Tensor, measured: Tensor, weight: Tensor) -> float:
    share = weight.double() / weight.double().sum()
    a, b = ((m.double() / m.double().mean().clamp_min(1e-12)).log1p() for m in (predicted, measured))
    a, b = a - (share * a).sum(), b - (share * b).sum()
    scale = float(((share * a * a).sum() * (share * b * b).sum()).sqrt())
    return float((share * a * b).sum()) / scale if scale > 1e-12 else 0.0
