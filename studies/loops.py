"""Three ways to a loop: seam, cost and change of motion of each, in one table.

    python studies/loops.py PAIRS_OR_CLIPS [--weights embedded] [--photos 5] [--steps 10] [-o studies/loops.md]

- none: an ordinary sample, played on from its first frame.
- by construction: the same sample, its bands moved to the nearest frequencies that close, started at its calmest moment
  (`gid.motion.loops`).
- self-guidance: the paper's (`gid.diffusion.guidance`), weight 200, two recurrences, DDIM; played on like "none".

All three at the model's own length (150 frames, in which 16 Fourier bands close by themselves) and at another. Figures
are of displacements. Seam: step across the wrap over the median step, and the same of velocities' changes; 1 is as
smooth as anywhere else. Frequency: rms velocity over rms displacement. Cost: processor time of sampling over that of
the ordinary sample by the same solver.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from gid.data.videos import Pair, held_out, measured_pairs
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.evaluation.metrics import log_spectral_distance, motion_energy_correlation, seam_ratio
from gid.motion.loops import evaluate, time_basis
from gid.motion.spectrum import SpectralVolume

logger = logging.getLogger("benchmarks.loops")
FPS = 30.0
GUIDANCE = 200.0
LENGTHS = (150, 110)


@dataclass(frozen=True)
class Figures:
    """Of one loop of one photo, beside the ordinary sample."""

    seam: float
    velocity_seam: float
    cost: float
    energy: float
    correlation: float
    frequency: float
    bands: float


def velocity_seam(motion: Tensor) -> float:
    """Change of velocity across the wrap over its median change: (N, ...) displacements, N >= 4."""
    around = torch.cat([motion, motion[:2]]).double()
    velocity = around.diff(dim=0)
    change = velocity.diff(dim=0).abs().flatten(1).mean(1)
    # Velocities N-2 -> N-1 -> 0: the last two changes cross the wrap.
    interior = float(change[:-2].median())
    return float(change[-2:].max()) / interior if interior > 0 else 0.0


def frequency(motion: Tensor) -> float:
    """Hz: rms velocity over rms displacement about the mean, over 2 pi; (N, ...) displacements."""
    swing = (motion - motion.mean(0)).square().mean().sqrt()
    return float(motion.diff(dim=0).square().mean().sqrt() * FPS / swing / (2 * torch.pi))


def played(volume: SpectralVolume, frames: int, loop: bool) -> Tensor:
    """Displacements (N, 2, h, w) of a video of this length at natural speed."""
    small = volume.resize(32, 56)
    return evaluate(time_basis(small, frames, FPS, 1.0, loop), small.coefficients)


def judged(motion: Tensor, ordinary: Tensor, cost: float) -> Figures:
    """Figures of a loop beside the ordinary sample's video of the same length."""
    energy, before = ((m - m.mean(0)).square().sum(1).mean(0).sqrt() for m in (motion, ordinary))
    spectra = [torch.fft.rfft(m, dim=0, norm="forward")[:16].abs().square().sum(1).sqrt() for m in (motion, ordinary)]
    return Figures(
        seam_ratio(motion),
        velocity_seam(motion),
        cost,
        float(energy.mean() / before.mean()),
        motion_energy_correlation(energy, before),
        frequency(motion) / frequency(ordinary),
        log_spectral_distance(*(s.mean((1, 2)) for s in spectra)),
    )


def timed(sample: Callable[[], SpectralVolume]) -> tuple[SpectralVolume, float]:
    """A sample and the processor time it took, in seconds."""
    start = time.process_time()
    volume = sample()
    return volume, time.process_time() - start


def compare(pipeline: GIDPipeline, pair: Pair, steps: int) -> dict[tuple[str, int], Figures]:
    """All ways and lengths for one photo."""
    photo = pair.photo.float() / 255

    def sample(**options: Any) -> SpectralVolume:
        return pipeline(photo, seed=0, steps=steps, **options).volumes[0]

    usual, _ = timed(lambda: sample())
    plain, plain_time = timed(lambda: sample(solver="ddim"))
    guided, guided_time = timed(lambda: sample(solver="ddim", loop_guidance=GUIDANCE))
    found = {}
    for frames in LENGTHS:
        ordinary = played(usual, frames, loop=False)
        found["none", frames] = judged(ordinary, ordinary, 1.0)
        found["by construction", frames] = judged(played(usual, frames, loop=True), ordinary, 1.0)
        found["self-guidance", frames] = judged(
            played(guided, frames, loop=False), played(plain, frames, loop=False), guided_time / plain_time
        )
    return found


def table(results: list[dict[tuple[str, int], Figures]]) -> list[str]:
    """Markdown rows: medians over photos, the worst seam beside its median."""
    lines = [
        "| frames | way | seam (worst) | change of velocity at the seam | cost | energy kept | where it moves "
        "| frequency | bands, dB |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, frames in results[0]:
        each = [result[way, frames] for result in results]
        middle = {key: statistics.median(getattr(one, key) for one in each) for key in Figures.__dataclass_fields__}
        lines.append(
            f"| {frames} | {way} | {middle['seam']:.2f} ({max(one.seam for one in each):.2f}) "
            f"| {middle['velocity_seam']:.2f} | {middle['cost']:.1f} | {middle['energy']:.2f} "
            f"| {middle['correlation']:.2f} | {middle['frequency']:.2f} | {middle['bands']:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clips", type=Path, help="folder of clips, or of measured pairs")
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/loops.md"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = measured_pairs(options.clips, options.clips / "pairs", 1)
    chosen = held_out(pair.clip for pair in pairs)
    first = {pair.scene: pair for pair in reversed(pairs) if pair.clip in chosen}
    pipeline = load_pipeline(options.weights)
    photos = list(first.values())[: options.photos]
    results = [compare(pipeline, pair, options.steps) for pair in tqdm(photos, unit="photo")]
    text = [
        "# Three ways to a loop",
        "",
        f"{len(photos)} photos left out of training ({', '.join(p.name for p in photos)}), weights "
        f"`{options.weights}`, {options.steps} steps, medians. Made by `python studies/loops.py CLIPS`,",
        "which explains the columns; energy, place, frequency and bands are those of the loop over those of the",
        "ordinary sample.",
        "",
        *table(results),
    ]
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")
    logger.info("\n".join(text))


if __name__ == "__main__":
    main()
