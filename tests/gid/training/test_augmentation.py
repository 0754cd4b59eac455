"""Augmented pictures and their motion belong together: checked by moving the picture."""

import math

import pytest
import torch
import torch.nn.functional as F

from gid.training.augmentation import AugmentationConfig, augment


def blob(x: float, y: float, width: int = 160, height: int = 96) -> torch.Tensor:
    """A smooth coloured bump at (x, y) pixels, uint8 (3, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    bump = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 40)
    return (bump * torch.tensor([200.0, 120.0, 60.0])[:, None, None]).byte()


def centre(photo: torch.Tensor) -> tuple[float, float]:
    weight = photo.float().sum(0)
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in weight.shape), indexing="ij")
    return float((weight * columns).sum() / weight.sum()), float((weight * rows).sum() / weight.sum())


@pytest.mark.parametrize("seed", range(6))
def test_motion_turns_and_scales_with_the_picture(seed: int) -> None:
    config = AugmentationConfig((0.7, 0.9), 20.0, 0, 0, 0, 0, reverse_time=0.0)
    move_x, move_y = 3.0, 2.0
    coefficients = torch.zeros(2, 4, 24, 40)
    coefficients[1, 0], coefficients[1, 2] = move_x / 160, move_y / 96
    results = []
    for dx, dy in ((0.0, 0.0), (move_x, move_y)):
        generator = torch.Generator().manual_seed(seed)
        results.append(augment(blob(80 + dx, 48 + dy), coefficients, config, generator)[:2])
    (photo, motion), (moved, _) = results
    x0, y0 = centre(photo)
    x1, y1 = centre(moved)
    vector = motion[1, :, 12, 20]
    assert (float(vector[0]) * 160, float(vector[2]) * 96) == pytest.approx((x1 - x0, y1 - y0), abs=0.15)
    assert math.hypot(x1 - x0, y1 - y0) > 1.05 * math.hypot(move_x, move_y)  # a crop magnifies


def test_the_window_stays_inside() -> None:
    config = AugmentationConfig((1.0, 1.0), 30.0, 0, 0, 0, 0, 0)
    frame = torch.zeros(3, 96, 160, dtype=torch.uint8)
    frame[:, 2:-2, 2:-2] = 200
    ramp = F.pad(torch.full((1, 4, 20, 36), 0.01), (2, 2, 2, 2))
    for seed in range(5):
        photo, *_ = augment(frame, ramp, config, torch.Generator().manual_seed(seed))
        assert float(photo[:, 20:-20, 20:-20].float().min()) == 200


def test_reversed_time_conjugates() -> None:
    config = AugmentationConfig((1.0, 1.0), 0.0, 0, 0, 0, 0, reverse_time=1.0)
    coefficients = torch.randn(3, 4, 12, 20)
    for seed in range(4):
        _, motion, _ = augment(blob(80, 48), coefficients, config, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(motion[:, 3].abs().sum(), coefficients[:, 3].abs().sum(), rtol=1e-4, atol=1e-3)
        same = torch.allclose(motion[:, 3], -coefficients[:, 3], atol=1e-4)
        mirrored = torch.allclose(motion[:, 3], -coefficients[:, 3].flip(-1), atol=1e-4)
        assert same or mirrored


def test_same_seed_same_copy() -> None:
    photo, coefficients = blob(60, 40), torch.randn(2, 4, 24, 40)
    first = augment(photo, coefficients, AugmentationConfig(), torch.Generator().manual_seed(3))
    second = augment(photo, coefficients, AugmentationConfig(), torch.Generator().manual_seed(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
