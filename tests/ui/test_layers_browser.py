"""Layers on the canvas: a pulled object leaves the completed background behind, in one piece."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gid.motion.spectrum import SpectralVolume
from gid.poking.page import encode_canvas, encode_motion, export_page
from tests.browsing import Visit, needs_browser, open_page

pytestmark = needs_browser

HEIGHT, WIDTH = 192, 320
CENTRE, RADIUS = (160, 96), 50  # large enough to be pulled by 5 % of the width


def disc() -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.hypot(x - CENTRE[0], y - CENTRE[1]) < RADIUS


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A red disc on blue."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    picture[..., 2] = 0.6
    picture[disc()] = (0.8, 0.3, 0.0)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def volume() -> SpectralVolume:
    """The disc sways sideways and a little up and down; its motion fades over three cells."""
    share = disc()[2::4, 2::4].astype(np.float32)
    padded = np.pad(share, 1)
    share = sum(padded[i : i + 48, j : j + 80] for i in range(3) for j in range(3)) / 9
    coefficients = torch.zeros(4, 2, 48, 80, dtype=torch.complex64)
    coefficients[1, 0] = torch.from_numpy(share) * 0.02
    coefficients[2, 1] = torch.from_numpy(share) * 0.01
    return SpectralVolume(coefficients, fps=30.0, num_frames=60, image_size=(WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def visit(browser: Any, photo: torch.Tensor, volume: SpectralVolume, tmp_path_factory: Any) -> Iterator[Visit]:
    file = Path(tmp_path_factory.mktemp("page")) / "disc.html"
    file.write_text(export_page(photo, volume, smoothed=True), encoding="utf-8")
    seen = open_page(browser, Visit, width=700, height=800)
    seen.page.goto(file.as_uri())
    seen.page.wait_for_selector(".gid-poke-ready")
    seen.page.evaluate("document.getElementById('poke').gidPoke.manual = true")
    yield seen
    seen.page.close()
    assert not seen.problems


def picture(visit: Visit, before: str = "") -> np.ndarray:
    """(H, W, 3) of the canvas after running ``before`` with the canvas as `c`."""
    script = f"""() => {{
      const c = document.getElementById('poke').gidPoke;
      {before};
      c.draw();
      const data = c.renderer.readPicture();
      let text = "";
      for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
      return [c.canvas.height, c.canvas.width, btoa(text)];
    }}"""
    height, width, text = visit.page.evaluate(script)
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    return data.reshape(height, width, 4)[..., :3].astype(np.float32)


def test_the_old_place_of_a_pulled_object_shows_the_plate(visit: Visit, photo: torch.Tensor) -> None:
    rest = picture(visit, "c.reset()")
    assert np.abs(rest - 255 * photo.permute(1, 2, 0).numpy()).mean() < 3
    at, pull = f"[{CENTRE[0] / WIDTH}, {CENTRE[1] / HEIGHT}]", 0.05
    held = picture(visit, f"c.hold(1, {at}, [{pull}, 0]); for (let i = 0; i < 60; i++) c.step(1 / 30)")
    shift = round(pull * WIDTH)
    moved = np.roll(disc(), shift, axis=1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    middle = np.hypot(x - CENTRE[0] - shift, y - CENTRE[1]) < RADIUS - 5
    assert (held[middle][:, 0] > 170).all(), "the disc came along in one piece"
    left = np.hypot(x - CENTRE[0], y - CENTRE[1]) < RADIUS - 3
    left &= ~(np.hypot(x - CENTRE[0] - shift, y - CENTRE[1]) < RADIUS + 6) & ~moved
    assert left.sum() > 300
    assert np.abs(held[left] - (0, 0, 153)).max() < 25, "its old place shows the background"
    away = np.hypot(x - CENTRE[0], y - CENTRE[1]) > RADIUS + 50
    assert np.abs(held - rest)[away].max() <= 1


def test_let_go_it_comes_back_to_the_photo(visit: Visit) -> None:
    rest = picture(visit, "c.reset()")
    again = picture(visit, "c.release(1, [0.5, 0.5], null, 1); for (let i = 0; i < 900; i++) c.step(1 / 30)")
    assert np.array_equal(rest, again)


def test_a_lost_graphics_card_gets_the_layers_again(visit: Visit) -> None:
    at = f"[{CENTRE[0] / WIDTH}, {CENTRE[1] / HEIGHT}]"
    hold = f"c.reset(); c.hold(1, {at}, [0.08, 0]); for (let i = 0; i < 60; i++) c.step(1 / 30)"
    before = picture(visit, hold)
    after = picture(visit, "c.renderer.restore()")
    assert np.abs(before - after).max() <= 1


def test_a_photo_without_objects_has_no_layers(photo: torch.Tensor, volume: SpectralVolume) -> None:
    even = volume.with_coefficients(torch.full_like(volume.coefficients, 0.01))
    assert encode_canvas(photo, even, 8) == encode_motion(even, 8)


def test_the_file_is_cut_short(visit: Visit, photo: torch.Tensor, volume: SpectralVolume) -> None:
    """A visitor with half a file is told, and sees no garbage."""
    data = encode_canvas(photo, volume, 8)[:-200]
    script = f"""async () => {{
      const c = document.getElementById('poke').gidPoke;
      const bytes = Uint8Array.from(atob({json.dumps(base64.b64encode(data).decode())}), (x) => x.charCodeAt(0));
      await c.load({{ photo: c.loaded.photo, motion: bytes.buffer }});
      return c.root.querySelector(".gid-poke-status").textContent;
    }}"""
    assert "cut short" in visit.page.evaluate(script)
