"""What predicting motion costs, beside the paper's 250 steps of DDIM with the same networks.

    python benchmarks/motion.py [--peer-steps 250] [--out benchmark-results]

The embedded weights predict the motion of an example photo. The peer is the paper's schedule (DDIM, 250 steps), run
once in full unless `--peer-steps` says less (then it is extrapolated, and the table says so). How far bfloat16, used
where the processor has it, moves the result is measured against float32. Growth is measured over
steps, seeds in one batch, cells of the volume, and frequency bands (networks of the same sizes with random weights).
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch

import gid.diffusion.pipeline
from foundation.pictures import load_photo
from gid.diffusion.denoiser import DenoiserConfig, SpectralDenoiser
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.diffusion.precision import autocast
from gid.jobs import MOTION_SIDE

PAPER_STEPS = 250


def predict(photo: str, steps: int, seeds: int, solver: str = "dpm", scale: float = 1.0) -> None:
    """Load and predict once, for the peak of memory."""
    pipeline = load_pipeline("embedded", "cpu")
    run(pipeline, photo, steps, seeds, solver, scale)


def run(pipeline: GIDPipeline, photo: str, steps: int, seeds: int = 1, solver: str = "dpm", scale: float = 1.0) -> None:
    """Predict ``seeds`` motions of a photo, with ``scale`` times as many cells as usual."""
    area = pipeline.config.motion_area
    pipeline.register_to_config(motion_area=round(area * scale))
    try:
        pipeline(load_photo(photo, MOTION_SIDE), seed=list(range(seeds)), steps=steps, solver=solver)
    finally:
        pipeline.register_to_config(motion_area=area)


def precision_error(pipeline: GIDPipeline, photo: str) -> float:
    """Root mean square difference of the motion from that computed in float32, relative to it."""

    def motion() -> torch.Tensor:
        return pipeline(load_photo(photo, MOTION_SIDE), seed=0).volumes[0].coefficients

    ours, chosen = motion(), gid.diffusion.pipeline.autocast
    gid.diffusion.pipeline.autocast = lambda device: contextlib.nullcontext()
    try:
        exact = motion()
    finally:
        gid.diffusion.pipeline.autocast = chosen
    return float((ours - exact).abs().square().mean().sqrt() / exact.abs().square().mean().sqrt())


@torch.no_grad()
def band_times(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of one denoising step for several numbers of bands, in the pipeline's own precision."""
    rows = []
    for bands in (4, 8, 16, 32):
        config = DenoiserConfig(num_bands=bands)
        denoiser = SpectralDenoiser.from_preset(config).eval()
        latents = torch.randn(bands, config.latent_channels, 16, 28)
        condition = torch.randn(bands, config.condition_channels, 16, 28)
        times, index = torch.full((bands,), 500), torch.arange(bands)
        with autocast(latents.device):
            timing = common.measure(partial(denoiser, latents, times, index, condition), repeats)
        rows.append({"over": "bands", "count": bands, "ms": timing.wall_ms, "processor_ms": timing.processor_ms})
    return rows


def main() -> None:
    """Measure, print, write JSON and plot."""
    parser = common.parser(__doc__)
    parser.add_argument("--photo", type=Path, default=common.ROOT / "examples" / "dandelion.jpg")
    parser.add_argument("--peer-steps", type=int, default=PAPER_STEPS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    common.start(options)
    photo, pipeline = str(options.photo), load_pipeline("embedded", "cpu")

    rows: list[dict[str, Any]] = []
    for name, steps, solver in (("ours: DPM-Solver++, 10 steps", 10, "dpm"), ("4 steps", 4, "dpm")):
        timing = common.measure(partial(run, pipeline, photo, steps, solver=solver), options.repeats)
        rows.append({"schedule": name, "wall_ms": timing.wall_ms, "processor_ms": timing.processor_ms})
    peer = common.measure(lambda: run(pipeline, photo, options.peer_steps, solver="ddim"), 1, warm=False)
    times = PAPER_STEPS / options.peer_steps
    how = "run in full" if times == 1 else f"extrapolated from {options.peer_steps} steps"
    rows.append(
        {
            "schedule": f"the paper's: DDIM, {PAPER_STEPS} steps, {how}",
            "wall_ms": peer.wall_ms * times,
            "processor_ms": peer.processor_ms * times,
        }
    )
    for row in rows:
        row["over_ours"] = row["wall_ms"] / rows[0]["wall_ms"]
    common.logger.info("%s\n", common.table(rows))

    error = precision_error(pipeline, photo)
    common.logger.info("relative difference of the motion from float32's: %.3g\n", error)

    growth: list[dict[str, Any]] = []
    settings = [("steps", n, n, 1, 1.0) for n in (5, 10, 20, 40)]
    settings += [("seeds", n, 5, n, 1.0) for n in (1, 2, 4)]
    settings += [("cells", round(pipeline.config.motion_area * s), 5, 1, s) for s in (0.5, 1.0, 2.0)]
    for kind, count, steps, seeds, scale in settings:
        timing = common.measure(partial(run, pipeline, photo, steps, seeds, scale=scale), options.repeats)
        _, peak = common.peak_of(predict, photo, steps, seeds, "dpm", scale)
        row = {"over": kind, "count": count, "ms": timing.wall_ms, "processor_ms": timing.processor_ms}
        growth.append(row | {"peak_mb": peak})
    growth += band_times(options.repeats)
    common.logger.info("%s", common.table(growth))
    common.save(options, "motion", {"schedules": rows, "relative_difference_from_float32": error, "growth": growth})
    panels = [
        common.Panel(
            f"one {'step' if kind == 'bands' else 'photo'}; dotted: in proportion",
            kind,
            "ms",
            {kind: [(row["count"], row["ms"]) for row in growth if row["over"] == kind]},
            line=True,
        )
        for kind in ("steps", "seeds", "cells", "bands")
    ]
    common.plot(options, "motion", panels)


if __name__ == "__main__":
    main()
