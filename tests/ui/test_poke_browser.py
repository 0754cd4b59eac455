"""The live canvas in a real browser: a tiny app with a synthetic motion, and the exported page from disk."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import gradio as gr
import numpy as np
import pytest

from gid.poking.modes import limit_displacement
from gid.poking.page import decode_motion, encode_motion, export_page
from tests.browsing import Visit, needs_browser, open_page
from tests.swaying import CENTRE, swaying_volume, textured_photo
from ui.canvas import CanvasFiles, PokeCanvas, prepare_canvas

pytestmark = needs_browser
PACK = """
let text = ""; const bytes = {};
for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
return [c.canvas.height, c.canvas.width, btoa(text)]
"""
CANVAS = "document.querySelector('{} .gid-poke').parentElement.gidPoke"


@dataclass
class PokeVisit(Visit):
    """A page with the canvas."""

    def canvas(self, script: str, where: str = "#poked", argument: Any = None) -> Any:
        """Run a script in which `c` is the canvas."""
        return self.page.evaluate(f"async (argument) => {{ const c = {CANVAS.format(where)}; {script} }}", argument)

    def picture(self) -> np.ndarray:
        """What is on the canvas now, (H, W, 3) float."""
        height, width, text = self.canvas(f"c.draw(); const data = c.renderer.readPicture(); {PACK.format('data')}")
        data = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
        return data.reshape(height, width, 4)[..., :3].astype(np.float32)

    def displacement(self, before: str, where: str = "#poked", argument: Any = None) -> np.ndarray:
        """What the first pass holds after running `before`: (4, h, w) dx, dy, envelope, overlay."""
        script = f"{before}; const data = c.renderer.readDisplacement(); {PACK.format('new Uint8Array(data.buffer)')}"
        text = self.canvas(script, where, argument)[2]
        data = np.frombuffer(base64.b64decode(text), dtype=np.float32)
        height, width = self.canvas("return [c.model.height, c.model.width]", where)
        return data.reshape(height, width, 4).transpose(2, 0, 1)

    def drag(
        self, at: tuple[float, float], by: tuple[float, float], release: bool = True, on: str = "#poked canvas"
    ) -> None:
        """A real mouse drag; `at` and `by` are fractions of the canvas."""
        box = self.page.locator(on).bounding_box()
        x, y = box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + by[0] * box["width"], y + by[1] * box["height"], steps=4)
        if release:
            mouse.up()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CanvasFiles:
    return prepare_canvas(textured_photo(), swaying_volume(), tmp_path_factory.mktemp("canvas"))


@pytest.fixture(scope="module")
def other_files(tmp_path_factory: pytest.TempPathFactory) -> CanvasFiles:
    volume = swaying_volume(40, 40, 5, (200, 200))
    return prepare_canvas(1 - textured_photo((200, 200)), volume, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def url(files: CanvasFiles, other_files: CanvasFiles) -> Iterator[str]:
    with gr.Blocks() as demo:
        with gr.Tab("Poke"):
            canvas = PokeCanvas(files, elem_id="poked")
            told = gr.JSON(elem_id="told")
            gr.Button("Other").click(lambda: other_files, None, canvas)
            gr.Button("None").click(lambda: None, None, canvas)

            def tell(event: gr.EventData) -> Any:
                return event._data

            canvas.poke(tell, None, told, show_progress="hidden", api_visibility="private")
        with gr.Tab("Sway"):
            swaying = PokeCanvas(files, mode="sway", elem_id="swaying")
            gr.Button("Rendering").click(lambda: replace(files, busy=True), None, swaying)
            gr.Button("Rendered").click(lambda: files, None, swaying)
    folders = [str(f.photo.parent) for f in (files, other_files)]
    _, address, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, allowed_paths=folders, run_history=False
    )
    yield address
    demo.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[PokeVisit]:
    """A fresh page."""
    seen = open_page(browser, PokeVisit, width=700, height=800)
    yield seen
    seen.page.close()
    assert not seen.problems


@pytest.fixture(scope="module")
def app(browser: Any, url: str) -> Iterator[PokeVisit]:
    """The app, opened once: loading it takes longer than the tests."""
    seen = open_page(browser, PokeVisit, width=700, height=800)
    seen.page.goto(url)
    seen.page.wait_for_selector("#poked .gid-poke-ready")
    yield seen
    seen.page.close()


@pytest.fixture
def poked(app: PokeVisit) -> Iterator[PokeVisit]:
    """The app's canvas with its first photo at rest; the test is the clock."""
    app.canvas(
        """c.manual = true; const { photo, motion } = c.element.first ?? c.loaded; c.element.first = { photo, motion };
        await c.load({ photo, motion }); c.controls.clearMixer(); c.reset(); c.step(0)"""
    )
    yield app
    app.page.mouse.up()
    assert not app.problems


