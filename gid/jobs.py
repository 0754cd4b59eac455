"""Whole jobs on files, as the command line, the app and the benchmarks run them: photo to motion, motion to video."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from foundation.files import check_writable
from foundation.pictures import Photo, load_photo, to_uint8
from foundation.trace import stage, staged
from foundation.video import frame_name, write_video
from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import resolve
from gid.rendering.animate import animate
from gid.rendering.cpu.frames import compile_loops, compiled_rendering

if TYPE_CHECKING:
    from gid.diffusion.pipeline import GIDPipeline
    from gid.rendering.renderer import Renderer

Progress = Callable[[int, int], None]

_prepared = threading.Event()

MOTION_SIDE = 512  # the longer side at which a photo is shown to the model, whatever the size of the video
VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".png")


def check_output(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise ValueError before any work is done if nothing could be written to ``path`` in the end."""
    if path.suffix.lower() not in suffixes:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise ValueError(f"output {path} {found}; use one of {', '.join(suffixes)}")
    if path.suffix.lower() == ".png":  # a sequence; its frames have longer names
        path = path.with_name(frame_name(path.stem, 0))
    check_writable(path)


def prepare_rendering(pipeline: GIDPipeline) -> None:
    """Begin to compile the loops that draw frames on the CPU, in a thread of its own, while the motion is predicted.

    Worth some seconds on the first use after an installation, when they are not yet on disk. Does nothing for other
    devices, without numba, or when it was done before.
    """
    if pipeline.device.type == "cpu" and compiled_rendering() and not _prepared.is_set():
        _prepared.set()
        threading.Thread(target=compile_loops, args=(pipeline.renderer,), name="compile").start()


def predict_motion(
    pipeline: GIDPipeline, source: str | Path | Photo | Tensor, options: MotionOptions, progress: Progress | None = None
) -> SpectralVolume:
    """Predict the spectral volume of a photo; ``progress(step, total)`` is called after each step.

    ``source`` is a file, a photo that was read, or its pixels (3, H, W) in [0, 1] with a longer side of at most
    ``MOTION_SIDE``.

    Raises:
        ValueError: if the file is not a usable photo.
    """
    with stage("photo"):
        photo = source if isinstance(source, Tensor) else load_photo(source, max_side=MOTION_SIDE)
    output = pipeline(
        photo,
        seed=options.seed,
        steps=options.steps,
        guidance_scale=options.guidance,
        solver=options.solver,
        loop_guidance=options.loop_guidance,
        hold_still=options.hold_still,
        callback=progress,
    )
    return output.volumes[0]


def write_animation(
    path: str | Path,
    photo: Tensor,
    volume: SpectralVolume,
    renderer: Renderer,
    options: RenderOptions,
    progress: Progress | None = None,
) -> Path:
    """Render a photo (3, H, W) in [0, 1] moved by ``volume`` into the video file ``path``, chunk by chunk.

    ``progress(done, total)`` counts frames.

    Raises:
        ValueError: if the motion was made for a photo of another shape, the suffix is no video format, or the file
            cannot be written; nothing is left behind then.
    """
    path = Path(path)
    frames = animate(  # at once, so that a mistake is told before a file is begun
        photo,
        volume,
        renderer,
        num_frames=options.frames,
        fps=options.fps,
        loop=options.loop,
        strength=resolve(options.strength, volume),
        speed=options.speed,
    )

    def chunks() -> Iterator[np.ndarray]:
        done = 0
        for chunk in staged("frames", frames):
            done += len(chunk)
            yield to_uint8(chunk)
            if progress is not None:
                progress(done, options.frames)

    with stage("video file"):
        write_video(path, chunks(), options.fps)
    return path
