"""The spectral volume against numpy's Fourier transform, closed forms and damaged files."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gid.motion.spectrum import SpectralVolume


def random_volume(bands: int = 16, height: int = 6, width: int = 10, frames: int = 150) -> SpectralVolume:
    generator = torch.Generator().manual_seed(0)
    trajectories = torch.randn(frames, 2, height, width, generator=generator)
    return SpectralVolume.from_trajectories(trajectories, bands, image_size=(width * 8, height * 8))


def point(x: float, y: float, rows: int = 5, columns: int = 5, row: int = 2, column: int = 4) -> SpectralVolume:
    """Motion (x, y) in band 1 of a single cell."""
    coefficients = torch.zeros(2, 2, rows, columns, dtype=torch.complex64)
    coefficients[1, :, row, column] = torch.tensor([x, y], dtype=torch.complex64)
    return SpectralVolume(coefficients, num_frames=10, image_size=(columns, rows))


@pytest.mark.parametrize(("frames", "bands"), [(150, 16), (150, 76), (31, 4), (2, 1)])
def test_coefficients_are_numpys(frames: int, bands: int) -> None:
    trajectories = torch.randn(frames, 2, 3, 4)
    volume = SpectralVolume.from_trajectories(trajectories, bands)
    expected = np.fft.fft(trajectories.double().numpy(), axis=0)[:bands] / frames
    np.testing.assert_allclose(volume.coefficients.numpy(), expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(2, 40), seed=st.integers(0, 1000))
def test_all_bands_give_the_trajectories_back(frames: int, seed: int) -> None:
    trajectories = torch.randn(frames, 2, 2, 3, generator=torch.Generator().manual_seed(seed))
    volume = SpectralVolume.from_trajectories(trajectories, frames // 2 + 1)
    torch.testing.assert_close(volume.trajectories(pin_first=False), trajectories, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(volume.trajectories(), trajectories - trajectories[:1], atol=1e-5, rtol=1e-4)


def test_a_cosine_is_one_band_at_any_moment() -> None:
    time = torch.arange(150)
    wave = 0.3 * torch.cos(2 * math.pi * 4 * time / 150 + 0.7)
    volume = SpectralVolume.from_trajectories(wave[:, None, None, None].expand(-1, 2, 1, 1), 16)
    assert float(volume.coefficients[4, 0].abs()) == pytest.approx(0.15, abs=1e-6)
    moments = torch.tensor([0.5, 17.25, 149.9, 163.1])
    expected = 0.3 * torch.cos(2 * math.pi * 4 * moments / 150 + 0.7)
    torch.testing.assert_close(volume.displacement(moments, pin_first=False)[:, 0, 0, 0], expected)
    assert float(volume.frequencies[4]) == pytest.approx(0.8)


def test_first_frame_is_pinned_and_the_motion_periodic() -> None:
    volume = random_volume()
    ends = volume.displacement(torch.tensor([0.0, 150.0, 1.0, 151.0]))
    assert float(ends[:2].abs().max()) < 1e-5
    torch.testing.assert_close(ends[2], ends[3], atol=1e-5, rtol=1e-4)


def test_slow_motion_passes_through_the_frames() -> None:
    volume = random_volume()
    torch.testing.assert_close(volume.trajectories(450)[::3], volume.trajectories(), atol=1e-5, rtol=1e-4)


def test_energy_is_the_rms_about_the_mean() -> None:
    volume = random_volume(bands=76, frames=151)
    frames = volume.trajectories(pin_first=False)
    expected = (frames - frames.mean(0)).square().sum(1).mean(0).sqrt()
    torch.testing.assert_close(volume.motion_energy(), expected, atol=1e-4, rtol=1e-4)


def test_shift_starts_later() -> None:
    volume = random_volume()
    later = volume.shift(12.5).displacement(torch.tensor([3.0]), pin_first=False)
    torch.testing.assert_close(later, volume.displacement(torch.tensor([15.5]), pin_first=False), atol=1e-5, rtol=1e-4)


def test_magnify_scales_every_frame() -> None:
    volume = random_volume()
    torch.testing.assert_close(volume.magnify(2.5).trajectories(), 2.5 * volume.trajectories())
    with pytest.raises(ValueError, match="nan"):
        volume.magnify(float("nan"))


def test_a_flip_mirrors_maps_and_vectors() -> None:
    volume = random_volume()
    frames = volume.trajectories()
    sign = torch.tensor([-1.0, 1.0])[None, :, None, None]
    torch.testing.assert_close(volume.flip_horizontal().trajectories(), frames.flip(-1) * sign)


def test_crop_makes_fractions_of_the_window() -> None:
    volume = point(0.1, 0.2, 8, 10, 3, 6).crop(2, 5, 4, 5)
    assert volume.coefficients[1, :, 1, 1].real.tolist() == pytest.approx([0.2, 0.4])
    assert volume.image_size == (5, 4)
    with pytest.raises(ValueError, match="leaves the maps"):
        volume.crop(0, 0, 9, 1)


def test_resize_keeps_values() -> None:
    coefficients = torch.full((3, 2, 8, 12), 0.25 + 0.5j)
    small = SpectralVolume(coefficients, num_frames=20).resize(4, 5)
    torch.testing.assert_close(small.coefficients, torch.full((3, 2, 4, 5), 0.25 + 0.5j))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_motion_file_round_trip(tmp_path, dtype: torch.dtype) -> None:
    volume = SpectralVolume(random_volume().coefficients, 24.0, 150, (80, 48), "a model", 7)
    volume.save(tmp_path / "motion.safetensors", dtype)
    loaded = SpectralVolume.load(tmp_path / "motion.safetensors")
    torch.testing.assert_close(loaded.coefficients, volume.coefficients, atol=3e-4, rtol=1e-3)
    fields = (loaded.fps, loaded.num_frames, loaded.image_size, loaded.model, loaded.seed)
    assert fields == (24.0, 150, (80, 48), "a model", 7)
    assert [path.name for path in tmp_path.iterdir()] == ["motion.safetensors"]


def test_motion_file_is_what_other_programs_expect(tmp_path) -> None:
    from safetensors import safe_open

    volume = random_volume()
    volume.save(tmp_path / "motion.safetensors")
    with safe_open(tmp_path / "motion.safetensors", framework="np") as file:
        stored, metadata = file.get_tensor("coefficients"), file.metadata()
    assert stored.shape == (16, 4, 6, 10)
    assert metadata["format"] == "gid-motion/1"
    assert (metadata["image_width"], metadata["image_height"]) == ("80", "48")
    x, y = volume.coefficients[:, 0].numpy(), volume.coefficients[:, 1].numpy()
    np.testing.assert_allclose(stored, np.stack([x.real, x.imag, y.real, y.imag], axis=1))


def test_damaged_motion_files_are_told_apart(tmp_path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "motion.safetensors"
    with pytest.raises(ValueError, match="does not exist"):
        SpectralVolume.load(path)
    random_volume().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        SpectralVolume.load(path)
    path.write_bytes(b"GIF89a not a tensor file")
    with pytest.raises(ValueError, match="damaged or not a motion file"):
        SpectralVolume.load(path)
    save_file({"coefficients": torch.zeros(2, 4, 3, 3)}, path, {"format": "other/2"})
    with pytest.raises(ValueError, match="other/2"):
        SpectralVolume.load(path)
    metadata = {"format": "gid-motion/1", "fps": "30", "num_frames": "ten", "image_width": "1", "image_height": "1"}
    save_file({"coefficients": torch.zeros(2, 4, 3, 3)}, path, metadata)
    with pytest.raises(ValueError, match="unreadable metadata"):
        SpectralVolume.load(path)
    save_file({"coefficients": torch.full((2, 4, 3, 3), torch.nan)}, path, metadata | {"num_frames": "10"})
    with pytest.raises(ValueError, match="NaN"):
        SpectralVolume.load(path)


def test_motion_files_are_written_whole_or_not_at_all(tmp_path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        random_volume().save(tmp_path / "missing" / "motion.safetensors")
    with pytest.raises(ValueError, match="safetensors"):
        random_volume().save(tmp_path / "motion.mp4")
    with pytest.raises(ValueError, match="bfloat16"):
        random_volume().save(tmp_path / "motion.safetensors", torch.bfloat16)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "motion.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*/motion\.safetensors: it is a folder; name a file"):
        random_volume().save(tmp_path / "motion.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["motion.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
def test_motion_files_may_be_read_by_whom_other_new_files_may(tmp_path) -> None:
    (tmp_path / "plain").touch()
    random_volume().save(tmp_path / "motion.safetensors")
    assert (tmp_path / "motion.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_photo_of_another_shape_is_refused() -> None:
    volume = random_volume()
    volume.check_photo(160, 96)
    with pytest.raises(ValueError, match="100x100"):
        volume.check_photo(100, 100)


@pytest.mark.parametrize(
    ("coefficients", "fields", "message"),
    [
        (torch.zeros(3, 4, 4), {}, "shape"),
        (torch.zeros(3, 2, 4, 4), {}, "complex"),
        (torch.zeros(9, 2, 4, 4, dtype=torch.complex64), {"num_frames": 10}, "9 bands"),
        (torch.zeros(3, 2, 4, 4, dtype=torch.complex64), {"fps": 0.0}, "fps"),
        (torch.full((3, 2, 4, 4), complex("nan")), {}, "NaN"),
    ],
)
def test_impossible_volumes_are_refused(coefficients: torch.Tensor, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectralVolume(coefficients, **fields)
