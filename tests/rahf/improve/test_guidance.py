"""Scores with a gradient, and guidance by them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rahf.improve.generator import Generator, Setting, Step, wrap
from rahf.improve.guidance import GuidanceOptions, Leader, ascend, guide, slope_at
from rahf.improve.scores import ScoreGradient
from rahf.model.config import SCORES
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.improve.pipelines import SIDE, make
from tests.rahf.pictures.test_feedback import make as make_judge

PROMPT = "a red ball"


def blue(pictures: torch.Tensor) -> torch.Tensor:
    """How blue pictures (B,3,H,W) are."""
    return pictures[:, 2].mean((1, 2)) - pictures[:, 0].mean((1, 2))


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_predictors(tiny_model: RAHF, score: str, picture: torch.Tensor) -> None:
    """Of both judges."""
    for composed in (20.0, -20.0):
        predictor = Predictor(tiny_model, pictures=make_judge(composed))
        expected = predictor.predict(picture, "a cat", scores_only=True)
        with torch.no_grad():
            value = ScoreGradient(predictor, "a cat", score).value(picture[None])
            chosen = ScoreGradient(predictor, "a cat", score, expected.judged_as).value(picture[None])
        assert expected.judged_as == ("composed scene" if composed > 0 else "picture")
        assert float(value[0]) == pytest.approx(expected.scores[score], abs=2e-4)
        assert torch.equal(value, chosen)


@pytest.mark.parametrize("composed", [20.0, -20.0])
def test_scores_have_the_gradient_of_finite_differences(
    tiny_model: RAHF, composed: float, picture: torch.Tensor
) -> None:
    predictor = Predictor(tiny_model, pictures=make_judge(composed))
    score = ScoreGradient(predictor, "a cat", "aesthetics")
    point = (0.2 + 0.6 * picture)[None].requires_grad_()
    (slope,) = torch.autograd.grad(score(point).sum(), point)
    direction = slope / slope.norm()
    with torch.no_grad():
        measured = (score(point + 0.02 * direction) - score(point - 0.02 * direction)) / 0.04
    assert float(slope.norm()) == pytest.approx(float(measured), rel=0.03)
    assert float(slope.norm()) > 0


def test_pretrained_pyramid_gives_a_gradient() -> None:
    """The embedded model's tower, whose first layers are never trained."""
    from rahf.model.pyramid import PyramidTower

    torch.manual_seed(0)
    tower = PyramidTower(8, 4).eval()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(tower(images).square().sum(), images)
    assert slope.abs().sum() > 0
    tower(images.detach()).sum().backward()
    assert all(value.grad is None for value in tower.trunk.stem.parameters())


def a_step(generator: Generator, setting: Setting, index: int) -> Step:
    """One step of drawing, caught on the way."""
    caught: list[Step] = []

    def adjust(step: Step) -> torch.Tensor:
        if step.index == index:
            caught.append(step)
        return step.advance(step.latents, step.predict(step.latents))

    generator.generate(PROMPT, 1, 0, setting, adjust=adjust)
    return caught[0]


def test_the_gradient_goes_through_network_and_decoder(generator: Generator, quick: Setting) -> None:
    step = a_step(generator, quick, 2)
    seen, slope = slope_at(step, step.latents, blue)
    assert torch.equal(seen.epsilon, step.predict(step.latents).epsilon)
    direction = slope / slope.norm()

    def value(latents: torch.Tensor) -> float:
        with torch.no_grad():
            return float(blue(generator.decode(step.predict(latents).original)))

    width = 0.02
    measured = (value(step.latents + width * direction) - value(step.latents - width * direction)) / (2 * width)
    assert float(slope.norm()) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    "options",
    [
        GuidanceOptions(forward=0.5),
        GuidanceOptions(forward=0.0, backward_steps=3, backward_rate=0.3),
        GuidanceOptions(forward=0.3, backward_steps=2, recurrence=2),
    ],
)
def test_guidance_leads_where_it_should(generator: Generator, quick: Setting, options: GuidanceOptions) -> None:
    plain = generator.generate(PROMPT, 2, 0, quick)
    leader = Leader(blue, options)
    led = generator.generate(PROMPT, 2, 0, quick, adjust=leader)
    assert (blue(led) > blue(plain)).all()
    assert leader.guided == 3
    assert torch.equal(led, generator.generate(PROMPT, 2, 0, quick, adjust=Leader(blue, options)))
    alone = generator.generate(PROMPT, 1, 1, quick, adjust=Leader(blue, options))
    torch.testing.assert_close(alone[0], led[1], atol=1e-4, rtol=0)


