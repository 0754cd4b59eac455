"""What a person sees move, without optical flow: brightness over time, in the clip and in our loop of its first frame.

Flow is noise in black or blurred regions; brightness does not change there, so that such regions count as still. A map
of *visible motion* is the standard deviation of brightness over time, slightly blurred, at most 512 pixels wide, less
the slow drift of the light, averaged to 128 cells along the longer side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.video import read_video

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]

LIMIT = 150
LONG_SIDE = 512
CELLS = 128
STILL = 0.1
MOVING_PERCENTILE = 70
BANDS = 16
# A loop that shows less than this standard deviation (grey levels) where the clip moves has no tempo to speak of.
LEAST_MOTION = 0.05
NO_TEMPO = 40.0


@dataclass(frozen=True)
class VisibleScores:
    """A loop beside the clip that it should look like.

    Attributes:
        correlation: Pearson's r of the two maps of log(1 + x / mean).
        leakage: mean of the loop's map where the clip stands still, under a tenth of its 95th percentile, over its mean
            elsewhere; NaN where all of the clip moves.
        strength: mean of the loop's map over mean of the clip's; 1 is best.
        tempo: mean absolute difference, in dB, of the two spectra of brightness where the clip moves, each normalised.
        texture: what the photo's gradient alone would get as correlation.
    """

    correlation: float
    leakage: float
    strength: float
    tempo: float
    texture: float


def brightness(frames: Iterable[Frames]) -> Floats:
    """(T, H, W) float32 of frames (H, W, 3) uint8 RGB, at most 150 of them, blurred by a pixel, shrunk to 512."""
    found = []
    for frame, _ in zip(frames, range(LIMIT), strict=False):
        scale = min(1.0, LONG_SIDE / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found.append(cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0))
    return np.asarray(np.stack(found), np.float32)


def cells(values: Floats) -> Floats:
    """(H, W) averaged to 128 cells along the longer side."""
    height, width = values.shape
    scale = CELLS / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def visible_motion(frames: Floats) -> Floats:
    """(h, w) map of visible motion of brightness (T, H, W)."""
    drift = np.median(frames, axis=(1, 2), keepdims=True)
    return cells(np.asarray((frames - drift).std(0), np.float32))


def compare(clip: Floats, loop: Floats) -> VisibleScores:
    """Judge the brightness (T, H, W) of a loop beside that of a clip.

    Raises:
        ValueError: fewer than 2 frames in either.
    """
    if min(len(clip), len(loop)) < 2:
        raise ValueError(f"the clip has {len(clip)} frames and the loop {len(loop)}; both need at least 2")
    seen, mine = visible_motion(clip), visible_motion(loop)
    if mine.shape != seen.shape:
        mine = np.asarray(cv2.resize(mine, seen.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    still = seen < STILL * np.percentile(seen, 95)
    leakage = float(mine[still].mean() / (mine[~still].mean() + 1e-9)) if still.any() else math.nan
    texture = np.hypot(cv2.Sobel(clip[0], cv2.CV_32F, 1, 0) / 8, cv2.Sobel(clip[0], cv2.CV_32F, 0, 1) / 8)
    return VisibleScores(
        correlation=_correlation(mine, seen),
        leakage=leakage,
        strength=float(mine.mean() / (seen.mean() + 1e-9)),
        tempo=_tempo(clip, loop, seen, mine),
        texture=_correlation(cells(np.asarray(texture, np.float32)), seen),
    )


def _correlation(a: Floats, b: Floats) -> float:
    x, y = (np.log1p(values / (values.mean() + 1e-9)).ravel().astype(np.float64) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else 0.0


def _tempo(clip: Floats, loop: Floats, seen: Floats, mine: Floats) -> float:
    moving = seen >= np.percentile(seen, MOVING_PERCENTILE)
    if mine[moving].mean() <= LEAST_MOTION:
        return NO_TEMPO
    one, other = _spectrum(loop, moving), _spectrum(clip, moving)
    count = min(len(one), len(other))
    return float(np.abs(20 * np.log10(one[:count] / other[:count])).mean())


def _spectrum(frames: Floats, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    size = frames.shape[:0:-1]
    mask = cv2.resize(where.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    signal = frames[:, mask].astype(np.float64)
    signal = (signal - signal.mean(0)) * np.hanning(len(signal))[:, None]
    power = (np.abs(np.fft.rfft(signal, axis=0)) ** 2).mean(1)[1:BANDS]
    return np.asarray(np.sqrt(power / max(power.sum(), 1e-12) + 1e-9))


def visible_table(
    clips: Sequence[Path], animate: Callable[[Frames, int], Frames], seeds: Sequence[int] = (0,)
) -> dict[str, VisibleScores]:
    """Scores of each clip, means over seeds.

    Args:
        clips: video files.
        animate: the clip's first frame (H, W, 3) uint8 and a seed -> frames (N, H, W, 3) uint8 of a loop.
        seeds: at least one.

    Raises:
        ValueError: no clips or no seeds.
    """
    if not clips or not seeds:
        raise ValueError(f"{len(clips)} clips and {len(seeds)} seeds: at least one of each is needed")
    table = {}
    for path in clips:
        frames, _ = read_video(path, max_frames=LIMIT)
        clip = brightness(frames)
        found = [asdict(compare(clip, brightness(animate(frames[0], seed)))) for seed in seeds]
        table[path.stem] = VisibleScores(**{key: float(np.mean([each[key] for each in found])) for key in found[0]})
    return table


def written(table: dict[str, VisibleScores]) -> str:
    """The table as Markdown, with a last row of means (medians for leakage and strength)."""
    keys = ("correlation", "texture", "leakage", "strength", "tempo")
    lines = ["| visible motion | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    rows = {name: [getattr(scores, key) for key in keys] for name, scores in table.items()}
    values = np.array(list(rows.values()))
    middle = np.nanmean(values, 0)
    middle[2:4] = np.nanmedian(values[:, 2:4], 0)
    for name, row in [*rows.items(), ("mean (median for leakage, strength)", middle)]:
        lines.append(f"| {name} | " + " | ".join("–" if math.isnan(v) else f"{v:.2f}" for v in row) + " |")
    return "\n".join(lines)
