"""Metrics against closed forms and scipy; the report on a small set whose answers are known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from gid.data.videos import Pair
from gid.evaluation.baselines import BASELINES, baseline_energy
from gid.evaluation.edges import chance_distance, edge_distance, image_edges, motion_edges
from gid.evaluation.metrics import (
    background_leakage,
    band_differences,
    coherence_length,
    direction_agreement,
    diversity,
    log_spectral_distance,
    motion_energy_correlation,
    psnr,
    seam_ratio,
    spectral_shape_distance,
    temporal_sharpness,
)
from gid.evaluation.rendering import judge_loop, still_mask
from gid.evaluation.report import Report, evaluate
from gid.evaluation.sheets import as_picture, contact_sheet, heatmap, labelled, liveliest_row, sliced
from gid.motion.spectrum import SpectralVolume

# -- energy maps --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e3), offset=st.floats(-5, 5))
def test_correlation_is_scipys_and_ignores_scale(seed: int, scale: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((6, 9)), rng.random((6, 9))
    expected = stats.pearsonr(a.ravel(), b.ravel()).statistic
    found = motion_energy_correlation(torch.from_numpy(a) * scale + offset * scale, torch.from_numpy(b))
    assert found == pytest.approx(expected, abs=1e-9)


def test_correlation_of_constant_maps_is_zero() -> None:
    measured = torch.rand(5, 7)
    for value in (0.0, 1.0, 0.1, 1e9):
        assert motion_energy_correlation(torch.full((5, 7), value), measured) == 0.0
        assert motion_energy_correlation(measured, torch.full((5, 7), value)) == 0.0


def test_correlation_resamples_the_prediction() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    fine = torch.sin(rows / 9) + torch.cos(columns / 11)
    coarse = torch.nn.functional.interpolate(fine[None, None], (16, 24), mode="area")[0, 0]
    assert motion_energy_correlation(fine, coarse) > 0.999
    with pytest.raises(ValueError, match="h, w"):
        motion_energy_correlation(fine[None], coarse)


def test_leakage() -> None:
    measured = torch.zeros(10, 10)
    measured[:, 5:] = 2.0
    perfect = measured.clone()
    assert background_leakage(perfect, measured) == 0.0
    assert background_leakage(torch.ones(10, 10), measured) == pytest.approx(1.0)
    half = torch.where(measured > 0, 1.0, 0.5)
    assert background_leakage(half, measured) == pytest.approx(0.5)
    assert math.isnan(background_leakage(half, torch.ones(10, 10))), "no still region"
    assert math.isnan(background_leakage(torch.zeros(10, 10), measured)), "no motion predicted"
    # Just under and just over a tenth of the 95th percentile.
    measured[0, 0], measured[1, 0] = 0.19, 0.21
    marked = torch.zeros(10, 10)
    marked[0, 0] = 49.0
    marked[:, 5:] = 1.0
    assert background_leakage(marked, measured) == pytest.approx((49 / 49) / (50 / 51))


# -- spectra ------------------------------------------------------------------------------------------------------


def test_spectral_distance_in_decibels() -> None:
    measured = torch.tensor([9.0, 1.0, 0.5, 0.2])
    assert log_spectral_distance(measured, measured) == 0.0
    assert log_spectral_distance(measured * 10, measured) == pytest.approx(20.0)
    # The constant band does not count.
    assert log_spectral_distance(torch.tensor([0.0, 1.0, 0.5, 0.2]), measured) == 0.0
    torch.testing.assert_close(
        band_differences(torch.tensor([2.0, 1.0, 0.1]), torch.tensor([1.0, 1.0, 1.0])),
        torch.tensor([20 * math.log10(2), 0.0, -20.0], dtype=torch.float64),
    )
    # Empty bands are held 40 dB under the strongest.
    assert band_differences(torch.zeros(2), torch.tensor([1.0, 0.0])).tolist() == pytest.approx([-40.0, 0.0])
    assert math.isnan(log_spectral_distance(torch.ones(3), torch.zeros(3)))


@pytest.mark.parametrize("factor", [0.03, 0.5, 1.0, 7.0])
def test_spectral_shape_ignores_strength(factor: float) -> None:
    measured = torch.tensor([9.0, 1.0, 0.5, 0.2])
    distance, found = spectral_shape_distance(measured * factor, measured)
    assert distance < 0.2
    assert found * factor == pytest.approx(1.0, rel=0.02)


def test_spectral_shape_is_the_spread_in_decibels() -> None:
    """Without floor in reach, the best factor removes the mean difference: the standard deviation is left."""
    measured = torch.tensor([1.0, 1.0, 1.0, 1.0])
    predicted = torch.tensor([1.0, 2.0, 4.0, 0.5])
    decibels = 20 * np.log10([2.0, 4.0, 0.5])
    distance, _ = spectral_shape_distance(predicted, measured)
    assert distance == pytest.approx(decibels.std(), abs=0.02)
    assert distance <= log_spectral_distance(predicted, measured)
    still, factor = spectral_shape_distance(torch.zeros(4), measured)
    assert still == log_spectral_distance(torch.zeros(4), measured)
    assert math.isnan(factor)
    assert math.isnan(spectral_shape_distance(measured, torch.zeros(4))[0])


def _volume(field: torch.Tensor, size: tuple[int, int] | None = None) -> SpectralVolume:
    return SpectralVolume(field.to(torch.complex64), image_size=size)


def _swing(angle: float, size: tuple[int, int], rows: int = 6, columns: int = 8) -> SpectralVolume:
    """Every cell swings along one axis of the picture, in two bands with any phases."""
    phases = torch.polar(torch.rand(3, 1, rows, columns) + 0.1, 2 * math.pi * torch.rand(3, 1, rows, columns))
    direction = torch.tensor([math.cos(angle) / size[0], math.sin(angle) / size[1]])[None, :, None, None]
    return _volume(phases * direction, size)


@pytest.mark.parametrize("degrees", [0.0, 20.0, 45.0, 90.0])
def test_direction_agreement_is_the_cosine_of_twice_the_angle(degrees: float) -> None:
    torch.manual_seed(0)
    size = (300, 100)  # far from square: angles must be those of the picture
    a = _swing(0.7, size)
    b = _swing(0.7 + math.radians(degrees), size)
    assert direction_agreement(b, a) == pytest.approx(math.cos(2 * math.radians(degrees)), abs=1e-5)


def test_direction_agreement_of_circles_does_not_apply() -> None:
    circle = torch.zeros(3, 2, 4, 4, dtype=torch.complex64)
    circle[1, 0], circle[1, 1] = torch.tensor(1.0), torch.tensor(1j)
    assert math.isnan(direction_agreement(_volume(circle), _volume(circle)))


@pytest.mark.parametrize("sigma", [3.0, 5.0])
def test_coherence_length_of_smoothed_noise(sigma: float) -> None:
    """White noise blurred by a Gaussian correlates as exp(-d^2 / 4 sigma^2): 1/e at 2 sigma."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(16, 2, 160, 160)) + 1j * rng.normal(size=(16, 2, 160, 160))
    smooth = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="wrap")
    assert coherence_length(_volume(torch.from_numpy(smooth))) == pytest.approx(2 * sigma / 160, rel=0.08)


