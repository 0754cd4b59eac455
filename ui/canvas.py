"""The live canvas as a Gradio component: a photo that answers pokes, or sways, in the visitor's browser."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from torch import Tensor

from foundation.files import write_bytes
from gid.motion.spectrum import SpectralVolume
from gid.poking.page import CANVAS_SIDE, canvas_assets, encode_canvas, encode_photo

ASSETS = canvas_assets()

# Runs once when the canvas is mounted. Not a module and not async, so it imports the real modules by URL. `settings`
# stands in the script itself: an event that skips this output before its tab was ever opened loses all props.
BOOT = """
const base = new URL("gradio_api/file=" + encodeURI(settings.assets) + "/", document.baseURI);
const show = (canvas) => {
  const value = props.value;
  canvas.busy = Boolean(value && value.busy);
  if (value && value.photo && value.motion) canvas.load({ photo: value.photo.url, motion: value.motion.url });
  else canvas.clear();
};
const failed = (error) => {
  element.querySelector(".gid-poke-status").textContent = "The live canvas could not start. " + error.message;
};
const text = (name) => fetch(new URL(name, base)).then((r) => r.text().then((body) => [name, body]));
import(new URL("canvas.js", base)).then(async ({ PokeCanvas }) => {
  const names = ["accumulate.vert", "accumulate.frag", "warp.vert", "warp.frag"];
  const shaders = Object.fromEntries(await Promise.all(names.map(text)));
  const canvas = new PokeCanvas(element, {
    mode: settings.mode,
    shaders,
    onPoke: (gesture) => trigger("poke", { ...gesture, key: props.value ? props.value.key : null }),
  });
  element.gidPoke = canvas;
  show(canvas);
  watch("value", () => show(canvas));
}).catch(failed);
"""


class CanvasMotion(GradioModel):
    """What the browser gets: two files to fetch, their key, and whether the server is busy (`CanvasFiles`)."""

    photo: FileData
    motion: FileData
    key: str
    busy: bool = False


@dataclass(frozen=True)
class CanvasFiles:
    """A photo and its encoded motion on disk.

    Attributes:
        photo, motion: the files.
        key: changes with either of them.
        busy: whether the server is at work on the video meanwhile; a preview drawn by the processor then leaves it to
            the server.
    """

    photo: Path
    motion: Path
    key: str
    busy: bool = False


def prepare_canvas(photo: Tensor, volume: SpectralVolume, folder: str | Path, max_side: int = 1024) -> CanvasFiles:
    """Write what the canvas needs into `folder`: photo (3, H, W) in [0, 1] as JPEG, motion at 16 bits with its layers.

    File names come from the contents, so that calling it twice costs little and browsers may cache.
    Raises ValueError if the motion was made for another photo or does not move anything.
    """
    volume.check_photo(photo.shape[-1], photo.shape[-2])
    if float(volume.motion_energy().max()) <= 0:
        raise ValueError("nothing in this photo moves: try another seed, or a photo of plants, cloth or flames")
    folder = Path(folder)
    picture, motion = encode_photo(photo, max_side, quality=92), encode_canvas(photo, volume, 16, CANVAS_SIDE)
    key = hashlib.sha256(picture + motion).hexdigest()[:16]
    files = CanvasFiles(folder / f"canvas-{key}.jpg", folder / f"canvas-{key}.bin", key)
    for path, data in ((files.photo, picture), (files.motion, motion)):
        if not path.exists():
            write_bytes(path, data)
    return files


class PokeCanvas(gr.HTML):
    """WebGL2 canvas. Value in: `CanvasFiles` or None. Event `poke`: a gesture has ended, see `read_gesture`.

    mode "poke": drag, tap, keys, gusts. mode "sway": plays the spectral volume itself, with strength, speed and wind.
    """

    data_model = CanvasMotion

    def __init__(
        self, value: CanvasFiles | None = None, *, mode: Literal["poke", "sway"] = "poke", **kwargs: Any
    ) -> None:
        if mode not in ("poke", "sway"):
            raise ValueError(f"the canvas can poke or sway, got mode {mode!r}")
        gr.set_static_paths([ASSETS])
        super().__init__(
            value,
            html_template=(ASSETS / "canvas.html").read_text(encoding="utf-8"),
            css_template=(ASSETS / "poke.css").read_text(encoding="utf-8"),
            # Keys stay unquoted: gr.HTML takes any quoted word of the script for the name of an event.
            js_on_load=f'const settings = {{ mode: "{mode}", assets: {json.dumps(ASSETS.as_posix())} }};{BOOT}',
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: CanvasMotion | None) -> str | None:  # type: ignore[override]
        """The key of the photo and motion on the canvas, or None."""
        return payload.key if payload else None

    def postprocess(self, value: CanvasFiles | None) -> CanvasMotion | None:  # type: ignore[override]
        """`CanvasFiles` to something the browser can fetch."""
        if value is None:
            return None
        return CanvasMotion(
            photo=FileData(path=str(value.photo)),
            motion=FileData(path=str(value.motion)),
            key=value.key,
            busy=value.busy,
        )

    def api_info(self) -> dict[str, Any]:
        """The canvas's value for API clients: the JSON schema of `CanvasMotion`."""
        schema: dict[str, Any] = json.loads(json.dumps(CanvasMotion.model_json_schema()))
        return schema

    def example_payload(self) -> Any:
        """No example: it would need files."""
        return None

    def example_value(self) -> Any:
        """No example: it would need files."""
        return None
