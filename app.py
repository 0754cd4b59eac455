"""Builds and launches the demo; the only place that loads models for it.

GID_WEIGHTS, RAHF_WEIGHTS and IMPROVE_WEIGHTS choose the weights (embedded, a folder, or
owner/repo[@revision][/subfolder] on the Hub), GID_MENU, RAHF_MENU and IMPROVE_MENU more of them for the page,
GID_DEVICE the device (auto, cpu, cuda or mps).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see foundation.threads; read when torch is imported

from ui import zerogpu  # noqa: F401, I001 - before anything that touches CUDA

import gradio as gr
from starlette.middleware import Middleware

from foundation.heap import keep_small
from foundation.threads import limit_threads
from gid.diffusion.loading import KIND as GID
from rahf.improve.generator import KIND as IMPROVE
from rahf.model.loading import KIND as RAHF
from ui import mcp_tools, uploads
from ui.animate.tab import build_animate_tab
from ui.feedback.tab import build_feedback_tab
from ui.feedback.service import FeedbackService
from ui.gate import SESSIONS, Doorkeeper, GuardedBlocks
from ui.improve.service import ImproveService
from ui.improve.tab import build_improve_tab, join
from ui.poke.tab import build_poke_tab
from ui.animate.service import AnimationService
from ui.theme import STYLES, make_theme, page_script
from ui.weights_menu import Choice, start_with_menu

INTRO = """# Generative Image Dynamics
Photos that sway and answer your hand, and feedback on generated pictures: after
[Generative Image Dynamics](https://generative-dynamics.github.io/) and
[Rich Human Feedback](https://arxiv.org/abs/2312.10240) (CVPR 2024)."""


def create_demo(
    service: Choice[AnimationService],
    feedback: Choice[FeedbackService] | None = None,
    notes: Sequence[str] = (),
    improve: Choice[ImproveService] | None = None,
) -> GuardedBlocks:
    """The whole page around loaded models; not launched yet. Without ``feedback`` its tab and Improve are left out.

    Each is a service, or a choice of services by visit.

    ``notes`` are quiet lines under the introduction: which weights could not be used.
    """
    uploads.uploads_folder()  # components remember where it is
    with GuardedBlocks(title="Generative Image Dynamics", delete_cache=(3600, 86400)) as demo:
        gr.Markdown(INTRO, elem_id="intro")
        if any(notes):
            gr.Markdown("  \n".join(filter(None, notes)), elem_classes="quiet", elem_id="weights-fallback")
        with gr.Tabs() as tabs:
            with gr.Tab("Animate", id="animate"):
                animate = build_animate_tab(service)
            with gr.Tab("Poke", id="poke") as poke:
                build_poke_tab(service, animate, poke)
            if feedback is not None:
                with gr.Tab("Rich feedback", id="feedback"):
                    judged = build_feedback_tab(feedback)
            if feedback is not None and improve is not None:
                with gr.Tab("Improve", id="improve"):
                    join(build_improve_tab(improve), judged, animate, tabs)
    demo.room.keep = {path for block in demo.blocks.values() for path in block.keep_in_cache}  # the examples
    return demo


def launch(demo: GuardedBlocks, **options: Any) -> tuple[Any, str, str]:
    """Launch with the project's look and settings; ``options`` go to ``gr.Blocks.launch``."""
    settings: dict[str, Any] = {
        "theme": make_theme(),
        "css_paths": STYLES,
        "js": page_script(),
        "run_history": False,
        "max_file_size": uploads.MAX_FILE,
        "app_kwargs": {"middleware": [Middleware(Doorkeeper, room=demo.room)]},
        "state_session_capacity": SESSIONS,
        "enable_monitoring": False,
        "footer_links": ["api", "settings"],
        "mcp_server": mcp_tools.wanted(),
        "ssr_mode": False,  # the canvas is drawn in the browser; a Space would start a second server for nothing
    }
    mcp_tools.keep_files_in(uploads.uploads_folder())
    return demo.queue(max_size=32).launch(**{**settings, **options})


def main() -> None:
    """Load the models and serve the page."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    limit_threads()
    keep_small()
    device = os.environ.get("GID_DEVICE", "auto")
    service, said = start_with_menu(AnimationService.load, GID, device)
    feedback, said_too = start_with_menu(FeedbackService.load, RAHF, device)
    improve, said_last = start_with_menu(partial(ImproveService.load, feedback), IMPROVE, device)
    launch(create_demo(service, feedback, (said, said_too, said_last), improve))


if __name__ == "__main__":
    main()
