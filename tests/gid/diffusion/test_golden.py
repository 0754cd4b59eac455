"""Golden slices: what each embedded network of the pipeline says of a fixed input, as it was when it was shipped.

The encoder's slices are in tests/foundation/test_features.py, the motion map's beside its other tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gid.diffusion.pipeline import GIDPipeline, load_pipeline


@pytest.fixture(scope="module")
def pipeline() -> GIDPipeline:
    return load_pipeline("embedded", "cpu")


def wave(*shape: int) -> Tensor:
    """Numbers in [0, 1] that are the same on every machine and in every version of torch, unlike noise."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
    return (0.5 + 0.5 * torch.sin(count * 0.37) * torch.cos(count * 0.011)).reshape(shape)


def encoded(pipeline: GIDPipeline) -> Tensor:
    return pipeline.autoencoder.encode_slices(wave(1, 4, 32, 32) - 0.5)


def decoded(pipeline: GIDPipeline) -> Tensor:
    return pipeline.autoencoder.decode_slices(encoded(pipeline))


def denoised(pipeline: GIDPipeline) -> Tensor:
    condition = (wave(1, pipeline.denoiser.config.condition_channels, 8, 8) - 0.5).expand(16, -1, -1, -1)
    times = torch.full((16,), 500)
    return pipeline.denoiser(wave(16, 4, 8, 8) * 2 - 1, times, torch.arange(16), condition)


def condition(pipeline: GIDPipeline) -> Tensor:
    return pipeline.denoiser.photo_condition(wave(1, 1152, 5, 7) * 4 - 2, -5 * wave(1, 1, 8, 8))


def still(pipeline: GIDPipeline) -> Tensor:
    return pipeline.stillness(pipeline.photo_encoder.trunk, wave(1, 3, 64, 64))


def frame(pipeline: GIDPipeline) -> Tensor:
    photo, flow = wave(1, 3, 64, 64), (wave(1, 2, 64, 64) - 0.5) * 12
    renderer = pipeline.renderer
    return renderer.render(photo, renderer.encode(photo), flow, flow.norm(dim=1, keepdim=True))


GOLDEN: list[tuple[Callable[[GIDPipeline], Tensor], list[float]]] = [
    (encoded, [-0.34744, 0.36178, -0.8303, -0.6889, 0.15145, 1.3145]),
    (decoded, [-0.138, 0.10136, -0.20351, 0.31277, -0.00571, -0.31791]),
    (denoised, [-0.03684, 0.01398, -0.14295, 0.07167, 0.11469, -0.09535]),
    (condition, [0.05243, 0.00297, -0.13883, -0.08498, -0.03307, 0.00803]),
    (still, [0.59324]),
    (frame, [0.33191, 0.83034, 0.71803, 0.39103, 0.67192, 0.7966]),
]


@pytest.mark.parametrize(("asked", "expected"), GOLDEN, ids=[asked.__name__ for asked, _ in GOLDEN])
@torch.no_grad()
def test_embedded_networks_say_what_they_said(
    pipeline: GIDPipeline, asked: Callable[[GIDPipeline], Tensor], expected: list[float]
) -> None:
    values = asked(pipeline).float().flatten()
    found = values[:: max(1, len(values) // 6)][:6]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=2e-3, atol=2e-3)
