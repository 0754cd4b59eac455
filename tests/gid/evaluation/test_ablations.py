"""Rows of the ablation table: volumes with known answers, merging of reports, remembered predictions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gid.data.videos import Pair
from gid.evaluation.ablations import ablation_rows, predicted_envelope, swaying_in_step, truncated
from gid.evaluation.merging import merged, read_report
from gid.evaluation.metrics import coherence_length
from gid.evaluation.remembered import Motion, Remembered, fingerprint
from gid.evaluation.report import Report, evaluate
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import isotropic
from tests.tiny import tiny_pipeline


def random_volume(seed: int = 0, size: tuple[int, int] = (96, 64)) -> SpectralVolume:
    generator = torch.Generator().manual_seed(seed)
    return SpectralVolume(torch.randn(8, 2, 16, 24, dtype=torch.complex64, generator=generator) * 1e-3, image_size=size)


def random_pair(clip: str, seed: int) -> Pair:
    generator = torch.Generator().manual_seed(100 + seed)
    photo = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    volume = random_volume(seed)
    volume.coefficients[..., 12:] *= 0.01  # a still half
    return Pair(clip, 0, photo, volume)


def test_truncation_is_that_of_the_transform() -> None:
    """Cutting a volume is transforming its trajectories again with fewer bands."""
    volume = random_volume()
    again = SpectralVolume.from_trajectories(volume.trajectories(pin_first=False), num_bands=5)
    # The constant band of a real motion has no imaginary part; these numbers are random.
    torch.testing.assert_close(truncated(volume, 5).coefficients[1:5], again.coefficients[1:], atol=1e-8, rtol=1e-4)
    assert not truncated(volume, 5).coefficients[5:].any()
    assert volume.coefficients[5:].any(), "the given one stays"
    with pytest.raises(ValueError, match="at least 2"):
        truncated(volume, 1)


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
def test_swaying_in_step_has_the_energy_and_the_spectrum_asked_for(size: tuple[int, int]) -> None:
    energy = torch.rand(16, 24, generator=torch.Generator().manual_seed(0)) * 0.01
    spectrum = torch.tensor([9.0, 4.0, 2.0, 1.0])
    volume = swaying_in_step(energy, spectrum, size, seed=3)
    field = isotropic(volume.coefficients, volume)
    found = (2 * field[1:].abs().square().sum((0, 1))).sqrt()
    torch.testing.assert_close(found, energy, rtol=1e-4, atol=1e-8)
    bands = field.abs().square().sum(1).sqrt().mean((1, 2))
    torch.testing.assert_close(bands[1:] / bands[1], torch.tensor([1.0, 0.5, 0.25]), rtol=1e-4, atol=1e-6)
    assert not bands[0]
    assert coherence_length(volume) == pytest.approx(8 / 24), "the whole picture is in step"
    other = swaying_in_step(energy, spectrum, size, seed=4)
    assert not torch.allclose(volume.coefficients, other.coefficients)
    with pytest.raises(ValueError, match="no band"):
        swaying_in_step(energy, torch.tensor([1.0, 0.0]), size, seed=0)


def test_rows_of_the_table() -> None:
    pairs = [random_pair("a", 0), random_pair("b", 1)]
    sampled = [[random_volume(5), random_volume(6)], [random_volume(7), random_volume(8)]]
    rows = ablation_rows(pairs, sampled, [random_pair("c", 2)], lambda photo: torch.full((16, 24), 0.01), "ours")
    assert set(rows) == {
        "still",
        "uniform sway",
        "envelope alone, bands in step",
        "ours, cut to K = 4",
        "ours, cut to K = 8",
        "measured, cut to K = 4",
        "measured, cut to K = 8",
    }
    assert all(len(volumes) == 2 for volumes in rows.values())
    torch.testing.assert_close(rows["ours, cut to K = 8"][1][0].coefficients, sampled[1][0].coefficients)
    report = evaluate(
        lambda photo, *, seed: Motion([random_volume(seed)]),
        pairs,
        (0, 1),
        reference_pairs=[random_pair("c", 2)],
        ablations=lambda p, s: rows,
    )
    scores = {row.name: row.scores for row in report.rows}
    assert len(scores) == len(report.rows), "a row stands in for the baseline of its name"
    assert scores["measured, cut to K = 8"]["correlation"] == pytest.approx(1.0)
    assert scores["measured, cut to K = 4"]["spectral_distance"] > 10
    assert math.isnan(scores["still"]["seam"])
    assert scores["still"]["strength"] == 0.0
    assert scores["uniform sway"]["leakage"] == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(ValueError, match="training clips"):
        ablation_rows(pairs, sampled, [])


def test_the_envelope_is_the_energy_a_sample_is_given() -> None:
    pipeline = tiny_pipeline()
    photo = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    envelope = predicted_envelope(pipeline, photo)
    assert envelope is not None
    columns, rows = pipeline.motion_size(96, 64)
    assert envelope.shape == (rows, columns)
    # Cells of the volume count as square, and so they are but for rounding to multiples of 16.
    volume = replace(pipeline(photo, seed=0, steps=1).volumes[0], image_size=(columns, rows))
    energy = (2 * isotropic(volume.coefficients[1:], volume).abs().square().sum((0, 1))).sqrt()
    # A sample may fade where its unit energy vanishes, but never exceeds the envelope.
    assert bool((energy <= envelope * 1.02 + 1e-7).all())


def small_report(name: str, clips: tuple[str, ...] = ("a", "b")) -> Report:
    pairs = [random_pair(clip, index) for index, clip in enumerate(clips)]
    return evaluate(lambda photo, *, seed: Motion([random_volume(seed)]), pairs, (0,), name=name)


def test_a_perfect_first_frame_is_read_again(tmp_path: Path) -> None:
    """Its signal-to-noise ratio is infinite, which JSON cannot say."""
    report = replace(small_report("ours"), rendering={"seam": 0.93, "first_frame_psnr": math.inf})
    assert "| first frame psnr | inf |" in report.markdown()
    (tmp_path / "report.json").write_text(report.to_json())
    text = read_report(tmp_path).markdown()
    assert "| seam | 0.93 |" in text
    assert "| first frame psnr | – |" in text


def test_merging_reports(tmp_path: Path) -> None:
    ours, other = small_report("ours"), small_report("without attention")
    (tmp_path / "report.json").write_text(other.to_json())
    read = read_report(tmp_path)
    assert read.rows[0].scores == pytest.approx(other.rows[0].scores, nan_ok=True)
    both = merged(ours, [read])
    assert [row.name for row in both.rows[:2]] == ["ours", "without attention"]
    assert len(both.rows) == len(ours.rows) + 1
    assert "| without attention |" in both.markdown()
    assert set(both.bands) == {"ours", "without attention", "measured"}
    with pytest.raises(ValueError, match="two rows 'ours'"):
        merged(ours, [small_report("ours")])
    with pytest.raises(ValueError, match="same clips"):
        merged(ours, [small_report("other", ("a", "c"))])
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="gid evaluate"):
        read_report(tmp_path)
    with pytest.raises(ValueError, match="no evaluation report"):
        read_report(tmp_path / "missing.json")


def test_predictions_are_remembered_by_photo_seed_and_weights(tmp_path: Path) -> None:
    calls: list[int] = []

    def predict(photo: torch.Tensor, seed: int) -> SpectralVolume:
        calls.append(seed)
        return replace(random_volume(seed), seed=seed)

    model = Remembered(predict, tmp_path, "one")
    photo = torch.rand(3, 16, 24)
    first = model(photo, seed=1).volumes[0]
    again = Remembered(predict, tmp_path, "one")(photo, seed=1).volumes[0]
    torch.testing.assert_close(first.coefficients, again.coefficients)
    assert calls == [1]
    model(photo, seed=2)
    model(photo.flip(-1), seed=1)
    Remembered(predict, tmp_path, "other")(photo, seed=1)
    assert calls == [1, 2, 1, 1]


def test_fingerprint_knows_motion_weights_and_settings(tmp_path: Path) -> None:
    for part in ("denoiser", "renderer"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "weights.safetensors").write_bytes(b"1")
    first = fingerprint(tmp_path, 10)
    assert fingerprint(tmp_path, 10) == first
    assert fingerprint(tmp_path, 11) != first
    (tmp_path / "renderer" / "weights.safetensors").write_bytes(b"2")
    assert fingerprint(tmp_path, 10) == first, "the renderer does not change motion"
    (tmp_path / "denoiser" / "weights.safetensors").write_bytes(b"2")
    assert fingerprint(tmp_path, 10) != first
