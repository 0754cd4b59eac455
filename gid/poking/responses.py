"""Videos of a poked photo, and clips as things to poke: whole jobs on files, for the command line and the app."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundation.pictures import load_photo, to_uint8
from foundation.trace import stage, staged
from foundation.video import read_video, write_video
from gid.limits import POKE
from gid.motion.coherence import smooth_for_dragging
from gid.motion.spectrum import SpectralVolume
from gid.poking.parts import Parts, find_parts
from gid.poking.simulation import Gesture, Knobs, poke_displacements
from gid.poking.wind import Wind
from gid.rendering.animate import layers_of, render_displacements
from gid.rendering.segments import find_segments

CLIP_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
CHUNK = 8
MOTION_SIDE = 256
"""The longest side at which a response is computed; motion is smooth, the renderer enlarges it."""


@dataclass(frozen=True)
class Response:
    """What to do to a photo and for how long to watch.

    gestures: drags and pokes. wind: a gust, if any. seconds, fps: within gid.limits.POKE. knobs: the material.
    Raises ValueError when nothing acts or the length is out of range.
    """

    gestures: tuple[Gesture, ...] = ()
    wind: Wind | None = None
    seconds: float = 3.0
    fps: float = 30.0
    knobs: Knobs = field(default_factory=Knobs)

    def __post_init__(self) -> None:
        if not self.gestures and self.wind is None:
            raise ValueError("nothing acts on the photo: give a point and a force, or a gust")
        POKE["seconds"].check("seconds", self.seconds)
        POKE["fps"].check("fps", self.fps)

    def displacements(self, volume: SpectralVolume, parts: Parts | None = None) -> Tensor:
        """(N, 2, h, w) fractions of width and height, from rest to rest; see `poke_displacements`."""
        volume = _reduced(volume)
        return poke_displacements(
            volume,
            gestures=self.gestures,
            wind=self.wind,
            seconds=self.seconds,
            fps=self.fps,
            knobs=self.knobs,
            parts=parts,
        )


def _reduced(volume: SpectralVolume) -> SpectralVolume:
    """The volume at most `MOTION_SIDE` cells a side."""
    height, width = volume.coefficients.shape[-2:]
    if max(height, width) <= MOTION_SIDE:
        return volume
    scale = MOTION_SIDE / max(height, width)
    return volume.resize(max(2, round(height * scale)), max(2, round(width * scale)))


def render_response(
    photo: Tensor, volume: SpectralVolume, renderer: Any, response: Response, smoothed: bool = False
) -> Iterator[Tensor]:
    """Frames (n, 3, H, W) in [0, 1] of photo (3, H, W) answering `response`; the first and the last are the photo.

    ``smoothed`` says that the motion is smoothed for the hand already (`gid.motion.coherence.smooth_for_dragging`).
    Raises ValueError if the motion is of another photo, or nothing in it moves.
    """
    height, width = photo.shape[-2:]
    volume.check_photo(width, height)
    if float(volume.motion_energy().max()) <= 0:
        raise ValueError("this motion does not move anything: estimate the motion of the photo first")
    volume = volume.to("cpu")
    with stage("smooth for dragging"):
        pulled = _reduced(volume if smoothed else smooth_for_dragging(volume, photo))
    longer = max(width, height)
    with stage("simulate"):
        segments = find_segments(pulled.coefficients, width, height)
        parts = find_parts(segments, (width / longer, height / longer))
        moved = response.displacements(pulled, parts)
        lengths = torch.hypot(moved[:, 0] * width, moved[:, 1] * height)
    # Where one part answers alone, the photo drawn as one would tear at its border however little it moves.
    layers = layers_of(photo, pulled, segments=segments) if parts is not None else None
    chunks = (moved[start : start + CHUNK].to(photo.device) for start in range(0, len(moved), CHUNK))
    return render_displacements(photo, chunks, renderer, lengths.mean(dim=0), lengths.amax(dim=0), layers)


def write_response(
    path: str | Path,
    photo: Tensor,
    volume: SpectralVolume,
    renderer: Any,
    response: Response,
    progress: Callable[[int, int], None] | None = None,
    smoothed: bool = False,
) -> Path:
    """Render the photo's answer into a video file; progress(done, total) counts frames.

    ``smoothed`` as for `render_response`.
    Raises ValueError for a motion of another photo or one that does not move, OSError if the file cannot be written.
    """
    path = Path(path)
    total = max(2, round(response.seconds * response.fps))

    def chunks() -> Iterator[np.ndarray]:
        done = 0
        for frames in staged("frames", render_response(photo, volume, renderer, response, smoothed)):
            done += len(frames)
            yield to_uint8(frames)
            if progress is not None:
                progress(done, total)

    with stage("video file"):
        write_video(path, chunks(), response.fps)
    return path


def is_clip(path: str | Path) -> bool:
    """Whether the file's name says that it is a video."""
    return Path(path).suffix.lower() in CLIP_SUFFIXES


def first_frame(path: str | Path, max_side: int | None = None) -> Tensor:
    """The first frame of a clip as a photo (3, H, W) in [0, 1]. Raises ValueError if it is not a video."""
    frames, _ = read_video(path, max_frames=1)
    return load_photo(frames[0], max_side)


def gesture_at(
    at: tuple[float, float],
    force: tuple[float, float],
    size: tuple[int, int],
    kind: str = "drag",
    duration: float = 0.5,
) -> Gesture:
    """One gesture given in pixels of a photo of size (width, height): the point, and the pull's length in x and y.

    Raises ValueError, in pixels, for a point outside the photo, no pull or one longer than the photo.
    """
    width, height = size
    if not all(math.isfinite(v) for v in (*at, *force)):
        raise ValueError(f"the point {at} and the force {force} must be numbers")
    if not (0 <= at[0] <= width - 1 and 0 <= at[1] <= height - 1):
        raise ValueError(
            f"the point {at[0]:g},{at[1]:g} is outside the photo: x must be 0 to {width - 1}, y 0 to {height - 1}"
        )
    if force == (0, 0):
        raise ValueError("the force is zero: give pixels to pull by, right and down, for example 40,-10")
    if abs(force[0]) > width or abs(force[1]) > height:
        raise ValueError(
            f"the force {force[0]:g},{force[1]:g} is longer than the photo of {width}x{height} pixels; pull less"
        )
    place = ((at[0] + 0.5) / width, (at[1] + 0.5) / height)
    pull = (force[0] / width, force[1] / height)
    return Gesture(place, pull, "poke" if kind == "poke" else "drag", duration=duration)
