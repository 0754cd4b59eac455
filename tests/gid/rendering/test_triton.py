"""The Triton kernels against the torch reference, run by Triton's interpreter on the CPU (slow: tiny inputs).

Whether triton interprets is settled when it is imported, so each case runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gid.rendering.splatting import gpu, splat

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

PROGRAM = """
import torch
from gid.rendering.splatting import splat, splat_sums

torch.manual_seed(0)
cases = [(1, 1, 5, 7, "sum"), (2, 3, 6, 9, "softmax"), (2, 17, 11, 13, "average"), (1, 4, 16, 24, "linear")]
for batch, channels, height, width, mode in cases:
    # Permuted and sliced: any strides have to do.
    features = torch.rand(batch, height, width, channels + 2)[..., 1 : channels + 1].permute(0, 3, 1, 2)
    flow = (3 * torch.randn(batch, 2, width, height)).transpose(2, 3)
    metric = torch.rand(1, 1, height, width).expand(batch, -1, -1, -1) + 0.1
    flow[0, 0, 1, 2], flow[0, 1, 2, 3], flow[0, 0, 3, 1] = float("nan"), float("inf"), 1e20
    flow[:, :, 4] = 0.0
    results = []
    for implementation in ("torch", "triton"):
        inputs = [t.detach().requires_grad_() for t in (features, flow, metric)]
        result = splat(*inputs, mode, implementation)
        probe = torch.rand(result.shape, generator=torch.Generator().manual_seed(1))
        used = inputs if mode in ("linear", "softmax") else inputs[:2]
        results.append((result.detach(), *torch.autograd.grad(result, used, probe)))
    for reference, ours in zip(*results):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
features = torch.rand(1, 2, 6, 8).half()
total, mass = splat_sums(features, 2 * torch.randn(1, 2, 6, 8), torch.ones(1, 1, 6, 8), "triton")
assert total.dtype == mass.dtype == torch.float32
print("equal")
"""


@needs_triton
def test_forward_and_gradients_equal_the_reference():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@needs_triton
def test_the_checks_made_on_a_gpu_pass_in_the_interpreter():
    program = """
import sys
sys.path.insert(0, "benchmarks")
from gpu import check_splatting

rows = check_splatting("cpu", [(2, 3, 6, 8)])
assert len(rows) == 3 * (3 + 3 + 4 + 4), len(rows)
assert all(row["equal"] for row in rows), rows
print("equal")
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@needs_triton
def test_without_a_gpu_the_mistake_is_named():
    program = """
import torch
from gid.rendering.splatting import splat
splat(torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), mode="sum", implementation="triton")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "ValueError: implementation='triton' needs CUDA tensors, got cpu" in done.stderr


def test_without_triton_the_reference_takes_over(monkeypatch):
    monkeypatch.setattr(gpu, "kernels", lambda: None)
    features, flow = torch.rand(1, 2, 5, 6), torch.randn(1, 2, 5, 6)
    assert not gpu.usable(features, torch.float32)
    with pytest.raises(ValueError, match="needs the triton package"):
        splat(features, flow, mode="sum", implementation="triton")
