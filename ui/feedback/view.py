"""Feedback as a Gradio component: pictures with their heatmaps over them, scores, tinted words; sliders act at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from gradio.data_classes import FileData, GradioModel
from PIL import Image

from rahf.feedback import THRESHOLD, Feedback
from rahf.sheets import save_heatmap

ASSETS = Path(__file__).resolve().parent / "static"
PICTURE_SIDE = 1024
MAP_SIDE = 512

# Runs once when the component is mounted. Not a module and not async, so it imports the real modules by URL.
BOOT = """
const base = new URL("gradio_api/file=" + encodeURI(settings.assets) + "/", document.baseURI);
const failed = (error) => {
  element.querySelector(".rahf-status").textContent = "The feedback view could not start. " + error.message;
};
import(new URL("view.js", base)).then(({ FeedbackView: View }) => {
  const view = new View(element, settings, (thresholds) => trigger("settle", thresholds));
  const links = (maps) => Object.fromEntries(Object.entries(maps).map(([name, file]) => [name, file.url]));
  const show = () => {
    const items = props.value ? props.value.items : [];
    if (!items.length) return view.clear();
    const loaded = items.map((item) => ({ ...item, picture: item.picture.url, maps: links(item.maps) }));
    view.load({ ...props.value, items: loaded });
  };
  element.rahfView = view;
  show();
  watch("value", show);
}).catch(failed);
"""


class ItemData(GradioModel):
    """What the browser gets for one picture.

    key: changes with anything but place, value and reasons. unjudged: which segments, by their place in the list, are
    words that the model does not know; the other segments without a probability stand between words.
    """

    key: str
    title: str
    picture: FileData
    maps: dict[str, FileData]
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    unsure: list[str]
    segments: list[tuple[str, float | None]]
    unjudged: list[int]
    reasons: list[str]
    place: int | None
    value: float | None


class PageData(GradioModel):
    """The pictures in the order in which they are shown.

    threshold, words: what their reasons were given for. usual: from which probability on the weights that looked at
    them take a word for not shown; there the slider stands at first.
    """

    items: list[ItemData]
    threshold: float
    words: float
    usual: float


@dataclass(frozen=True, eq=False)
class ViewItem:
    """One picture on the page: files, feedback, and if it is one of several its place (from 1) and value.

    told: from which value of a heatmap and from which probability of a word on the reasons count.
    """

    key: str
    title: str
    picture: Path
    maps: dict[str, Path]
    feedback: Feedback
    reasons: tuple[str, ...] = field(default=())
    told: tuple[float, float] = (THRESHOLD, 0.5)
    place: int | None = None
    value: float | None = None

    def data(self) -> ItemData:
        """As the browser gets it."""
        return ItemData(
            key=self.key,
            title=self.title,
            picture=FileData(path=str(self.picture)),
            maps={name: FileData(path=str(path)) for name, path in self.maps.items()},
            scores=self.feedback.scores,
            intervals=self.feedback.intervals,
            unsure=list(self.feedback.unsure),
            segments=self.feedback.segments(),
            unjudged=unjudged(self.feedback),
            reasons=list(self.reasons),
            place=self.place,
            value=self.value,
        )


def unjudged(feedback: Feedback) -> list[int]:
    """Which of the segments are words that the model does not know.

    Not their places in the prompt: JavaScript counts some letters twice.
    """
    starts = {word.start for word in feedback.not_judged()}
    found, place = [], 0
    for index, (text, _) in enumerate(feedback.segments()):
        if place in starts:
            found.append(index)
        place += len(text)
    return found


def write_files(pixels: np.ndarray, feedback: Feedback, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Write what the browser fetches: the picture (H, W, 3) uint8 as JPEG, each heatmap as 8-bit grey PNG."""
    picture = folder / "picture.jpg"
    _limited(Image.fromarray(pixels), PICTURE_SIDE).save(picture, quality=92)
    maps = {}
    for name, heatmap in feedback.heatmaps.items():
        maps[name] = folder / f"{name}.png"
        save_heatmap(maps[name], np.asarray(_limited(Image.fromarray(heatmap), MAP_SIDE)))
    return picture, maps


def _limited(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


class FeedbackView(gr.HTML):
    """Value in: a list of `ViewItem`, or None. Layout "one" shows a single picture large, "many" cards side by side.

    Event `settle`: the sliders stand elsewhere than the reasons were given for; its data are `threshold` and `words`.

    word_threshold: the probability from which words are marked at first.
    """

    data_model = PageData

    def __init__(
        self,
        value: Sequence[ViewItem] | None = None,
        *,
        layout: Literal["one", "many"],
        word_threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        if layout not in ("one", "many"):
            raise ValueError(f"layout is {layout!r}; it must be 'one' or 'many'")
        gr.set_static_paths([ASSETS])
        # Keys stay unquoted: gr.HTML takes any quoted word of the script for the name of an event.
        facts = f'mode: "{layout}", words: {word_threshold}, assets: {json.dumps(ASSETS.as_posix())}'
        super().__init__(
            value,
            html_template=(ASSETS / "view.html").read_text(encoding="utf-8"),
            css_template=(ASSETS / "feedback.css").read_text(encoding="utf-8"),
            js_on_load=f"const settings = {{ {facts} }};{BOOT}",
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: PageData | None) -> list[str]:  # type: ignore[override]
        """The keys of what is shown."""
        return [item.key for item in payload.items] if payload else []

    def postprocess(self, value: Sequence[ViewItem] | None) -> PageData | None:  # type: ignore[override]
        """`ViewItem`s to something the browser can fetch."""
        if not value:
            return None
        (threshold, words), usual = value[0].told, value[0].feedback.word_threshold
        return PageData(items=[item.data() for item in value], threshold=threshold, words=words, usual=usual)

    def api_info(self) -> dict[str, Any]:
        """The view's value for API clients: the JSON schema of `PageData`."""
        schema: dict[str, Any] = json.loads(json.dumps(PageData.model_json_schema()))
        return schema

    def example_payload(self) -> Any:
        """No example: it would need files."""
        return None

    def example_value(self) -> Any:
        """No example: it would need files."""
        return None
