"""How fast the compiled splatting kernel is, beside two ways of writing it in plain torch.

    python benchmarks/splatting.py [--json results.json]

Peers, given the same inputs and doing the same bilinear sum: `scatter_add_` per corner on (B, C, H*W), and `index_add_`
per corner on channels-last rows (the faster way in torch). Times are the best of several runs, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gid.splatting import cpu, reference

logger = logging.getLogger("benchmarks.splatting")
Splat = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def scatter_add_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bilinear sum by ``scatter_add`` on channels-first planes."""
    batch, channels, height, width = features.shape
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = xs + flow[:, 0], ys + flow[:, 1]
    left, top = x.detach().floor(), y.detach().floor()
    values = torch.cat([features * weight, weight], 1).flatten(2)
    result = torch.zeros_like(values)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left.long() + right, top.long() + down
        share = (x - left if right else 1 - x + left) * (y - top if down else 1 - y + top)
        share = share * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        target = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        target = target.flatten(1)[:, None].expand_as(values)
        result = result.scatter_add(2, target, values * share.flatten(1)[:, None])
    result = result.view(batch, channels + 1, height, width)
    return result[:, :channels], result[:, channels:]


def best_ms(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def measure(splat: Splat, channels: int, height: int, width: int, repeats: int) -> tuple[float, float]:
    """Milliseconds forward (without gradients) and backward alone."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 2, 9, 16, generator=generator) * 6
    flow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").requires_grad_()
    features = torch.rand(1, channels, height, width, generator=generator).requires_grad_()
    weight = torch.rand(1, 1, height, width, generator=generator).requires_grad_()
    with torch.no_grad():
        forward = best_ms(lambda: splat(features, flow, weight), repeats)
    total, mass = splat(features, flow, weight)
    upstream = [torch.rand_like(total), torch.rand_like(mass)]
    inputs = [features, flow, weight]
    backward = best_ms(lambda: torch.autograd.grad([total, mass], inputs, upstream, retain_graph=True), repeats)
    return forward, backward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if cpu.kernels() is None:
        raise SystemExit("numba is not installed: there is nothing to compare")

    rows = []
    for channels in arguments.channels:
        times = {
            name: measure(splat, channels, arguments.height, arguments.width, arguments.repeats)
            for name, splat in (
                ("numba", cpu.weighted_splat),
                ("scatter_add", scatter_add_splat),
                ("index_add", reference.weighted_splat),
            )
        }
        row: dict[str, float] = {"channels": channels}
        for peer in ("scatter_add", "index_add"):
            row[f"forward_over_{peer}"] = times[peer][0] / times["numba"][0]
            row[f"backward_over_{peer}"] = times[peer][1] / times["numba"][1]
        row |= {f"{name}_{way}_ms": times[name][i] for name in times for i, way in enumerate(("forward", "backward"))}
        rows.append(row)
        for key, value in row.items():
            logger.info("%-28s %10.2f", key, value)
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
