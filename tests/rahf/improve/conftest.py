"""Tiny generators for the tests of the tools, made once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rahf.improve.generator import Generator, Setting, wrap
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.improve.pipelines import SIDE, make, save

KINDS = ("sd", "sd-inpaint", "xl", "xl-inpaint")


@pytest.fixture(scope="session")
def pipelines() -> dict[str, Any]:
    """Pipelines of diffusers by kind."""
    return {kind: make(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def generators(pipelines: dict[str, Any]) -> dict[str, Generator]:
    """The same behind the interface."""
    return {kind: wrap(pipeline, kind) for kind, pipeline in pipelines.items()}


@pytest.fixture(params=KINDS)
def generator(request: pytest.FixtureRequest, generators: dict[str, Generator]) -> Generator:
    """Each of them in turn."""
    return generators[request.param]


@pytest.fixture(scope="session")
def inpainter(generators: dict[str, Generator]) -> Generator:
    """One that is built as the embedded one is: Stable Diffusion with nine channels."""
    return generators["sd-inpaint"]


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder."""
    return save("sd-inpaint", tmp_path_factory.mktemp("generator"))


@pytest.fixture
def quick() -> Setting:
    """Few steps."""
    return Setting(steps=4, guidance=3.0)


@pytest.fixture
def picture() -> torch.Tensor:
    """(3,32,32) smooth random colours, of 8 bits."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    grown = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic", align_corners=True)[0].clamp(0, 1)
    return (grown * 255).round() / 255


@pytest.fixture
def mask() -> torch.Tensor:
    """(32,32) bool, a square in the middle that falls on whole latents."""
    found = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    found[8:20, 12:24] = True
    return found


@pytest.fixture(scope="session")
def predictor(tiny_model: RAHF) -> Predictor:
    """A random model of composed scenes: its scores mean nothing, but they differ from picture to picture."""
    return Predictor(tiny_model, name="tiny")
