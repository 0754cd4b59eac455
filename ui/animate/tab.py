"""The Animate tab: one photo in, a looping video out."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.helpers import Examples

from gid.limits import AUTO, LIMITS, MotionOptions, RenderOptions, Strength
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import hardly_moves, resolve
from gid.photo import load_photo
from ui.animate.overlays import band_chart, motion_energy_picture
from ui.animate.service import AnimationService
from ui.errors import explained
from ui.photo_input import PhotoInput
from ui.poke.canvas import CanvasFiles, PokeCanvas, prepare_canvas
from ui.theme import into_view
from ui.visit import Visit
from ui.weights_menu import build_weights_menu

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FPS = 30
SECONDS = 5
CANVAS_SIDE = 1024
NO_PHOTO = "There is no photo yet. Upload one, paste one, take one with the camera, or click an example below."
FAILED = "The photo was not animated"
STANDS_STILL = (
    "**This looks like something that stands still, so it hardly moves.** To see it sway all the same, open Advanced, "
    "switch *Hold still what stands still* off and animate again. "
)
KNOWN_BY_EMBEDDED = "They know plants, flowers, flames and hanging cloth in front of a still background."


@dataclass(frozen=True)
class AnimateTab:
    """The components other tabs may want: the photo and the seed carry over."""

    photo: PhotoInput
    seed: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    hold_still: gr.Checkbox


@dataclass(frozen=True)
class _Controls:
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
        return list(vars(self).values())


@dataclass(frozen=True)
class _Results:
    views: gr.Tabs
    live: PokeCanvas
    video: gr.Video
    energy: gr.Image
    bands: gr.HTML
    video_file: gr.DownloadButton
    motion_file: gr.DownloadButton
    note: gr.Markdown

    def outputs(self) -> list[Any]:
        return list(vars(self).values())


def build_animate_tab(service: AnimationService) -> AnimateTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service."""
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
            examples = _examples(photo)
            animate = gr.Button("Animate", variant="primary", size="lg", elem_id="animate-button")
            with gr.Accordion("Advanced", open=False):
                with gr.Row():
                    seed = gr.Number(
                        0, label="Seed", precision=0, minimum=0, maximum=LIMITS["seed"].high, min_width=120
                    )
                    randomize = gr.Checkbox(False, label="New seed", info="another motion each time", min_width=120)
                with gr.Row():
                    seconds = gr.Slider(1, 20, SECONDS, step=0.5, label="Seconds", min_width=120)
                    loop = gr.Checkbox(True, label="Loop", info="the end leads back to the start", min_width=120)
                steps = gr.Slider(1, 50, MotionOptions().steps, step=1, label="Diffusion steps")
                guidance = gr.Slider(1, 5, MotionOptions().guidance, step=0.25, label="Guidance by the photo")
                size = gr.Slider(128, 1024, RenderOptions().size, step=32, label="Longer side in pixels")
                hold_still = gr.Checkbox(
                    MotionOptions.hold_still,
                    label="Hold still what stands still",
                    info="a cup, a house or a face hardly moves; switched off, they sway too",
                )
                build_weights_menu(service, "animate")
        with gr.Column(min_width=320):
            with gr.Tabs(elem_id="animate-views") as views:
                with gr.Tab("Video", id="video"):
                    video = gr.Video(
                        label="Animation",
                        autoplay=True,
                        loop=True,
                        height=360,
                        interactive=False,
                        elem_id="animate-video",
                    )
                    with gr.Row():
                        strength = gr.Slider(0, LIMITS["strength"].high, 1, step=0.1, label="Strength", min_width=140)
                        speed = gr.Slider(LIMITS["speed"].low, 3, 1, step=0.1, label="Speed", min_width=140)
                    automatic = gr.Checkbox(True, label="Natural strength, chosen for the photo")
                with gr.Tab("Live preview", id="live"):  # until the video is ready, and for playing with the wind
                    live = PokeCanvas(mode="sway", elem_id="animate-live", container=False)
            results = _results(views, live, video)
    controls = _Controls(photo, automatic, strength, speed, seconds, loop, seed, steps, guidance, size, hold_still)
    _wire(service, animate, examples, controls, randomize, results)
    _endpoint(service, controls, results)
    return AnimateTab(photo, seed, steps, guidance, hold_still)


