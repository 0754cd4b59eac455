"""How fast softmax splatting is, beside two ways of writing it in plain torch.

    python benchmarks/splatting.py [--channels 4 64] [--threads 2] [--out benchmark-results]

The whole operation is measured: `gid.rendering.splatting.splat` from features, flow and metric to the average of what
lands. The peers do the same on the same inputs: `scatter_add_` per corner on (B, C, H*W) planes, and `index_add_` per
corner on rows of channels, the faster layout for it, which it is given without paying for the change. Times are the
least of several runs; growth is measured over pixels and channels, peak memory in processes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor

from gid.rendering.splatting import cpu, splat

Sums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Splat = Callable[[Tensor, Tensor, Tensor], Tensor]

# Times faster than each peer, forward and backward; and by how much the results may differ.
WANTED = {"scatter_add": {"forward": 10, "backward": 5}, "index_add": {"forward": 3}}
LARGEST_DIFFERENCE = 1e-4


def corners(flow: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each of the four pixels around a landing place its index (B, H*W) and its bilinear share, 0 outside."""
    height, width = flow.shape[2:]
    ys, xs = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    x, y = xs + flow[:, 0], ys + flow[:, 1]
    left, top = x.detach().floor(), y.detach().floor()
    found = []
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left.long() + right, top.long() + down
        share = (x - left if right else 1 - x + left) * (y - top if down else 1 - y + top)
        share = share * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        found.append((place.flatten(1), share.flatten(1)))
    return found


def scatter_add_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bilinear sums by ``scatter_add_`` on channels-first planes."""
    batch, channels, height, width = features.shape
    values = torch.cat([features * weight, weight], 1).flatten(2)
    result = torch.zeros_like(values)
    for place, share in corners(flow):
        result.scatter_add_(2, place[:, None].expand_as(values), values * share[:, None])
    result = result.view(batch, channels + 1, height, width)
    return result[:, :channels], result[:, channels:]


def index_add_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bilinear sums by ``index_add_`` on rows of channels; features channels-last in memory, and so the result."""
    batch, channels, height, width = features.shape
    values = torch.cat([features * weight, weight], 1).permute(0, 2, 3, 1).reshape(-1, channels + 1)
    result = torch.zeros_like(values)
    first = torch.arange(batch, device=flow.device)[:, None] * (height * width)
    for place, share in corners(flow):
        result.index_add_(0, (first + place).flatten(), values * share.reshape(-1, 1))
    result = result.view(batch, height, width, channels + 1).permute(0, 3, 1, 2)
    return result[:, :channels], result[:, channels:]


def softmax(sums: Sums) -> Splat:
    """Softmax splatting by the given sums; no metric here is far enough below the largest for its weight to vanish."""

    def splatted(features: Tensor, flow: Tensor, metric: Tensor) -> Tensor:
        weight = (metric - metric.amax((2, 3), keepdim=True)).exp()
        total, mass = sums(features, flow, weight)
        return total / mass.clamp(min=1e-30)

    return splatted


WAYS: dict[str, Splat] = {
    "ours": splat,
    "scatter_add": softmax(scatter_add_splat),
    "index_add": softmax(index_add_splat),
}


