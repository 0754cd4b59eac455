"""The Poke tab: take hold of a photo, pull, let go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.animate.service import AnimationService
from ui.animate.tab import AnimateTab
from ui.canvas import PokeCanvas
from ui.photo_input import PhotoInput
from ui.poke.api import build_endpoint
from ui.poke.events import PokeEvents
from ui.poke.service import PokeService
from ui.theme import into_view
from ui.weights_menu import Choice


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


def build_poke_tab(choice: Choice[AnimationService], animate: AnimateTab, tab: gr.Tab | None = None) -> PokeTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it.

    The photo and its motion are shared with the Animate tab, whose seed and advanced settings count here too.
    ``tab`` is the tab it stands in: opening it shows a motion that is already known.
    """
    service, parts = PokeService(choice), _layout()
    shown = gr.State(None)  # sha256 of the photo on the canvas
    gesture = gr.State(None)  # the browser's last report
    events = PokeEvents(choice, service)
    _wire_subjects(events, animate, parts, shown, gesture, tab)
    _wire_rendering(events, parts, gesture)
    build_endpoint(service)
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
    events: PokeEvents, animate: AnimateTab, parts: PokeTab, shown: gr.State, gesture: gr.State, tab: gr.Tab | None
) -> None:
    """From a photo or a clip to the canvas."""
    outputs = [parts.canvas, parts.page, parts.note, parts.video, shown, gesture, parts.render]
    settings = [animate.seed, animate.steps, animate.guidance, animate.hold_still]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    working: dict[str, Any] = {"api_visibility": "private", "show_progress_on": parts.canvas}
    parts.find.click(None, js=into_view("#poke-canvas"), api_visibility="private")
    parts.find.click(events.find, [parts.photo, *settings], outputs, concurrency_id="animate", **working)
    parts.measure.click(events.measure, parts.clip, outputs, **working)
    parts.photo.change(events.forget, [parts.photo, shown], outputs, **private)
    parts.photo.input(events.carried, [parts.photo, animate.photo], animate.photo, queue=False, **private)
    animate.photo.change(events.carried, [animate.photo, parts.photo], parts.photo, queue=False, **private)
    if tab is not None:
        tab.select(events.find_known, [parts.photo, shown, *settings], outputs, **private)


def _wire_rendering(events: PokeEvents, parts: PokeTab, gesture: gr.State) -> None:
    """From a gesture on the canvas to a video."""
    rendering: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "animate"}
    reported = parts.canvas.poke(
        events.remember, None, [gesture, parts.render], queue=False, api_visibility="private", show_progress="hidden"
    )
    reported.then(events.render_instead, gesture, parts.video, **rendering)
    parts.render.click(None, js=into_view("#poke-video"), api_visibility="private")
    parts.render.click(events.render, gesture, parts.video, **rendering)
