"""Motion that holds together within objects: against a general minimiser, and by what it must and must not join."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from gid.evaluation.metrics import agreement_error, motion_agreement
from gid.motion.coherence import (
    COLOUR,
    LEAST_WEIGHT,
    MOVING,
    MOVING_PERCENTILE,
    cohere,
    conductances,
    laplacian,
    smooth_for_dragging,
)
from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import ModalModel


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def grey(height: int, width: int) -> Tensor:
    return torch.full((3, height, width), 0.5)


def test_it_minimises_the_energy_it_names() -> None:
    """The sum of squares is written out pair by pair here and handed to a general minimiser."""
    height, width, strength = 4, 5, 3.0
    unit, photo = (
        noise(0, 3, 4, height, width),
        torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)),
    )
    photo = 0.5 + 0.1 * photo
    envelope = torch.rand(height, width, generator=torch.Generator().manual_seed(2))
    moving = (envelope / (MOVING * torch.quantile(envelope, MOVING_PERCENTILE))).clamp(0, 1).numpy()
    weight = (2 * unit[1:].square().sum((0, 1))).sqrt().numpy() + LEAST_WEIGHT
    sample, colours = unit[1, 2].double().numpy(), photo.double().numpy()

    def energy(flat: np.ndarray) -> float:
        u = flat.reshape(height, width)
        total = float((weight * (u - sample) ** 2).sum())
        for y in range(height):
            for x in range(width):
                for other in ((y, x + 1), (y + 1, x)):
                    if other[0] < height and other[1] < width:
                        apart = ((colours[:, y, x] - colours[:, other[0], other[1]]) ** 2).sum()
                        c = np.exp(-apart / COLOUR**2) * min(moving[y, x], moving[other])
                        total += strength * c * (u[y, x] - u[other]) ** 2
        return total

    expected = minimize(energy, sample.ravel(), method="BFGS", options={"gtol": 1e-9}).x.reshape(height, width)
    found = cohere(unit, envelope, photo, strength)[1, 2].double().numpy()
    # Up to the factor that gives the band its energy back.
    factor = float((found * expected).sum() / (expected * expected).sum())
    assert factor > 1
    np.testing.assert_allclose(found, factor * expected, atol=2e-5)


def test_laplacian_of_a_grid() -> None:
    sideways, downwards = np.random.default_rng(0).random((3, 3)), np.random.default_rng(1).random((2, 4))
    x = np.random.default_rng(2).random((3, 4))
    expected = (sideways * np.diff(x, axis=1) ** 2).sum() + (downwards * np.diff(x, axis=0) ** 2).sum()
    matrix = laplacian(sideways, downwards)
    assert x.ravel() @ (matrix @ x.ravel()) == pytest.approx(expected)
    assert abs(matrix @ np.ones(12)).max() < 1e-12


def test_bands_keep_their_energy_where_things_move() -> None:
    unit, envelope = noise(0, 2, 5, 4, 12, 16), torch.rand(12, 16, generator=torch.Generator().manual_seed(3))
    smooth = cohere(unit, envelope, grey(12, 16), 10.0)
    before, after = ((v.square().sum(-3) * envelope).sum((-1, -2)) for v in (unit, smooth))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=0)
    assert (smooth - unit).abs().max() > 0.5


def test_a_noisy_object_moves_as_one_and_its_neighbour_does_not_follow() -> None:
    height, width = 24, 48
    photo = grey(height, width)
    photo[:, :, : width // 2] = torch.tensor([0.9, 0.2, 0.2])[:, None, None]
    unit = 0.3 * noise(0, 4, 4, height, width)
    unit[1:, :, :, : width // 2] += torch.tensor([0.5, -0.2, 0.3, 0.1])[:, None, None]
    unit[1:, :, :, width // 2 :] -= torch.tensor([0.5, -0.2, 0.3, 0.1])[:, None, None]
    smooth = cohere(unit, torch.ones(height, width), photo, 64.0)

    def agreement(volume: Tensor) -> list[float]:
        return motion_agreement(SpectralVolume.from_real(volume), (1 / 16, 1 / 2))

    assert agreement(unit)[0] < 0.8
    assert agreement(smooth)[0] > 0.9
    assert agreement(smooth)[1] < -0.9, "what is half a picture away belongs to the other object"


def test_a_still_gap_parts_what_has_one_colour() -> None:
    envelope = torch.ones(8, 21)
    envelope[:, 9:12] = 0
    unit = torch.zeros(3, 4, 8, 21)
    unit[1:, 0, :, :10], unit[1:, 0, :, 10:] = 1.0, -1.0
    torch.testing.assert_close(cohere(unit, envelope, grey(8, 21), 1e3), unit, rtol=0, atol=1e-4)
    joined = cohere(unit, torch.ones(8, 21), grey(8, 21), 30.0)[1, 0]
    assert joined[:, 9:11].abs().max() < 0.3 * joined[:, 0].abs().min(), "without the gap the ends pull at the middle"


def test_where_the_sample_is_silent_the_surroundings_decide() -> None:
    unit = torch.ones(3, 4, 9, 9)
    unit[:, :, 4, 4] = 0
    found = cohere(unit, torch.ones(9, 9), grey(9, 9), 1.0)
    assert found[1, 0, 4, 4] > 0.99


def test_each_volume_is_smoothed_by_itself() -> None:
    unit, envelope = noise(0, 2, 4, 4, 8, 12), torch.ones(8, 12)
    together = cohere(unit, envelope, grey(16, 24), 5.0)
    for volume, alone in zip(together, unit, strict=True):
        torch.testing.assert_close(volume, cohere(alone, envelope, grey(16, 24), 5.0), rtol=1e-5, atol=1e-6)


def test_nothing_moves_nothing_breaks() -> None:
    assert not any(part.any() for part in conductances(np.zeros((3, 4, 5)), np.zeros((4, 5))))
    unit = torch.zeros(3, 4, 4, 5)
    assert not cohere(unit, torch.zeros(4, 5), grey(4, 5), 64.0).any()


def test_off_is_the_sample_and_mistakes_are_told() -> None:
    unit = noise(0, 3, 4, 4, 5)
    assert cohere(unit, torch.ones(4, 5), grey(4, 5), 0.0) is unit
    with pytest.raises(ValueError, match="must be 0"):
        cohere(unit, torch.ones(4, 5), grey(4, 5), -1.0)
    with pytest.raises(ValueError, match="do not belong together"):
        cohere(unit, torch.ones(5, 4), grey(4, 5), 1.0)


def blotchy(seed: int | None) -> tuple[SpectralVolume, Tensor]:
    """A disk that sways with uneven amplitude before a still ground, and its photo."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    disk = ((x - 30) ** 2 + (y - 20) ** 2 < 12**2).float()
    photo = 0.2 + 0.6 * disk.expand(3, -1, -1)
    amplitude = disk * (1 + 0.5 * torch.sin(x / 3) * torch.cos(y / 4))
    one = torch.tensor([0.02, 0.004, -0.01, 0.003])[:, None, None] * amplitude
    volume = torch.stack([one / (k + 1) for k in range(6)])
    return SpectralVolume.from_real(volume, image_size=(60, 40), seed=seed), photo


