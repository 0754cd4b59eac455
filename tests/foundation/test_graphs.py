"""Recorded networks: the same results as the networks themselves, and no difference where there is no CUDA GPU."""

from __future__ import annotations

import pytest
import torch

from foundation.graphs import Replayed
from tests.tiny import photo, tiny_pipeline

devices = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", devices)
@torch.no_grad()
def test_replaying_equals_calling(device):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3)).to(device)
    replayed = Replayed(network, limit=2)
    for size in (4, 5, 4, 6, 5):
        inputs = torch.randn(size, 8, device=device)
        first = replayed(inputs)
        torch.testing.assert_close(first, network(inputs))
        kept = first.clone()
        replayed(torch.randn(size, 8, device=device))
        assert torch.equal(first, kept)  # results belong to the caller


def test_gradients_go_through_the_network_itself():
    network = torch.nn.Linear(3, 2)
    Replayed(network)(torch.rand(4, 3)).sum().backward()
    assert network.weight.grad is not None


@pytest.mark.parametrize("device", devices)
def test_motion_is_the_same_with_recordings(device):
    pipeline = tiny_pipeline().to(device)
    plain = pipeline(photo(), seed=3, steps=3, guidance_scale=1.5).volumes[0].coefficients
    pipeline.use_cuda_graphs()
    recorded = pipeline(photo(), seed=3, steps=3, guidance_scale=1.5).volumes[0].coefficients
    torch.testing.assert_close(
        recorded, plain, atol=0 if device == "cpu" else 1e-3, rtol=0 if device == "cpu" else 1e-2
    )
    pipeline.use_cuda_graphs(False)
    torch.testing.assert_close(
        pipeline(photo(), seed=3, steps=3, guidance_scale=1.5).volumes[0].coefficients, plain, atol=1e-6, rtol=1e-5
    )
