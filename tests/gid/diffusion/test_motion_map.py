"""The motion map: its shape follows the heads, its size the summary, its edges the photo's."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from foundation.pictures import load_photo
from gid.diffusion.loading import resolve_weights
from gid.diffusion.motion_map import DETAIL, MotionMap, detail_of, smoothed, standardized

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def model() -> MotionMap:
    torch.manual_seed(0)
    model = MotionMap(channels=12, summary=6, components=5, width=8, members=2).eval()
    model.get_buffer("projection").normal_()
    return model


def picture() -> Tensor:
    photo = torch.rand(3, 60, 96, generator=torch.Generator().manual_seed(1)) * 0.2
    photo[:, 20:50, 30:70] += 0.7
    return photo


def test_shapes_are_standardized_and_members_averaged(model: MotionMap) -> None:
    tokens, contrasts = torch.randn(2, 12, 6, 9), torch.rand(2, 4, 6, 9) + 0.1
    shape = model(tokens, contrasts)
    assert shape.shape == (2, 1, 6, 9)
    assert torch.allclose(shape.mean((2, 3)), torch.zeros(2, 1), atol=1e-5)
    projected = torch.einsum("kc,bcij->bkij", model.get_buffer("projection"), tokens)
    maps = [head(projected, model.details(contrasts)) for head in model.heads]
    each = [(m - m.mean((2, 3), keepdim=True)) / m.std((2, 3), keepdim=True, unbiased=False) for m in maps]
    assert torch.allclose(shape, (each[0] + each[1]) / 2, atol=1e-4)


def test_heads_are_told_how_sharp_a_place_is_beside_others(model: MotionMap) -> None:
    model.get_buffer("detail_mean").copy_(torch.tensor([0.5, 0.1, 0.2, 0.3]))
    model.get_buffer("detail_spread").copy_(torch.tensor([2.0, 1.0, 1.0, 0.5]))
    contrasts = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(4)) + 0.1
    told = model.details(contrasts)
    logs = contrasts.log()
    assert told.shape == (2, 6, 3, 5)
    assert torch.allclose(told[:, 0], (logs[:, 0] - 0.5) / 2)
    assert torch.allclose(told[:, 3], (logs[:, 3] - logs[:, 2] - 0.3) / 0.5, atol=1e-6)
    assert torch.allclose(told[:, 4].mean((1, 2)), torch.zeros(2), atol=1e-6)
    assert torch.equal(told[0, 5], torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 5))


def test_detail_falls_with_blur_first_where_it_is_fine() -> None:
    generator = np.random.default_rng(5)
    noise = generator.normal(size=(144, 256))
    sharp, soft = (cv2.GaussianBlur(noise, (0, 0), width) for width in (1.0, 6.0))
    grey = np.where(np.arange(256) < 128, sharp / sharp.std(), soft / soft.std()) * 0.1 + 0.5
    contrasts = detail_of(torch.from_numpy(grey).float().expand(3, -1, -1), (16, 9))
    assert contrasts.shape == (len(DETAIL), 9, 16)
    left, right = contrasts[:, 2:7, 1:6].mean((1, 2)), contrasts[:, 2:7, 10:15].mean((1, 2))
    # Noise of width w, blurred by another pixel, has a slope of w / (w^2 + 1) and a contrast of w / (w^2 + 1)^0.5.
    assert float(left[0] / right[0]) == pytest.approx((1 / 2) / (6 / 37), rel=0.15)
    assert float(left[3] / right[3]) == pytest.approx((1 / 2) ** 0.5 / (36 / 37) ** 0.5, rel=0.25)


def test_what_moves_most_moves_by_the_amount() -> None:
    model = MotionMap(width=8, members=1, amount=0.004, floor=0.1).eval()
    with torch.no_grad():
        model.heads[0].linear.weight.normal_()
        model.get_buffer("projection").normal_(std=0.05)
    envelope = model.envelope(picture(), (32, 48))
    assert envelope.shape == (1, 1, 32, 48)
    assert float(envelope.flatten().quantile(0.98)) == pytest.approx(0.004, rel=1e-4)
    assert float(envelope.min()) == 0.0


def test_what_surely_stands_still_hardly_moves() -> None:
    model = MotionMap(summary=384, members=1, least=0.02, steepness=2.0).eval()
    with torch.no_grad():
        model.moves.bias.fill_(-20.0)
    held, free = (model.envelope(picture(), (16, 24), hold_still=hold) for hold in (True, False))
    assert float(held.mean() / free.mean()) == pytest.approx(0.02, rel=1e-4)
    scores = torch.tensor([[-3.0], [-1.5], [-1.0], [4.0]])
    with torch.no_grad():
        model.moves.bias.zero_()
        model.moves.weight.zero_()
        model.moves.weight[0, 0] = 1
    summary = torch.zeros(4, 384)
    summary[:, 0] = scores[:, 0]
    expected = [0.02, math.exp(-1), 1.0, 1.0]
    assert torch.allclose(model.kept(summary)[:, 0], torch.tensor(expected), rtol=1e-5)


def test_smoothing_stops_at_the_photos_edges() -> None:
    photo = torch.zeros(3, 24, 32)
    photo[:, :, 16:] = 1
    tokens = torch.zeros(4, 12, 16)
    tokens[0, :, :8], tokens[1, :, 8:] = 1, 1
    shape = torch.randn(24, 32, generator=torch.Generator().manual_seed(2))
    shape[:, 16:] += 5
    smooth = smoothed(shape, tokens, photo, 100.0)
    left, right = smooth[:, :15], smooth[:, 17:]
    assert float(right.mean() - left.mean()) == pytest.approx(
        float(shape[:, 17:].mean() - shape[:, :15].mean()), rel=0.1
    )
    assert float(left.std()) < 0.3 * float(shape[:, :15].std())
    assert float(smooth.sum()) == pytest.approx(float(shape.sum()), rel=1e-4)


def test_smoothing_minimises_what_it_says() -> None:
    """Against gradient descent's criterion: the energy's derivative vanishes at the solution."""
    torch.manual_seed(3)
    shape, tokens, photo = torch.randn(5, 7), torch.randn(3, 5, 7), torch.rand(3, 5, 7)
    u = smoothed(shape, tokens, photo, 2.0).double().requires_grad_()
    seen = torch.nn.functional.normalize(tokens - tokens.mean((1, 2), keepdim=True), dim=0)

    def link(a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (-(a - b).square().sum(0) / 0.5 - (i - j).square().sum(0) / 0.12**2).exp() + 1e-3

    energy = (u - shape).square().sum()
    energy = (
        energy
        + 2
        * (link(seen[:, :, 1:], seen[:, :, :-1], photo[:, :, 1:], photo[:, :, :-1]) * (u[:, 1:] - u[:, :-1]) ** 2).sum()
    )
    energy = energy + 2 * (link(seen[:, 1:], seen[:, :-1], photo[:, 1:], photo[:, :-1]) * (u[1:] - u[:-1]) ** 2).sum()
    (gradient,) = torch.autograd.grad(energy, u)
    assert gradient.abs().max() < 1e-4


def test_gradients_reach_every_parameter_of_the_heads(model: MotionMap) -> None:
    shape = standardized(model.heads[0].train()(torch.randn(2, 5, 6, 9), torch.randn(2, 6, 6, 9)))
    shape.square().mul(torch.randn(2, 1, 6, 9)).sum().backward()
    assert all(p.grad is not None for p in model.heads[0].parameters())


def test_the_embedded_map_gives_what_it_gave() -> None:
    """A slice through the middle of the dahlia: still leaves, the blossom, still leaves; and candles move in flames."""
    model = MotionMap.from_pretrained(resolve_weights("embedded") / "motion_map").eval()
    flower = 1000 * model.envelope(load_photo(EXAMPLES / "flower.jpg", max_side=512), (16, 24))[0, 0, 8]
    expected = [1.91, 1.57, 10.94, 21.24, 27.91, 29.55, 29.23, 14.84, 2.47, 1.96, 1.80]
    assert flower[[0, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]].tolist() == pytest.approx(expected, rel=0.04)
    candles = model.envelope(load_photo(EXAMPLES / "scene-candles.jpg", max_side=512), (64, 96))[0, 0]
    # The leftmost flame beside the wax under it, and beside the dark between two candles.
    flame = float(candles[22:28, 5:10].mean())
    assert flame > 2.5 * float(candles[34:38, 5:10].mean())
    assert flame > 5 * float(candles[40:60, 44:56].mean())


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel 4: 1 or more, odd"):
        MotionMap(kernel=4)
