"""Motion that holds together within an object: weighted least squares along the photo's edges.

A real blossom sways as one head. A denoiser trained for minutes agrees with itself over a few cells only, on every
photo alike, so that the left half of the blossom leaves while the right half comes: it wobbles like jelly. Measured
clips say how far neighbours that move agree (`gid.evaluation.metrics.motion_agreement`); the smoothing matches them.

The filter is the weighted least squares of Farbman et al., "Edge-Preserving Decompositions for Multi-Scale Tone and
Detail Manipulation", SIGGRAPH 2008, equation 1, on the coefficients of all bands: u minimises

    sum_p W_p |u_p - s_p|^2  +  strength * sum_pq c_pq |u_p - u_q|^2

over pairs of neighbours. W is the amplitude of the sample s: where it hardly moves it says little, and the surroundings
decide. c is 1 between pixels of one colour that both move, and falls to 0 across the photo's edges and where the
envelope says that things stand still: two lanterns do not sway together because they hang in the same dark.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import splu
from torch import Tensor

from gid.motion.normalization import envelope_of
from gid.motion.spectrum import SpectralVolume

# Distance in RGB at which two colours stop belonging together.
COLOUR = 0.12
# Share of the 98th percentile of the envelope above which a pixel counts as moving.
MOVING = 0.5
MOVING_PERCENTILE = 0.98
# Where a sample has no energy at all, the system still needs a diagonal.
LEAST_WEIGHT = 1e-3
# Of the shapes that a hand pulls at: a pull is many times as long as sway, and what bends there tears here.
HANDLING = 64.0


def cohere(unit: Tensor, envelope: Tensor, photo: Tensor, strength: float) -> Tensor:
    """Smooth a unit volume along the photo's edges; each band keeps its energy, weighted by the envelope.

    Args:
        unit: (..., K, 4, h, w) real coefficients, about unit energy where things move.
        envelope: (h, w) amplitude envelope, any unit, at least 0.
        photo: (3, H, W) in [0, 1], of any size; it is looked at on the grid of the volume.
        strength: of the smoothing, 0 or more; 0 gives ``unit`` back. The distance over which motion agrees grows with
            its root, in cells.

    Returns:
        The smoothed volume, of the shape, device and type of ``unit``. No gradients flow through it.

    Raises:
        ValueError: for a negative strength, or shapes that do not belong together.
    """
    size = unit.shape[-2:]
    if envelope.shape != size or photo.ndim != 3 or unit.ndim < 4:
        raise ValueError(
            f"unit {tuple(unit.shape)}, envelope {tuple(envelope.shape)} and photo {tuple(photo.shape)} do not belong "
            "together; give (..., K, 4, h, w), (h, w) and (3, H, W)"
        )
    if strength == 0:
        return unit
    stiffness = _stiffness(strength, photo, envelope)
    given = unit.detach().float()
    volumes = given.cpu().reshape(-1, *unit.shape[-4:])
    weights = [envelope_of(volume).flatten().double().numpy() + LEAST_WEIGHT for volume in volumes]
    smooth = torch.stack([_solved(volume, weight, stiffness) for volume, weight in zip(volumes, weights, strict=True)])
    smooth = smooth.to(unit.device).view(unit.shape)
    kept = _band_energy(given, envelope) / _band_energy(smooth, envelope).clamp_min(1e-12)
    return (smooth * kept.sqrt()[..., None, None, None]).to(unit.dtype)


def smooth_for_dragging(volume: SpectralVolume, photo: Tensor, strength: float = HANDLING) -> SpectralVolume:
    """The motion of a photo as a hand should meet it: shapes whose amplitude, too, is even within an object.

    For swaying, how far each pixel moves is the envelope's to say. A pull of a tenth of the picture makes much of small
    differences: the blossom that is taken hold of should come along as a whole. Here every coefficient is smoothed by
    the energy above with all weights W at 1, and nothing is scaled back.

    Args:
        volume: of the photo. Measured motion, which has no seed, is real and stays as it is.
        photo: (3, H, W) in [0, 1].
        strength: 0 leaves the volume as it is.

    Returns:
        a volume of the same size, on the CPU if it was changed.

    Raises:
        ValueError: for a negative strength.
    """
    if volume.seed is None or strength == 0:
        return volume
    given = volume.real.detach().float().cpu()
    stiffness = _stiffness(strength, photo, envelope_of(given)[0])
    smooth = _solved(given, np.ones(given.shape[-1] * given.shape[-2]), stiffness)
    return volume.with_coefficients(torch.view_as_complex(smooth.unflatten(1, (2, 2)).movedim(2, -1).contiguous()))


def conductances(photo: np.ndarray, envelope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much two neighbours belong together, from 0 to 1: (h, w - 1) sideways and (h - 1, w) downwards.

    Args:
        photo: (3, h, w) in [0, 1].
        envelope: (h, w).
    """
    top = MOVING * np.quantile(envelope, MOVING_PERCENTILE)
    moving = np.clip(envelope / top, 0, 1) if top > 0 else np.zeros_like(envelope)
    sideways = np.exp(-np.square(photo[:, :, 1:] - photo[:, :, :-1]).sum(0) / COLOUR**2)
    downwards = np.exp(-np.square(photo[:, 1:] - photo[:, :-1]).sum(0) / COLOUR**2)
    return sideways * np.minimum(moving[:, 1:], moving[:, :-1]), downwards * np.minimum(moving[1:], moving[:-1])


def laplacian(sideways: np.ndarray, downwards: np.ndarray) -> sp.csc_array:
    """The graph Laplacian (h w, h w) of a grid: x^T L x = sum of c_pq (x_p - x_q)^2 over neighbours."""
    height, width = sideways.shape[0], downwards.shape[1]
    cells = np.arange(height * width).reshape(height, width)
    one = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    other = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    weight = np.concatenate([sideways.ravel(), downwards.ravel()]).astype(np.float64)
    links = sp.coo_array((weight, (one, other)), shape=(cells.size, cells.size))
    links = links + links.T
    return sp.csc_array(sp.diags_array(links.sum(1)) - links)


def _stiffness(strength: float, photo: Tensor, envelope: Tensor) -> sp.csc_array:
    """The matrix of the second sum above, for a photo (3, H, W) of any size and an envelope (h, w)."""
    if not strength >= 0:
        raise ValueError(f"strength of the coherence is {strength}; it must be 0 (off) or more")
    seen = F.interpolate(photo[None].float(), envelope.shape, mode="bilinear", antialias=True)[0]
    return strength * laplacian(*conductances(seen.cpu().numpy(), envelope.detach().float().cpu().numpy()))


def _solved(volume: Tensor, weight: np.ndarray, stiffness: sp.csc_array) -> Tensor:
    """One volume (K, 4, h, w) smoothed, each cell held to its value by its weight (h w,)."""
    given = volume.flatten(0, 1).flatten(1).double().numpy().T
    solution = splu((sp.diags_array(weight) + stiffness).tocsc()).solve(given * weight[:, None])
    return torch.from_numpy(np.ascontiguousarray(solution.T)).float().view(volume.shape)


def _band_energy(volume: Tensor, envelope: Tensor) -> Tensor:
    """(..., K, 4, h, w) -> (..., K) energy of each band, pixels weighted by their envelope."""
    return (volume.square().sum(-3) * envelope.to(volume)).sum((-1, -2))
