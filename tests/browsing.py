"""Pages in a real browser, which take down everything that goes wrong; the browser itself is a fixture."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

PATIENCE = 120_000  # milliseconds; a machine under load is slow, not broken
HERE = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:")
LOOKS = [("light", 1280, 900), ("dark", 390, 844)]
LOOK_NAMES = ["desktop-light", "phone-dark"]


@dataclass
class Visit:
    """A page with everything it did wrong."""

    page: Any
    problems: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(
            self.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )


AnyVisit = TypeVar("AnyVisit", bound=Visit)


def open_page(
    browser: Any, kind: type[AnyVisit], url: str = "", theme: str = "light", width: int = 1280, height: int = 900
) -> AnyVisit:
    """A page of its own visit that takes down every error and every request that leaves the machine."""
    page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    seen = kind(page)
    page.on("pageerror", lambda error: seen.problems.append(f"error: {error}"))
    page.on("console", lambda line: seen.problems.append(line.text) if line.type == "error" else None)

    def check(request: Any) -> None:
        if not request.url.startswith(HERE):
            seen.problems.append(f"request to {request.url}")

    page.on("request", check)
    if url:
        page.goto(f"{url}?__theme={theme}")
    return seen
