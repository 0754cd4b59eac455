"""Documented endpoints: functions whose annotations are their types, for programs and assistants."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import gradio as gr


def offer(function: Callable[..., Any], name: str, concurrency_id: str) -> None:
    """Offer a function as ``/name`` inside the current ``gr.Blocks``; it waits with others of its ``concurrency_id``.

    Gradio reads annotations as they stand, and here they stand as text.
    """
    function.__annotations__ = typing.get_type_hints(function)
    gr.api(function, api_name=name, concurrency_id=concurrency_id)
