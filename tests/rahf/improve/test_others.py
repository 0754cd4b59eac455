"""A pipeline that is built otherwise (Flux): pictures and masks by its own call, and a sentence where that ends."""

from __future__ import annotations

import pytest
import torch

from rahf.improve.generator import Generator, Setting, wrap
from rahf.improve.guidance import guide
from rahf.improve.repair import RepairOptions, repair
from rahf.predictor import Predictor
from tests.rahf.improve.pipelines import make_flux

PROMPT = "a red ball"
SIDE = 64
SETTING = Setting(steps=2, guidance=2.0, side=SIDE)


@pytest.fixture(scope="module")
def flux() -> Generator:
    return wrap(make_flux(), "flux")


def test_pictures_are_those_of_the_pipeline(flux: Generator) -> None:
    theirs = flux.pipeline(
        PROMPT,
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        guidance_scale=2.0,
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(seed) for seed in (4, 5)],
        output_type="pt",
    ).images
    assert torch.equal(flux.generate(PROMPT, 2, 4, SETTING), theirs)
    shares: list[float] = []
    flux.generate(PROMPT, 1, 4, SETTING, progress=lambda share, what: shares.append(share))
    assert shares == [0.5, 1.0]


def test_masks_are_filled(flux: Generator, predictor: Predictor) -> None:
    picture = (torch.rand(3, 90, 64, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    mask = torch.zeros(90, 64, dtype=torch.bool)
    mask[50:70, 10:40] = True
    made = flux.inpaint(picture, mask, PROMPT, 2, 0, SETTING)
    assert made.shape == (2, 3, 90, 64)
    assert torch.equal(made[0][:, ~mask], picture[:, ~mask])
    assert (made[0] - picture)[:, mask].abs().mean() > 0.05
    options = RepairOptions(candidates=2, rounds=1, gain=0.0, tolerance=1.0, setting=SETTING)
    assert repair(picture, PROMPT, flux, predictor, mask, options).rounds


def test_what_it_cannot_do_is_said(flux: Generator, predictor: Predictor) -> None:
    assert not flux.differentiable
    for attempt in (
        lambda: guide(PROMPT, flux, predictor),
        lambda: flux.alphas(4),
        lambda: flux.embed(PROMPT),
        lambda: flux.initial(1, 0),
        lambda: flux.generate(PROMPT, 1, 0, SETTING, adjust=lambda step: step.latents),
    ):
        with pytest.raises(ValueError, match=r"flux \(FluxPipeline\) does not give"):
            attempt()
