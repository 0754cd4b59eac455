"""Loop and time maths against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gid.motion.loops import evaluate, loop_basis, loop_cycles, plain_basis, time_basis
from gid.motion.spectrum import SpectralVolume


def make_volume(bands: int = 16, size: tuple[int, int] = (6, 8), seed: int = 0) -> SpectralVolume:
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(bands, 4, *size, generator=generator) * 0.01
    return SpectralVolume.from_real(real / torch.arange(1, bands + 1).view(-1, 1, 1, 1), fps=30.0, num_frames=150)


def test_the_natural_length_leaves_every_band_as_it_is():
    frequencies = torch.arange(16) * 0.2
    cycles, gain = loop_cycles(frequencies, 150, 30.0, 1.0)
    assert torch.equal(cycles, torch.arange(16, dtype=torch.float64))
    torch.testing.assert_close(gain[1:], torch.ones(15, dtype=torch.float64), atol=1e-6, rtol=0)
    assert gain[0] == 0


def test_short_loops_keep_velocities():
    frequencies = torch.tensor([0.0, 0.2, 0.4, 3.0])
    cycles, gain = loop_cycles(frequencies, 30, 30.0, 1.0)  # one second: multiples of 1 Hz
    assert cycles.tolist() == [0, 1, 1, 3]
    torch.testing.assert_close(gain, torch.tensor([0, 0.2, 0.4, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_plain_continuation_is_the_inverse_transform():
    volume = make_volume()
    expected = volume.displacement(torch.arange(40) * 0.5 * 30 / 24)
    result = evaluate(time_basis(volume, 40, 24.0, 0.5, loop=False), volume.coefficients)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-4)


def test_a_loop_of_the_natural_length_is_the_volume_from_another_moment():
    volume = make_volume()
    motion = evaluate(time_basis(volume, 150, 30.0, 1.0, loop=True), volume.coefficients)
    plain = volume.displacement(torch.arange(150))
    starts = [torch.allclose(motion, (plain - plain[s]).roll(-s, 0), atol=1e-5) for s in range(150)]
    assert sum(starts) == 1


@settings(max_examples=40, deadline=None)
@given(
    num_frames=st.integers(2, 400),
    fps=st.floats(1, 60),
    speed=st.floats(0.1, 4),
    seed=st.integers(0, 5),
)
def test_every_loop_starts_at_the_photo_and_closes(num_frames, fps, speed, seed):
    volume = make_volume(seed=seed)
    motion = evaluate(time_basis(volume, num_frames, fps, speed, loop=True), volume.coefficients)
    assert torch.all(motion[0] == 0)
    step = (motion - motion.roll(1, 0)).norm(dim=1).mean((1, 2))  # step[0] leads across the wrap
    assert step[0] <= step[1:].median() * 1.0001 + 1e-9
    # One frame further, the basis is the first again.
    longer = loop_basis(volume.frequencies, num_frames, fps, speed)
    cycles, gain = loop_cycles(volume.frequencies, num_frames, fps, speed)
    after = torch.polar(gain, 2 * math.pi * cycles)
    assert (after - longer[0]).abs().max() < 1e-9


@pytest.mark.parametrize("speed", [0.1, 0.7, 1.0, 4.0])
def test_loops_never_move_faster_than_the_motion_itself(speed):
    volume = make_volume()
    for frames in (15, 60, 150, 400):
        cycles, gain = loop_cycles(volume.frequencies, frames, 30.0, speed)
        wanted = volume.frequencies.double() * frames * speed / 30
        # cycles * gain is a band's velocity. Rounding may raise a frequency above the first by a third.
        assert torch.all(cycles * gain <= wanted * 1.34 + 1e-9)


def test_plain_basis_holds_the_constant_band_at_zero():
    assert torch.all(plain_basis(torch.tensor([0.0, 1.0]), 5, 30.0, 1.0)[:, 0] == 0)
