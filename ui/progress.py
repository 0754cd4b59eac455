"""How services tell how far they are: a function of the share that is done, 0 to 1, and what is being done."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
Count = Callable[[int, int], None]  # done, of how many


def silent(share: float, text: str) -> None:
    """Tells nobody."""


def show(share: float, text: str) -> None:
    """Tell the visitor whose event is being handled; found by name in a GPU process, too."""
    import gradio as gr

    gr.Progress()(share, desc=text)


def part(progress: Progress, start: float, end: float, text: str) -> Count:
    """What counts steps between two shares of the whole; ``text`` names ``done`` and ``total`` in braces."""

    def counted(done: int, total: int) -> None:
        progress(start + (end - start) * done / max(total, 1), text.format(done=done, total=total))

    return counted
