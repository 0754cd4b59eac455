"""Motion energy against motion that the test made, and texture confidence where texture is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gid.motion.energy import motion_energy, shaken, texture_confidence


def _swaying(count: int = 24, pixels: float = 3.0) -> np.ndarray:
    """A textured patch that swings by a sine before a textured wall that stands still; 512 x 288."""
    generator = np.random.default_rng(0)
    wall, patch = (cv2.GaussianBlur(generator.normal(size=(288, 512, 3)), (0, 0), 2) for _ in range(2))
    wall, patch = (np.clip(128 + 40 * each / each.std(), 0, 255).astype(np.uint8) for each in (wall, patch))
    frames = []
    for step in range(count):
        shift = pixels * np.sin(2 * np.pi * step / count)
        moved = cv2.warpAffine(patch, np.array([[1, 0, shift], [0, 1, 0]]), (512, 288), flags=cv2.INTER_CUBIC)
        frame = wall.copy()
        frame[60:220, 160:340] = moved[60:220, 160:340]
        frames.append(frame)
    return np.stack(frames)


def test_energy_is_the_root_mean_square_of_the_swing() -> None:
    energy = motion_energy(_swaying())
    assert energy.shape == (36, 64)
    assert energy[10:25, 24:38].mean() == pytest.approx(3 / np.sqrt(2), rel=0.08)
    assert energy[:, :15].max() < 0.05


def test_what_would_be_seen_is_what_shaking_the_picture_shows() -> None:
    """Against the picture moved by random displacements, many times."""
    generator = np.random.default_rng(9)
    noise = cv2.GaussianBlur(generator.normal(size=(96, 128)), (0, 0), 3)
    picture = (128 + 40 * noise / noise.std()).astype(np.float32)
    for length in (0.35, 2.8, 11.2):
        moved = []
        for _ in range(400):
            x, y = generator.normal(scale=length / np.sqrt(2), size=2)
            shift = np.array([[1, 0, x], [0, 1, y]])
            moved.append(cv2.warpAffine(picture, shift, (128, 96), borderMode=cv2.BORDER_REFLECT_101))
        expected = np.std(moved, axis=0)[20:-20, 20:-20]
        found = shaken(picture, [length])[0][20:-20, 20:-20]
        assert found.mean() == pytest.approx(expected.mean(), rel=0.1)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_camera_that_shifts_is_no_motion() -> None:
    frames = _swaying(pixels=0)
    shifted = np.stack([np.roll(frame, 2 * (index % 3), axis=1) for index, frame in enumerate(frames)])
    assert motion_energy(shifted)[2:-2, 3:-3].max() < 0.2


def test_fewer_frames_measure_nearly_the_same() -> None:
    frames = _swaying()
    np.testing.assert_allclose(
        motion_energy(frames, every=3)[12:23, 26:36], motion_energy(frames)[12:23, 26:36], rtol=0.15
    )


def test_energy_refuses_one_frame() -> None:
    with pytest.raises(ValueError, match="1 frames, start 0, every 1: give 2 frames"):
        motion_energy(_swaying()[:1])


def test_confidence_by_gradient() -> None:
    """A ramp of s grey levels a pixel has confidence s^2 / (s^2 + 1.5^2); a flat half has none."""
    picture = np.zeros((288, 512, 3), np.uint8)
    wave = 64 - np.abs(np.arange(256) % 128 - 64)
    picture[:, :256] = (3 * wave)[None, :, None]
    confidence = texture_confidence(picture)
    assert confidence[10:26, 4:28].mean() == pytest.approx(9 / (9 + 2.25), rel=0.03)
    assert confidence[:, 36:].max() < 1e-6