def _results(views: gr.Tabs, live: PokeCanvas, video: gr.Video) -> _Results:
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
    return _Results(views, live, video, energy, bands, video_file, motion_file, note)


def _examples(photo: PhotoInput) -> Examples:
    files = sorted(str(path) for path in EXAMPLES.glob("*.jpg"))
    return gr.Examples(files, photo, label="Examples", examples_per_page=12, api_visibility="private")


def _options(
    strength: Strength,
    speed: float,
    seconds: float,
    loop: bool,
    seed: float,
    steps: float,
    guidance: float,
    size: float,
    hold_still: bool,
) -> tuple[MotionOptions, RenderOptions]:
    motion = MotionOptions(int(seed), int(steps), float(guidance), hold_still=bool(hold_still))
    scale = AUTO if strength == AUTO else float(strength)
    render = RenderOptions(round(seconds * FPS), FPS, scale, float(speed), bool(loop), int(size))
    return motion, render


def _chosen(automatic: bool, strength: float, *rest: Any) -> tuple[MotionOptions, RenderOptions]:
    """The options of the controls, whose slider only counts while the natural strength is switched off."""
    return _options(AUTO if automatic else strength, *rest)


def _note(service: AnimationService, motion: MotionOptions, volume: SpectralVolume, strength: float) -> str:
    still = STANDS_STILL if motion.hold_still and hardly_moves(volume) else ""
    known = service.notice or (KNOWN_BY_EMBEDDED if service.weights == "embedded" else "")
    return (
        f"Motion by the {service.weights} weights, seed {motion.seed}, strength {strength:.2g}. {still}{known}".rstrip()
    )


def _motion_updates(
    service: AnimationService,
    results: _Results,
    photo: str,
    motion: MotionOptions,
    volume: SpectralVolume,
    strength: float,
) -> dict[Any, Any]:
    pixels = load_photo(photo, max_side=512)
    picture = motion_energy_picture(pixels, volume)
    path = str(service.motion_file(photo, motion))
    return {
        results.energy: picture,
        results.bands: band_chart(volume),
        results.motion_file: gr.DownloadButton(value=path, interactive=True),
        results.note: _note(service, motion, volume, strength),
    }


