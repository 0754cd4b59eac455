"""Takes pictures of every tab: `PYTHONPATH=. python examples/make_screenshots.py OUT`, with chromium.

Animate and Poke empty and with a result, Rich feedback empty, with an example and with a comparison, Improve empty and
with a repair; on a desktop and a phone, light and dark. --url looks at an app that runs already; --readme draws the
README's pictures, docs/feedback.jpg and docs/improve.jpg.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
BROWSER = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL2 without a graphics card
DOCS = Path(__file__).resolve().parent.parent / "docs"
PATIENCE = 120_000  # milliseconds
HEAD = (0.3, 0.35)  # of the first example, a dandelion


def serve(weights: str) -> Any:
    """The app with embedded motion weights; gives the demo and its address."""
    from app import create_demo, launch
    from ui.animate.service import AnimationService
    from ui.feedback.service import FeedbackService
    from ui.improve.service import ImproveService

    judge = FeedbackService.load(weights)
    demo = create_demo(AnimationService.load(), judge, improve=ImproveService.load(judge))
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    return demo, url


def shoot(browser: Any, url: str, size: str, theme: str, out: Path) -> None:
    """One visit, tab by tab."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}?__theme={theme}")

    def save(name: str) -> None:
        page.mouse.move(1, 1)
        page.wait_for_timeout(700)
        page.screenshot(path=out / f"{size}-{theme}-{name}.png", full_page=True)

    page.locator("#animate-button").wait_for()
    save("animate-empty")
    page.get_by_role("tab", name="Poke").click()
    page.locator("#poke-button").wait_for()
    save("poke-empty")
    page.get_by_role("tab", name="Animate").click()
    animate(page, save)
    page.get_by_role("tab", name="Poke").click()  # photo and motion come along
    poke(page, save)
    page.get_by_role("tab", name="Rich feedback").click()
    feedback(page, save)
    page.get_by_role("tab", name="Improve").click()
    improve(page, save)
    page.close()


def animate(page: Any, save: Callable[[str], None]) -> None:
    """The first example, as a video and in the live preview."""
    page.locator(".gallery-item").locator("visible=true").first.click()
    page.wait_for_function("() => document.querySelector('#animate-video video')?.currentTime > 0")
    save("animate")
    page.get_by_role("tab", name="Live preview").click()
    page.locator("#animate-live .gid-poke-ready").wait_for()
    save("animate-live")


def poke(page: Any, save: Callable[[str], None]) -> None:
    """The photo on the canvas, and a poke rendered."""
    page.locator("#poke-canvas .gid-poke-ready").wait_for()
    save("poke")
    canvas = page.locator("#poke-canvas canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = (
        box[side] + share * box[length] for side, length, share in zip("xy", ("width", "height"), HEAD, strict=True)
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 5, steps=4)
    page.mouse.up()
    page.locator("#poke-render").click()
    page.wait_for_function("() => document.querySelector('#poke-video video')?.currentTime > 0")
    save("poke-video")


def feedback(page: Any, save: Callable[[str], None]) -> None:
    """The empty tab, an example, and a comparison."""
    page.locator("#feedback-button").wait_for()
    save("feedback-empty")
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    save("feedback")
    page.get_by_role("tab", name="Compare pictures").click()
    page.locator("#feedback-compare").wait_for()
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-many .rahf-ready").wait_for()
    save("feedback-compare")


def improve(page: Any, save: Callable[[str], None]) -> None:
    """The empty tab, and a repair of an example with what the feedback marks painted."""
    page.locator("#improve-repair").wait_for()
    page.wait_for_timeout(1000)
    save("improve-empty")
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#improve-picture img").first.wait_for()
    page.get_by_text("Paint where to draw anew").click()
    page.locator("#improve-painter canvas").wait_for()
    page.locator("#improve-mark").click()
    page.get_by_text("What is painted will be drawn anew").wait_for()
    page.locator("#improve-repair").click()
    page.locator("#improve-told table").wait_for()
    save("improve")


def draw_readme_picture(shot: Path, picture: Path) -> None:
    """A desktop's picture of one example, made smaller, without what stands far down."""
    with Image.open(shot) as page:
        shown = page.convert("RGB").crop((0, 0, page.width, min(page.height, 1236)))
        shown.thumbnail((1000, 1236))
        shown.save(picture, quality=85, optimize=True)


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
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
        for size, theme in (("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")):
            shoot(browser, url, size, theme, options.out)
        browser.close()
    if options.readme:
        for name in ("feedback", "improve"):
            draw_readme_picture(options.out / f"desktop-light-{name}.png", DOCS / f"{name}.jpg")
    if demo is not None:
        demo.close()


if __name__ == "__main__":
    main()