def test_a_pulled_object_comes_along_as_a_whole() -> None:
    volume, photo = blotchy(seed=3)
    inside, outside = photo[0] > 0.5, photo[0] < 0.3

    def moved(of: SpectralVolume) -> np.ndarray:
        model = ModalModel.from_volume(of)
        gains = np.ones(len(model.shapes))
        q = model.displace(np.array([[0.5, 0.5]]), np.array([[0.05, 0.0]]), gains, gains)
        return np.linalg.norm(np.einsum("j,jchw->chw", q, model.shapes).real, axis=0)

    before, after = moved(volume), moved(smooth_for_dragging(volume, photo))
    assert before[inside].std() / before[inside].mean() > 0.2
    assert after[inside].std() / after[inside].mean() < 0.1
    assert after[outside].max() < 1e-6, "what stands still is not dragged along"
    assert after[20, 30] == pytest.approx(before[20, 30], rel=0.1), "the point taken hold of follows the hand"


def test_measured_motion_stays_as_it_was_measured() -> None:
    volume, photo = blotchy(seed=None)
    assert smooth_for_dragging(volume, photo) is volume
    sampled, _ = blotchy(seed=0)
    assert smooth_for_dragging(sampled, photo, 0.0) is sampled
    with pytest.raises(ValueError, match="must be 0"):
        smooth_for_dragging(sampled, photo, -1.0)


def test_agreement_is_the_cosine_of_trajectories_in_pixels() -> None:
    torch.manual_seed(0)
    volume = SpectralVolume(torch.randn(5, 2, 12, 16, dtype=torch.complex64), image_size=(320, 180))
    paths = volume.trajectories(pin_first=False).double() * torch.tensor([320.0, 180.0])[:, None, None]
    paths = (paths - paths.mean(0)).flatten(0, 1).numpy()
    lengths = np.linalg.norm(paths, axis=0)
    moving = lengths > 0.3 * np.quantile(lengths, 0.98)
    cosines = []
    for y in range(12):
        for x in range(16):
            for other in ((y, x + 4), (y + 4, x)):
                if other[0] < 12 and other[1] < 16 and moving[y, x] and moving[other]:
                    cosines.append(paths[:, y, x] @ paths[:, other[0], other[1]] / lengths[y, x] / lengths[other])
    assert motion_agreement(volume, (1 / 4,)) == [pytest.approx(np.mean(cosines), abs=1e-5)]


def test_agreement_asks_only_what_moves() -> None:
    """Two bodies that swing against each other before still ground."""
    field = torch.zeros(4, 2, 8, 40, dtype=torch.complex64)
    field[1:, 0, :, 4:12], field[1:, 0, :, 14:22] = 1, -3
    near, far, further = motion_agreement(SpectralVolume(field), (1 / 40, 1 / 4, 39 / 40))
    assert near == pytest.approx(1)
    assert far == pytest.approx(-1)
    assert math.isnan(further)
    assert agreement_error(SpectralVolume(field), SpectralVolume(field)) == 0
    assert agreement_error(SpectralVolume(field), SpectralVolume(field.abs().to(torch.complex64))) > 0.1
