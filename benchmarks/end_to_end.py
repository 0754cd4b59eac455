"""A fresh photo to a 150-frame loop at 512 pixels: seconds of each stage and the peak of memory.

    python benchmarks/end_to_end.py [PHOTO] [--weights embedded]

Prints a table. "again" is the same photo with another strength: only rendering is paid.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "dandelion.jpg"


def main() -> None:
    """Run once, cold, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()

    marks = [time.perf_counter()]
    seconds: dict[str, float] = {}

    def mark(stage: str) -> None:
        marks.append(time.perf_counter())
        seconds[stage] = marks[-1] - marks[-2]

    from gid.jobs import predict_motion, write_animation
    from gid.options import MotionOptions, RenderOptions
    from gid.photo import load_photo
    from gid.pipeline import load_pipeline

    mark("import")
    pipeline = load_pipeline(options.weights, options.device)
    mark("load weights")
    steps = options.steps if options.steps is not None else MotionOptions.steps
    volume = predict_motion(pipeline, options.photo, MotionOptions(steps=steps))
    mark(f"motion, {steps} steps")
    photo = load_photo(options.photo, options.size).to(pipeline.device)
    with tempfile.TemporaryDirectory() as folder:
        render = RenderOptions(frames=options.frames, size=options.size)
        write_animation(Path(folder) / "first.mp4", photo, volume, pipeline.renderer, render)
        mark(f"render, {options.frames} frames")
        stronger = RenderOptions(frames=options.frames, size=options.size, strength=1.5)
        write_animation(Path(folder) / "again.mp4", photo, volume, pipeline.renderer, stronger)
        mark("again, stronger")
    report(seconds, f"{photo.shape[-1]}x{photo.shape[-2]} on {pipeline.device}, {torch.get_num_threads()} threads")


def report(seconds: dict[str, float], setting: str) -> None:
    """Print the stages, their share of the first loop, and the peak of memory."""
    first = sum(value for stage, value in seconds.items() if not stage.startswith("again"))
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
    print(f"{setting}\n\n| stage | seconds | share |\n|---|---:|---:|")
    for stage, value in seconds.items():
        share = "" if stage.startswith("again") else f"{100 * value / first:.0f}%"
        print(f"| {stage} | {value:.1f} | {share} |")
    print(f"| **first loop** | **{first:.1f}** | |\n\npeak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
