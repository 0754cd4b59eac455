"""The Animate tab: one photo in, a looping video out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.helpers import Examples

from gid.limits import LIMITS, PAGE, MotionOptions, RenderOptions
from ui.animate.api import build_endpoint
from ui.animate.events import AnimateEvents, Controls, Results
from ui.animate.options import SECONDS
from ui.animate.service import AnimationService
from ui.canvas import PokeCanvas
from ui.photo_input import PhotoInput
from ui.theme import into_view
from ui.weights_menu import Choice, build_weights_menu

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class AnimateTab:
    """The components other tabs may want: the photo and the settings of its motion carry over."""

    photo: PhotoInput
    seed: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    hold_still: gr.Checkbox
    video: gr.Video


@dataclass(frozen=True)
class _Advanced:
    randomize: gr.Checkbox
    seed: gr.Number
    seconds: gr.Slider
    loop: gr.Checkbox
    steps: gr.Slider
    guidance: gr.Slider
    size: gr.Slider
    hold_still: gr.Checkbox


def build_animate_tab(choice: Choice[AnimationService]) -> AnimateTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service of each visit."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            photo = PhotoInput(
                label="Photo",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=360,
                elem_id="animate-photo",
                placeholder="Drop a photo here: flowers, leaves, a candle, hanging cloth",
            )
            files = sorted(str(path) for path in EXAMPLES.glob("*.jpg"))
            examples = gr.Examples(files, photo, label="Examples", examples_per_page=12, api_visibility="private")
            animate = gr.Button("Animate", variant="primary", size="lg", elem_id="animate-button")
            with gr.Accordion("Advanced", open=False):
                more = _advanced()
                build_weights_menu(choice, "animate")
        with gr.Column(min_width=320):
            results, strength, speed, automatic = _results()
    controls = Controls(
        photo,
        automatic,
        strength,
        speed,
        more.seconds,
        more.loop,
        more.seed,
        more.steps,
        more.guidance,
        more.size,
        more.hold_still,
    )
    _wire(AnimateEvents(choice, controls, results), animate, examples, more.randomize)
    build_endpoint(choice)
    return AnimateTab(photo, more.seed, more.steps, more.guidance, more.hold_still, results.video)


def _slider(name: str, value: float, step: float, label: str, **settings: Any) -> gr.Slider:
    """A slider that offers what the table of limits says the page does."""
    return gr.Slider(PAGE[name].low, PAGE[name].high, value, step=step, label=label, **settings)


def _advanced() -> _Advanced:
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=LIMITS["seed"].low, maximum=LIMITS["seed"].high, min_width=120
        )
        randomize = gr.Checkbox(False, label="New seed", info="another motion each time", min_width=120)
    with gr.Row():
        seconds = _slider("seconds", SECONDS, 0.5, "Seconds", min_width=120)
        loop = gr.Checkbox(True, label="Loop", info="the end leads back to the start", min_width=120)
    steps = _slider("steps", MotionOptions().steps, 1, "Diffusion steps")
    guidance = _slider("guidance", MotionOptions().guidance, 0.25, "Guidance by the photo")
    size = _slider("size", RenderOptions().size, 32, "Longer side in pixels")
    hold_still = gr.Checkbox(
        MotionOptions.hold_still,
        label="Hold still what stands still",
        info="a cup, a house or a face hardly moves; switched off, they sway too",
    )
    return _Advanced(randomize, seed, seconds, loop, steps, guidance, size, hold_still)


def _results() -> tuple[Results, gr.Slider, gr.Slider, gr.Checkbox]:
    """What is filled, and the controls beside the video: strength, speed, natural strength."""
    with gr.Tabs(elem_id="animate-views") as views:
        with gr.Tab("Video", id="video"):
            video = gr.Video(
                label="Animation", autoplay=True, loop=True, height=360, interactive=False, elem_id="animate-video"
            )
            with gr.Row():
                strength = _slider("strength", 1, 0.1, "Strength", min_width=140)
                speed = _slider("speed", 1, 0.1, "Speed", min_width=140)
            automatic = gr.Checkbox(True, label="Natural strength, chosen for the photo")
        with gr.Tab("Live preview", id="live"):  # until the video is ready, and for playing with the wind
            live = PokeCanvas(mode="sway", elem_id="animate-live", container=False)
    note = gr.Markdown(elem_classes="quiet", elem_id="animate-note")
    with gr.Row(elem_classes="downloads"):
        video_file = gr.DownloadButton("Save video", interactive=False, size="md", min_width=140)
        motion_file = gr.DownloadButton("Save motion", interactive=False, size="md", min_width=140)
    with gr.Row(elem_classes="explained", equal_height=True):
        energy = gr.Image(
            label="Where it moves",
            interactive=False,
            height=200,
            buttons=["fullscreen"],
            elem_id="animate-energy",
            min_width=200,
            alt_text="The photo in grey with the strength of the predicted motion in colour",
        )
        bands = gr.HTML(container=True, min_width=200, elem_id="animate-bands")
    results = Results(views, live, video, energy, bands, video_file, motion_file, note)
    return results, strength, speed, automatic


def _wire(events: AnimateEvents, animate: gr.Button, examples: Examples, randomize: gr.Checkbox) -> None:
    controls, results = events.controls, events.results
    progress_on = [results.video, results.note]  # the note is in sight while the live preview plays
    rendered = [results.video, results.video_file, results.views]
    shared: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": "animate",
        "show_progress_on": progress_on,
    }
    last: dict[str, Any] = {**shared, "trigger_mode": "always_last"}
    visit = gr.State(events.new_visit())
    for asked, begin in ((animate.click, animate.click), (examples.dataset.click, examples.load_input_event.then)):
        asked(None, js=into_view("#animate-views"), api_visibility="private")
        begun = begin(events.choose_seed, [controls.seed, randomize], controls.seed, api_visibility="private")
        begun.then(events.run, [visit, *controls.inputs()], results.outputs(), **last)
    controls.strength.release(events.render_by_hand, controls.inputs(), [*rendered, controls.automatic], **last)
    for slider in (controls.speed, controls.seconds, controls.size):
        slider.release(events.render_again, controls.inputs(), rendered, **last)
    for box in (controls.loop, controls.automatic):
        box.input(events.render_again, controls.inputs(), rendered, **shared)
    controls.photo.change(
        events.clear,
        [visit, controls.photo],
        results.outputs(),
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
