"""What happens on the Poke tab: a photo or a clip becomes something to poke, and a gesture becomes a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from gid.limits import MotionOptions
from ui import values
from ui.animate.service import AnimationService
from ui.errors import explained
from ui.photos import open_photo, photo_hash
from ui.poke.api import FAILED, NO_PHOTO
from ui.poke.service import PokeService, read_gesture, same_photo
from ui.progress import show
from ui.weights_menu import Choice

NO_CLIP = "There is no clip yet. Upload a short video from a still camera."
NO_GESTURE = "Nothing has been done to the photo yet. Drag or tap it first, then render."
OF_CLIP = "Motion measured in the clip; its first frame is the photo."
OUTPUTS = 7  # canvas, page, note, video, hash of the photo shown, gesture, button


class PokeEvents:
    """The handlers of the tab's events.

    Args:
        choice: the visit's choice of weights.
        service: what makes photos pokeable.
    """

    def __init__(self, choice: Choice[AnimationService], service: PokeService) -> None:
        self._choice = choice
        self._service = service

    def find(self, path: str | None, *settings: Any) -> tuple[Any, ...]:
        """Make a photo pokeable."""
        if path is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED):
            options, photo = _options(settings), open_photo(path)
            return self._present(self._service.photo(photo, options, show), photo.digest, self._note(options))

    def find_known(self, path: str | None, on_canvas: str | None, *settings: Any) -> tuple[Any, ...]:
        """The tab was opened: show a motion that is known already."""
        with explained(FAILED):
            if path is None or same_photo(path, on_canvas):
                return tuple(gr.skip() for _ in range(OUTPUTS))
            options = _options(settings)
            return self._present(self._service.known_photo(path, options), photo_hash(path), self._note(options))

    def measure(self, clip: str | None) -> tuple[Any, ...]:
        """Make a clip pokeable."""
        if clip is None:
            raise gr.Error(NO_CLIP, title=FAILED, print_exception=False)
        with explained(FAILED):
            return self._present(self._service.clip(clip), None, OF_CLIP)

    def forget(self, path: str | None, on_canvas: str | None) -> tuple[Any, ...]:
        """Another photo: what is on the canvas is not of it."""
        with explained(FAILED):
            if on_canvas is None or same_photo(path, on_canvas):
                return tuple(gr.skip() for _ in range(OUTPUTS))
            return self._present(None, None, "")

    def carried(self, path: str | None, there: str | None) -> Any:
        """Hand the photo over to the other tab unless that has it already."""
        with explained(FAILED):
            if path is not None and there is not None and photo_hash(path) == photo_hash(there):
                return gr.skip()
            return path

    def remember(self, event: gr.EventData) -> tuple[dict[str, Any], gr.Button]:
        """A gesture on the canvas has ended; what the browser reports is read when it is rendered."""
        reported = event._data if isinstance(event._data, dict) else {}
        return reported, gr.Button(interactive=True)

    def render(self, payload: dict[str, Any] | None) -> str:
        """A video of the last gesture."""
        if not payload:
            raise gr.Error(NO_GESTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            return str(self._service.video(*read_gesture(payload), progress=show))

    def render_instead(self, payload: dict[str, Any] | None) -> Any:
        """Where the browser cannot draw the canvas, the video is the answer."""
        return self.render(payload) if payload and payload.get("fallback") else gr.skip()

    def _present(self, key: str | None, digest: str | None, note: str) -> tuple[Any, ...]:
        poked = (None, gr.Button(interactive=False))  # not yet
        if key is None:
            return None, gr.DownloadButton(value=None, interactive=False), "", None, None, *poked
        subject = self._service.subject(key)
        return subject.files, gr.DownloadButton(value=str(subject.page), interactive=True), note, None, digest, *poked

    def _note(self, options: MotionOptions) -> str:
        service = self._choice.current()
        return f"Motion by the {service.weights} weights, seed {options.seed}. {service.notice}".rstrip()


def _options(settings: Sequence[Any]) -> MotionOptions:
    """From the settings of the Animate tab: seed, steps, guidance, hold_still."""
    seed, steps, guidance, hold_still = settings
    return MotionOptions(
        values.whole("seed", seed or 0),
        values.whole("steps", steps),
        values.finite("guidance", guidance),
        hold_still=values.flag("hold_still", hold_still),
    )