def inputs(channels: int, height: int, width: int, device: str = "cpu") -> list[Tensor]:
    """Features, smooth flow with a standard deviation of some 5 pixels, and metric, all asking for gradients."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 2, 9, 16, generator=generator) * 6
    flow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    features = torch.rand(1, channels, height, width, generator=generator)
    metric = torch.rand(1, 1, height, width, generator=generator)
    return [tensor.to(device).requires_grad_() for tensor in (features, flow, metric)]


def layout_of(name: str, arguments: list[Tensor]) -> list[Tensor]:
    """The inputs as the way ``name`` likes them."""
    if name != "index_add":
        return arguments
    rows = arguments[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    return [rows, *arguments[1:]]


def times_of(name: str, arguments: list[Tensor], repeats: int) -> dict[str, common.Timing]:
    """Forward without gradients, and backward alone."""
    arguments = layout_of(name, arguments)
    with torch.no_grad():
        forward = common.measure(lambda: WAYS[name](*arguments), repeats)
    result = WAYS[name](*arguments)
    upstream = torch.rand(result.shape, generator=torch.Generator().manual_seed(1))
    backward = common.measure(lambda: torch.autograd.grad(result, arguments, upstream, retain_graph=True), repeats)
    return {"forward": forward, "backward": backward}


def one_pass(name: str, channels: int, height: int, width: int) -> None:
    """Forward and backward once, for its peak of memory."""
    arguments = layout_of(name, inputs(channels, height, width))
    WAYS[name](*arguments).sum().backward()


def compare(channels: int, height: int, width: int, repeats: int) -> list[dict[str, Any]]:
    """Every way at one size, with how many times as long the peers take."""
    arguments = inputs(channels, height, width)
    found = {name: times_of(name, arguments, repeats) for name in WAYS}
    with torch.no_grad():
        expected = WAYS["ours"](*arguments)
        apart = {name: float((way(*layout_of(name, arguments)) - expected).abs().max()) for name, way in WAYS.items()}
    rows = []
    for name, ways in found.items():
        row: dict[str, Any] = {"size": f"{width}x{height}", "channels": channels, "way": name}
        for way, timing in ways.items():
            ours = found["ours"][way]
            row[f"{way}_ms"] = timing.wall_ms
            row[f"{way}_processor_ms"] = timing.processor_ms
            row[f"{way}_over_ours"] = timing.over(ours)
            row[f"{way}_processor_over_ours"] = timing.processor_ms / ours.processor_ms
        rows.append(row | {"difference": apart[name]})
    return rows


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is wanted of each size, and whether it was reached, in wall-clock time."""
    found: list[dict[str, Any]] = []
    for row in rows:
        case = f"{row['channels']} channels, {row['way']}"
        for way, times in WANTED.get(row["way"], {}).items():
            ratio = row[f"{way}_over_ours"]
            found.append(
                {"case": f"{case}, {way}", "wanted": f"{times} times", "found": ratio, "reached": ratio >= times}
            )
        reached = row["difference"] <= LARGEST_DIFFERENCE
        found.append(
            {
                "case": f"{case}, difference",
                "wanted": LARGEST_DIFFERENCE,
                "found": row["difference"],
                "reached": reached,
            }
        )
    return found


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
        before, after = common.peak_of(one_pass, row["way"], row["channels"], options.height, options.width)
        row["added_mb"] = after - before
    common.logger.info("%s\n\n%s\n", common.table(rows), common.table(verdicts(rows)))

    growth = []
    for width in options.growth:
        height = width * options.height // options.width
        more = compare(4, height, width, max(3, options.repeats // 2))
        growth += [row | {"pixels": width * height} for row in more]
    for channels in (1, 8, 16, 32, 64) if options.growth else ():
        timings = times_of("ours", inputs(channels, options.height, options.width), max(3, options.repeats // 2))
        growth.append({"channels": channels} | {f"{way}_ms": value.wall_ms for way, value in timings.items()})
    common.save(options, "splatting", {"rows": rows, "wanted": verdicts(rows), "growth": growth})
    if growth:
        by_pixels = {
            f"{name}, {way}": [(r["pixels"], r[f"{way}_ms"]) for r in growth if r.get("way") == name]
            for name in WAYS
            for way in ("forward", "backward")
        }
        by_channels = {
            way: [(r["channels"], r[f"{way}_ms"]) for r in growth if "pixels" not in r]
            for way in ("forward", "backward")
        }
        panels = [
            common.Panel("4 channels; dotted: in proportion", "pixels", "ms", by_pixels, log=True, line=True),
            common.Panel(f"ours, {options.width}x{options.height}", "channels", "ms", by_channels, line=True),
        ]
        common.plot(options, "splatting", panels)


if __name__ == "__main__":
    main()
