"""What happens on the Animate tab: clicks, moved sliders, another photo."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from gid.limits import MotionOptions
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import hardly_moves, resolve
from ui.animate.api import FAILED, NO_PHOTO
from ui.animate.options import Asked
from ui.animate.overlays import band_chart, motion_energy_picture
from ui.animate.service import AnimationService
from ui.canvas import CanvasFiles, PokeCanvas, prepare_canvas
from ui.errors import explained
from ui.photo_input import PhotoInput
from ui.photos import SIDE, Photo, open_photo
from ui.progress import show
from ui.visit import Visit
from ui.weights_menu import Choice

ENERGY_SIDE = 512
STANDS_STILL = (
    "**This looks like something that stands still, so it hardly moves.** To see it sway all the same, open Advanced, "
    "switch *Hold still what stands still* off and animate again. "
)
KNOWN_BY_EMBEDDED = "They know plants, flowers, flames and hanging cloth in front of a still background."


@dataclass(frozen=True)
class Controls:
    """What is asked for; after the photo in the order of `Asked`, with the box of the natural strength before it."""

    photo: PhotoInput
    automatic: gr.Checkbox
    strength: gr.Slider
    speed: gr.Slider
    seconds: gr.Slider
    loop: gr.Checkbox
    seed: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    size: gr.Slider
    hold_still: gr.Checkbox

    def inputs(self) -> list[Any]:
        """All of them."""
        return list(vars(self).values())


@dataclass(frozen=True)
class Results:
    """What is filled."""

    views: gr.Tabs
    live: PokeCanvas
    video: gr.Video
    energy: gr.Image
    bands: gr.HTML
    video_file: gr.DownloadButton
    motion_file: gr.DownloadButton
    note: gr.Markdown

    def outputs(self) -> list[Any]:
        """All of it."""
        return list(vars(self).values())

    def cleared(self) -> dict[Any, Any]:
        """Nothing in it."""
        empty = dict.fromkeys([self.live, self.video, self.energy, self.bands])
        buttons = {button: gr.DownloadButton(interactive=False) for button in (self.video_file, self.motion_file)}
        return {**empty, **buttons, self.note: "", self.views: gr.Tabs(selected="video")}


class AnimateEvents:
    """The handlers of the tab's events, which share its components and the visit's choice of weights."""

    def __init__(self, choice: Choice[AnimationService], controls: Controls, results: Results) -> None:
        self.choice = choice
        self.controls = controls
        self.results = results

    def new_visit(self) -> Visit:
        """What is kept for a visitor at first."""
        return Visit()

    def run(self, visit: Visit, path: str | None, *values: Any) -> Iterator[dict[Any, Any]]:
        """A click: the motion as soon as it is known, with a live preview, then the video."""
        if path is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED), tempfile.TemporaryDirectory() as folder:  # its files are copied when handed over
            show(0.01, "Starting")
            asked = Asked.chosen(*values)
            motion, render = asked.motion(), asked.render()
            if not visit.begin(path):
                return
            service, photo = self.choice.current(), open_photo(path)
            fresh, live = service.known_motion(photo, motion) is None, None
            for result in service.animate(photo, motion, render, show):
                if isinstance(result, SpectralVolume):
                    strength = resolve(render.strength, result)
                    updates = self._motion_updates(service, photo, motion, result, strength)
                    live = _swaying(photo, result.magnify(strength), folder)
                    if live is not None:
                        live = replace(live, busy=True)
                    if live is not None and fresh:  # the photo sways in the browser while the video is rendered
                        updates |= {self.results.views: gr.Tabs(selected="live")}
                else:
                    updates = self._video_updates(result)
                    live = None if live is None else replace(live, busy=False)
                if not visit.goes_on:
                    yield self.results.cleared()  # what was on its way when the photo changed is on the page now
                    return
                # The canvas every time: in a tab that was never opened, what an event skips is lost.
                yield {**updates, self.results.live: live}

    def render_again(self, path: str | None, *values: Any) -> dict[Any, Any]:
        """Strength, speed and length only render again; before the first motion there is nothing to do."""
        if path is None:
            return {self.results.video: gr.skip()}
        with explained(FAILED):
            asked = Asked.chosen(*values)
            motion, render = asked.motion(), asked.render()
            service, photo = self.choice.current(), open_photo(path)
            if service.known_motion(photo, motion) is None:
                return {self.results.video: gr.skip()}
            *_, video = service.animate(photo, motion, render, show)
            return self._video_updates(Path(str(video)))

    def render_by_hand(self, path: str | None, _: bool, *values: Any) -> dict[Any, Any]:
        """Whoever moves the slider wants that strength, not the natural one."""
        return {self.controls.automatic: False, **self.render_again(path, False, *values)}

    def choose_seed(self, seed: float | None, new: bool) -> int:
        """Another one, or what stands there."""
        return secrets.randbelow(100_000) if new else int(seed or 0)

    def clear(self, visit: Visit, path: str | None) -> dict[Any, Any]:
        """Another photo has no result yet; that of an example may already be on its way."""
        with explained(FAILED):
            if not visit.look_at(path):
                return {self.results.video: gr.skip()}
            return self.results.cleared()

    def _motion_updates(
        self, service: AnimationService, photo: Photo, motion: MotionOptions, volume: SpectralVolume, strength: float
    ) -> dict[Any, Any]:
        path = str(service.motion_file(photo, motion))
        return {
            self.results.energy: motion_energy_picture(photo.tensor(ENERGY_SIDE), volume),
            self.results.bands: band_chart(volume),
            self.results.motion_file: gr.DownloadButton(value=path, interactive=True),
            self.results.note: note_of(service, motion, volume, strength),
        }

    def _video_updates(self, path: Path) -> dict[Any, Any]:
        return {
            self.results.video: str(path),
            self.results.video_file: gr.DownloadButton(value=str(path), interactive=True),
            self.results.views: gr.Tabs(selected="video"),
        }


def _swaying(photo: Photo, volume: SpectralVolume, folder: str) -> CanvasFiles | None:
    """What the live preview plays. A motion of nothing has nothing to show."""
    if float(volume.motion_energy().max()) <= 0:
        return None
    return prepare_canvas(photo.tensor(SIDE), volume, folder)


def note_of(service: AnimationService, motion: MotionOptions, volume: SpectralVolume, strength: float) -> str:
    """The line under a result: which weights made it, how, and what they are good for."""
    still = STANDS_STILL if motion.hold_still and hardly_moves(volume) else ""
    known = service.notice or (KNOWN_BY_EMBEDDED if service.weights == "embedded" else "")
    return (
        f"Motion by the {service.weights} weights, seed {motion.seed}, strength {strength:.2g}. {still}{known}".rstrip()
    )
