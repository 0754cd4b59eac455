"""Splatting against a brute-force double loop, closed forms and finite differences."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from gid.rendering import splatting
from gid.rendering.splatting import coverage, cpu, splat

IMPLEMENTATIONS = ["torch", "numba"] if cpu.kernels() is not None else ["torch"]
MODES = ["sum", "average", "linear", "softmax"]


def scene(batch: int = 2, channels: int = 3, height: int = 6, width: int = 8, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)
    flow = 3 * torch.randn(batch, 2, height, width, generator=generator, dtype=torch.float64)
    metric = 2 * torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64) + 0.1
    return features.to(dtype), flow.to(dtype), metric.to(dtype)


def brute_force(features: Tensor, flow: Tensor, metric: Tensor, mode: str) -> np.ndarray:
    """Every source to every target, by the definition."""
    f, d, z = features.double().numpy(), flow.double().numpy(), metric.double().numpy()
    weight = {"sum": np.ones_like(z), "average": np.ones_like(z), "linear": z, "softmax": np.exp(z)}[mode]
    batch, _, height, width = f.shape
    total, mass = np.zeros_like(f), np.zeros_like(z)
    pixels = list(product(range(height), range(width)))
    for b, (qy, qx), (py, px) in product(range(batch), pixels, pixels):
        share = max(0, 1 - abs(px - qx - d[b, 0, qy, qx])) * max(0, 1 - abs(py - qy - d[b, 1, qy, qx]))
        total[b, :, py, px] += share * weight[b, 0, qy, qx] * f[b, :, qy, qx]
        mass[b, 0, py, px] += share * weight[b, 0, qy, qx]
    return total if mode == "sum" else np.where(mass > 0, total / np.where(mass > 0, mass, 1), 0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_definition(mode, implementation, dtype):
    features, flow, metric = scene(height=5, width=7, dtype=dtype)
    expected = brute_force(features, flow, metric, mode)
    result = splat(features, flow, metric, mode, implementation)
    assert result.dtype == dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_match_finite_differences(mode, implementation):
    features, flow, metric = scene(batch=2, channels=2, height=4, width=5, seed=3)
    # Bilinear shares have kinks where a target meets a pixel centre; keep finite differences away from them.
    flow = flow.floor() + 0.1 + 0.8 * (flow - flow.floor())
    inputs = [t.requires_grad_() for t in (features, flow, metric)]
    assert torch.autograd.gradcheck(lambda f, d, z: splat(f, d, z, mode, implementation), inputs, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_sum_conserves_mass_inside_the_image(implementation):
    features, flow, _ = scene(height=20, width=24, dtype=torch.float32)
    features[..., :6, :] = features[..., -6:, :] = features[..., :6] = features[..., -6:] = 0
    result = splat(features, flow.clamp(-5, 5), mode="sum", implementation=implementation)
    torch.testing.assert_close(result.sum((2, 3)), features.sum((2, 3)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_no_motion_changes_nothing(mode, implementation):
    features, flow, metric = scene(dtype=torch.float32)
    result = splat(features, torch.zeros_like(flow), metric, mode, implementation)
    if mode in ("sum", "average"):
        assert torch.equal(result, features)
    torch.testing.assert_close(result, features)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_whole_pixel_shift_moves_pixels_and_leaves_holes(implementation):
    features, flow, metric = scene(dtype=torch.float32)
    flow = torch.zeros_like(flow)
    flow[:, 0], flow[:, 1] = 2, -1
    result = splat(features, flow, metric, "softmax", implementation)
    torch.testing.assert_close(result[..., :-1, 2:], features[..., 1:, :-2])
    assert torch.all(result[..., -1, :] == 0)
    assert torch.all(result[..., :2] == 0)
    covered = coverage(flow, implementation)
    assert torch.equal(covered[:, 0] > 0, (result != 0).any(1))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30, float("inf")])
def test_a_large_metric_neither_overflows_nor_loses_pixels(implementation, scale):
    features, flow, metric = scene(dtype=torch.float32)
    metric[:, :, 0, 0] = 1.0
    metric = (metric - 1) * scale
    assert torch.isfinite(splat(features, flow, metric, "softmax", implementation)).all()
    still = torch.zeros_like(flow)
    torch.testing.assert_close(splat(features, still, metric, "softmax", implementation), features)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_larger_metric_wins(implementation):
    features, flow, metric = torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 1, 4)
    features[..., 0], features[..., 2] = 1.0, 0.25
    flow[:, 0, :, 0] = 2  # lands on pixel 2, in front of what is there
    metric[..., 0] = 40
    assert splat(features, flow, metric, "softmax", implementation)[0, 0, 0, 2] == pytest.approx(1.0)
    assert splat(features, flow, -metric, "softmax", implementation)[0, 0, 0, 2] == pytest.approx(0.25)
    assert splat(features, flow, metric, "average", implementation)[0, 0, 0, 2] == pytest.approx(0.625)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e20, -1e20, 1e9])
def test_a_flow_that_is_not_finite_lands_nowhere(implementation, bad):
    features, flow, metric = scene(dtype=torch.float32)
    flow = torch.zeros_like(flow)
    flow[:, 0, 2, 3] = bad
    inputs = [t.requires_grad_() for t in (features, flow, metric)]
    result = splat(*inputs, "softmax", implementation)
    assert torch.all(result[:, :, 2, 3] == 0)
    keep = torch.ones(6, 8, dtype=torch.bool)
    keep[2, 3] = False
    torch.testing.assert_close(result[..., keep], features[..., keep])
    result.square().sum().backward()
    for tensor in inputs:
        assert torch.isfinite(tensor.grad).all()
        assert torch.all(tensor.grad[:, :, 2, 3] == 0)


@pytest.mark.skipif("numba" not in IMPLEMENTATIONS, reason="numba is not installed")
@pytest.mark.parametrize("channels", [1, 4, 17])
@pytest.mark.parametrize("mode", MODES)
def test_the_kernel_equals_the_reference_with_gradients(mode, channels):
    results = []
    for implementation, dtype in (("numba", torch.float32), ("torch", torch.float64)):
        features, flow, metric = (t.to(dtype) for t in scene(2, channels, 19, 33, seed=5, dtype=torch.float32))
        inputs = [t.requires_grad_() for t in (features.transpose(2, 3).contiguous().transpose(2, 3), flow, metric)]
        result = splat(*inputs, mode, implementation)
        probe = torch.rand(result.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        used = inputs if mode in ("linear", "softmax") else inputs[:2]
        results.append((result.detach(), *torch.autograd.grad(result, used, probe)))
    for ours, reference in zip(*results, strict=True):
        # Where little lands, the gradient of the flow is the small difference of large numbers: 1e-4 of the largest.
        limit = 1e-4 * max(1.0, float(reference.abs().max()))
        torch.testing.assert_close(ours, reference.float(), rtol=1e-3, atol=limit)


@pytest.mark.skipif("numba" not in IMPLEMENTATIONS, reason="numba is not installed")
def test_exponentials_are_exact_to_single_precision():
    values = torch.cat(
        [torch.linspace(-60, 0, 4001), -torch.logspace(-8, 1.5, 999), torch.tensor([0.0, -float("inf")])]
    )
    found = np.empty(len(values), np.float32)
    kernels = cpu.kernels()
    assert kernels is not None
    kernels.exponentials((values + 3).numpy(), 3.0, -50.0, found)
    shifted = (values + 3) - 3  # what is left of the values after rounding
    np.testing.assert_allclose(found, np.exp(shifted.clamp(min=-50).double().numpy()), rtol=3e-7)
    assert found[-2] == 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_half_precision_features_keep_exact_coordinates(implementation):
    features = torch.zeros(1, 1, 1, 600, dtype=torch.bfloat16)
    features[..., 500] = 1
    flow = torch.zeros(1, 2, 1, 600)
    flow[:, 0] = 0.25  # bfloat16 cannot tell 500.25 from 500
    result = splat(features, flow, mode="sum", implementation=implementation)
    assert result.dtype == torch.bfloat16
    assert result[0, 0, 0, 500:502].tolist() == [0.75, 0.25]


def test_many_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    features, flow, metric = scene(1, 4, 40, 40, dtype=torch.float32)
    expected = splat(features, flow, metric)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: splat(features, flow, metric), range(32)):
            assert torch.equal(result, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "maximum"}, "softmax"),
        ({"implementation": "cuda"}, "numba"),
        ({"metric": None}, "metric"),
        ({"flow": torch.zeros(2, 3, 6, 8)}, "flow must be"),
        ({"metric": torch.zeros(2, 2, 6, 8)}, "metric must be"),
        ({"features": torch.zeros(2, 3, 6, 8, dtype=torch.int64)}, "floating point"),
    ],
)
def test_mistakes_are_named(change, words):
    features, flow, metric = scene(dtype=torch.float32)
    with pytest.raises(ValueError, match=words):
        splat(**{"features": features, "flow": flow, "metric": metric, **change})


def test_without_numba_the_reference_takes_over(monkeypatch):
    features, flow, metric = scene(dtype=torch.float32)
    expected = splat(features, flow, metric, implementation="torch")
    monkeypatch.setattr(cpu, "kernels", lambda: None)
    assert torch.equal(splat(features, flow, metric), expected)
    with pytest.raises(ValueError, match="numba"):
        splatting.splat(features, flow, metric, implementation="numba")
