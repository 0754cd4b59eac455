"""The look of the page: system fonts (nothing is fetched), one accent colour, light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLES = Path(__file__).parent / "static" / "app.css"


def make_theme() -> gr.themes.Base:
    """A quiet theme around the pictures."""
    return gr.themes.Soft(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
