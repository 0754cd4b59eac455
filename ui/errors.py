"""Mistakes of a visitor become messages on the page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from foundation.files import disk_is_full
from ui.uploads import NOT_SENT, uploads_folder

logger = logging.getLogger(__name__)


@contextmanager
def explained(title: str) -> Iterator[None]:
    """Show a ``ValueError`` (which names value, limit and remedy) or trouble with a file as a message; bugs go on."""
    try:
        yield
    except OSError as error:  # before ValueError: an error may be both, and then it names paths of the server
        raise gr.Error(_of_system(error, title), title=title, print_exception=False) from error
    except ValueError as error:
        raise gr.Error(str(error), title=title, print_exception=False) from error


def _of_system(error: OSError, title: str) -> str:
    """What a visitor is told when a file could not be read or written."""
    if isinstance(error, FileNotFoundError) and str(error.filename or "").startswith(str(uploads_folder())):
        return f"{NOT_SENT}."
    logger.error("%s", title, exc_info=error)
    if disk_is_full(error):
        return "The result could not be written: the disk is full. Free some disk space and try again."
    return f"The server could not read or write a file ({error.strerror or type(error).__name__}). Try again."