def test_shader_agrees_with_numpy(poked: PokeVisit, files: CanvasFiles) -> None:
    model, _ = decode_motion(files.motion.read_bytes())
    rng = np.random.default_rng(0)
    for size in (2.0, 12.0):  # inside the proportional range, and far into the limit
        weights = size * (rng.standard_normal(7) + 1j * rng.standard_normal(7))
        draw = "c.renderer.draw(argument[0], argument[1])"
        shown = poked.displacement(draw, argument=[weights.real.tolist(), weights.imag.tolist()])
        truth = limit_displacement(np.einsum("j,jchw->chw", weights, model.shapes).real)
        assert np.abs(truth).max() > 0.02
        assert np.abs(shown[:2] - truth).max() <= np.ptp(truth) / 255
        envelope = model.envelope(np.ones(7))
        assert np.abs(shown[2] - envelope / envelope.max()).max() < 1 / 255


def test_dragging_moves_what_is_under_the_pointer_and_nothing_else(poked: PokeVisit) -> None:
    still = poked.picture()
    assert np.abs(still - 255 * textured_photo().permute(1, 2, 0).numpy()).mean() < 4  # the photo itself
    pull = (0.05, 0.02)
    poked.drag(CENTRE, pull, release=False)
    assert poked.page.locator("#poked .gid-poke-marks line").count() == 1  # the arrow
    poked.canvas("c.step(1)")
    held = poked.picture()
    x, y = round(CENTRE[0] * 320), round(CENTRE[1] * 192)
    before = still[y - 5 : y + 6, x - 5 : x + 6]
    errors = {
        (dx, dy): np.abs(held[y + dy - 5 : y + dy + 6, x + dx - 5 : x + dx + 6] - before).mean()
        for dx in range(-24, 25)
        for dy in range(-12, 13)
    }
    dx, dy = min(errors, key=lambda shift: errors[shift])
    assert abs(dx - pull[0] * 320) <= 2
    assert abs(dy - pull[1] * 192) <= 2
    assert np.array_equal(held[:, 240:], still[:, 240:])
    assert np.array_equal(held[:6], still[:6])  # the rim
    poked.page.mouse.up()
    poked.page.wait_for_function("document.querySelector('#told').innerText.includes('drag')")
    swings = []
    for _ in range(20):
        poked.canvas("c.step(0.2)")
        swings.append(
            np.abs(poked.picture()[y - 20 : y + 20, x - 30 : x + 30] - still[y - 20 : y + 20, x - 30 : x + 30]).mean()
        )
    assert swings[0] > 5
    assert max(swings[-5:]) < 0.4 * swings[0]
    poked.canvas("for (let n = 0; n < 60; n++) c.step(0.5)")
    assert np.array_equal(poked.picture(), still)
    assert poked.canvas("return c.moving") is False  # idle: no more frames are asked for


def test_stalled_tab_wild_drags_and_bad_numbers_show_no_garbage(poked: PokeVisit) -> None:
    still = poked.picture()
    poked.drag(CENTRE, (0.55, -0.45))
    poked.canvas("c.gust(); c.set('strength', 3); c.step(0.2); c.step(10)")
    limit = poked.canvas("return Math.max(...c.renderer.readDisplacement().filter((v, i) => i % 4 < 2))")
    assert limit <= 0.1501
    poked.canvas("for (const values of Object.values(c.simulation.state)) values.fill(NaN); c.draw()")
    assert np.array_equal(poked.picture(), still)
    poked.page.get_by_role("button", name="Reset").first.click()
    poked.canvas("c.step(0.1)")
    assert np.array_equal(poked.picture(), still)
    poked.drag((0.9, 0.15), (0.05, 0.05))
    assert "stands still" in poked.page.locator("#poked .gid-poke-status").inner_text()
    assert poked.canvas("return c.simulation.atRest()")


def test_keyboard_sliders_and_band_mixer(poked: PokeVisit) -> None:
    page = poked.page
    page.locator("#poked canvas").focus()
    poked.canvas("c.gestures.cursor = [0.48, 0.5]")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("document.querySelector('#told').innerText.includes('poke')")
    poked.canvas("c.step(0.1)")
    assert not poked.canvas("return c.simulation.atRest()")
    page.keyboard.press("Escape")
    assert poked.canvas("return c.simulation.atRest()")
    page.get_by_label("Stiffness").fill("1")
    assert poked.canvas("return c.simulation.knobs.stiffness") == 2
    page.get_by_text("Frequency bands").first.click()
    page.get_by_role("button", name="0.6 hertz").click()
    assert poked.canvas("return [...c.simulation.gains]") == [0, 0, 1, 0, 0, 0, 0]
    page.mouse.move(5, 5)
    assert poked.canvas("c.step(0); return c.renderer.readDisplacement().some((v, i) => i % 4 === 3 && v > 0.5)")
    page.get_by_role("button", name="All bands").first.click()
    assert poked.canvas("return c.simulation.gains.every((g) => g === 1)")


