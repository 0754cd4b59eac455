"""Shared by the tests: the app on a live server, with tiny real weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

# Files whose tests start browsers, servers, several processes or trainings; `make test-fast` leaves them out.
SLOW = {
    *("test_app.py", "test_feedback_app.py", "test_mcp.py", "test_offline.py", "test_zerogpu.py", "test_space.py"),
    *("test_uploads.py", "test_api_types.py", "test_video_colours.py", "test_pictures_colour.py"),
    *("test_folders.py", "test_hub_killed.py", "test_hub_push.py", "test_hub_faults.py", "test_app_fallback.py"),
    *("test_weights_menu.py", "test_responses.py", "test_files.py", "test_threads.py", "test_pictures_refused.py"),
    *(
        "test_generator_training.py",
        "test_judge.py",
        "test_recognition.py",
        "test_training.py",
        "test_motion_map.py",
        "test_renderer_training.py",
    ),
    *("test_triton.py", "test_cpu_frames.py", "test_distribution_metrics.py", "test_flow.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by the file it stands in."""
    for item in items:
        if item.path.name in SLOW or item.path.stem.endswith("_browser"):
            item.add_marker(pytest.mark.slow)


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