def _wire(
    service: AnimationService,
    animate: gr.Button,
    examples: Examples,
    controls: _Controls,
    randomize: gr.Checkbox,
    results: _Results,
) -> None:
    def run(
        visit: Visit,
        photo: str | None,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        if photo is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED), tempfile.TemporaryDirectory() as folder:  # its files are copied when handed over
            progress(0.01, desc="Starting")
            motion, render = _chosen(*values)
            if not visit.begin(photo):
                return
            fresh, live = service.known_motion(photo, motion) is None, None
            for result in service.animate(photo, motion, render):
                if isinstance(result, SpectralVolume):
                    strength = resolve(render.strength, result)
                    updates = _motion_updates(service, results, photo, motion, result, strength)
                    live = swaying(photo, result.magnify(strength), folder)
                    if live is not None and fresh:  # the photo sways in the browser while the video is rendered
                        updates |= {results.views: gr.Tabs(selected="live")}
                else:
                    updates = video_updates(result)
                if not visit.goes_on:
                    yield cleared()  # what was on its way when the photo changed is on the page now
                    return
                # The canvas every time: in a tab that was never opened, what an event skips is lost.
                yield {**updates, results.live: live}

    def swaying(photo: str, volume: SpectralVolume, folder: str) -> CanvasFiles | None:
        """What the live preview plays. A motion of nothing has nothing to show."""
        if float(volume.motion_energy().max()) <= 0:
            return None
        return prepare_canvas(load_photo(photo, max_side=CANVAS_SIDE), volume, folder)

    def video_updates(path: Path) -> dict[Any, Any]:
        return {
            results.video: str(path),
            results.video_file: gr.DownloadButton(value=str(path), interactive=True),
            results.views: gr.Tabs(selected="video"),
        }

    def render_again(photo: str | None, *values: Any) -> dict[Any, Any]:
        """Strength, speed and length only render again; before the first motion there is nothing to do."""
        if photo is None:
            return {results.video: gr.skip()}
        with explained(FAILED):
            motion, render = _chosen(*values)
            if service.known_motion(photo, motion) is None:
                return {results.video: gr.skip()}
            *_, video = service.animate(photo, motion, render)
            return video_updates(Path(str(video)))

    def render_by_hand(photo: str | None, _: bool, *values: Any) -> dict[Any, Any]:
        """Whoever moves the slider wants that strength, not the natural one."""
        return {controls.automatic: False, **render_again(photo, False, *values)}

    def choose_seed(seed: float, new: bool) -> int:
        return secrets.randbelow(100_000) if new else int(seed or 0)

    def clear(visit: Visit, photo: str | None) -> dict[Any, Any]:
        """Another photo has no result yet; that of an example may already be on its way."""
        if not visit.look_at(photo):
            return {results.video: gr.skip()}
        return cleared()

    def cleared() -> dict[Any, Any]:
        empty = dict.fromkeys([results.live, results.video, results.energy, results.bands])
        buttons = {button: gr.DownloadButton(interactive=False) for button in (results.video_file, results.motion_file)}
        return {**empty, **buttons, results.note: "", results.views: gr.Tabs(selected="video")}

    progress_on = [results.video, results.note]  # the note is in sight while the live preview plays
    rendered = [results.video, results.video_file, results.views]
    shared: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "animate"}
    visit = gr.State(Visit())
    for asked, begin in ((animate.click, animate.click), (examples.dataset.click, examples.load_input_event.then)):
        asked(None, js=into_view("#animate-views"), api_visibility="private")
        begun = begin(choose_seed, [controls.seed, randomize], controls.seed, api_visibility="private")
        begun.then(
            run,
            [visit, *controls.inputs()],
            results.outputs(),
            show_progress_on=progress_on,
            trigger_mode="always_last",
            **shared,
        )
    for slider in (controls.strength, controls.speed, controls.seconds, controls.size):
        by_hand = slider is controls.strength
        slider.release(
            render_by_hand if by_hand else render_again,
            controls.inputs(),
            [*rendered, controls.automatic] if by_hand else rendered,
            show_progress_on=progress_on,
            trigger_mode="always_last",
            **shared,
        )
    for box in (controls.loop, controls.automatic):
        box.input(render_again, controls.inputs(), rendered, show_progress_on=progress_on, **shared)
    controls.photo.change(
        clear,
        [visit, controls.photo],
        results.outputs(),
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )


def _endpoint(service: AnimationService, controls: _Controls, results: _Results) -> None:
    def animate(
        photo: str | None,
        strength: float | None = None,
        speed: float = 1,
        seconds: float = SECONDS,
        loop: bool = True,
        seed: float = 0,
        steps: float = MotionOptions.steps,
        guidance: float = MotionOptions.guidance,
        size: float = RenderOptions.size,
        hold_still: bool = MotionOptions.hold_still,
    ) -> tuple[str, str]:
        """Animate a photo: predict how it moves and render it as a video.

        Args:
            photo: the photo, any common image format, up to 4:1 and 100 megapixels.
            strength: scale of the motion, 0 to 5; 1 is as predicted. Left out, one that looks natural is chosen.
            speed: speed of the motion, 0.1 to 3; below 1 is slow motion.
            seconds: length of the video, 1 to 20, at 30 frames a second.
            loop: whether the end leads back to the start.
            seed: which of the possible motions, 0 or more.
            steps: diffusion steps, 1 to 50.
            guidance: how strictly the photo is followed, 1 to 5.
            size: longer side of the video in pixels, 128 to 1024.
            hold_still: whether pictures of things that do not move, such as a cup, hardly move.

        Returns:
            The path of the mp4 video and of the motion file (safetensors, `gid-motion/1`).
        """
        if photo is None:
            raise gr.Error(NO_PHOTO, title=FAILED, print_exception=False)
        with explained(FAILED):
            motion, render = _options(
                AUTO if strength is None else strength, speed, seconds, loop, seed, steps, guidance, size, hold_still
            )
            *_, video = service.animate(photo, motion, render)
            return str(video), str(service.motion_file(photo, motion))

    trigger = gr.Button(visible=False)
    strength = gr.Number(None, label="Strength", visible=False)  # empty: the natural one
    inputs = [controls.photo, strength, *controls.inputs()[3:]]
    trigger.click(
        animate,
        inputs,
        [results.video, results.motion_file],
        api_name="animate",
        api_visibility="public",
        concurrency_id="animate",
    )
