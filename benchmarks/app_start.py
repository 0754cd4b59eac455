"""From `python app.py` to a page that answers: `python benchmarks/app_start.py`.

The app is started as a user starts it, embedded weights included, and asked for its page and its API until both answer.
Beside it, in the same run: an empty Gradio page that has imported torch, diffusers' pipelines and transformers' models,
which is the floor below which no app on these libraries can start. Then where the processor time of the imports goes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from common import ROOT, logger, parser, save, start, table

WANTED = 10.0  # seconds, on two quiet cores
FLOOR = """
import gradio, torch
from diffusers import DiffusionPipeline
from transformers import T5ForConditionalGeneration, ViTModel
with gradio.Blocks() as demo:
    gradio.Markdown("empty")
demo.launch()
"""
# Processor seconds that each top-level package takes to import, without what it imports itself.
IMPORTS = """
import importlib._bootstrap as bootstrap, json, sys, time
from collections import defaultdict
load, inner, own = bootstrap._find_and_load_unlocked, [], defaultdict(float)
def timed(name, import_):
    start = time.process_time()
    inner.append(0.0)
    try:
        return load(name, import_)
    finally:
        taken = time.process_time() - start
        own[name.split(".")[0]] += taken - inner.pop()
        if inner:
            inner[-1] += taken
bootstrap._find_and_load_unlocked = timed
import app
print(json.dumps(own))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own, "GRADIO_SERVER_NAME": "127.0.0.1", **more}


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200 and len(reply.read()) > 0
    except (urllib.error.URLError, OSError):
        return False


def started(command: list[str], patience: float) -> dict[str, float | None]:
    """Seconds until the page and the API answer, processor seconds by then, and the most memory held, in GiB.

    Raises RuntimeError if the process ends, TimeoutError if it does not answer within `patience` seconds.
    """
    port = free_port()
    with tempfile.TemporaryFile() as told:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(GRADIO_SERVER_PORT=str(port)), stdout=told, stderr=told
        )
        try:
            for path in ("/", "/gradio_api/info"):
                while not answers(f"http://127.0.0.1:{port}{path}"):
                    if process.poll() is not None:
                        told.seek(0)
                        raise RuntimeError(f"{command} ended: {told.read().decode(errors='replace')[-2000:]}")
                    if time.perf_counter() - begun > patience:
                        raise TimeoutError(f"{command} did not answer within {patience:.0f} s")
                    time.sleep(0.02)
            taken = time.perf_counter() - begun
            return {"seconds": taken, **used(process.pid)}
        finally:
            process.terminate()
            process.wait()


def used(process: int) -> dict[str, float | None]:
    """Processor seconds and highest memory (GiB) of a running process, where the system tells."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {"processor seconds": None, "peak GiB": None}
    highest = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {
        "processor seconds": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        "peak GiB": highest / 2**20,
    }


def imports() -> dict[str, float]:
    """Processor seconds of `import app` by package, the largest first."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    )
    own = json.loads(run.stdout.splitlines()[-1])
    return dict(sorted(own.items(), key=lambda pair: -pair[1]))


def plot(found: dict[str, Any], path: Path) -> None:
    """Start-up times, and the packages that take most of the imports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rows = found["rows"]
    bars = left.barh([row["what"] for row in rows], [row["seconds"] for row in rows], color=["#4078c0", "#8a8f98"])
    left.bar_label(bars, fmt="%.1f s", padding=3)
    left.axvline(WANTED, color="#c04060", linestyle=":")
    left.set(xlabel="seconds until the page answers", xlim=(0, 1.25 * max(WANTED, *left.get_xlim())))
    top = list(found["imports"].items())[:10][::-1]
    right.barh([name for name, _ in top], [value for _, value in top], color="#8a8f98")
    right.set(xlabel="processor seconds of importing")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=3, help="the least time of these counts")
    arguments.add_argument("--patience", type=float, default=300, help="seconds to wait for an answer")
    options = arguments.parse_args()
    start(options)
    commands = {"app": [sys.executable, "app.py"], "empty page, same libraries": [sys.executable, "-c", FLOOR]}
    rows: list[dict[str, Any]] = []
    for name, command in commands.items():
        runs = [started(command, options.patience) for _ in range(options.repeats)]
        rows.append({"what": name, **min(runs, key=lambda run: run["seconds"] or 0.0)})
    logger.info(table(rows))
    reached = rows[0]["seconds"] <= WANTED
    logger.info("wanted: %.0f s; %s", WANTED, "reached" if reached else "not reached")
    found = imports()
    logger.info("\n%s", table([{"package": name, "processor seconds": value} for name, value in found.items()][:12]))
    record = {"wanted seconds": WANTED, "reached": reached, "rows": rows, "imports": found}
    save(options, "app_start", record)
    plot(record, options.out / "app_start.png")


if __name__ == "__main__":
    main()
