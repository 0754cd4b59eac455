"""A fresh photo to a 150-frame loop at 512 pixels: seconds of each stage and the peak of memory.

    python benchmarks/end_to_end.py [PHOTO] [--weights embedded] [--frames 75 150 300] [--out benchmark-results]

Every length is run once in a process of its own, cold, imports included. "again" is the same photo with another
strength: only rendering is paid. The very first run after an installation also compiles the loops (kept on disk then);
`--compile` measures that by giving numba an empty folder to keep them in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "dandelion.jpg"


def cold(photo: str, weights: str, device: str, size: int, frames: int, steps: int | None) -> dict[str, Any]:
    """One visit, in this fresh process: seconds by stage."""
    marks = [time.perf_counter()]
    seconds: dict[str, float] = {}

    def mark(stage: str) -> None:
        marks.append(time.perf_counter())
        seconds[stage] = marks[-1] - marks[-2]

    from foundation.pictures import load_photo
    from gid.diffusion.pipeline import load_pipeline
    from gid.jobs import predict_motion, prepare_rendering, write_animation
    from gid.limits import MotionOptions, RenderOptions

    mark("import")
    pipeline = load_pipeline(weights, device)
    mark("load weights")
    prepare_rendering(pipeline)
    volume = predict_motion(pipeline, photo, MotionOptions(steps=steps or MotionOptions.steps))
    mark("motion")
    pixels = load_photo(photo, size).to(pipeline.device)
    with tempfile.TemporaryDirectory() as folder:
        render = RenderOptions(frames=frames, size=size)
        write_animation(Path(folder) / "first.mp4", pixels, volume, pipeline.renderer, render)
        mark("render and encode")
        stronger = RenderOptions(frames=frames, size=size, strength=1.5)
        write_animation(Path(folder) / "again.mp4", pixels, volume, pipeline.renderer, stronger)
        mark("again, stronger")
    from common import peak_mb

    first = sum(value for stage, value in seconds.items() if not stage.startswith("again"))
    shape = f"{pixels.shape[-1]}x{pixels.shape[-2]} on {pipeline.device}"
    return {"setting": shape, "frames": frames, **seconds, "first loop": first, "peak_mb": peak_mb()}


def visit(options: Any, frames: int, cache: str | None = None) -> dict[str, Any]:
    """`cold` in a new process; its whole life, the interpreter's start included, is measured from here as well."""
    arguments = [str(options.photo), options.weights, options.device, options.size, frames, options.steps]
    code = f"import json, sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'benchmarks')]!r}; import end_to_end; "
    code += f"print('RESULT' + json.dumps(end_to_end.cold(*json.loads({json.dumps(arguments)!r}))))"
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})}
    if options.threads is not None:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return dict(json.loads(line.removeprefix("RESULT")))


def main() -> None:
    """Run, print, write JSON and plot."""
    import common

    parser = common.parser(__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, nargs="+", default=[150, 38, 75, 300])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--compile", action="store_true", help="also the first run after an installation")
    options = parser.parse_args()
    common.start(options)
    rows = [visit(options, frames) for frames in options.frames]
    record: dict[str, Any] = {"visits": rows}
    common.logger.info("%s", common.table(rows))
    if options.compile:
        with tempfile.TemporaryDirectory() as folder:
            record["with compiling"] = visit(options, options.frames[0], folder)
        common.logger.info("\nfirst run after an installation:\n%s", common.table([record["with compiling"]]))
    common.save(options, "end_to_end", record)
    curves = {name: [(row["frames"], row[name]) for row in rows] for name in ("first loop", "again, stronger")}
    memory = {"peak": [(row["frames"], row["peak_mb"]) for row in rows]}
    panels = [
        common.Panel("photo to file", "frames", "seconds", curves),
        common.Panel("peak memory of the process", "frames", "MB", memory),
    ]
    common.plot(options, "end_to_end", panels)


if __name__ == "__main__":
    main()