def test_coherence_length_extremes() -> None:
    whole = torch.ones(4, 2, 20, 40, dtype=torch.complex64)
    assert coherence_length(_volume(whole)) == pytest.approx(10 / 40)
    torch.manual_seed(0)
    assert coherence_length(_volume(torch.randn(16, 2, 60, 60, dtype=torch.complex64))) < 1 / 60


# -- loops --------------------------------------------------------------------------------------------------------


def test_seam_ratio() -> None:
    angle = 2 * math.pi * torch.arange(50) / 50
    phases = 2 * math.pi * torch.arange(64) / 64
    circle = (angle[:, None] + phases).sin()  # together the points step equally far each time
    assert seam_ratio(circle) == pytest.approx(1.0, abs=1e-3)
    ramp = torch.arange(50.0)[:, None]
    assert seam_ratio(ramp) == pytest.approx(49.0)
    assert seam_ratio(torch.zeros(5, 3)) == 0.0
    assert math.isinf(seam_ratio(torch.tensor([0.0, 0, 0, 0, 1])))
    assert seam_ratio((127 + 100 * circle).round().to(torch.uint8)) == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="at least 3"):
        seam_ratio(torch.zeros(2, 3))


def test_a_volume_is_a_seamless_loop() -> None:
    torch.manual_seed(0)
    coefficients = torch.randn(16, 2, 4, 4, dtype=torch.complex64) / (1 + torch.arange(16))[:, None, None, None]
    assert seam_ratio(_volume(coefficients).trajectories()) < 1.5