def test_a_flat_score_leads_nowhere_and_is_counted(inpainter: Generator, quick: Setting) -> None:
    leader = Leader(lambda pictures: (pictures * 0).sum((1, 2, 3)), GuidanceOptions(forward=0.5))
    led = inpainter.generate(PROMPT, 2, 0, quick, adjust=leader)
    torch.testing.assert_close(led, inpainter.generate(PROMPT, 2, 0, quick), atol=1e-5, rtol=0)
    assert leader.flat == 3 * 2


def test_backward_guidance_is_gradient_ascent_on_the_expected_picture(inpainter: Generator, quick: Setting) -> None:
    step = a_step(inpainter, quick, 2)
    original = step.predict(step.latents).original
    options = GuidanceOptions(backward_steps=4, backward_rate=0.2)
    found = ascend(step, original, blue, options)
    assert float(blue(inpainter.decode(found))) > float(blue(inpainter.decode(original)))
    assert float((found - original).norm()) <= 0.2 * float(original.norm()) * (1 + 1e-4)
    seen = Leader(blue, replace(options, forward=0.0))._led(step, step.latents)
    torch.testing.assert_close(seen.original, found, atol=1e-4, rtol=1e-4)


def test_pictures_are_drawn_with_and_without(inpainter: Generator, predictor: Predictor, quick: Setting) -> None:
    looks = 0

    def count(*_: object) -> None:
        nonlocal looks
        looks += 2

    handle = inpainter.pipeline.unet.register_forward_pre_hook(count)
    found = guide(PROMPT, inpainter, predictor, 1, GuidanceOptions(forward=0.5, setting=quick), seed=4)
    handle.remove()
    assert torch.equal(found.plain, inpainter.generate(PROMPT, 1, 4, quick))
    assert found.pictures.shape == (1, 3, SIDE, SIDE)
    for picture, told in ((found.plain[0], found.before[0]), (found.pictures[0], found.after[0])):
        assert told.scores == pytest.approx(predictor.predict(picture, PROMPT).scores, abs=1e-5)
    assert "3 steps of 4" in found.stopped
    assert looks == 2 * inpainter.cost(1, quick)  # once without and once with; gradients are counted beside them
    assert found.calls == inpainter.cost(1, quick) + 3 * 2 * 2


def test_what_cannot_be_guided_is_said(inpainter: Generator, predictor: Predictor, tiny_model: RAHF) -> None:
    flat = wrap(make("sd"), "painter")
    flat.differentiable = False
    with pytest.raises(ValueError, match=r"painter .* does not give"):
        guide(PROMPT, flat, predictor)
    with pytest.raises(ValueError, match="no prompt"):
        guide("", inpainter, predictor)
    with pytest.raises(ValueError, match="score is 'beauty'"):
        GuidanceOptions(score="beauty")
    with pytest.raises(ValueError, match="guides nothing"):
        GuidanceOptions(forward=0.0)
    with pytest.raises(ValueError, match="must end after it begins"):
        GuidanceOptions(begin=0.9, end=0.2)
    with pytest.raises(ValueError, match="no score is called"):
        ScoreGradient(predictor, PROMPT, "beauty")
