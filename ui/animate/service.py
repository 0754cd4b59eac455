"""What every tab asks for: motion of a photo, computed once and remembered, and videos of it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import gradio as gr
import torch
from torch import Tensor

from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.jobs import predict_motion, prepare_rendering, write_animation
from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume
from gid.photo import load_photo
from gid.poking.responses import Response, write_response
from ui.uploads import results_folder
from ui.weights_names import shown
from ui.zerogpu import gpu_seconds, on_gpu

logger = logging.getLogger(__name__)
# A known motion, or the file of a photo and how to predict it.
Motion = SpectralVolume | tuple[str, MotionOptions]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The ``size`` most recently used values; safe to use from several threads."""

    def __init__(self, size: int, dropped: Callable[[Value], None] | None = None) -> None:
        self._size = size
        self._dropped = dropped
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Remember the value and forget the one used longest ago when there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            forgotten = [self._values.popitem(last=False)[1] for _ in range(len(self._values) - self._size)]
        for old in forgotten:
            if self._dropped is not None:
                self._dropped(old)


@dataclass(frozen=True)
class MotionKey:
    """What a predicted motion depends on."""

    photo: str  # sha256 of the file
    options: MotionOptions
    weights: str


def photo_hash(path: str | Path) -> str:
    """The sha256 of a file, which stands for the photo in the caches."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class AnimationService:
    """A pipeline with its memory.

    One instance serves every visitor. All it changes are the bounded caches, which are locked; on ZeroGPU only
    ``_compute``, ``_predict`` and ``_respond`` run in a borrowed process, one of them once for a click, and touch no
    cache.

    Args:
        pipeline: the loaded models.
        weights: the name shown to visitors, and part of the cache key.
        motions: how many motions to remember; one takes about 2 MB.
        videos: how many rendered videos to keep on disk.
    """

    def __init__(self, pipeline: GIDPipeline, weights: str, motions: int = 32, videos: int = 64) -> None:
        self.pipeline = pipeline
        self.weights = weights
        self._folder = results_folder("gid-")
        self._motions: Recent[MotionKey, SpectralVolume] = Recent(motions)
        self._videos: Recent[tuple[MotionKey, RenderOptions], Path] = Recent(
            videos, lambda path: path.unlink(missing_ok=True)
        )
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
        return self.load(weights, device)

    @property
    def notice(self) -> str:
        """One sentence that has to stand beside what these weights make; empty for the project's own."""
        return self.pipeline.notice

    @property
    def folder(self) -> Path:
        """Where results are written; it goes with the service."""
        return Path(self._folder.name)

    def key(self, source: str, options: MotionOptions) -> MotionKey:
        """The cache key of a photo's motion."""
        return MotionKey(photo_hash(source), options, self.weights)

    def known_motion(self, source: str, options: MotionOptions) -> SpectralVolume | None:
        """The motion if it is still remembered, else None; never computes anything."""
        return self._motions.get(self.key(source, options))

    def animate(self, source: str, motion: MotionOptions, render: RenderOptions) -> Iterator[SpectralVolume | Path]:
        """Yield the motion as soon as it is known, then the path of the video.

        Raises:
            ValueError: if the file is not a usable photo.
        """
        key = self.key(source, motion)
        photo = load_photo(source, max_side=render.size)
        known = self._motions.get(key)
        video = self._videos.get((key, render))
        if known is not None and video is not None:
            yield known
            yield video
            return
        name = hashlib.sha256(repr((key, render)).encode()).hexdigest()[:16]
        target = str(self.folder / f"animation-{name}.mp4")
        for result in self._compute(source, photo, known, motion, render, target):
            if isinstance(result, SpectralVolume):
                self._motions.put(key, result)
                yield result
            else:
                self._videos.put((key, render), Path(result))
                yield Path(result)

    def motion(self, source: str, options: MotionOptions) -> SpectralVolume:
        """The motion of a photo alone, predicted or remembered.

        Raises:
            ValueError: if the file is not a usable photo.
        """
        key = self.key(source, options)
        known = self._motions.get(key)
        if known is None:
            load_photo(source, max_side=64)  # a bad photo is told before a GPU is borrowed
            known = self._predict(source, options)
            self._motions.put(key, known)
        return known

    def remember_motion(self, source: str, options: MotionOptions, volume: SpectralVolume) -> None:
        """Keep a motion that somebody else computed with ``predict_motion``."""
        self._motions.put(self.key(source, options), volume)

    def motion_file(self, source: str, options: MotionOptions) -> Path:
        """Write the remembered motion as a motion file and return its path."""
        volume = self.motion(source, options)
        path = self.folder / f"motion-{photo_hash(source)[:12]}-seed{options.seed}.safetensors"
        volume.save(path, torch.float16)
        return path

    def respond(self, photo: Tensor, motion: Motion, response: Response, target: str) -> tuple[SpectralVolume, str]:
        """Render how a photo answers into the file ``target``; its motion comes along, predicted unless given.

        Here, and not where it is asked for, because a GPU process knows only the models this service was made with.
        """
        return self._respond(photo, motion, response, target)

    # -- what wants a GPU: arguments and results can be pickled and live on the CPU ------------------------------------

    def compute_seconds(
        self,
        source: str,
        photo: Tensor,
        known: SpectralVolume | None,
        motion: MotionOptions,
        render: RenderOptions,
        *_: object,
    ) -> int:
        """How long to borrow a GPU for one click: diffusion unless the motion is known, and rendering."""
        steps = 0 if known is not None else motion.steps
        return gpu_seconds(steps, self._flops, render.frames, photo.shape[-1] * photo.shape[-2])

    def respond_seconds(self, photo: Tensor, motion: Motion, response: Response, *_: object) -> int:
        """How long to borrow a GPU for a video of an answer."""
        steps = 0 if isinstance(motion, SpectralVolume) else motion[1].steps
        frames, pixels = round(response.seconds * response.fps), photo.shape[-1] * photo.shape[-2]
        return gpu_seconds(steps, self._flops, frames, pixels)

    def predict_seconds(self, source: str, motion: MotionOptions, *_: object) -> int:
        """How long to borrow a GPU for a motion alone."""
        return gpu_seconds(motion.steps, self._flops)

    def _compute_here(
        self,
        source: str,
        photo: Tensor,
        known: SpectralVolume | None,
        motion: MotionOptions,
        render: RenderOptions,
        target: str,
    ) -> Iterator[SpectralVolume | str]:
        """The motion as soon as it is known, then the path of the video: a generator, so that both are seen early."""
        volume = known if known is not None else self._predict_here(source, motion, share=0.4)
        yield volume
        show, start = gr.Progress(), 0.4 if known is None else 0.02

        def rendered(done: int, total: int) -> None:
            show(start + (1 - start) * done / total, desc=f"Rendering frame {done} of {total}")

        show(start, desc="Rendering")
        write_animation(target, photo.to(self.pipeline.device), volume, self.pipeline.renderer, render, rendered)
        yield target

    def _respond_here(
        self, photo: Tensor, motion: Motion, response: Response, target: str
    ) -> tuple[SpectralVolume, str]:
        """Motion and rendering in one call, so that one click borrows a GPU once."""
        start = 0.02 if isinstance(motion, SpectralVolume) else 0.4
        volume = motion if isinstance(motion, SpectralVolume) else self._predict_here(*motion, share=start)
        show = gr.Progress()

        def rendered(done: int, total: int) -> None:
            show(start + (1 - start) * done / total, desc=f"Rendering frame {done} of {total}")

        show(start, desc="Rendering")
        renderer, device = self.pipeline.renderer, self.pipeline.device
        write_response(target, photo.to(device), volume, renderer, response, rendered)
        return volume, target

    def _predict_here(self, source: str, motion: MotionOptions, share: float = 1.0) -> SpectralVolume:
        """The motion of a photo; ``share`` of the progress bar is its own."""
        show = gr.Progress()
        show(0.02, desc="Reading the photo")
        prepare_rendering(self.pipeline)

        def stepped(step: int, total: int) -> None:
            show(0.05 + (share - 0.05) * step / total, desc=f"Imagining the motion, step {step} of {total}")

        volume = predict_motion(self.pipeline, source, motion, stepped)
        return replace(volume, model=volume.model or self.weights)


def step_flops(pipeline: GIDPipeline) -> float:
    """Floating-point operations of one diffusion step, on the safe side.

    Every weight of the denoiser at every latent pixel would be far too many, since most weights sit where the picture
    is coarse. A fifth of that is taken; counted in the largest model there is here (fltwr's), it is a twelfth.
    """
    weights = sum(parameter.numel() for parameter in pipeline.denoiser.parameters())
    columns, rows = pipeline.motion_size(16, 9)
    return 2.0 * weights * (columns // 4) * (rows // 4) * len(pipeline.config.scales) / 5
