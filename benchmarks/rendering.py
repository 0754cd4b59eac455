"""What a rendered frame costs, by stage.

    python benchmarks/rendering.py [--width 512 --height 288] [--json results.json]

A synthetic photo and a swaying volume on a 64x36 grid. Besides wall-clock time, the processor time of one thread is
given: on a machine with other work it is the steadier number. `frame over splatting` is the cost of a frame over that
of softmax-splatting its colours alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gid.animate import animate, motion_range
from gid.loops import evaluate, time_basis
from gid.models.projection import project, smoothstep, splatting_metric
from gid.models.renderer import Renderer, compose
from gid.spectrum import SpectralVolume
from gid.splatting import splat
from gid.upsampling import PhotoGuide

logger = logging.getLogger("benchmarks.rendering")


def scene(width: int, height: int) -> tuple[Tensor, SpectralVolume]:
    """A textured photo with a round object in the middle that sways by up to some 12 pixels at width 512."""
    generator = torch.Generator().manual_seed(0)
    texture = F.interpolate(
        torch.rand(1, 3, height // 6, width // 6, generator=generator), (height, width), mode="bicubic"
    )
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None, :]
    disc = ((x * width / height).square() + y.square() < 0.4).float()
    photo = (0.3 * texture + disc * torch.tensor([0.6, 0.2, 0.2]).view(1, 3, 1, 1)).clamp(0, 1)[0]
    maps = F.interpolate(disc[None, None], (36, 64), mode="area")[0, 0]
    real = torch.zeros(16, 4, 36, 64)
    for band in range(1, 16):
        real[band, 0] = 0.012 / band * maps
        real[band, 3] = 0.008 / band * maps
    return photo, SpectralVolume.from_real(real, fps=30.0, num_frames=150, image_size=(width, height))


def best(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall-clock and processor milliseconds of some runs."""
    work()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return 1000 * min(walls), 1000 * min(processors)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--weights", type=Path, help="folder of a trained renderer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    photo, volume = scene(arguments.width, arguments.height)
    renderer = (Renderer.from_pretrained(arguments.weights) if arguments.weights else Renderer()).eval()
    basis = time_basis(volume, 150, 30.0, 1.0, True)
    mean, largest = motion_range(volume.coefficients, basis, photo.shape[1:])
    batch = photo[None]
    guide = PhotoGuide(batch, 36, 64)
    rank = guide(mean[None, None])
    moment = int(evaluate(basis, volume.coefficients).square().sum((1, 2, 3)).argmax())
    coarse = evaluate(basis[moment : moment + 1], volume.coefficients)
    scale = torch.tensor([arguments.width, arguments.height]).view(1, 2, 1, 1)
    flow = guide(coarse) * scale * smoothstep(0.12, 0.4, guide(largest[None, None]))
    features = renderer.encode(batch)
    projection = project(flow, rank)
    draft = compose(batch, projection)
    metric = splatting_metric(rank, 3.0)
    stages: dict[str, Callable[[], object]] = {
        "upsampling": lambda: guide(coarse),
        "project": lambda: project(flow, rank),
        "compose": lambda: compose(batch, projection),
        "mend": lambda: renderer.mend(draft, features, flow, rank),
        "frame": lambda: renderer.render(batch, features, flow, rank),
        "photo once": lambda: (renderer.encode(batch), PhotoGuide(batch, 36, 64)),
        "splatting alone": lambda: splat(batch, flow, metric),
    }
    results = {name: best(work, arguments.repeats) for name, work in stages.items()}
    for name, (wall, processor) in results.items():
        logger.info("%-16s %8.1f ms wall %8.1f ms processor", name, wall, processor)
    ratio = results["frame"][0] / results["splatting alone"][0]
    logger.info("frame over splatting %.1f; share of the frame that is mended %.3f", ratio, float(draft.gate.mean()))
    wall, processor = time.perf_counter(), time.process_time()
    count = sum(len(chunk) for chunk in animate(photo, volume, renderer))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    logger.info(
        "loop of %d frames: %.1f s wall, %.1f s processor, %d threads", count, wall, processor, torch.get_num_threads()
    )
    if arguments.json:
        record = {name: {"wall_ms": w, "processor_ms": p} for name, (w, p) in results.items()}
        record["loop"] = {"wall_s": wall, "processor_s": processor, "frame_over_splatting": ratio}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
