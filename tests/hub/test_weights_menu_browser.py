"""The menu of weights as a visitor sees it: a real browser. Skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.test_app_browser import Visit, browser, playwright, pytestmark, set_quick  # noqa: F401 - fixtures
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app with two folders of weights on its menu, and a line about weights that were asked for in vain."""
    from app import create_demo, launch
    from ui.service import AnimationService
    from ui.weights_menu import chosen_service, fallback_note

    folder = tmp_path_factory.mktemp("menu") / "other"
    tiny_pipeline().save_pretrained(folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("GID_MENU", str(folder))
    patch.delenv("GID_WEIGHTS", raising=False)
    patch.delenv("GRADIO_SERVER_NAME", raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    service = chosen_service(AnimationService(tiny_pipeline(), "embedded"), "cpu")
    demo = create_demo(service, notes=(fallback_note("nobody/nothing", "they are not there"), ""))
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    demo.close()
    patch.undo()


@pytest.mark.parametrize("look", [("light", 1280, 900), ("dark", 390, 844)], ids=["desktop-light", "phone-dark"])
def test_choosing_weights(
    browser: playwright.Browser,  # noqa: F811
    page_url: str,
    picture: Path,
    look: tuple[str, int, int],
) -> None:
    visit, other = Visit(browser, page_url, *look), Visit(browser, page_url, *look)
    page = visit.page
    assert "nobody/nothing" in page.locator("#weights-fallback").inner_text()
    set_quick(visit)
    menu = page.locator("#weights-menu input")
    assert menu.input_value() == "embedded"
    menu.click()
    page.get_by_role("option", name="other").click()
    page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    page.wait_for_function("() => document.querySelector('#weights-menu input').value === 'other'")
    page.locator("#animate-button").click()
    page.locator("#animate-note").get_by_text("Motion by the other weights").wait_for()

    menu.fill("someone/else")
    menu.press("Enter")
    page.locator("#weights-note").get_by_text("HF_HUB_OFFLINE").wait_for()
    page.wait_for_function("() => document.querySelector('#weights-menu input').value === 'embedded'")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/weights-menu-{look[0]}.png", full_page=True)

    set_quick(other)  # another visit has chosen nothing
    other.page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    other.page.locator("#animate-photo img").first.wait_for()
    other.page.locator("#animate-button").click()
    other.page.locator("#animate-note").get_by_text("Motion by the embedded weights").wait_for()
    overflow = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    assert visit.faults == other.faults == []
    visit.context.close()
    other.context.close()
