"""Frequency-adaptive normalization against the paper's equation and numpy's percentile."""

import numpy as np
import pytest
import torch

from gid.motion.normalization import (
    EnvelopeNormalization,
    FrequencyAdaptiveNormalization,
    envelope_of,
    from_isotropic,
    to_isotropic,
)
from gid.motion.spectrum import SpectralVolume


def test_scales_are_the_percentile_of_moving_pixels() -> None:
    volumes = [torch.randn(3, 4, 9, 11, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    for volume in volumes:
        volume[..., :5] = 0  # still pixels do not count
    fitted = FrequencyAdaptiveNormalization.fit(volumes)
    for band, scale in enumerate(fitted.scales):
        values = np.concatenate([volume[band, :, :, 5:].abs().numpy().ravel() for volume in volumes])
        assert scale == pytest.approx(np.percentile(values, 95, method="inverted_cdf"), rel=1e-3)


def test_equation_four_and_back() -> None:
    normalization = FrequencyAdaptiveNormalization((0.5, 2.0))
    values = torch.randn(5, 2, 4, 3, 3)
    normalized = normalization.normalize(values)
    scales = torch.tensor([0.5, 2.0])[:, None, None, None]
    torch.testing.assert_close(normalized, torch.sign(values) * torch.sqrt(torch.abs(values) / scales))
    torch.testing.assert_close(normalization.denormalize(normalized), values, atol=1e-5, rtol=1e-4)


def test_errors_name_the_band() -> None:
    with pytest.raises(ValueError, match="no volume"):
        FrequencyAdaptiveNormalization.fit([])
    with pytest.raises(ValueError, match="positive"):
        FrequencyAdaptiveNormalization((1.0, 0.0))
    with pytest.raises(ValueError, match="3 bands given"):
        FrequencyAdaptiveNormalization((1.0, 1.0)).normalize(torch.zeros(3, 4, 2, 2))


def test_envelope_is_the_energy_of_the_volume() -> None:
    real = torch.randn(6, 4, 5, 7)
    expected = SpectralVolume.from_real(real, num_frames=20).motion_energy()
    torch.testing.assert_close(envelope_of(real)[0], expected)


def test_energy_after_denormalizing_is_the_envelope() -> None:
    unit, envelope = torch.randn(2, 6, 4, 5, 7), torch.rand(2, 1, 5, 7)
    volume = EnvelopeNormalization().denormalize(unit, envelope)
    torch.testing.assert_close(envelope_of(volume), envelope, atol=1e-5, rtol=1e-4)


def test_still_pixels_stay_still_and_moving_ones_come_back() -> None:
    coefficients = torch.randn(6, 4, 5, 7) * 0.01
    coefficients[..., :3] = 0
    unit, envelope = EnvelopeNormalization(floor=1e-6).normalize(coefficients)
    assert float(unit[..., :3].abs().max()) == 0
    restored = EnvelopeNormalization(floor=1e-6).denormalize(unit, envelope)
    torch.testing.assert_close(restored, coefficients, atol=1e-5, rtol=1e-3)


def test_isotropic_units_are_pixels_over_the_root_of_the_area() -> None:
    coefficients = torch.randn(3, 4, 2, 2)
    isotropic = to_isotropic(coefficients, 400, 100)
    torch.testing.assert_close(isotropic[:, :2] * 200, coefficients[:, :2] * 400)
    torch.testing.assert_close(isotropic[:, 2:] * 200, coefficients[:, 2:] * 100)
    torch.testing.assert_close(from_isotropic(isotropic, 400, 100), coefficients)
