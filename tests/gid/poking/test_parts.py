"""Parts of a photo: what comes along with a hand, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import PULL_LIMIT, ModalModel
from gid.poking.parts import PULL_SHARE, Parts, find_parts
from gid.poking.simulation import Gesture, Simulation, poke_displacements
from gid.poking.wind import Wind
from gid.rendering.segments import Segments, find_segments

HEIGHT, WIDTH, CELL = 36, 64, 8
ASPECT = (1.0, 0.5625)
BIG, SMALL, GROUND = (0.25, 0.5), (0.75, 0.5), (0.5, 0.85)


def discs() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A large and a small disc on the motion's grid."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    big, small = (np.hypot(x - cx * WIDTH, y - cy * HEIGHT) < r for (cx, cy), r in ((BIG, 8), (SMALL, 4)))
    return big, small


@pytest.fixture(scope="module")
def volume() -> SpectralVolume:
    """Both discs sway in step, the ground a quarter as far, everywhere."""
    big, small = discs()
    share = torch.from_numpy(0.25 + 0.75 * (big | small).astype(np.float32))
    coefficients = torch.zeros(4, 2, HEIGHT, WIDTH, dtype=torch.complex64)
    coefficients[1, 0], coefficients[2, 1] = 0.02 * share, 0.01j * share
    return SpectralVolume(coefficients, fps=30.0, num_frames=60, image_size=(WIDTH * CELL, HEIGHT * CELL))


@pytest.fixture(scope="module")
def parts(volume: SpectralVolume) -> Parts:
    found = find_parts(find_segments(volume.coefficients, WIDTH * CELL, HEIGHT * CELL), ASPECT)
    assert found is not None
    return found


def longest(volume: SpectralVolume, parts: Parts | None, *gestures: Gesture) -> NDArray[np.float32]:
    """(h, w): how far each cell goes at most, in fractions of the width."""
    moved = poke_displacements(volume, gestures=gestures, parts=parts, seconds=1.5, fps=20)
    length: NDArray[np.float32] = torch.hypot(moved[:, 0], moved[:, 1] * ASPECT[1]).amax(0).numpy()
    return length


def test_cells_belong_to_the_disc_they_are_in_or_near(parts: Parts) -> None:
    big, small = discs()
    assert parts.count == 3
    assert len(np.unique(parts.owners[big])) == len(np.unique(parts.owners[small])) == 1
    assert (parts.shares[big | small] == 1).all()
    far = ~(big | small)
    assert (parts.shares[far] < 1 + 1e-12).all()
    assert parts.at(*GROUND)[1] == 0
    step = np.abs(np.diff(parts.shares, axis=1))
    assert step[far[:, 1:] & far[:, :-1]].max() < 0.4  # the ground does not tear


def test_limits_are_a_share_of_the_size(parts: Parts) -> None:
    for disc, at in zip(discs(), (BIG, SMALL), strict=True):
        size = np.sqrt(disc.mean() * ASPECT[0] * ASPECT[1])
        assert parts.limits[parts.at(*at)[0] - 1] == pytest.approx(PULL_SHARE * size)


def test_a_pull_brings_along_what_is_held_and_nothing_else(volume: SpectralVolume, parts: Parts) -> None:
    big, small = discs()
    moved = longest(volume, parts, Gesture(BIG, (0.08, 0.0)))
    assert moved[big].min() > 0.05
    assert not moved[small].any()
    row, column = (int(share * side) for share, side in zip(GROUND[::-1], (HEIGHT, WIDTH), strict=True))
    assert not moved[row, column]
    assert longest(volume, None, Gesture(BIG, (0.08, 0.0)))[small].min() > 0.05  # without parts it does


def test_pulling_the_background_pulls_no_object(volume: SpectralVolume, parts: Parts) -> None:
    big, small = discs()
    moved = longest(volume, parts, Gesture(GROUND, (0.08, 0.0)))
    row, column = (int(share * side) for share, side in zip(GROUND[::-1], (HEIGHT, WIDTH), strict=True))
    assert moved[row, column] > 0.04
    assert not moved[big | small].any()


def test_what_is_small_is_pulled_less_far(volume: SpectralVolume, parts: Parts) -> None:
    big, small = discs()
    limit = float(parts.limits[parts.at(*SMALL)[0] - 1])
    assert limit < PULL_LIMIT
    assert longest(volume, parts, Gesture(SMALL, (0.2, 0.0)))[small].max() <= limit * 1.25
    assert longest(volume, parts, Gesture(SMALL, (0.5 * limit, 0.0)))[small].max() == pytest.approx(limit / 2, rel=0.1)
    assert longest(volume, parts, Gesture(BIG, (0.2, 0.0)))[big].max() > 1.7 * limit


def test_two_hands_pull_two_parts_apart(volume: SpectralVolume, parts: Parts) -> None:
    simulation = Simulation(ModalModel.from_volume(volume, parts=parts))
    simulation.hold(BIG, (0.06, 0.0), pointer=1)
    simulation.hold(SMALL, (-0.01, 0.0), pointer=2)
    simulation.step(1)
    big, small = discs()
    sideways = simulation.displacement()[0]
    assert sideways[big].mean() > 0.05
    assert sideways[small].mean() == pytest.approx(-0.01, abs=0.002)


def test_wind_moves_parts_as_it_moves_the_whole(volume: SpectralVolume, parts: Parts) -> None:
    moved = [poke_displacements(volume, wind=Wind(seed=3), parts=p, seconds=2, fps=10) for p in (None, parts)]
    assert float(moved[0].abs().max()) > 0.02
    assert torch.allclose(moved[0], moved[1], atol=1e-6)


def test_a_pushed_part_swings_alone_and_comes_to_rest(volume: SpectralVolume, parts: Parts) -> None:
    simulation = Simulation(ModalModel.from_volume(volume, parts=parts))
    simulation.poke(BIG, (0.05, 0.0))
    simulation.step(0.2)
    big, small = discs()
    moved = np.abs(simulation.displacement()).max(0)
    assert moved[big].min() > 0.005
    assert not moved[small].any()
    assert not simulation.at_rest()
    simulation.step(60)
    assert simulation.at_rest()


def test_nothing_moves_apart_nothing_is_a_part() -> None:
    labels = np.zeros((4, 6), np.int32)
    assert find_parts(Segments(labels, np.zeros(1, np.float32), np.ones((4, 6), bool)), (1.0, 0.7)) is None
