"""Where the time of the two commands goes, by stage, from their own --trace: `python benchmarks/shares.py`.

A photo to a 150-frame loop, and feedback on one picture; each a fresh process, its loops compiled before. Then what the
imports of `gid animate` are made of. Processor seconds hardly depend on what else the machine does; its load is noted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, logger, parser, save, start, table

EXAMPLES = ROOT / "examples"
COMMANDS: dict[str, list[str]] = {
    "gid animate": ["gid.cli", "--trace", "animate", str(EXAMPLES / "dandelion.jpg"), "-o"],
    "rahf analyze": ["rahf.cli", "--trace", "analyze", str(EXAMPLES / "feedback-dog.png"), "-p", "a dog", "-o"],
}
OUTPUTS = {"gid animate": "loop.mp4", "rahf analyze": "feedback"}
# One after the other in one process: a library costs what those before it have not imported yet.
IMPORTS = {
    "torch": "import torch",
    "diffusers, with peft and transformers": "from diffusers import DiffusionPipeline, UNet2DModel",
    "transformers' DINOv2": "from transformers import Dinov2Model",
    "gid, with numba, OpenCV and PyAV": "import gid.jobs, gid.diffusion.pipeline, numba",
}
LINE = re.compile(r"^(.+?) +(\d+\.\d+) +(\d+)% +(\d+\.\d+) +(\d+)$", re.MULTILINE)


def trace(name: str) -> tuple[list[dict[str, Any]], float]:
    """Stages of one command in a fresh process, and its seconds from start to end."""
    module, *arguments = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, *arguments, str(Path(folder) / OUTPUTS[name])]
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    rows = [
        {
            "command": name,
            "stage": stage,
            "seconds": float(seconds),
            "processor": float(processor),
            "peak_mb": int(peak),
        }
        for stage, seconds, _, processor, peak in LINE.findall(done.stderr)
    ]
    inside = sum(row["seconds"] for row in rows)
    rest = {"stage": "start, end and between", "seconds": whole - inside, "processor": None, "peak_mb": None}
    return [*rows, {"command": name, **rest}], whole


def imports() -> list[dict[str, Any]]:
    """Processor seconds of the imports of `gid animate`, in a fresh process."""
    program = "import time, json; found, last = [], time.process_time()\n"
    for source in IMPORTS.values():
        program += f"{source}\nnow = time.process_time(); found.append(now - last); last = now\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "print(json.dumps(found))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = json.loads(done.stdout.splitlines()[-1])
    return [{"imports": name, "processor": value} for name, value in zip(IMPORTS, seconds, strict=True)]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One bar for each command, its stages' processor time side by side: it hardly depends on the machine's load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(COMMANDS)
    figure, axes = pyplot.subplots(len(names), 1, figsize=(9, 1.9 * len(names)), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        stages = [row for row in rows if row["command"] == name and row["processor"] is not None]
        left, colours = 0.0, pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
        for row, colour in zip(stages, colours, strict=False):
            seconds = row["processor"]
            axis.barh([0], [seconds], left=left, color=colour, label=f"{row['stage']} {seconds:.2g} s")
            left += seconds
        axis.set(title=f"{name}: {left:.1f} s of processor time", yticks=[], xlim=(0, left))
        axis.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=2, help="the quickest of these counts; the first compiles")
    options = arguments.parse_args()
    start(options)
    load = os.getloadavg()[0]
    runs = {name: min((trace(name) for _ in range(options.repeats)), key=lambda run: run[1]) for name in COMMANDS}
    rows = [row for stages, _ in runs.values() for row in stages]
    made_of = imports()
    logger.info("%s\n\n%s\n\nload of the machine before: %.1f", table(rows), table(made_of), load)
    totals = {name: whole for name, (_, whole) in runs.items()}
    save(options, "shares", {"load": load, "totals": totals, "rows": rows, "imports": made_of})
    plot(rows, options.out / "shares.png")


if __name__ == "__main__":
    main()