def test_diversity() -> None:
    torch.manual_seed(0)
    volumes = [_volume(torch.randn(8, 2, 20, 20, dtype=torch.complex64)) for _ in range(3)]
    assert diversity(volumes) == pytest.approx(math.sqrt(2), rel=0.03)
    assert diversity([volumes[0], volumes[0]]) == 0.0
    assert diversity([volumes[0], volumes[0].magnify(-1)]) == pytest.approx(2.0)
    assert math.isnan(diversity(volumes[:1]))


def test_temporal_sharpness_and_psnr() -> None:
    rng = np.random.default_rng(0)
    photo = rng.random((3, 40, 40))
    blurred = ndimage.gaussian_filter(photo, (0, 1.5, 1.5))
    sharpness = temporal_sharpness(torch.from_numpy(np.stack([photo, photo * 0.5, blurred])))
    assert sharpness[0] == 1.0
    assert sharpness[1] == pytest.approx(0.5)
    assert sharpness[2] < 0.3
    image = torch.zeros(3, 4, 4)
    assert psnr(image + 0.1, image) == pytest.approx(20.0, abs=1e-4)
    assert math.isinf(psnr(image, image))


def _left_half_moves() -> SpectralVolume:
    coefficients = torch.zeros(4, 2, 20, 40, dtype=torch.complex64)
    coefficients[1, 0, :, :10] = 0.005  # reach 4 * 0.005 of the width
    return SpectralVolume(coefficients, image_size=(80, 40))


def test_still_mask_keeps_clear_of_motion() -> None:
    mask = still_mask(_left_half_moves(), 40, 80, margin=4)
    assert not mask[:, :24].any()
    assert mask[:, 34:].all()
    nothing = SpectralVolume(torch.zeros(4, 2, 20, 40, dtype=torch.complex64))
    assert still_mask(nothing, 40, 80).all()


def test_judging_a_loop() -> None:
    volume, photo = _left_half_moves(), torch.rand(3, 40, 80, generator=torch.Generator().manual_seed(0))
    frames = photo.repeat(12, 1, 1, 1)
    wave = 0.1 * torch.sin(2 * math.pi * torch.arange(12) / 12)
    frames[..., :10] += wave[:, None, None, None]
    scores = judge_loop(photo, volume, frames)
    assert scores.seam == pytest.approx(1.0, abs=0.4)
    assert math.isinf(scores.first_frame_psnr)
    assert scores.still_error == 0.0
    assert 0.3 < scores.still_share < 0.7
    frames[5, :, 20, 75] = photo[:, 20, 75] + 0.3
    assert judge_loop(photo, volume, frames).still_error == pytest.approx(0.3)
    with pytest.raises(ValueError, match="agree"):
        judge_loop(photo, volume, frames[..., :40])


# -- baselines ----------------------------------------------------------------------------------------------------


def test_baselines_find_what_they_look_for() -> None:
    photo = torch.full((3, 64, 96), 0.5)
    photo[:, :, 48:] = torch.tensor([0.1, 0.6, 0.1])[:, None, None]
    green = baseline_energy("greenness", photo, (16, 24))
    assert green.shape == (16, 24)
    assert green[:, :12].max() < 1e-6 < 0.5 < green[:, 12:].min()
    edge = baseline_energy("edge strength", photo, (16, 24))
    assert edge[:, 11:13].min() > 5 * edge[:, :8].max()
    assert baseline_energy("uniform sway", photo, (16, 24)).unique().tolist() == [1.0]
    assert not baseline_energy("still", photo, (16, 24)).any()
    with pytest.raises(ValueError, match="no baseline"):
        baseline_energy("wind", photo, (16, 24))


