"""Animate every photo of a folder, alone or under `accelerate launch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from foundation.folders import Item, Processes, Summary, Task, work_through
from foundation.pictures import SUFFIXES, load_photo
from gid.jobs import predict_motion, write_animation
from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume

if TYPE_CHECKING:
    from gid.diffusion.pipeline import GIDPipeline

FORMATS = ("mp4", "webm", "gif", "png")
VIDEO = "video"
MOTION = "motion.safetensors"


@dataclass(frozen=True)
class _Moving:
    """A photo (3,H,W) in [0, 1] at the size of its video, and its motion."""

    photo: Tensor
    volume: SpectralVolume


def animate_folder(
    folder: Path,
    out: Path,
    pipeline: GIDPipeline,
    motion: MotionOptions,
    render: RenderOptions,
    processes: Processes,
    video: str = "mp4",
    keep_motion: bool = False,
    weights: str = "embedded",
) -> Summary:
    """Turn every photo below `folder` into a video in `out`, under its own name.

    Args:
        folder: photos; subfolders are mirrored in `out`.
        out: made if missing. A video that is there already is left alone.
        pipeline: on the device of this process.
        motion, render: the same for every photo.
        processes: this process among those that share the work.
        video: mp4, webm or gif; png gives a folder of numbered frames for each photo.
        weights: where the pipeline comes from, as it is noted beside the results.
        keep_motion: give a folder for each photo that holds the video and the motion file.

    Returns:
        what was done and what failed, over all processes.

    Raises:
        ValueError: nothing to animate, an unknown format, or results of other settings in `out`.
            Also when the disk is full, which ends the run.
    """
    if video not in FORMATS:
        raise ValueError(f"format {video!r} is unknown; use one of {', '.join(FORMATS)}")

    pipeline.use_cuda_graphs()  # many photos of few shapes

    def load(item: Item) -> tuple[Path, Tensor]:
        return item.path, load_photo(item.path, max_side=render.size)

    def compute(photos: Sequence[tuple[Path, Tensor]]) -> list[_Moving]:
        return [_Moving(photo, predict_motion(pipeline, path, motion)) for path, photo in photos]

    def save(moving: _Moving, path: Path) -> None:
        target = path
        if keep_motion or video == "png":
            path.mkdir()
            target = path / f"{VIDEO}.{video}"
        if keep_motion:
            moving.volume.save(path / MOTION)
        write_animation(target, moving.photo.to(pipeline.device), moving.volume, pipeline.renderer, render)

    settings = {
        **asdict(motion),
        **asdict(render),
        "format": video,
        "keep_motion": keep_motion,
        "weights": weights,
    }
    task = Task(
        suffixes=SUFFIXES,
        extension="" if keep_motion or video == "png" else f".{video}",
        settings=settings,
        load=load,
        compute=compute,
        save=save,
        label="animating",
    )
    return work_through(folder, out, task, processes)
