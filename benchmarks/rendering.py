"""What a rendered frame costs, beside the torch operations it repeats and beside plain warps.

    python benchmarks/rendering.py [--photo examples/dandelion.jpg] [--out benchmark-results]

The photo's motion is predicted by the embedded weights and drawn at several widths and lengths. Beside it, on the same
flow: the same picture map by map with torch (what runs without numba), softmax splatting of the colours alone, OpenCV's
backward warp of the photo (how fast a warp can be; it can hide nothing behind anything), and encoding a frame. Growth
over pixels and frames is plotted; peak memory is taken in processes of their own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import torch
from torch import Tensor

import gid.rendering.animate
from foundation.pictures import load_photo, to_uint8
from foundation.video import write_video
from gid.diffusion.pipeline import load_pipeline
from gid.jobs import predict_motion, write_animation
from gid.limits import MotionOptions, RenderOptions
from gid.motion.loops import evaluate, time_basis
from gid.motion.spectrum import SpectralVolume
from gid.motion.upsampling import PhotoGuide
from gid.rendering.animate import DEAD_ZONE, motion_range, render_displacements
from gid.rendering.cpu import frames as cpu_frames
from gid.rendering.projection import smoothstep, splatting_metric
from gid.rendering.renderer import Renderer
from gid.rendering.splatting import splat

RENDERER = common.ROOT / "gid" / "weights" / "renderer"


def resized(photo: Tensor, width: int) -> Tensor:
    """The photo (3, H, W) at another width, so that growth is measured on one picture."""
    height = round(photo.shape[1] * width / photo.shape[2])
    return torch.nn.functional.interpolate(photo[None], (height, width), mode="bicubic", antialias=True)[0].clamp(0, 1)


def moments(volume: SpectralVolume, count: int) -> Tensor:
    """Displacements (count, 2, h, w) of one loop, evenly spread, without the still first one."""
    basis = time_basis(volume, count + 1, 30.0 * (count + 1) / 150, 1.0, True)[1:]
    return evaluate(basis, volume.coefficients)


def draw(photo: Tensor, fields: Tensor, renderer: Renderer, volume: SpectralVolume) -> Tensor:
    """Frames of given displacements, as `animate` draws them."""
    basis = time_basis(volume, 150, 30.0, 1.0, True)
    mean, largest = motion_range(volume.coefficients, basis, photo.shape[1:])
    return torch.cat(list(render_displacements(photo, [fields], renderer, mean, largest)))


def mapwise(work: Callable[[], Tensor]) -> Tensor:
    """The same frames by torch operations on whole maps."""
    compiled = gid.rendering.animate.compiled_rendering
    gid.rendering.animate.compiled_rendering = lambda: False
    try:
        return work()
    finally:
        gid.rendering.animate.compiled_rendering = compiled


def decibels(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise ratio of two sets of frames in [0, 1]."""
    return -10 * math.log10(max(float((a - b).double().square().mean()), 1e-20))


def errors(photo: Tensor, fields: Tensor, renderer: Renderer, volume: SpectralVolume) -> dict[str, float]:
    """How close the compiled frames are to torch's in float32, and the decoder in bfloat16 to both."""
    native = cpu_frames.decoder_type
    reference = mapwise(lambda: draw(photo, fields, renderer, volume))
    found = {}
    try:
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            cpu_frames.decoder_type = lambda dtype=dtype: dtype  # type: ignore[misc]
            frames = draw(photo, fields, renderer, volume)
            found[f"compiled {name} against torch float32, dB"] = decibels(frames, reference)
            found[f"compiled {name}, largest difference"] = float((frames - reference).abs().max())
    finally:
        cpu_frames.decoder_type = native
    return found


