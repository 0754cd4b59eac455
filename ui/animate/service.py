"""What every tab asks for: motion of a photo, computed once and remembered, and videos of it."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foundation.trace import traced_to_log
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.jobs import MOTION_SIDE, predict_motion, prepare_rendering, write_animation
from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume
from gid.poking.responses import Response, write_response
from ui.memory import Recent
from ui.photos import Photo, Source, open_photo, photo_hash
from ui.progress import Progress, part, silent
from ui.uploads import results_folder
from ui.weights_names import shown
from ui.zerogpu import gpu_seconds, on_gpu

logger = logging.getLogger(__name__)

RESPONSE_SIDE = 512  # of the videos of pokes
RENDERING = "Rendering frame {done} of {total}"

# A known motion, or a photo and how to predict its motion.
Motion = SpectralVolume | tuple[Photo, MotionOptions]


@dataclass(frozen=True)
class MotionKey:
    """What a predicted motion depends on; ``weights`` stands for the loaded ones, whatever their name."""

    photo: str  # sha256 of the file
    options: MotionOptions
    weights: str


class AnimationService:
    """A pipeline with its memory.

    One instance serves every visitor. All it changes are the bounded caches, which are locked; on ZeroGPU only
    ``_compute``, ``_predict`` and ``_respond`` run in a borrowed process, one of them once for a click, and touch no
    cache.

    Args:
        pipeline: the loaded models.
        weights: the name shown to visitors.
        motions: how many motions to remember; one takes about 2 MB.
        videos: how many rendered videos to keep on disk.
    """

    def __init__(self, pipeline: GIDPipeline, weights: str, motions: int = 32, videos: int = 64) -> None:
        self.pipeline = pipeline
        self.weights = weights
        self._identity = secrets.token_hex(8)  # two folders of weights may be shown by one name
        self._folder = results_folder("gid-")
        self._motions: Recent[MotionKey, SpectralVolume] = Recent(motions)
        self._videos: Recent[tuple[MotionKey, RenderOptions], Path] = Recent(
            videos, lambda path: path.unlink(missing_ok=True)
        )
        self._motion_files: Recent[MotionKey, Path] = Recent(motions, lambda path: path.unlink(missing_ok=True))
        self._flops = step_flops(pipeline)
        self._compute = on_gpu(self.compute_seconds)(self._compute_here)
        self._predict = on_gpu(self.predict_seconds)(self._predict_here)
        self._respond = on_gpu(self.respond_seconds)(self._respond_here)

    @classmethod
    def load(cls, weights: str = "embedded", device: str = "auto") -> AnimationService:
        """Load the models once. Raises ValueError if there are no such weights."""
        return cls(load_pipeline(weights, device), shown(weights))

    def beside(self, weights: str, device: str) -> AnimationService:
        """The same service with other weights and a memory of its own. Raises ValueError if there are none."""
        service = self.load(weights, device)
        service._folder = self._folder  # results outlive the weights that made them
        return service

    @property
    def notice(self) -> str:
        """One sentence that has to stand beside what these weights make; empty for the project's own."""
        return self.pipeline.notice

    @property
    def folder(self) -> Path:
        """Where results are written; it goes with the service."""
        return Path(self._folder.name)

    def current(self) -> AnimationService:
        """Itself: a service is its own only choice, see :class:`ui.weights_menu.ChosenService`."""
        return self

    def key(self, source: Source, options: MotionOptions) -> MotionKey:
        """The cache key of a photo's motion."""
        return MotionKey(photo_hash(source), options, self._identity)

    def known_motion(self, source: Source, options: MotionOptions) -> SpectralVolume | None:
        """The motion if it is still remembered, else None; never computes anything."""
        return self._motions.get(self.key(source, options))

    def animate(
        self, source: Source, motion: MotionOptions, render: RenderOptions, progress: Progress = silent
    ) -> Iterator[SpectralVolume | Path]:
        """Yield the motion as soon as it is known, then the path of the video.

        Raises:
            ValueError: if the file is not a usable photo.
        """
        photo = open_photo(source)
        key = self.key(photo, motion)
        known = self._motions.get(key)
        video = self._videos.get((key, render))
        if known is not None and video is not None:
            yield known
            yield video
            return
        target = str(self.folder / f"animation-{_short((key, render))}.mp4")
        for result in self._compute(photo, known, motion, render, target, progress):
            if isinstance(result, SpectralVolume):
                self._motions.put(key, result)
                yield result
            else:
                self._videos.put((key, render), Path(result))
                yield Path(result)

    def motion(self, source: Source, options: MotionOptions, progress: Progress = silent) -> SpectralVolume:
        """The motion of a photo alone, predicted or remembered.

        Raises:
            ValueError: if the file is not a usable photo.
        """
        photo = open_photo(source)  # a bad photo is told before a GPU is borrowed
        key = self.key(photo, options)
        known = self._motions.get(key)
        if known is None:
            known = self._predict(photo, options, progress)
            self._motions.put(key, known)
        return known

    def remember_motion(self, source: Source, options: MotionOptions, volume: SpectralVolume) -> None:
        """Keep a motion that somebody else computed with ``predict_motion``."""
        self._motions.put(self.key(source, options), volume)

    def motion_file(self, source: Source, options: MotionOptions) -> Path:
        """Write the remembered motion as a motion file and return its path."""
        photo = open_photo(source)
        key = self.key(photo, options)
        path = self._motion_files.get(key)
        if path is None:
            path = self.folder / f"motion-{_short(key)}-seed{options.seed}.safetensors"
            self.motion(photo, options).save(path, torch.float16)
            self._motion_files.put(key, path)
        return path

    def respond(
        self, photo: Photo, motion: Motion, response: Response, target: str, progress: Progress = silent
    ) -> tuple[SpectralVolume, str]:
        """Render how a photo answers into the file ``target``; its motion comes along, predicted unless given.

        A motion that is given is smoothed for the hand already. Here, and not where it is asked for, because a GPU
        process knows only the models this service was made with.
        """
        return self._respond(photo, motion, response, target, progress)

    # -- what wants a GPU: arguments and results can be pickled and live on the CPU ------------------------------------

    def compute_seconds(
        self, photo: Photo, known: SpectralVolume | None, motion: MotionOptions, render: RenderOptions, *_: object
    ) -> int:
        """How long to borrow a GPU for one click: diffusion unless the motion is known, and rendering."""
        steps = 0 if known is not None else motion.steps
        return gpu_seconds(steps, self._flops, render.frames, _pixels(photo, render.size))

    def respond_seconds(self, photo: Photo, motion: Motion, response: Response, *_: object) -> int:
        """How long to borrow a GPU for a video of an answer."""
        steps = 0 if isinstance(motion, SpectralVolume) else motion[1].steps
        frames = round(response.seconds * response.fps)
        return gpu_seconds(steps, self._flops, frames, _pixels(photo, RESPONSE_SIDE))

    def predict_seconds(self, photo: Photo, motion: MotionOptions, *_: object) -> int:
        """How long to borrow a GPU for a motion alone."""
        return gpu_seconds(motion.steps, self._flops)

    def _compute_here(
        self,
        photo: Photo,
        known: SpectralVolume | None,
        motion: MotionOptions,
        render: RenderOptions,
        target: str,
        progress: Progress = silent,
    ) -> Iterator[SpectralVolume | str]:
        """The motion as soon as it is known, then the path of the video: a generator, so that both are seen early."""
        volume = known if known is not None else self._predict_here(photo, motion, progress, share=0.4)
        yield volume
        start = 0.4 if known is None else 0.02
        progress(start, "Rendering")
        frames, pixels = part(progress, start, 1, RENDERING), photo.tensor(render.size)
        with traced_to_log("video"):
            write_animation(target, pixels.to(self.pipeline.device), volume, self.pipeline.renderer, render, frames)
        yield target

    @traced_to_log("answer a hand")
    def _respond_here(
        self, photo: Photo, motion: Motion, response: Response, target: str, progress: Progress = silent
    ) -> tuple[SpectralVolume, str]:
        """Motion and rendering in one call, so that one click borrows a GPU once."""
        known = isinstance(motion, SpectralVolume)
        start = 0.02 if known else 0.4
        volume = motion if isinstance(motion, SpectralVolume) else self._predict_here(*motion, progress, share=start)
        progress(start, "Rendering")
        frames, pixels = part(progress, start, 1, RENDERING), photo.tensor(RESPONSE_SIDE).to(self.pipeline.device)
        write_response(target, pixels, volume, self.pipeline.renderer, response, frames, smoothed=known)
        return volume, target

    @traced_to_log("motion")
    def _predict_here(
        self, photo: Photo, motion: MotionOptions, progress: Progress = silent, share: float = 1.0
    ) -> SpectralVolume:
        """The motion of a photo; ``share`` of the progress bar is its own."""
        progress(0.02, "Reading the photo")
        prepare_rendering(self.pipeline)
        steps = part(progress, 0.05, share, "Imagining the motion, step {done} of {total}")
        volume = predict_motion(self.pipeline, photo.tensor(MOTION_SIDE), motion, steps)
        return replace(volume, model=volume.model or self.weights)


def _short(key: object) -> str:
    """A name for files of a key, which tells it from all others."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _pixels(photo: Photo, side: int) -> int:
    """How many pixels a frame has whose longer side is at most ``side``."""
    width, height = photo.size
    scale = min(1.0, side / max(height, width))
    return round(height * scale) * round(width * scale)


def step_flops(pipeline: GIDPipeline) -> float:
    """Floating-point operations of one diffusion step, on the safe side.

    Every weight of the denoiser at every latent pixel would be far too many, since most weights sit where the picture
    is coarse. A fifth of that is taken; counted in the largest model there is here (fltwr's), it is a twelfth.
    """
    weights = sum(parameter.numel() for parameter in pipeline.denoiser.parameters())
    columns, rows = pipeline.motion_size(16, 9)
    return 2.0 * weights * (columns // 4) * (rows // 4) * len(pipeline.config.scales) / 5