# -- pictures -----------------------------------------------------------------------------------------------------


def test_contact_sheet_layout() -> None:
    colours = [np.full((10, 20, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = contact_sheet([*colours, np.full((40, 80, 3), 160, np.uint8)], columns=3, gap=1)
    assert sheet.shape == (21, 62, 3)
    assert [sheet[5, x, 0] for x in (5, 26, 47)] == [10, 60, 110]
    assert sheet[15, 5, 0] == 160
    assert (sheet[10] == 255).all()
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], 2)


def test_heatmap() -> None:
    energy = torch.zeros(10, 20)
    energy[2:5, 3:9] = 4.0
    colours = heatmap(energy)
    assert colours.shape == (10, 20, 3)
    assert colours[0, 0].sum() < 20 < 600 < colours[3, 5].sum()
    photo = torch.full((3, 40, 80), 0.5)
    over = heatmap(energy, photo)
    assert over.shape == (40, 80, 3)
    assert np.ptp(over[35, 70]) == 0, "still parts stay grey"
    assert np.ptp(over[14, 24]) > 60
    assert not heatmap(torch.zeros(4, 4)).any(axis=None) or heatmap(torch.zeros(4, 4)).max() < 10
    spot = torch.zeros(40, 40)
    spot[3, 3] = 1.0
    assert heatmap(spot)[3, 3].sum() > 600, "one small spot must still show"
    assert heatmap(torch.full((3, 3), math.nan)).max() < 10
    with pytest.raises(ValueError, match="shape"):
        heatmap(torch.zeros(2, 3, 4))


def test_labels() -> None:
    image = np.full((60, 100, 3), 200, np.uint8)
    text = labelled(image, "a")
    assert (image == 200).all(), "the original stays"
    assert (text[:40] == 200).all()
    assert (text[-5:] < 200).any()
    with pytest.raises(ValueError, match="uint8"):
        as_picture(np.zeros((4, 4), np.uint8))


def test_the_liveliest_row_is_where_contrast_moves() -> None:
    photo = torch.full((3, 40, 60), 0.5)
    photo[:, 10:12, ::2] = 1.0  # contrast that stands still
    photo[:, 24:26, ::2] = 1.0
    energy = torch.zeros(20, 30)
    energy[11:15] = 1.0  # motion about rows 22 to 30, of which only two have contrast
    row = liveliest_row(photo, energy)
    assert row in (24, 25)
    frames = torch.rand(7, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    marked, line = sliced(photo, energy, frames)
    assert (marked[row] == (255, 64, 64)).all()
    assert line.shape == (7, 60, 3)
    np.testing.assert_array_equal(line[3], as_picture(frames[3])[row])


# -- report -------------------------------------------------------------------------------------------------------


def _pair(clip: str, start: int, generator: torch.Generator) -> Pair:
    coefficients = torch.randn(8, 2, 16, 24, dtype=torch.complex64, generator=generator) * 1e-3
    coefficients[..., 12:] *= 0.01
    photo = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    return Pair(clip, start, photo, SpectralVolume(coefficients, image_size=(96, 64)))


@dataclass
class _Output:
    volumes: list[SpectralVolume]


class _Oracle:
    """Knows the measured motion of a photo; with seed 1 it is off by a half turn, which moves the same parts."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.known = {pair.photo.numpy().tobytes(): pair.volume for pair in pairs}

    def __call__(self, photo: torch.Tensor, *, seed: int) -> _Output:
        volume = self.known[photo.mul(255).round().to(torch.uint8).numpy().tobytes()]
        return _Output([volume.magnify(1.0 if seed == 0 else -1.0)])


@pytest.fixture
def pairs() -> list[Pair]:
    generator = torch.Generator().manual_seed(0)
    return [
        _pair(clip, start, generator) for clip, start in (("fern", 0), ("fern", 50), ("candle_2", 0), ("candle_3", 0))
    ]


def test_report_of_an_oracle(pairs: list[Pair], tmp_path: Path) -> None:
    def render(photo: torch.Tensor, volume: SpectralVolume) -> torch.Tensor:
        return photo.repeat(4, 1, 1, 1)

    report = evaluate(_Oracle(pairs), pairs, (0, 1), tmp_path / "out", reference_pairs=pairs[:2], render=render)
    model = report.rows[0]
    assert model.scores["correlation"] == pytest.approx(1.0)
    assert model.scores["spectral_distance"] == pytest.approx(0.0)
    assert model.scores["strength"] == pytest.approx(1.0)
    assert model.scores["direction"] == pytest.approx(1.0)
    assert model.scores["leakage"] < 0.05
    assert model.scores["diversity"] == pytest.approx(2.0)
    assert set(model.correlation_by_scene) == {"fern", "candle"}
    assert [row.name for row in report.rows] == ["model", *BASELINES, "mean training map", "measured"]
    assert report.rows[1].scores["correlation"] == 0.0
    assert report.rows[1].scores["leakage"] == pytest.approx(1.0)
    assert report.rendering["worst_still_error"] == 0.0
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"report.md", "report.json", "spectrum.png", "fern.png", "candle.png", "slices.png"}
    with Image.open(tmp_path / "out" / "fern.png") as sheet:
        # Two photos, each beside measured and two predictions, 96x64 with gaps of 2.
        assert sheet.size == (4 * 98 - 2, 2 * 66 - 2)
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["rows"][0]["scores"]["correlation"] == pytest.approx(1.0)
    assert stored["settings"]["seeds"] == [0, 1]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| model | 1.00 |" in text
    assert "| still | 0.00 | – |" in text


def test_scenes_count_alike(pairs: list[Pair]) -> None:
    """A scene with many clips weighs as much as one with few: the mean is over scenes."""
    known = {pair.photo.numpy().tobytes(): pair for pair in pairs}

    def half_right(photo: torch.Tensor, *, seed: int) -> _Output:
        pair = known[photo.mul(255).round().to(torch.uint8).numpy().tobytes()]
        return _Output([pair.volume if pair.clip == "fern" else pair.volume.flip_horizontal()])

    row = evaluate(half_right, pairs[:3] + [pairs[3]] * 5, (0,)).rows[0]
    expected = (row.correlation_by_scene["fern"] + row.correlation_by_scene["candle"]) / 2
    assert row.scores["correlation"] == pytest.approx(expected)
    assert row.correlation_by_scene["candle"] < 0


def test_report_needs_something(pairs: list[Pair]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        evaluate(_Oracle(pairs), [], (0,))
    with pytest.raises(ValueError, match="at least one"):
        evaluate(_Oracle(pairs), pairs, ())
    assert isinstance(evaluate(_Oracle(pairs), pairs[:1], (0,)), Report)


# -- edges --------------------------------------------------------------------------------------------------------


def test_edges_of_a_disc_lie_on_its_rim() -> None:
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    radius = torch.hypot(rows - 40, columns - 60)
    photo = (0.2 + 0.6 * (radius < 22).float()).repeat(3, 1, 1)
    rim = image_edges(photo)
    assert np.abs(radius.numpy()[rim] - 22).max() < 2
    moving = torch.stack([(radius < 22).float() * 3, torch.zeros_like(radius)])
    assert edge_distance(motion_edges(moving), rim) < 1.5
    too_wide = torch.stack([(radius < 27).float() * 3, torch.zeros_like(radius)])
    assert edge_distance(motion_edges(too_wide), rim) == pytest.approx(5.0, abs=1.0)
    assert chance_distance(rim) == pytest.approx(float((radius - 22).abs().mean()), abs=1.0)
    assert math.isnan(edge_distance(motion_edges(moving * 0), rim)), "nothing moves"
