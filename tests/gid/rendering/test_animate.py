"""Frames from a photo and motion: the promises about frame 0, still pixels, loops and bad options."""

from __future__ import annotations

import math

import pytest
import torch

from gid.motion.spectrum import SpectralVolume
from gid.rendering.animate import animate, render_displacements
from gid.rendering.renderer import Renderer


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    return Renderer().eval()


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (45, 60), mode="bicubic")[0].clamp(0, 1)


def volume_of(size: tuple[int, int] = (45, 60), amplitude: float = 0.03) -> SpectralVolume:
    """The middle sways, the rest stands still, with a soft and faint edge between."""
    height, width = size
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    shape = amplitude * (1 - (x * x + y * y) / 0.3).clamp(min=0)
    real = torch.zeros(16, 4, height, width)
    for band in range(1, 6):
        real[band, 0] = shape * math.cos(band) / band
        real[band, 1] = shape * math.sin(band) / band
        real[band, 2] = 0.4 * shape * math.sin(2 * band) / band
    return SpectralVolume.from_real(real, fps=30.0, num_frames=150, image_size=(width, height))


def frames_of(*args, **kwargs) -> torch.Tensor:
    return torch.cat(list(animate(*args, **kwargs)))


def test_frame_0_and_still_pixels_are_the_photo_to_the_bit(photo, renderer):
    frames = frames_of(photo, volume_of(), renderer, num_frames=20)
    assert frames.shape == (20, 3, 45, 60)
    assert torch.equal(frames[0], photo)
    assert torch.equal(frames[:, :, :6, :6], photo[None, :, :6, :6].expand(20, -1, -1, -1))
    assert (frames[7, :, 15:30, 20:40] - photo[:, 15:30, 20:40]).abs().max() > 0.02
    assert torch.isfinite(frames).all()
    assert frames.min() >= 0
    assert frames.max() <= 1


@pytest.mark.parametrize(("num_frames", "fps", "speed"), [(150, 30, 1), (37, 24, 1), (48, 30, 0.3), (20, 12, 2.5)])
def test_loops_close_at_any_length_and_speed(photo, renderer, num_frames, fps, speed):
    frames = frames_of(photo, volume_of(), renderer, num_frames=num_frames, fps=fps, speed=speed)
    step = (frames - frames.roll(1, 0)).abs().mean((1, 2, 3))
    assert step[0] <= 1.2 * step[1:].median()


def test_chunks_only_change_the_packing(photo, renderer):
    reference = frames_of(photo, volume_of(), renderer, num_frames=11, chunk=11)
    pieces = list(animate(photo, volume_of(), renderer, num_frames=11, chunk=4))
    assert [len(piece) for piece in pieces] == [4, 4, 3]
    torch.testing.assert_close(torch.cat(pieces), reference, atol=1e-5, rtol=0)


def test_no_strength_or_no_motion_is_a_still(photo, renderer):
    for volume, strength in ((volume_of(), 0.0), (volume_of(amplitude=0.0), 1.0), (volume_of(amplitude=1e-4), 1.0)):
        frames = frames_of(photo, volume, renderer, num_frames=5, strength=strength)
        assert torch.equal(frames, photo.expand(5, -1, -1, -1))


def test_a_volume_of_another_resolution_gives_nearly_the_same(photo, renderer):
    fine = frames_of(photo, volume_of(), renderer, num_frames=6)
    coarse = frames_of(photo, volume_of().resize(23, 30), renderer, num_frames=6)
    assert (fine - coarse).abs().mean() < 0.01


def test_a_whole_shift_is_rendered_exactly(photo, renderer):
    displacement = torch.zeros(1, 2, 45, 60)
    displacement[:, 0] = 4 / 60
    displacement[:, 1] = 3 / 45
    importance = torch.full((45, 60), 5.0)
    frame = next(iter(render_displacements(photo, [displacement], renderer, importance)))[0]
    torch.testing.assert_close(frame[:, 3:, 4:], photo[:, :-3, :-4], atol=1e-4, rtol=0)


def test_odd_types_and_sizes(renderer):
    for height, width in ((17, 16), (16, 61)):
        photo = torch.rand(3, height, width, dtype=torch.float64)
        frames = frames_of(photo, volume_of((height, width)), renderer, num_frames=3)
        assert frames.dtype == torch.float64
        assert frames.shape == (3, 3, height, width)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_frames": 1}, "num_frames is 1"),
        ({"num_frames": 1801}, "1800"),
        ({"num_frames": 10.5}, "whole number"),
        ({"fps": 0.5}, "fps is 0.5"),
        ({"fps": 61}, "from 1 to 60"),
        ({"strength": -0.1}, "strength is -0.1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"speed": 0.05}, "from 0.1 to 4"),
        ({"speed": 5}, "speed is 5"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_options_out_of_range_are_named_at_once(photo, renderer, change, words):
    with pytest.raises(ValueError, match=words):
        animate(photo, volume_of(), renderer, **change)


def test_wrong_shapes_are_named(photo, renderer):
    with pytest.raises(ValueError, match="photo must be"):
        animate(photo[None], volume_of(), renderer)
    with pytest.raises(ValueError, match="same photo"):
        animate(photo, volume_of((60, 45)), renderer)
    with pytest.raises(ValueError, match="displacements must be"):
        list(render_displacements(photo, [torch.zeros(2, 45, 60)], renderer, torch.zeros(45, 60)))
