"""What a training step costs: the renderer's and the denoiser's, by batch size.

    python benchmarks/training_step.py [--out benchmark-results]

One step is forward, backward and the optimiser's update, on random data of the real shapes. The renderer's step is also
run with splatting by plain torch (`index_add`), the peer of the compiled kernels with gradients. The denoiser's peer is
its own forward pass alone: a step costs about three of them where nothing is wasted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor, nn

import gid.rendering.renderer
from gid.diffusion.denoiser import DenoiserConfig, SpectralDenoiser
from gid.rendering.renderer import Renderer
from gid.rendering.splatting import Implementation, splat
from gid.training.renderer import RendererObjective, RendererTrainingConfig

CROP = 128


def renderer_batch(size: int) -> dict[str, Tensor]:
    """Photos whose middle moves by some pixels, so that there are holes to mend."""
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(size, 3, CROP, CROP, generator=generator)
    flow = torch.zeros(size, 2, CROP, CROP)
    flow[..., 32:96, 32:96] = 5 * torch.randn(size, 2, 1, 1, generator=generator)
    return {"photo": photo, "target": photo.roll(3, -1), "flow": flow, "importance": flow.norm(dim=1, keepdim=True)}


def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, backward and update."""
    optimizer = torch.optim.AdamW(module.parameters(), 1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def renderer_step(size: int, implementation: Implementation) -> Callable[[], None]:
    """A step of the renderer's stage with the chosen splatting of features."""
    torch.manual_seed(0)
    objective = RendererObjective(
        Renderer().to(memory_format=torch.channels_last), RendererTrainingConfig(Path()), None
    )
    batch = renderer_batch(size)
    step = stepper(objective.model, lambda: objective(batch)[0])

    def with_splatting() -> None:
        gid.rendering.renderer.splat = functools.partial(splat, implementation=implementation)
        try:
            step()
        finally:
            gid.rendering.renderer.splat = splat

    return with_splatting


def denoiser_step(size: int) -> tuple[Callable[[], None], Callable[[], Tensor]]:
    """A step on all slices of ``size`` volumes, and its forward pass alone."""
    torch.manual_seed(0)
    config = DenoiserConfig()
    denoiser = SpectralDenoiser.from_preset(config).to(memory_format=torch.channels_last)
    count = size * config.num_bands
    latents = torch.randn(count, config.latent_channels, 16, 28)
    condition = torch.randn(count, config.condition_channels, 16, 28)
    times, index = torch.full((count,), 500), torch.arange(config.num_bands).repeat(size)

    def forward() -> Tensor:
        return denoiser(latents, times, index, condition).square().mean()

    @torch.no_grad()
    def alone() -> Tensor:
        return forward()

    return stepper(denoiser, forward), alone


def one_step(what: str, size: int) -> None:
    """One step, for the peak of memory."""
    (denoiser_step(size)[0] if what == "denoiser" else renderer_step(size, "auto"))()


def main() -> None:
    """Measure, print, write JSON and plot."""
    parser = common.parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    common.start(options)
    rows: list[dict[str, Any]] = []
    for size in options.batches:
        ours = common.measure(renderer_step(size, "auto"), options.repeats)
        peer = common.measure(renderer_step(size, "torch"), options.repeats)
        _, peak = common.peak_of(one_step, "renderer", size)
        row = {"stage": "renderer", "batch": size, "step_ms": ours.wall_ms, "processor_ms": ours.processor_ms}
        rows.append(row | {"peer": "splatting by torch", "peer_ms": peer.wall_ms, "peak_mb": peak})
    for size in options.batches:
        step, forward = denoiser_step(size)
        ours, peer = (common.measure(work, options.repeats) for work in (step, forward))
        _, peak = common.peak_of(one_step, "denoiser", size)
        row = {"stage": "denoiser", "batch": size, "step_ms": ours.wall_ms, "processor_ms": ours.processor_ms}
        rows.append(row | {"peer": "forward alone", "peer_ms": peer.wall_ms, "peak_mb": peak})
    for row in rows:
        row["peer_over_step"] = row["peer_ms"] / row["step_ms"]
    common.logger.info("%s", common.table(rows))
    common.save(options, "training_step", {"rows": rows})
    panels = [
        common.Panel(
            f"{stage}; dotted: in proportion",
            "batch",
            "ms",
            {
                "step": [(row["batch"], row["step_ms"]) for row in rows if row["stage"] == stage],
                peer: [(row["batch"], row["peer_ms"]) for row in rows if row["stage"] == stage],
            },
            line=True,
        )
        for stage, peer in (("renderer", "step, splatting by torch"), ("denoiser", "forward alone"))
    ]
    common.plot(options, "training_step", panels)


if __name__ == "__main__":
    main()
