"""The Poke tab: take hold of a photo, pull, let go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from gid.limits import MotionOptions
from gid.photo import load_photo
from gid.poking.responses import Response, gesture_at
from gid.poking.simulation import Knobs
from gid.poking.wind import Wind
from ui.animate.service import AnimationService, photo_hash
from ui.animate.tab import AnimateTab
from ui.errors import explained
from ui.photo_input import PhotoInput
from ui.poke.canvas import PokeCanvas
from ui.poke.service import PokeService, read_gesture, same_photo
from ui.theme import into_view

FAILED = "The photo was not poked"
NO_PHOTO = "There is no photo yet. Upload one here or in the Animate tab."
NO_CLIP = "There is no clip yet. Upload a short video from a still camera."
NO_GESTURE = "Nothing has been done to the photo yet. Drag or tap it first, then render."


@dataclass(frozen=True)
class PokeTab:
    """The tab's components, for the page around it."""

    photo: PhotoInput
    find: gr.Button
    clip: gr.Video
    measure: gr.Button
    canvas: PokeCanvas
    render: gr.Button
    page: gr.DownloadButton
    video: gr.Video
    note: gr.Markdown


def build_poke_tab(service: AnimationService, animate: AnimateTab, tab: gr.Tab | None = None) -> PokeTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it.

    The photo and its motion are shared with the Animate tab, whose seed and advanced settings count here too.
    ``tab`` is the tab it stands in: opening it shows a motion that is already known.
    """
    poke_service = PokeService(service)
    parts = _layout()
    shown = gr.State(None)  # sha256 of the photo on the canvas
    gesture = gr.State(None)  # the browser's last report
    _wire_subjects(service, poke_service, animate, parts, shown, gesture, tab)
    _wire_rendering(poke_service, parts, gesture)
    _endpoint(poke_service, parts)
    return parts


def _layout() -> PokeTab:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280, scale=1):
            photo = PhotoInput(
                label="Photo",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=260,
                elem_id="poke-photo",
                placeholder="Drop a photo here, or start in the Animate tab",
            )
            find = gr.Button("Make it pokeable", variant="primary", size="lg", elem_id="poke-button")
            with gr.Accordion("Or start from your own clip", open=False):
                clip = gr.Video(
                    label="A short clip from a still camera",
                    sources=["upload"],
                    height=200,
                    elem_id="poke-clip",
                )
                measure = gr.Button("Measure its motion", elem_id="poke-measure")
        with gr.Column(min_width=320, scale=2):
            canvas = PokeCanvas(elem_id="poke-canvas", container=False)
            note = gr.Markdown(elem_classes="quiet")
            with gr.Row(elem_classes="downloads"):
                render = gr.Button("Make a video of this poke", interactive=False, elem_id="poke-render", min_width=240)
                page = gr.DownloadButton(
                    "Take it home as a web page", interactive=False, elem_id="poke-page", min_width=240
                )
            video = gr.Video(
                label="The poke as a video", autoplay=True, height=300, interactive=False, elem_id="poke-video"
            )
    return PokeTab(photo, find, clip, measure, canvas, render, page, video, note)


def _wire_subjects(
    service: AnimationService,
    poke_service: PokeService,
    animate: AnimateTab,
    parts: PokeTab,
    shown: gr.State,
    gesture: gr.State,
    tab: gr.Tab | None,
) -> None:
    """From a photo or a clip to the canvas."""
    outputs = [parts.canvas, parts.page, parts.note, parts.video, shown, gesture, parts.render]
    settings = [animate.seed, animate.steps, animate.guidance, animate.hold_still]

    def present(key: str | None, source: str | None, note: str) -> tuple[Any, ...]:
        poked = (None, gr.Button(interactive=False))  # not yet
        if key is None:
            return None, gr.DownloadButton(value=None, interactive=False), "", None, None, *poked
        subject = poke_service.subject(key)
        page = gr.DownloadButton(value=str(subject.page), interactive=True)
        return subject.files, page, note, None, photo_hash(source) if source else None, *poked

    def told(options: MotionOptions) -> str:
        return f"Motion by the {service.weights} weights, seed {options.seed}. {service.notice}".rstrip()

    def chosen(seed: float, steps: float, guidance: float, hold_still: bool) -> MotionOptions:
        return MotionOptions(int(seed), int(steps), float(guidance), hold_still=bool(hold_still))

    def find(photo: str | None, *values: Any) -> tuple[Any, ...]:
        if photo is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED):
            options = chosen(*values)
            return present(poke_service.photo(photo, options), photo, told(options))

    def find_known(photo: str | None, on_canvas: str | None, *values: Any) -> tuple[Any, ...]:
        if photo is None or same_photo(photo, on_canvas):
            return tuple(gr.skip() for _ in outputs)
        with explained(FAILED):
            options = chosen(*values)
            return present(poke_service.known_photo(photo, options), photo, told(options))

    def measure(clip: str | None) -> tuple[Any, ...]:
        if clip is None:
            raise gr.Error(NO_CLIP, title=FAILED, print_exception=False)
        with explained(FAILED):
            return present(poke_service.clip(clip), None, "Motion measured in the clip; its first frame is the photo.")

    def forget(photo: str | None, on_canvas: str | None) -> tuple[Any, ...]:
        if on_canvas is None or same_photo(photo, on_canvas):
            return tuple(gr.skip() for _ in outputs)
        return present(None, None, "")

    def carried(photo: str | None, there: str | None) -> Any:
        """Hand the photo over to the other tab unless that has it already."""
        if photo is not None and there is not None and photo_hash(photo) == photo_hash(there):
            return gr.skip()
        return photo

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    working: dict[str, Any] = {"api_visibility": "private", "show_progress_on": parts.canvas}
    parts.find.click(None, js=into_view("#poke-canvas"), api_visibility="private")
    parts.find.click(find, [parts.photo, *settings], outputs, concurrency_id="animate", **working)
    parts.measure.click(measure, parts.clip, outputs, **working)
    parts.photo.change(forget, [parts.photo, shown], outputs, **private)
    parts.photo.input(carried, [parts.photo, animate.photo], animate.photo, queue=False, **private)
    animate.photo.change(carried, [animate.photo, parts.photo], parts.photo, queue=False, **private)
    if tab is not None:
        tab.select(find_known, [parts.photo, shown, *settings], outputs, **private)


def _wire_rendering(poke_service: PokeService, parts: PokeTab, gesture: gr.State) -> None:
    """From a gesture on the canvas to a video."""

    def remember(event: gr.EventData) -> tuple[dict[str, Any], gr.Button]:
        return dict(event._data or {}), gr.Button(interactive=True)

    def render(payload: dict[str, Any] | None) -> str:
        if not payload:
            raise gr.Error(NO_GESTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            return str(poke_service.video(*read_gesture(payload)))

    def render_instead(payload: dict[str, Any] | None) -> Any:
        """Where the browser cannot draw the canvas, the video is the answer."""
        return render(payload) if payload and payload.get("fallback") else gr.skip()

    told = parts.canvas.poke(
        remember, None, [gesture, parts.render], queue=False, api_visibility="private", show_progress="hidden"
    )
    told.then(render_instead, gesture, parts.video, api_visibility="private", concurrency_id="animate")
    parts.render.click(None, js=into_view("#poke-video"), api_visibility="private")
    parts.render.click(render, gesture, parts.video, api_visibility="private", concurrency_id="animate")


def _endpoint(poke_service: PokeService, parts: PokeTab) -> None:
    def poke(
        photo: str | None,
        x: float,
        y: float,
        dx: float,
        dy: float,
        kind: str,
        hold: float,
        gust: float,
        gust_angle: float,
        seconds: float,
        stiffness: float,
        damping: float,
        strength: float,
        seed: float,
    ) -> str:
        """Pull, poke or blow at a photo and render how it swings, from rest to rest.

        Args:
            photo: the photo, any common image format, up to 4:1 and 100 megapixels.
            x: where to take hold, in pixels of the photo from the left.
            y: where to take hold, in pixels of the photo from the top.
            dx: how far to pull to the right, in pixels; 0 for both dx and dy means no pull, only the gust.
            dy: how far to pull down, in pixels.
            kind: "drag" pulls and lets go, "poke" is a short push.
            hold: seconds until a drag lets go, above 0 to 10.
            gust: strength of a gust of wind, 0 for none.
            gust_angle: where the wind blows in degrees, 0 right, 90 down.
            seconds: length of the video, 0.5 to 20, at 30 frames a second.
            stiffness: above 1 swings faster, 0.01 to 100.
            damping: 1 is the paper's, smaller rings longer, 0 to 100.
            strength: scale of what is shown, 0 to 10.
            seed: which of the possible motions of the photo, 0 or more.

        Returns:
            The path of the mp4 video.
        """
        if photo is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED):
            pixels = load_photo(photo)
            size = (pixels.shape[-1], pixels.shape[-2])
            pulled = dx != 0 or dy != 0
            gestures = (gesture_at((x, y), (dx, dy), size, kind, hold),) if pulled else ()
            wind = Wind(gust, gust_angle, seed=int(seed)) if gust else None
            knobs = Knobs(stiffness=stiffness, damping=damping, strength=strength)
            response = Response(gestures, wind, seconds, knobs=knobs)
            return str(poke_service.answer(photo, MotionOptions(seed=int(seed)), response))

    names = ["x", "y", "dx", "dy", "hold", "gust", "gust_angle", "seconds", "stiffness", "damping", "strength", "seed"]
    values = [0, 0, 0, 0, 0.5, 0, 0, 3, 1, 0.5, 1, 0]
    numbers = [gr.Number(value, label=name, visible=False) for name, value in zip(names, values, strict=True)]
    kind = gr.Radio(["drag", "poke"], value="drag", label="kind", visible=False)
    trigger = gr.Button(visible=False)
    trigger.click(
        poke,
        [parts.photo, *numbers[:4], kind, *numbers[4:]],
        parts.video,
        api_name="poke",
        api_visibility="public",
        concurrency_id="animate",
    )