def test_photo_changes_and_the_graphics_card_goes_away_in_the_middle(poked: PokeVisit) -> None:
    still = poked.picture()
    poked.drag(CENTRE, (0.05, 0.0), release=False)
    poked.canvas(
        """const lose = c.renderer.gl.getExtension("WEBGL_lose_context");
        const event = (name) => new Promise((done) => c.canvas.addEventListener(name, done, { once: true }));
        const lost = event("webglcontextlost"); lose.loseContext(); await lost; c.step(0.1);
        await new Promise((done) => setTimeout(done, 50)); // the browser must be done with the event first
        const back = event("webglcontextrestored"); lose.restoreContext(); await back; c.reset(); c.step(0)"""
    )
    assert np.array_equal(poked.picture(), still)
    poked.page.mouse.up()
    poked.drag(CENTRE, (0.05, 0.0), release=False)
    poked.page.get_by_role("button", name="Other").dispatch_event("click")
    poked.page.wait_for_function(f"{CANVAS.format('#poked')}.model?.width === 40")
    poked.canvas("c.step(0.2)")
    poked.page.mouse.up()
    assert poked.picture().shape == (200, 200, 3)
    assert poked.canvas("return c.simulation.atRest()")
    poked.page.get_by_role("button", name="None").click()
    poked.page.wait_for_selector("#poked .gid-poke:not(.gid-poke-ready)")
    poked.canvas("c.step(1); c.gust(); c.reset()")  # nothing there: nothing happens


def test_sway_plays_the_spectral_volume(poked: PokeVisit) -> None:
    import torch

    poked.page.get_by_role("tab", name="Sway").click()
    poked.page.wait_for_selector("#swaying .gid-poke-ready")
    shown = poked.displacement("c.manual = true; c.swayTime = 0; c.fade = 1; c.step(1.3)", "#swaying")[:2]
    volume = swaying_volume()
    truth = volume.displacement(torch.tensor([1.3 * 30]))[0].numpy() * np.array([1, 0.6]).reshape(2, 1, 1)
    assert np.abs(shown - truth).max() <= np.ptp(truth) / 100  # a pinned rim is the only difference
    assert poked.canvas("c.setWind(1); for (let i = 0; i < 60; i++) c.step(1 / 60); return c.moving", "#swaying")


def test_the_preview_leaves_the_processor_to_the_server_while_a_video_is_made(visit: PokeVisit, url: str) -> None:
    """Chromium here draws with the processor; a hand is answered at full pace all the same."""
    page = visit.page
    page.goto(url)
    page.wait_for_selector("#poked .gid-poke-ready")
    page.get_by_role("tab", name="Sway").click()
    page.wait_for_selector("#swaying .gid-poke-ready")
    assert not visit.canvas("return c.yields", "#swaying")
    page.get_by_role("button", name="Rendering").click()
    page.wait_for_function(f"{CANVAS.format('#swaying')}.yields")
    drawn = visit.canvas("return c.frames", "#swaying")
    page.wait_for_function(f"{CANVAS.format('#swaying')}.frames > {drawn + 2}")  # slower, not stopped
    assert not visit.canvas("c.busy = true; return c.yields", "#poked")
    page.get_by_role("button", name="Rendered").click()
    page.wait_for_function(f"!{CANVAS.format('#swaying')}.yields")


def test_without_webgl2_the_visitor_is_told_and_gestures_still_count(visit: PokeVisit, url: str) -> None:
    visit.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    visit.page.goto(url)
    visit.page.wait_for_selector("#poked .gid-poke-ready")
    assert "no WebGL2" in visit.page.locator("#poked .gid-poke-status").inner_text()
    visit.drag(CENTRE, (0.1, 0.05), on="#poked img")
    visit.page.wait_for_function("document.querySelector('#told').innerText.includes('no WebGL2')")


def test_exported_page_works_from_disk_without_a_network(visit: PokeVisit, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(export_page(textured_photo(), swaying_volume()), encoding="utf-8")
    visit.page.context.set_offline(True)
    visit.page.goto(path.as_uri())
    visit.page.wait_for_selector(".gid-poke-ready")
    visit.page.wait_for_function("document.getElementById('poke').gidPoke.frames > 0")
    model, _ = decode_motion(encode_motion(swaying_volume()))
    found = visit.page.evaluate("[...document.getElementById('poke').gidPoke.model.at(0.37, 0.52)]")
    truth = model.at(0.37, 0.52)
    assert np.allclose(np.array(found).reshape(7, 2, 2), np.stack([truth.real, truth.imag], axis=-1), atol=1e-7)
    visit.page.locator("canvas").focus()
    visit.page.keyboard.press("Shift+ArrowRight")
    visit.page.wait_for_function("!document.getElementById('poke').gidPoke.simulation.atRest()")
    record = visit.page.get_by_role("button", name="Record")
    record.click()
    drawn = visit.page.evaluate("document.getElementById('poke').gidPoke.frames")
    visit.page.locator("canvas").focus()
    visit.page.keyboard.press("Shift+ArrowRight")  # so that there is something to draw, however slowly
    visit.page.wait_for_function(f"document.getElementById('poke').gidPoke.frames > {drawn + 8}")
    with visit.page.expect_download() as download:
        record.click()
    with av.open(str(download.value.path())) as container:
        assert sum(1 for _ in container.decode(video=0)) > 1
    assert record.get_attribute("aria-pressed") == "false"
