"""How near the motion of the procedural scenes comes to that of measured loops: a table and a plot.

Usage: python studies/scenes_vs_loops.py LOOPS_FOLDER [--scenes 150] [--seed 5000] [-o scenes_vs_loops.png]
       python studies/scenes_vs_loops.py PAIRS_FOLDER --shards SCENES_FOLDER [--scenes 150] [-o scenes_vs_loops.png]

The second form only reads: loops as `gid data clips` measured them and scenes as `gid data scenes` wrote them.

Loops are measured by coarse-to-fine DIS flow from their first frame at 256x144 (every frame warm-started by the last
one). Scenes are read off exactly and, some of them, measured by the same flow on their own frames, because flow smooths
motion and misses thin things: compare loops with the *measured* scenes; the exact ones show what flow does. For a clip:

- p50, p95: percentiles over pixels of the rms displacement, percent of width (x) and height (y), added in squares
- share: pixels whose rms displacement is above 0.15 percent
- x/y: ratio of rms x to rms y among those, both as fractions of their side
- coherence: distance, as a share of the width, at which the motions of two moving pixels in a row correlate by 0.5
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from foundation.video import read_video
from gid.data.scenes import Scene, generate_scene
from gid.data.shards import read_shard
from gid.data.videos import load_pairs
from gid.motion.spectrum import SpectralVolume

matplotlib.use("Agg")
import matplotlib.pyplot as plt

logger = logging.getLogger("scenes_vs_loops")
WIDTH, HEIGHT, BANDS, MOVING = 256, 144, 16, 0.0015


@dataclass(frozen=True)
class Figures:
    """Figures of one clip; ``bands`` (K,) is the mean magnitude per band of its moving pixels."""

    p50: float
    p95: float
    share: float
    ratio: float
    coherence: float
    bands: NDArray[np.float64]


def flow_spectrum(frames: list[NDArray[np.uint8]]) -> NDArray[np.complex128]:
    """Spectrum (K,2,H/2,W/2) in fractions of the picture of frames (H,W,3), by DIS flow from the first one."""
    gray = [
        cv2.cvtColor(cv2.resize(f, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for f in frames
    ]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    flow: NDArray[Any] = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    fields = [flow]
    for later in gray[1:]:
        flow = dis.calc(gray[0], later, flow.copy())
        fields.append(flow)
    trajectories = np.stack(fields)[:, ::2, ::2] / np.array([WIDTH, HEIGHT])
    return np.fft.rfft(trajectories, axis=0, norm="forward")[:BANDS].transpose(0, 3, 1, 2)


def figures(spectrum: NDArray[np.complex128]) -> Figures:
    """Figures of a spectrum (K,2,h,w)."""
    power = 2 * np.abs(spectrum[1:]) ** 2
    energy = np.sqrt(power.sum((0, 1)))
    moving = energy > MOVING
    if moving.sum() < 20:
        moving = energy >= np.percentile(energy, 95)
    x, y = (np.sqrt(power[:, axis].sum(0)[moving].mean()) for axis in (0, 1))
    return Figures(
        p50=float(np.percentile(energy, 50) * 100),
        p95=float(np.percentile(energy, 95) * 100),
        share=float((energy > MOVING).mean()),
        ratio=float(x / (y + 1e-9)),
        coherence=coherence_length(spectrum),
        bands=np.abs(spectrum).mean(1)[:, moving].mean(1),
    )


def coherence_length(spectrum: NDArray[np.complex128]) -> float:
    """Shift, as a share of the width, at which neighbours in a row that both move correlate by no more than 0.5."""
    height, width = spectrum.shape[-2:]
    motion = spectrum[1:].reshape(-1, height, width)
    energy = (np.abs(motion) ** 2).sum(0)
    for shift in range(1, width // 3):
        pair = np.minimum(energy[:, shift:], energy[:, :-shift]) > MOVING**2 / 2
        if pair.sum() < 20:
            return shift / width
        product = (motion[:, :, shift:] * motion[:, :, :-shift].conj()).sum(0).real
        correlation = product / np.sqrt(energy[:, shift:] * energy[:, :-shift] + 1e-15)
        if correlation[pair].mean() < 0.5:
            return shift / width
    return 1 / 3


def rendered(scene: Scene, every: int = 3) -> NDArray[np.complex128]:
    """Spectrum of a scene as flow sees it in its frames; every third frame holds all bands up to 3 Hz."""
    return flow_spectrum([scene.frame(t) for t in range(0, scene.config.num_frames, every)])


def table(rows: dict[str, list[Figures]]) -> str:
    """Mean and median of each figure."""
    lines = [f"{'':28s}{'clips':>6s}" + "".join(f"{n:>16s}" for n in ("p50 %", "p95 %", "share", "x/y", "coherence"))]
    for name, clips in rows.items():
        values = np.array([[c.p50, c.p95, c.share, c.ratio, c.coherence] for c in clips])
        cells = [
            f"{mean:8.3f} ({median:.3f})" for mean, median in zip(values.mean(0), np.median(values, 0), strict=True)
        ]
        lines.append(f"{name:28s}{len(clips):6d}" + "".join(f"{cell:>16s}" for cell in cells))
    lines.append("mean (median). Mean magnitude per band of moving pixels, 1e-4 of the picture:")
    for name, clips in rows.items():
        lines.append(f"{name:28s}" + " ".join(f"{v * 1e4:5.1f}" for v in np.mean([c.bands for c in clips], 0)))
    return "\n".join(lines)


def plot(rows: dict[str, list[Figures]], path: Path) -> None:
    """Spectrum per band, and the spread of the other figures."""
    colors = dict(zip(rows, ("#c0392b", "#2980b9", "#7f8c8d"), strict=False))
    figure, axes = plt.subplots(1, 5, figsize=(20, 4), constrained_layout=True)
    for name, clips in rows.items():
        bands = np.array([c.bands for c in clips]) * 1e4
        axes[0].plot(bands.mean(0), "o-", color=colors[name], label=name)
        axes[0].fill_between(range(BANDS), *np.percentile(bands, [25, 75], axis=0), color=colors[name], alpha=0.15)
    axes[0].set(
        title="mean magnitude per band (shade: quartiles)",
        xlabel="band (0.2 Hz)",
        ylabel="1e-4 of the picture",
        yscale="log",
    )
    axes[0].legend()
    for axis, key, title in zip(
        axes[1:],
        ("p95", "share", "ratio", "coherence"),
        ("95th percentile of rms, %", "share of moving area", "x / y", "coherence length"),
        strict=True,
    ):
        axis.boxplot(
            [[getattr(c, key) for c in clips] for clips in rows.values()], tick_labels=list(rows), showmeans=True
        )
        axis.set_title(title)
        axis.tick_params(axis="x", labelrotation=15)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Measure, print the table, save the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loops", type=Path)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--rendered", type=int, default=20, help="how many of the scenes are also measured by flow")
    parser.add_argument("--every", type=int, default=3, help="measure every n-th frame of a loop, as of a scene")
    parser.add_argument("--shards", type=Path, help="scenes as written; LOOPS_FOLDER then holds measured pairs")
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("-o", "--output", type=Path, default=Path("scenes_vs_loops.png"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = stored(options) if options.shards else made(options)
    logger.info(table({name: found for name, found in rows.items() if found}))
    plot({name: found for name, found in rows.items() if found}, options.output)
    logger.info("plot: %s", options.output)


def stored(options: argparse.Namespace) -> dict[str, list[Figures]]:
    """Figures of measured pairs and of written scenes: nothing is measured again. One pair a clip."""
    pairs = {pair.clip: pair for pair in load_pairs(options.loops)}
    rows = {"loops, measured": [figures(pair.volume.coefficients.numpy()) for pair in pairs.values()]}
    scenes: list[Figures] = []
    paths = sorted(Path(options.shards).glob("*.safetensors"))
    if not paths:
        raise SystemExit(f"{options.shards} holds no shards of scenes")
    for path in paths:
        shard = read_shard(path)
        moving = [index for index, kind in enumerate(shard.kinds) if kind != "still"]
        for index in moving[: -(-options.scenes // len(paths))]:
            volume = SpectralVolume.from_real(shard.coefficients[index])
            scenes.append(figures(volume.coefficients.numpy()))
    return {**rows, "scenes, exact": scenes}


def made(options: argparse.Namespace) -> dict[str, list[Figures]]:
    """Figures of loops and of new scenes, both measured by flow here."""
    clips = sorted(options.loops.glob("*.mp4"))
    if not clips:
        raise SystemExit(f"{options.loops} holds no .mp4 loops")
    rows: dict[str, list[Figures]] = {"loops, flow": [], "scenes, flow": [], "scenes, exact": []}
    for clip in tqdm(clips, desc="loops"):
        rows["loops, flow"].append(figures(flow_spectrum(list(read_video(clip, 150)[0][:: options.every]))))
    movers = (scene for i in range(10 * options.scenes) if (scene := generate_scene(options.seed + i)).kind != "still")
    for number in tqdm(range(options.scenes), desc="scenes"):
        scene = next(movers)
        rows["scenes, exact"].append(figures(scene.volume.coefficients.numpy()))
        if number < options.rendered:
            rows["scenes, flow"].append(figures(rendered(scene)))
    return rows


if __name__ == "__main__":
    main()
