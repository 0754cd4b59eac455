"""Takes pictures of the Rich feedback tab: `PYTHONPATH=. python examples/make_screenshots.py OUT`, with chromium.

The empty tab, an example and a comparison, on a desktop and a phone, light and dark. --url looks at an app that runs
already; --readme also draws the README's picture, docs/feedback.jpg.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
README = Path(__file__).resolve().parent.parent / "docs" / "feedback.jpg"
PATIENCE = 120_000  # milliseconds


def serve(weights: str) -> Any:
    """The app with embedded motion weights; gives the demo and its address."""
    from app import create_demo, launch
    from ui.feedback_service import FeedbackService
    from ui.service import AnimationService

    demo = create_demo(AnimationService.load(), FeedbackService.load(weights))
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    return demo, url


def shoot(browser: Any, url: str, size: str, theme: str, out: Path) -> None:
    """One visit: the empty tab, an example, and a comparison."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}?__theme={theme}")
    page.get_by_role("tab", name="Rich feedback").click()
    page.locator("#feedback-button").wait_for()
    page.wait_for_timeout(500)

    def save(name: str) -> None:
        page.wait_for_timeout(500)
        page.screenshot(path=out / f"{size}-{theme}-{name}.png", full_page=True)

    save("empty")
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    save("one")
    page.get_by_role("tab", name="Compare pictures").click()
    page.locator("#feedback-compare").wait_for()
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-many .rahf-ready").wait_for()
    save("many")
    page.close()


def draw_readme_picture(shot: Path) -> None:
    """A desktop's picture of one example, made smaller, without what stands under the reasons."""
    with Image.open(shot) as page:
        picture = page.convert("RGB").crop((0, 0, page.width, min(page.height, 1300)))
        picture.thumbnail((1000, 1300))
        picture.save(README, quality=85, optimize=True)


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", default="")
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    demo, url = (None, options.url) if options.url else serve(options.weights)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size, theme in (("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")):
            shoot(browser, url, size, theme, options.out)
        browser.close()
    if options.readme:
        draw_readme_picture(options.out / "desktop-light-one.png")
    if demo is not None:
        demo.close()


if __name__ == "__main__":
    main()
