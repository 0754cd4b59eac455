"""A whole page with tiny weights, shared by the tests of what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.ui.site import Site


@pytest.fixture(scope="session")
def whole_demo() -> Any:
    """The page with all its tabs."""
    from app import create_demo
    from rahf.improve.generator import wrap
    from rahf.model.rahf import RAHF
    from rahf.predictor import Predictor
    from tests.rahf.conftest import TINY
    from tests.rahf.improve.pipelines import make
    from tests.tiny import tiny_pipeline
    from ui.animate.service import AnimationService
    from ui.feedback.service import FeedbackService
    from ui.improve.service import ImproveService

    torch.manual_seed(0)
    feedback = FeedbackService(Predictor(RAHF(TINY), name="tiny"), "tiny")
    improve = ImproveService(lambda: wrap(make("sd-inpaint"), "tiny"), feedback, "tiny")
    return create_demo(AnimationService(tiny_pipeline(), "tiny"), feedback, improve=improve)


@pytest.fixture(scope="session")
def site(whole_demo: Any) -> Iterator[Site]:
    """The page on a live server."""
    from app import launch

    _, url, _ = launch(whole_demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Site(url)
    whole_demo.close()
