"""Mistakes of a visitor become messages on the page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

logger = logging.getLogger(__name__)


@contextmanager
def explained(title: str) -> Iterator[None]:
    """Show a ``ValueError`` (which names value, limit and remedy) or a full disk as a message; let bugs through."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), title=title, print_exception=False) from error
    except OSError as error:
        logger.exception("%s", title)
        raise gr.Error(
            f"The result could not be written ({error.strerror or error}). Free some disk space and try again.",
            title=title,
        ) from error
