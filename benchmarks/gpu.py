"""Checks and times everything that has a CUDA path, on a machine with a CUDA GPU.

    python benchmarks/gpu.py [--out benchmark-results]

First correctness: the Triton kernels, forward and backward, against plain torch on several shapes, strides and types;
frames drawn in batches against the CPU; motion with and without recorded graphs. Then times, by CUDA events with the
cache flushed between runs: splatting beside `scatter_add` and `index_add`, with the bytes it cannot avoid and the share
of the memory bandwidth that makes (measured here by copying); motion; and 150 frames, drawn and encoded. Ends with exit
status 1 if anything is not equal.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
from splatting import index_add_splat, inputs, scatter_add_splat
from torch import Tensor

from foundation.pictures import load_photo
from gid.diffusion.pipeline import load_pipeline
from gid.jobs import MOTION_SIDE, write_animation
from gid.limits import RenderOptions
from gid.motion.spectrum import SpectralVolume
from gid.rendering.animate import animate
from gid.rendering.renderer import Renderer
from gid.rendering.splatting import Implementation, Mode, gpu, splat

EXAMPLE = common.ROOT / "examples" / "dandelion.jpg"
# A GPU draws in bfloat16 and samples the photo with other rounding.
FRAME_DECIBELS = 45.0
MODES: tuple[Mode, ...] = ("sum", "average", "linear", "softmax")
IMPLEMENTATIONS: tuple[Implementation, ...] = ("triton", "torch")


SHAPES = ((1, 1, 16, 16), (2, 3, 37, 53), (1, 4, 320, 512), (3, 17, 64, 96), (1, 64, 320, 512))


def check_splatting(device: str, shapes: Sequence[tuple[int, int, int, int]] = SHAPES) -> list[dict[str, Any]]:
    """Largest difference of Triton from plain torch in float64, relative to the largest value, by case and tensor."""
    rows = []
    for batch, channels, height, width in shapes:
        for mode in MODES:
            for layout in ("contiguous", "channels last", "half"):
                features, flow, metric = (t.detach() for t in inputs(channels, height, width, device))
                features = features.expand(batch, -1, -1, -1) * torch.rand(batch, 1, 1, 1, device=device)
                flow, metric = flow.expand(batch, -1, -1, -1), metric.expand(batch, -1, -1, -1) + 0.1
                if layout == "channels last":
                    features = features.contiguous(memory_format=torch.channels_last)
                if layout == "half":
                    features = features.half()
                results = []
                for kind in IMPLEMENTATIONS:
                    single = torch.float32 if kind == "triton" else torch.float64
                    f = features.to(features.dtype if kind == "triton" else single).detach().requires_grad_()
                    d, z = (t.to(single).detach().requires_grad_() for t in (flow, metric))
                    result = splat(f, d, z, mode, kind)
                    probe = torch.rand(result.shape, generator=torch.Generator(device).manual_seed(1), device=device)
                    used = [f, d, z] if mode in ("linear", "softmax") else [f, d]
                    results.append((result.detach(), *torch.autograd.grad(result, used, probe.to(result.dtype))))
                limit = 5e-3 if layout == "half" else 1e-3
                for name, ours, theirs in zip(("result", "d features", "d flow", "d metric"), *results, strict=False):
                    scale = float(theirs.abs().max()) or 1.0
                    error = float((ours.double() - theirs).abs().max()) / scale
                    case = f"{batch}x{channels}x{height}x{width} {mode}, {layout}"
                    rows.append({"case": case, "tensor": name, "error": error, "limit": limit, "equal": error <= limit})
    return rows


def decibels(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise ratio."""
    return -10 * math.log10(max(float((a.cpu() - b.cpu()).double().square().mean()), 1e-20))


def check_frames(photo: Tensor, volume: SpectralVolume, renderer: Renderer, device: str) -> list[dict[str, Any]]:
    """Frames drawn on the GPU against the CPU; the first frame has to be the photo to the bit."""
    here = [torch.cat(list(animate(photo, volume, renderer.cpu(), num_frames=12)))]
    there = torch.cat(list(animate(photo.to(device), volume, renderer.to(device), num_frames=12))).cpu()
    quality = decibels(here[0], there)
    same = torch.equal(there[0], photo)
    return [
        {
            "case": "frames against the CPU, dB",
            "tensor": "frames",
            "error": quality,
            "limit": FRAME_DECIBELS,
            "equal": quality >= FRAME_DECIBELS,
        },
        {
            "case": "the first frame is the photo",
            "tensor": "frame 0",
            "error": float(not same),
            "limit": 0.0,
            "equal": same,
        },
    ]


