"""What a poke costs: physics and frames in a real browser, a rendered answer on the CPU, each beside a fair peer.

    python benchmarks/poke.py [--sides 256 512 1024] [--no-render] [--out benchmark-results]

Needs chromium and playwright. Frame time is the wall clock of one step, both passes and a one-pixel read that waits for
them, in software rendering (SwiftShader). The peers: scipy's adaptive solver for the physics; numpy and OpenCV for the
same frame (sum of modes, then a backward warp of the photo, which cannot hide one thing behind another).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import torch
from scipy.integrate import solve_ivp

from gid.diffusion.pipeline import load_pipeline
from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import ModalModel
from gid.poking.page import export_page
from gid.poking.responses import Response, write_response
from gid.poking.simulation import Gesture, Simulation
from tests.swaying import CENTRE, swaying_volume, textured_photo

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


def scene(side: int) -> tuple[torch.Tensor, SpectralVolume]:
    """A photo of side x 9/16 side pixels and its motion on 160 x 90 cells."""
    size = (side, side * 9 // 16)
    return textured_photo(size), swaying_volume(90, 160, 16, size)


def physics_peer(model: ModalModel) -> float:
    """Milliseconds in which scipy's adaptive solver takes the same step of 1/60 s."""
    simulation = Simulation(model)
    simulation.poke(CENTRE, (0.05, 0.0))
    start, count = np.concatenate([simulation.q, simulation.v]), len(model.omega)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[count:], -model.gamma * y[count:] - model.omega**2 * y[:count]])

    return median_time(lambda: solve_ivp(slope, (0, 1 / 60), start, rtol=1e-6, atol=1e-9))


def frame_peer(model: ModalModel, photo: torch.Tensor) -> float:
    """Milliseconds in which numpy and OpenCV sum the modes and warp the photo backwards."""
    height, width = photo.shape[1:]
    pixels = (photo.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    shapes = model.shapes.astype(np.complex64)
    base = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    simulation = Simulation(model)
    simulation.poke(CENTRE, (0.05, 0.0))

    def draw() -> None:
        moved = np.einsum("j,jchw->hwc", simulation.q.astype(np.complex64), shapes).real.astype(np.float32)
        offset = cv2.resize(moved, (width, height)) * max(width, height)
        cv2.remap(pixels, base - offset, np.empty(0), cv2.INTER_LINEAR)

    return median_time(draw)


def answer(side: int, seconds: float) -> float:
    """Seconds in which a poke is answered by a video of so many seconds, drawn by the embedded renderer."""
    photo, volume = scene(side)
    pipeline: Any = load_pipeline("embedded", "cpu")
    response = Response((Gesture(CENTRE, (0.06, 0.0)),), seconds=seconds)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        begin = time.perf_counter()
        write_response(Path(folder) / "poke.mp4", photo, volume, pipeline.renderer, response)
        return time.perf_counter() - begin


def main() -> None:
    """Measure, print, write JSON and plot."""
    parser = common.parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], help="longer sides in pixels")
    parser.add_argument("--render", action=argparse.BooleanOptionalAction, default=True, help="also rendered answers")
    options = parser.parse_args()
    common.start(options)
    rows: list[dict[str, Any]] = []
    for side in options.sides:
        photo, volume = scene(side)
        page, model = export_page(photo, volume), ModalModel.from_volume(volume)
        found = in_browser(page)
        physics, frame = physics_peer(model), frame_peer(model, photo)
        rows.append(
            {
                "side": side,
                "pixels": photo.shape[1] * photo.shape[2],
                "page_MB": len(page) / 1e6,
                "physics_ms": found["physics"],
                "scipy_over_physics": physics / found["physics"],
                "frame_ms": found["frame"],
                "best_frame_ms": found["best"],
                "processor_ms": found["cpu"],
                "numpy_and_opencv_ms": frame,
                "shown_Hz": found["rate"],
            }
        )
    common.logger.info("in a browser, software GL\n%s\n", common.table(rows))
    answers: list[dict[str, Any]] = []
    for seconds in (1.5, 3.0, 6.0) if options.render else ():
        _, peak = common.peak_of(answer, 512, seconds)
        answers.append({"seconds_of_video": seconds, "seconds": answer(512, seconds), "peak_mb": peak})
    common.logger.info("rendered answers at 512 pixels\n%s", common.table(answers))
    common.save(options, "poke", {"browser": rows, "answers": answers})
    curves = {
        "browser, software GL": [(row["pixels"], row["frame_ms"]) for row in rows],
        "numpy and OpenCV": [(row["pixels"], row["numpy_and_opencv_ms"]) for row in rows],
    }
    panels = [common.Panel("a frame of a poke; dotted: in proportion", "pixels", "ms", curves, line=True)]
    if answers:
        times = {"rendered answer": [(row["seconds_of_video"], row["seconds"]) for row in answers]}
        panels.append(common.Panel("a poke's answer as a video", "seconds of video", "seconds", times))
    common.plot(options, "poke", panels)


if __name__ == "__main__":
    main()