def costs(
    photo: Tensor, volume: SpectralVolume, renderer: Renderer, repeats: int, count: int = 16
) -> list[dict[str, Any]]:
    """Milliseconds a frame of our drawing and of its peers."""
    height, width = photo.shape[1:]
    fields = moments(volume, count)
    basis = time_basis(volume, 150, 30.0, 1.0, True)
    mean, largest = motion_range(volume.coefficients, basis, (height, width))
    guide = PhotoGuide(photo[None], *fields.shape[2:])
    rank = guide(mean[None, None])
    flow = guide(fields) * torch.tensor([width, height]).view(1, 2, 1, 1)
    flow = flow * smoothstep(*DEAD_ZONE, guide(largest[None, None]))
    metric = splatting_metric(rank, renderer.metric_scale)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    maps = [(x - one[0].numpy(), y - one[1].numpy()) for one in flow]
    pixels = to_uint8(photo[None])[0]
    frames = to_uint8(draw(photo, fields, renderer, volume))

    def warp() -> None:
        for across, down in maps:
            cv2.remap(pixels, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

    def encode() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "x.mp4", [frames])

    ways: dict[str, Callable[[], object]] = {
        "compiled frame": lambda: draw(photo, fields, renderer, volume),
        "the same with torch, map by map": lambda: mapwise(lambda: draw(photo, fields, renderer, volume)),
        "softmax splatting of colours alone": lambda: [splat(photo[None], one[None], metric) for one in flow],
        "OpenCV backward warp, bicubic, uint8": warp,
        "encoding as H.264": encode,
    }
    cv2.setNumThreads(torch.get_num_threads())
    rows: list[dict[str, Any]] = []
    for name, work in ways.items():
        timing = common.measure(work, repeats)
        rows.append({"a frame": name, "wall_ms": timing.wall_ms / count, "processor_ms": timing.processor_ms / count})
    for row in rows:
        row["over_backward_warp"] = row["wall_ms"] / rows[3]["wall_ms"]
    return rows


def write_loop(photo_path: str, motion: str, width: int, frames: int) -> float:
    """Write one loop; seconds. Also run in processes of its own, for the peak of memory."""
    photo = resized(load_photo(photo_path), width)
    renderer = Renderer.from_pretrained(RENDERER).eval()
    volume = SpectralVolume.load(motion)
    with tempfile.TemporaryDirectory() as folder:
        options = RenderOptions(frames=frames, size=max(photo.shape[1:]))
        target = Path(folder) / "loop.mp4"
        return common.measure(lambda: write_animation(target, photo, volume, renderer, options), 1, False).wall_ms / 1e3


@torch.no_grad()
def main() -> None:
    """Measure, print, write JSON and plot."""
    parser = common.parser(__doc__)
    parser.add_argument("--photo", type=Path, default=common.ROOT / "examples" / "dandelion.jpg")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="*", default=[256, 384, 512, 768, 1024])
    parser.add_argument("--frames", type=int, nargs="*", default=[38, 75, 150, 300])
    options = parser.parse_args()
    common.start(options)
    pipeline = load_pipeline("embedded", "cpu")
    volume = predict_motion(pipeline, options.photo, MotionOptions())
    photo, renderer = resized(load_photo(options.photo), options.width), pipeline.renderer
    rows = costs(photo, volume, renderer, options.repeats)
    common.logger.info("%d x %d\n%s\n", photo.shape[2], photo.shape[1], common.table(rows))
    found = errors(photo, moments(volume, 16), renderer, volume)
    common.logger.info("%s\n", common.table([{"quantity": key, "value": value} for key, value in found.items()]))

    growth = []
    with tempfile.TemporaryDirectory() as folder:
        motion = str(Path(folder) / "motion.safetensors")
        volume.save(motion)
        write_loop(str(options.photo), motion, 256, 8)  # warm
        settings = [(width, 75) for width in options.widths] + [(options.width, frames) for frames in options.frames]
        for number, (width, frames) in enumerate(settings):
            seconds = write_loop(str(options.photo), motion, width, frames)
            _, peak = common.peak_of(write_loop, str(options.photo), motion, width, frames)
            pixels = width * resized(photo, width).shape[1]
            kind = "pixels" if number < len(options.widths) else "frames"
            growth.append({"over": kind, "pixels": pixels, "frames": frames, "seconds": seconds, "peak_mb": peak})
    common.logger.info("%s", common.table(growth))
    common.save(options, "rendering", {"frame": rows, "errors": found, "growth": growth})
    if growth:
        by = {kind: [row for row in growth if row["over"] == kind] for kind in ("pixels", "frames")}
        panels = [
            common.Panel(
                f"one loop; dotted: in proportion to {kind}", kind, "seconds",
                {"photo to file": [(row[kind], row["seconds"]) for row in found_rows]}, line=True,
            )
            for kind, found_rows in by.items() if found_rows
        ] + [
            common.Panel(
                "peak memory of the process", kind, "MB",
                {"rendering and encoding": [(row[kind], row["peak_mb"]) for row in found_rows]},
            )
            for kind, found_rows in by.items() if found_rows
        ]  # fmt: skip
        common.plot(options, "rendering", panels)


if __name__ == "__main__":
    main()
