"""The photo as the visitor gave it: no conversion on the way, so that one loader handles and explains every format."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import ImageData


class PhotoInput(gr.Image):
    """``gr.Image`` that hands over the path of the uploaded file untouched.

    The stock component opens the file first, which hides what is wrong with a damaged one and converts the others.
    """

    is_template = True  # drawn by the stock component's own code in the browser

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The path of the uploaded file, or None."""
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            return str(super().preprocess(payload))
        return payload.path
