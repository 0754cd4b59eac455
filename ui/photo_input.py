"""Photos as the visitor gave them: no conversion on the way, so that one loader handles and explains every format."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import ImageData


class PhotoInput(gr.Image):
    """``gr.Image`` that hands over the path of the uploaded file untouched.

    The stock component opens the file first, which hides what is wrong with a damaged one and converts the others.
    """

    is_template = True  # drawn by the stock component's own code in the browser

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The path of the uploaded file, as :mod:`ui.gate` has checked it, or None."""
        return payload.path if payload is not None else None


def generated_picture(elem_id: str, placeholder: str) -> PhotoInput:
    """The input for a generated picture, alike on every tab that takes one."""
    return PhotoInput(
        label="Picture",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=300,
        elem_id=elem_id,
        placeholder=placeholder,
    )
