"""A brush over a picture as a Gradio component: the visitor paints over what is to be drawn anew.

The stock image editor sends what is painted through a route that bounds nothing; here it comes as one picture in an
event, which passes the gate like every other file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel

ASSETS = Path(__file__).resolve().parent / "static"

# Runs once when the component is mounted. Not a module and not async, so it imports the real module by URL.
BOOT = """
const base = new URL("gradio_api/file=" + encodeURI(settings.assets) + "/", document.baseURI);
const failed = (error) => { element.querySelector(".painter-status").textContent = error.message; };
import(new URL("painter.js", base)).then(({ MaskPainter }) => {
  const painter = new MaskPainter(element, (url) => trigger("paint", { mask: url ? { url } : null }));
  const show = () => {
    const value = props.value;
    if (!value || !value.picture) return painter.clear();
    painter.load({ picture: value.picture.url, mask: value.mask ? value.mask.url : null }).catch(failed);
  };
  element.maskPainter = painter;
  show();
  watch("value", show);
}).catch(failed);
"""


class PaintData(GradioModel):
    """What the browser gets: two files to fetch and a key that changes with them."""

    picture: FileData
    mask: FileData | None
    key: str


@dataclass(frozen=True)
class Canvas:
    """A picture to paint on, and a mask (white where painted) to begin with, as files. key: changes with either."""

    picture: Path
    mask: Path | None
    key: str


class MaskPainter(gr.HTML):
    """Value in: `Canvas` or None. Event `paint`: a stroke has ended; see `painted`."""

    data_model = PaintData

    def __init__(self, value: Canvas | None = None, **kwargs: Any) -> None:
        gr.set_static_paths([ASSETS])
        super().__init__(
            value,
            html_template=(ASSETS / "painter.html").read_text(encoding="utf-8"),
            css_template=(ASSETS / "painter.css").read_text(encoding="utf-8"),
            # Keys stay unquoted: gr.HTML takes any quoted word of the script for the name of an event.
            js_on_load=f"const settings = {{ assets: {json.dumps(ASSETS.as_posix())} }};{BOOT}",
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: PaintData | None) -> str | None:  # type: ignore[override]
        """The key of what is shown, or None."""
        return payload.key if payload else None

    def postprocess(self, value: Canvas | None) -> PaintData | None:  # type: ignore[override]
        """`Canvas` to something the browser can fetch."""
        if value is None:
            return None
        mask = FileData(path=str(value.mask)) if value.mask is not None else None
        return PaintData(picture=FileData(path=str(value.picture)), mask=mask, key=value.key)

    def api_info(self) -> dict[str, Any]:
        """The painter's value for API clients: the JSON schema of `PaintData`."""
        schema: dict[str, Any] = json.loads(json.dumps(PaintData.model_json_schema()))
        return schema

    def example_payload(self) -> Any:
        """No example: it would need files."""
        return None

    def example_value(self) -> Any:
        """No example: it would need files."""
        return None


def painted(data: Any) -> str | None:
    """The file with the mask that an event `paint` brought, as the gate has kept it; None where nothing is painted."""
    mask = data.get("mask") if isinstance(data, Mapping) else None
    path = mask.get("path") if isinstance(mask, Mapping) else None
    return path if isinstance(path, str) else None
