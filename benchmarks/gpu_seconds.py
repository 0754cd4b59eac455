"""How long a GPU is needed: `python benchmarks/gpu_seconds.py` prints the constants of `ui.zerogpu.GpuCost`, measured.

Meant for a GPU of the kind that a ZeroGPU Space borrows; on a processor it measures that. Each call is timed after a
first one that does not count, but for `start`, which is that first one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from foundation.pictures import load_photo
from gid.diffusion.pipeline import load_pipeline
from gid.jobs import predict_motion, write_animation
from gid.limits import MotionOptions, RenderOptions
from ui.animate.service import step_flops

PHOTO = Path(__file__).resolve().parent.parent / "examples" / "dandelion.jpg"
SIDES = (256, 512)
FRAMES = 30


def seconds(function: Any, *arguments: Any) -> float:
    """How long a call takes until the device is done."""
    start = time.perf_counter()
    function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    begun = time.perf_counter()
    pipeline = load_pipeline(options.weights, options.device)

    def predict(steps: int) -> None:
        predict_motion(pipeline, PHOTO, MotionOptions(steps=steps))

    predict(2)
    start = time.perf_counter() - begun
    few, many = seconds(predict, 2), seconds(predict, 22)
    step = (many - few) / 20

    volume = predict_motion(pipeline, PHOTO, MotionOptions(steps=2))
    rendering, pixels = [], []
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            photo = load_photo(PHOTO, max_side=side).to(pipeline.device)
            render = RenderOptions(frames=FRAMES, size=side)
            job = (Path(folder) / "loop.mp4", photo, volume, pipeline.renderer, render)
            write_animation(*job)
            rendering.append(seconds(write_animation, *job) / FRAMES)
            pixels.append(photo.shape[-1] * photo.shape[-2] / 1e6)
    megapixel = (rendering[1] - rendering[0]) / (pixels[1] - pixels[0])
    frame = max(0.0, rendering[0] - megapixel * pixels[0])
    name = torch.cuda.get_device_name() if pipeline.device.type == "cuda" else str(pipeline.device)
    print(f"{name}, torch {torch.__version__}, weights {options.weights}")
    print(f"start {start:.2f} s (without the fork), frame {frame:.4f} s, megapixel {megapixel:.4f} s")
    print(f"one diffusion step {step:.4f} s, reckoned as {step_flops(pipeline) / 1e12:.3f} TFLOP")


if __name__ == "__main__":
    main()
