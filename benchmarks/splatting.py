"""How fast the compiled splatting kernel is, beside two ways of writing it in plain torch.

    python benchmarks/splatting.py [--channels 4 64] [--threads 2] [--out benchmark-results]

Peers, given the same inputs and doing the same bilinear sum: `scatter_add` per corner on (B, C, H*W), and `index_add`
per corner on channels-last rows (the faster way in torch). Times are the least of several runs. Growth is measured over
pixels and over channels, peak memory in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor

from gid.splatting import cpu, reference

Splat = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def scatter_add_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bilinear sum by ``scatter_add`` on channels-first planes."""
    batch, channels, height, width = features.shape
    device = features.device
    ys, xs = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
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


PEERS: dict[str, Splat] = {
    "compiled": cpu.weighted_splat,
    "scatter_add": scatter_add_splat,
    "index_add": reference.weighted_splat,
}


def inputs(channels: int, height: int, width: int, device: str = "cpu") -> list[Tensor]:
    """Features, smooth flow with a standard deviation of some 5 pixels, and weight, all asking for gradients."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 2, 9, 16, generator=generator) * 6
    flow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    features = torch.rand(1, channels, height, width, generator=generator)
    weight = torch.rand(1, 1, height, width, generator=generator)
    return [tensor.to(device).requires_grad_() for tensor in (features, flow, weight)]


def times_of(splat: Splat, arguments: list[Tensor], repeats: int) -> dict[str, common.Timing]:
    """Forward without gradients, and backward alone."""
    with torch.no_grad():
        forward = common.measure(lambda: splat(*arguments), repeats)
    total, mass = splat(*arguments)
    upstream = [torch.rand_like(total), torch.rand_like(mass)]
    backward = common.measure(
        lambda: torch.autograd.grad([total, mass], arguments, upstream, retain_graph=True), repeats
    )
    return {"forward": forward, "backward": backward}


def one_pass(name: str, channels: int, height: int, width: int) -> None:
    """Forward and backward once, for its peak of memory."""
    arguments = inputs(channels, height, width)
    total, mass = PEERS[name](*arguments)
    torch.autograd.grad([total, mass], arguments, [torch.ones_like(total), torch.ones_like(mass)])


def compare(channels: int, height: int, width: int, repeats: int) -> list[dict[str, Any]]:
    """Every implementation at one size, with how many times as long the peers take."""
    arguments = inputs(channels, height, width)
    found = {name: times_of(splat, arguments, repeats) for name, splat in PEERS.items()}
    rows = []
    for name, ways in found.items():
        row: dict[str, Any] = {"size": f"{width}x{height}", "channels": channels, "implementation": name}
        for way, timing in ways.items():
            ours = found["compiled"][way]
            row[f"{way}_ms"] = timing.wall_ms
            row[f"{way}_processor_ms"] = timing.processor_ms
            row[f"{way}_over_compiled"] = timing.over(ours)
            row[f"{way}_processor_over_compiled"] = timing.processor_ms / ours.processor_ms
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, write JSON and plot."""
    parser = common.parser(__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--growth", type=int, nargs="*", default=[128, 256, 512, 1024], help="widths to grow over")
    options = parser.parse_args()
    common.start(options)
    if cpu.kernels() is None:
        raise SystemExit("numba is not installed: there is nothing to compare")

    rows = []
    for channels in options.channels:
        rows += compare(channels, options.height, options.width, options.repeats)
    for row in rows:
        before, after = common.peak_of(one_pass, row["implementation"], row["channels"], options.height, options.width)
        row["added_mb"] = after - before
    common.logger.info("%s\n", common.table(rows))

    growth = []
    for width in options.growth:
        height = width * options.height // options.width
        growth += compare(4, height, width, max(3, options.repeats // 2))
        growth[-3]["pixels"] = growth[-2]["pixels"] = growth[-1]["pixels"] = width * height
    for channels in (1, 8, 16, 32, 64) if options.growth else ():
        arguments = inputs(channels, options.height, options.width)
        timing = times_of(PEERS["compiled"], arguments, max(3, options.repeats // 2))
        growth.append({"channels": channels} | {f"{way}_ms": value.wall_ms for way, value in timing.items()})
    common.save(options, "splatting", {"rows": rows, "growth": growth})
    if growth:
        by_pixels = {
            f"{name}, {way}": [(r["pixels"], r[f"{way}_ms"]) for r in growth if r.get("implementation") == name]
            for name in PEERS
            for way in ("forward", "backward")
        }
        by_channels = {
            way: [(r["channels"], r[f"{way}_ms"]) for r in growth if "pixels" not in r]
            for way in ("forward", "backward")
        }
        panels = [
            common.Panel("4 channels; dotted: in proportion", "pixels", "ms", by_pixels, log=True, line=True),
            common.Panel(f"compiled, {options.width}x{options.height}", "channels", "ms", by_channels, line=True),
        ]
        common.plot(options, "splatting", panels)


if __name__ == "__main__":
    main()