def gpu_ms(work: Callable[[], object], repeats: int = 20) -> float:
    """Median milliseconds by CUDA events, the L2 cache flushed before each run."""
    for _ in range(3):
        work()
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    times = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def bandwidth() -> float:
    """Bytes a second that copying 1 GiB reads and writes."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (gpu_ms(lambda: target.copy_(source)) / 1000)


def splat_bytes(channels: int, pixels: int, way: str) -> int:
    """Bytes that splatting float32 cannot avoid, each value moved once.

    Forward: features, flow and weight read; C + 1 sums written (their zeroing and the atomic additions' own traffic,
    which stays in the cache, are not counted). Backward: the same read, C + 1 upstream gradients read, and gradients of
    features, flow and weight written.
    """
    given, sums = channels + 3, channels + 1
    return 4 * pixels * (given + sums if way == "forward" else 2 * given + sums)


def time_splatting(peak: float) -> list[dict[str, Any]]:
    """Triton and both ways in torch at several sizes."""
    compiled = gpu.kernels()
    assert compiled is not None
    rows = []
    for batch, channels, height, width in ((1, 4, 320, 512), (1, 64, 320, 512), (32, 4, 320, 512), (8, 64, 320, 512)):
        arguments = [
            t.detach().expand(batch, -1, -1, -1).contiguous().requires_grad_()
            for t in inputs(channels, height, width, "cuda")
        ]
        ways = {
            "triton": compiled.weighted_splat,
            "scatter_add": scatter_add_splat,
            "index_add": index_add_splat,
        }
        for name, function in ways.items():
            with torch.no_grad():
                forward = gpu_ms(partial(function, *arguments))
            total, mass = function(*arguments)
            upstream = [torch.rand_like(total), torch.rand_like(mass)]
            gradient = partial(torch.autograd.grad, [total, mass], arguments, upstream, retain_graph=True)
            backward = gpu_ms(gradient)
            row: dict[str, Any] = {"implementation": name, "shape": f"{batch}x{channels}x{height}x{width}"}
            for way, ms in (("forward", forward), ("backward", backward)):
                count = splat_bytes(channels, batch * height * width, way)
                row |= {
                    f"{way}_ms": ms,
                    f"{way}_MB": count / 1e6,
                    f"{way}_share_of_bandwidth": count / (ms / 1000) / peak,
                }
            rows.append(row)
    return rows


def time_everything(photo_path: Path, device: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Motion and 150 frames on the GPU, in seconds; with them the checks that need the models."""
    pipeline = load_pipeline("embedded", device)
    shown, photo = load_photo(photo_path, MOTION_SIDE), load_photo(photo_path, 512)

    def seconds(work: Callable[[], object], repeats: int = 5) -> float:
        work()
        times = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return min(times)

    rows = [{"what": "motion, 10 steps", "seconds": seconds(lambda: pipeline(shown, seed=0))}]
    plain = pipeline(shown, seed=0).volumes[0]
    pipeline.use_cuda_graphs()
    rows.append({"what": "motion, 10 steps, CUDA graphs", "seconds": seconds(lambda: pipeline(shown, seed=0))})
    recorded = pipeline(shown, seed=0).volumes[0]
    difference = (recorded.coefficients - plain.coefficients).abs().max() / plain.coefficients.abs().max()
    checks = [
        {
            "case": "motion, recorded against plain",
            "tensor": "coefficients",
            "error": float(difference),
            "limit": 0.05,
            "equal": bool(difference <= 0.05),
        }
    ]
    checks += check_frames(photo, plain, pipeline.renderer, device)

    there = photo.to(device)
    rows.append(
        {
            "what": "150 frames drawn",
            "seconds": seconds(lambda: [None for _ in animate(there, plain, pipeline.renderer)]),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "loop.mp4"
        rows.append(
            {
                "what": "150 frames drawn and encoded",
                "seconds": seconds(lambda: write_animation(target, there, plain, pipeline.renderer, RenderOptions())),
            }
        )
    return rows, checks


def main() -> None:
    """Check, time, print tables, write JSON."""
    parser = common.parser(__doc__)
    parser.add_argument("--photo", type=Path, default=EXAMPLE)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("No CUDA GPU can be used here, so there is nothing to check or time. Run this on a machine with one.")
    common.start(options)
    if gpu.kernels() is None:
        sys.exit("triton is not installed; it comes with PyTorch's CUDA builds (pip install triton).")
    torch.manual_seed(0)
    name, peak = torch.cuda.get_device_name(), bandwidth()
    common.logger.info("%s, %.0f GB/s when copying\n", name, peak / 1e9)
    checks = check_splatting("cuda")
    splatting = time_splatting(peak)
    common.logger.info("%s\n", common.table(splatting))
    whole, more = time_everything(options.photo, "cuda")
    common.logger.info("%s\n", common.table(whole))
    checks += more
    failed = [row for row in checks if not row["equal"]]
    common.logger.info("%d of %d checks passed", len(checks) - len(failed), len(checks))
    record = {"gpu": name, "copy_GB_per_s": peak / 1e9, "checks": checks, "splatting": splatting, "whole": whole}
    record["peak_GB"] = torch.cuda.max_memory_allocated() / 1e9
    common.save(options, "gpu", record)
    if failed:
        common.logger.info("not equal:\n%s", common.table(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
