"""What the Poke tab asks for: subjects (a photo or a clip with its motion), and videos of their answers."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.files import write_text
from foundation.pictures import read_photo
from gid.limits import MotionOptions
from gid.motion.coherence import smooth_for_dragging
from gid.motion.flow import extract
from gid.motion.spectrum import SpectralVolume
from gid.poking.page import export_page
from gid.poking.responses import Response, first_frame
from gid.poking.simulation import Gesture, Knobs
from ui.animate.service import RESPONSE_SIDE, AnimationService, MotionKey
from ui.canvas import CanvasFiles, prepare_canvas
from ui.memory import Recent
from ui.photos import SIDE, Photo, Source, open_photo, photo_hash
from ui.progress import Progress, silent
from ui.weights_menu import Choice

FORGOTTEN = "This photo's motion is no longer remembered. Press the button under the photo once more."


@dataclass(frozen=True)
class Subject:
    """A photo that can be poked, its motion smoothed for the hand, and the files of the canvas and of the page."""

    photo: Photo
    volume: SpectralVolume
    files: CanvasFiles
    page: Path


class PokeService:
    """Subjects by the canvas's key, on top of the service that knows motions. One instance serves every visitor.

    A photo's sparse system is solved once for its options and weights; canvas, page and videos share the result.
    """

    def __init__(self, animation: Choice[AnimationService], subjects: int = 16, videos: int = 64) -> None:
        self._animation = animation
        self._subjects: Recent[str, Subject] = Recent(subjects, _forget)
        self._keys: Recent[MotionKey, str] = Recent(8 * subjects)
        self._videos: Recent[str, Path] = Recent(videos, lambda path: path.unlink(missing_ok=True))

    def known_photo(self, source: Source, options: MotionOptions) -> str | None:
        """The key of a photo whose motion is already known, made ready for the canvas; None if it would take work."""
        service = self._animation.current()
        volume = service.known_motion(source, options)
        return self._photo(open_photo(source), service.key(source, options), volume) if volume is not None else None

    def photo(self, source: Source, options: MotionOptions, progress: Progress = silent) -> str:
        """The key of a photo, its motion predicted or remembered. Raises ValueError if the file is not a photo."""
        service, photo = self._animation.current(), open_photo(source)
        return self._photo(photo, service.key(photo, options), service.motion(photo, options, progress))

    def clip(self, source: str) -> str:
        """The key of a clip's first frame with its measured motion. Raises ValueError if the clip is refused."""
        return self._add(read_photo(first_frame(source, SIDE)), extract(source))

    def subject(self, key: str) -> Subject:
        """What the key stands for. Raises ValueError if it is no longer remembered."""
        subject = self._subjects.get(key)
        if subject is None:
            raise ValueError(FORGOTTEN)
        return subject

    def video(self, key: str, response: Response, progress: Progress = silent) -> Path:
        """A video of the subject's answer, rendered or remembered. Raises ValueError if the key is forgotten."""
        subject, service = self.subject(key), self._animation.current()
        name, known = self._video(key, response)
        if known is not None:
            return known
        return self._keep(
            name, service.respond(subject.photo, subject.volume, response, self._target(name), progress)[1]
        )

    def answer(self, source: Source, options: MotionOptions, response: Response, progress: Progress = silent) -> Path:
        """A video of how a photo answers; its motion is predicted in the same breath unless it is remembered.

        Raises ValueError if the file is not a usable photo.
        """
        service, photo = self._animation.current(), open_photo(source)
        if service.known_motion(photo, options) is not None:
            return self.video(self.photo(photo, options), response, progress)
        name, _ = self._video(repr(service.key(photo, options)), response)
        volume, path = service.respond(photo, (photo, options), response, self._target(name), progress)
        service.remember_motion(photo, options, volume)
        return self._keep(name, path)

    def _video(self, key: str, response: Response) -> tuple[str, Path | None]:
        name = hashlib.sha256(repr((key, response)).encode()).hexdigest()[:16]
        return name, self._videos.get(name)

    def _target(self, name: str) -> str:
        return str(self._animation.current().folder / f"poke-{name}.mp4")

    def _keep(self, name: str, path: str) -> Path:
        self._videos.put(name, Path(path))
        return Path(path)

    def _photo(self, photo: Photo, motion: MotionKey, volume: SpectralVolume) -> str:
        """The key of a photo with its motion; solved and written only if it is not remembered."""
        key = self._keys.get(motion)
        if key is None or self._subjects.get(key) is None:
            key = self._add(photo, smooth_for_dragging(volume, photo.tensor(SIDE)))
            self._keys.put(motion, key)
        return key

    def _add(self, photo: Photo, smoothed: SpectralVolume) -> str:
        folder = self._animation.current().folder
        files = prepare_canvas(photo.tensor(SIDE), smoothed, folder)
        if self._subjects.get(files.key) is None:
            page = folder / f"poke-{files.key}.html"
            write_text(page, export_page(photo.tensor(RESPONSE_SIDE), smoothed, smoothed=True))
            self._subjects.put(files.key, Subject(photo, smoothed, files, page))
        return files.key


def _forget(subject: Subject) -> None:
    for path in (subject.files.photo, subject.files.motion, subject.page):
        path.unlink(missing_ok=True)


def read_gesture(payload: dict[str, Any], seconds: float = 3.0) -> tuple[str, Response]:
    """The canvas's key and what to render, from the browser's report of a gesture. Nothing in it is trusted.

    Raises ValueError for anything that is not a gesture on a photo.
    """
    try:
        key = str(payload["key"])
        at = (float(payload["at"][0]), float(payload["at"][1]))
        force = (float(payload["force"][0]), float(payload["force"][1]))
        kind = "poke" if payload["kind"] == "poke" else "drag"
        held = float(payload.get("duration", 0.5))
        knobs = payload.get("knobs") or {}
        gains = tuple(float(value) for value in knobs["gains"]) if "gains" in knobs else None
        material = {name: float(knobs.get(name, default)) for name, default in KNOB_DEFAULTS.items()}
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError("the browser sent something that is not a gesture: drag or tap the photo again") from error
    duration = min(max(held, 0.3), 1.5) if math.isfinite(held) else 0.5
    gesture = Gesture(at, force, "poke" if kind == "poke" else "drag", duration=duration)
    return key, Response((gesture,), seconds=seconds, knobs=Knobs(**material, gains=gains))


KNOB_DEFAULTS = {"stiffness": 1.0, "damping": 0.5, "strength": 1.0}


def same_photo(source: str | None, shown: str | None) -> bool:
    """Whether the file is the photo whose hash is `shown`."""
    return source is not None and shown is not None and photo_hash(source) == shown
