"""What a poke costs: physics and frames in a real browser, a rendered answer on the CPU, each beside a fair peer.

python benchmarks/poke.py [--side 512] [--render]    prints one line a measurement; needs chromium and playwright.

Frame time is the wall clock of one step, both passes and a one-pixel read that waits for them, in software rendering
(SwiftShader). The peers: scipy's adaptive solver for the physics; numpy and OpenCV for the same frame (sum of modes,
then a backward warp of the photo, which cannot hide one thing behind another).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.integrate import solve_ivp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gid.dynamics import Gesture, Simulation  # noqa: E402
from gid.export import export_page  # noqa: E402
from gid.modes import ModalModel  # noqa: E402
from gid.responses import Response, write_response  # noqa: E402
from tests.swaying import CENTRE, swaying_volume, textured_photo  # noqa: E402

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MEASURE = """() => {
  const c = document.getElementById("poke").gidPoke;
  const gl = c.renderer.gl, pixel = new Uint8Array(4), s = c.simulation;
  c.manual = true;
  s.hold([0.4, 0.5], [0.08, 0]); s.step(0.2); s.release();
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const physics = [];
  for (let k = 0; k < 30; k++) {
    const start = performance.now();
    for (let n = 0; n < 200; n++) s.step(1 / 60);
    physics.push((performance.now() - start) / 200);
  }
  s.hold([0.4, 0.5], [0.08, 0]); s.step(0.2); s.release();
  const frames = [];
  for (let k = 0; k < 60; k++) {
    const start = performance.now();
    c.step(1 / 30);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    frames.push(performance.now() - start);
  }
  return { physics: median(physics), frame: median(frames), best: Math.min(...frames) };
}"""
RATE = """() => new Promise((done) => {
  const c = document.getElementById("poke").gidPoke;
  c.manual = false; c.set("wind", 1); c.wake(true);
  const first = c.frames, start = performance.now();
  setTimeout(() => done((c.frames - first) / ((performance.now() - start) / 1000)), 4000);
})"""


def report(name: str, value: float, unit: str, note: str = "") -> None:
    """One line of the result."""
    sys.stdout.write(f"{name:<44}{value:>10.4g} {unit:<6}{note}\n")


def median_time(function: Callable[[], Any], repeats: int = 15) -> float:
    """Median wall clock of a call in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def browser_cpu() -> float:
    """Seconds of processor time that chromium's drawing processes have used so far (Linux); it does not depend on
    what else runs on the machine."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            if "chrom" in command and ("--type=gpu-process" in command or "--type=renderer" in command):
                ticks += sum(int(v) for v in (process / "stat").read_text().rsplit(")", 1)[1].split()[11:13])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return ticks / os.sysconf("SC_CLK_TCK")


def in_browser(page_html: str) -> dict[str, float]:
    """Physics and frame times of the exported page, which has the app's own modules in it."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_text(page_html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 560, "height": 700})
        page.goto(path.as_uri())
        page.wait_for_selector(".gid-poke-ready")
        page.evaluate(MEASURE)  # warm-up
        before = browser_cpu()
        found = dict(page.evaluate(MEASURE))
        found["cpu"] = 1000 * (browser_cpu() - before) / 60
        found["rate"] = page.evaluate(RATE)
        browser.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="longer side of the photo in pixels")
    parser.add_argument("--render", action="store_true", help="also time a rendered 3 s answer with embedded weights")
    options = parser.parse_args()
    size = (options.side, options.side * 9 // 16)
    photo = textured_photo(size)
    volume = swaying_volume(90, 160, 16, size)
    page = export_page(photo, volume)
    report("exported page", len(page) / 1e6, "MB")

    found = in_browser(page)
    model = ModalModel.from_volume(volume)
    simulation = Simulation(model)
    simulation.poke(CENTRE, (0.05, 0.0))
    start = np.concatenate([simulation.q, simulation.v])
    count = len(model.omega)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[count:], -model.gamma * y[count:] - model.omega**2 * y[:count]])

    peer = median_time(lambda: solve_ivp(slope, (0, 1 / 60), start, rtol=1e-6, atol=1e-9))
    report("physics, one frame, browser", found["physics"], "ms", f"scipy: {peer / found['physics']:.0f}x as long")

    pixels = (photo.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    shapes = model.shapes.astype(np.complex64)
    base = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).astype(np.float32)

    def numpy_frame() -> None:
        moved = np.einsum("j,jchw->hwc", simulation.q.astype(np.complex64), shapes).real.astype(np.float32)
        offset = cv2.resize(moved, size) * max(size)
        cv2.remap(pixels, base - offset, np.empty(0), cv2.INTER_LINEAR)

    peer = median_time(numpy_frame)
    note = f"numpy + OpenCV: {peer / found['frame']:.2f}x as long"
    report(f"frame at {size[0]}x{size[1]}, median, software GL", found["frame"], "ms", note)
    report("frame, best", found["best"], "ms")
    report("frame, processor time", found["cpu"], "ms", "one core; independent of other load")
    report("frames a second, as shown", found["rate"], "Hz")

    if options.render:
        from gid.pipeline import load_pipeline

        pipeline: Any = load_pipeline("embedded", "cpu")
        response = Response((Gesture(CENTRE, (0.06, 0.0)),), seconds=3.0)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            begin = time.perf_counter()
            write_response(Path(folder) / "poke.mp4", photo, volume, pipeline.renderer, response)
            report("rendered 3 s answer, 2 cores", time.perf_counter() - begin, "s")


if __name__ == "__main__":
    main()
