"""Shared by the tests: the app on a live server, with tiny real weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


@pytest.fixture(scope="session")
def app_url() -> Iterator[str]:
    """The address of the running app, on this machine only."""
    from app import create_demo, launch
    from tests.tiny import tiny_pipeline
    from ui.animate.service import AnimationService

    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"))
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    demo.close()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny weights of gid, for commands; nobody changes it."""
    from tests.tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("weights")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo on disk."""
    from tests.tiny import photo

    path = tmp_path_factory.mktemp("photo") / "photo.png"
    photo().save(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser that draws WebGL without a graphics card. Skipped where there is none."""
    from tests.browsing import CHROMIUM

    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()
