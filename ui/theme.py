"""The look of the page: system fonts (nothing is fetched), one accent colour, light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"
STYLES = STATIC / "app.css"


def page_script() -> str:
    """The JavaScript that runs once when the page opens."""
    return (STATIC / "page.js").read_text(encoding="utf-8")


def into_view(selector: str) -> str:
    """JavaScript of an event that brings an element into view; where it is in sight already, nothing moves."""
    return f"() => document.querySelector('{selector}').scrollIntoView({{ block: 'nearest' }})"


def make_theme() -> gr.themes.Base:
    """A quiet theme around the pictures."""
    theme = gr.themes.Default(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
    # White on teal-700 has a contrast of 5.5, enough to read at any size.
    return theme.set(
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )
