"""The automatic strength: amplitudes and gradients against closed forms, and the limits it promises."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gid.limits import AUTO, RenderOptions, strength_from_text
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import (
    NaturalMotion,
    automatic_strength,
    hardly_moves,
    maximum_strength,
    moving_amplitude,
    natural_ratio,
    resolve,
    steepest_gradient,
)

NATURAL = NaturalMotion()


def swaying(amplitude: float, share: float = 1.0, size: tuple[int, int] = (240, 160)) -> SpectralVolume:
    """The left part of the picture sways as one along x with this amplitude, in fractions of sqrt(width * height)."""
    field = torch.zeros(4, 2, 40, 60, dtype=torch.complex64)
    # x(t) = a cos: one coefficient of a / 2; in fractions of the width.
    field[1, 0, :, : round(60 * share)] = amplitude * math.sqrt(size[0] * size[1]) / size[0] / 2
    return SpectralVolume(field, image_size=size)


def test_what_is_far_fainter_than_measured_clips_hardly_moves() -> None:
    natural = NATURAL.amplitude * 0.5**NATURAL.exponent * math.sqrt(2)  # of a cosine in half of the picture
    assert natural_ratio(swaying(natural, 0.5), NATURAL) == pytest.approx(1, rel=1e-4)
    assert not hardly_moves(swaying(natural * NATURAL.stills * 1.01, 0.5))
    assert hardly_moves(swaying(natural * NATURAL.stills * 0.99, 0.5))
    assert hardly_moves(swaying(0.0))


@pytest.mark.parametrize("size", [(240, 160), (160, 240), (300, 300)])
def test_moving_amplitude_is_that_of_a_cosine(size: tuple[int, int]) -> None:
    amplitude, share = moving_amplitude(swaying(0.01, 0.5, size))
    assert amplitude == pytest.approx(0.01 / math.sqrt(2), rel=1e-5)
    assert share == pytest.approx(0.5)


def test_a_small_moving_thing_counts() -> None:
    amplitude, share = moving_amplitude(swaying(0.01, 1 / 60))
    assert amplitude == pytest.approx(0.01 / math.sqrt(2), rel=1e-5)
    assert share == pytest.approx(1 / 60)


def test_gradient_of_a_shear_is_its_slope() -> None:
    """x = a (row / height) cos t: the largest |dx/dy| is a times width over height."""
    width, height = 240, 160
    field = torch.zeros(4, 2, 40, 60, dtype=torch.complex64)
    field[1, 0] = (torch.arange(40.0)[:, None] / 40 * 0.1 / 2).expand(40, 60)
    volume = SpectralVolume(field, image_size=(width, height))
    # Displacements are pinned to the first frame, where the cosine is at its peak: the swing is twice the amplitude.
    assert steepest_gradient(volume, moments=150) == pytest.approx(2 * 0.1 * width / height, rel=1e-3)
    assert maximum_strength(volume) == pytest.approx(NATURAL.stretch / 0.3, rel=1e-2)


def test_what_is_natural_stays_as_it_is() -> None:
    natural = NATURAL.amplitude * math.sqrt(2)
    assert automatic_strength(swaying(natural)) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("factor", [0.7, 1.5, 3.0])
def test_half_of_an_error_of_amplitude_is_mended(factor: float) -> None:
    natural = NATURAL.amplitude * math.sqrt(2)
    assert automatic_strength(swaying(natural * factor)) == pytest.approx(factor**-0.5, rel=1e-4)


def test_a_still_pictures_leak_is_not_magnified() -> None:
    natural = NATURAL.amplitude * math.sqrt(2)
    assert automatic_strength(swaying(natural * 0.2)) == 1.0
    assert automatic_strength(swaying(0.0)) == 1.0
    assert math.isinf(maximum_strength(swaying(0.0)))


def test_a_small_thing_may_move_less() -> None:
    """The same amplitude is large for a tenth of the picture and small for all of it."""
    natural = NATURAL.amplitude * math.sqrt(2)
    calm = NaturalMotion(stretch=1e9)  # the edge of the moving part must not decide here
    assert automatic_strength(swaying(natural, 0.1), calm) < automatic_strength(swaying(natural, 1.0), calm)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1.0), smooth=st.integers(1, 20))
def test_promises_hold_for_any_motion(seed: int, scale: float, smooth: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(6, 2, 1 + 24 // smooth, 1 + 36 // smooth, dtype=torch.complex64, generator=generator)
    volume = SpectralVolume(coarse * scale, image_size=(360, 240)).resize(24, 36)
    strength = automatic_strength(volume)
    assert 0 < strength <= NATURAL.highest
    assert steepest_gradient(volume.magnify(strength)) <= NATURAL.stretch * 1.001
    # Twice the strength asked of twice the motion would run away; it must shrink instead.
    assert automatic_strength(volume.magnify(2)) * 2 >= strength * 0.999
    # Nothing depends on which way the picture faces.
    assert automatic_strength(volume.flip_horizontal()) == pytest.approx(strength, rel=1e-4)


def test_strength_does_not_jump() -> None:
    """A little more motion changes what is shown by a little."""
    amplitudes = torch.logspace(-5, -1.5, 40).tolist()
    shown = [automatic_strength(swaying(a)) * a for a in amplitudes]
    steps = [b / a for a, b in itertools.pairwise(shown)]
    assert max(steps) < 3
    assert min(steps) > 0.999


def test_resolving() -> None:
    volume = swaying(0.002)
    assert resolve(AUTO, volume) == automatic_strength(volume)
    assert resolve(1.7, volume) == 1.7
    assert RenderOptions().strength == AUTO
    assert strength_from_text(" Auto ") == AUTO
    assert strength_from_text("1.5") == 1.5
    with pytest.raises(ValueError, match="'much'"):
        strength_from_text("much")
    with pytest.raises(ValueError, match="from 0 to 5"):
        RenderOptions(strength=7.0)


@pytest.mark.parametrize("fields", [{"lowest": 2.0}, {"trust": 1.5}, {"amplitude": 0.0}, {"stretch": -1.0}])
def test_rules_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        NaturalMotion(**fields)
