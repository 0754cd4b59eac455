"""The search for better noise, on a tiny random pipeline and a tiny random model of feedback."""

from typing import Any

import pytest
import torch

from rahf.improve.generator import Generator, Setting
from rahf.improve.saliency.edict import coefficients, sample
from rahf.improve.saliency.likeness import Likeness
from rahf.improve.saliency.maps import saliency_map, salient_box
from rahf.improve.saliency.optimise import BACKWARD, DOODL, SGOOL, SaliencyOptions, bounded, optimise_saliency
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor

PROMPT = "a red apple above a blue cat"
QUICK = Setting(steps=2, guidance=3.0)


@pytest.fixture(scope="module")
def predictor(tiny_model: RAHF) -> Predictor:
    """Without a judge of real pictures: everything is a composed scene to it."""
    return Predictor(tiny_model)


@pytest.mark.parametrize("method", [SGOOL, DOODL])
def test_the_search_brings_the_picture_nearer_to_the_prompt(
    inpainter: Generator, predictor: Predictor, method: str
) -> None:
    options = SaliencyOptions(method=method, iterations=5, rate=0.3)
    told: list[tuple[float, str]] = []
    made = optimise_saliency(inpainter, predictor, PROMPT, 1, options, QUICK, lambda *said: told.append(said))
    assert made.losses[made.best] == pytest.approx(min(made.losses), abs=1e-4)
    assert min(made.losses) < made.losses[0]
    assert made.improved
    assert made.picture.shape == made.before.shape == (3, 32, 32)
    assert not torch.equal(made.picture, made.before)
    assert made.saliency.shape == (32, 32)
    assert made.method == method
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    pictures = 6 if made.stopped.startswith("All") else len(made.losses)
    looks = 2 * 2 * 2  # two latents, two steps, with and without the prompt
    assert made.calls == looks * (pictures + BACKWARD * 5)


def test_the_picture_is_drawn_from_the_latents(inpainter: Generator, predictor: Predictor) -> None:
    """Sampling them again by hand gives the picture; and their length is that of the noise that the seed gives."""
    made = optimise_saliency(inpainter, predictor, PROMPT, 1, SaliencyOptions(iterations=2), QUICK)
    timesteps, alphas = inpainter.alphas(2)
    told = inpainter.embed(PROMPT)
    pair = sample(
        (made.latents, made.latents),
        lambda latents, index: inpainter.noise(latents.float(), timesteps[index], told, 3.0),
        coefficients(alphas),
        SaliencyOptions().mixing,
    )
    torch.testing.assert_close(inpainter.decode(pair[0].float())[0].clamp(0, 1), made.picture)
    torch.testing.assert_close(made.latents.norm(), inpainter.initial(1, 1).norm())


def test_the_loss_is_the_distance_of_picture_and_salient_crop(inpainter: Generator, predictor: Predictor) -> None:
    """The first loss for balance 0, 1 and 0.25, worked out from its parts."""
    found: dict[float, Any] = {}
    for balance in (0.0, 1.0, 0.25):
        options = SaliencyOptions(iterations=1, balance=balance)
        found[balance] = optimise_saliency(inpainter, predictor, PROMPT, 2, options, QUICK)
    first = {balance: made.losses[0] for balance, made in found.items()}
    picture = found[0.0].before[None]
    measure = Likeness(predictor, PROMPT, picture[0])
    box = salient_box(saliency_map(picture[0]))
    crop = torch.nn.functional.interpolate(box.crop(picture), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert first[0.0] == pytest.approx(float(measure.distance(picture)), abs=1e-5)
        assert first[1.0] == pytest.approx(float(measure.distance(crop, part=True)), abs=1e-5)
    assert first[0.25] == pytest.approx(0.75 * first[0.0] + 0.25 * first[1.0], abs=1e-5)


def test_the_same_seed_gives_the_same_and_more_starts_no_worse_a_first_picture(
    inpainter: Generator, predictor: Predictor
) -> None:
    options = SaliencyOptions(iterations=1, method=DOODL)
    once, again = (optimise_saliency(inpainter, predictor, PROMPT, 3, options, QUICK) for _ in range(2))
    assert once.losses == again.losses
    many = optimise_saliency(
        inpainter, predictor, PROMPT, 3, SaliencyOptions(iterations=1, method=DOODL, starts=4), QUICK
    )
    alone = [optimise_saliency(inpainter, predictor, PROMPT, 3 + row, options, QUICK).losses[0] for row in range(4)]
    assert many.losses[0] == pytest.approx(min(alone), abs=1e-5)


def test_where_nothing_gets_better_the_first_picture_is_given(inpainter: Generator, predictor: Predictor) -> None:
    """Steps too short to change more than the last digits."""
    made = optimise_saliency(
        inpainter, predictor, PROMPT, 0, SaliencyOptions(iterations=1, rate=1e-12, method=DOODL), QUICK
    )
    assert made.losses == pytest.approx((made.losses[0],) * 2, abs=1e-5)
    assert not made.improved
    assert torch.equal(made.picture, made.before)
    assert made.feedback is made.feedback_before
    assert made.stopped.startswith("Nothing improved")


def test_gradients_are_clipped() -> None:
    slope = torch.tensor([0.0, 1e-6, -1e-6, 1e-4])
    made = bounded(slope, 1.5)
    assert float(made[3]) == 1.5
    assert float(made[1]) == pytest.approx(1e-6 / float(slope.square().mean().sqrt()), rel=1e-4)


def test_weights_get_no_gradient(inpainter: Generator, predictor: Predictor) -> None:
    optimise_saliency(inpainter, predictor, PROMPT, 1, SaliencyOptions(iterations=1), QUICK)
    assert all(weight.grad is None for weight in predictor.model.parameters())
    assert all(weight.grad is None for weight in inpainter.pipeline.unet.parameters())


def test_what_cannot_be_searched_is_refused(inpainter: Generator, predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="no prompt is given"):
        optimise_saliency(inpainter, predictor, " ", 0)
    with pytest.raises(ValueError, match=r"iterations is 0; it must be from 1 to 200"):
        SaliencyOptions(iterations=0)
    with pytest.raises(ValueError, match=r"method is 'other'; it must be one of sgool, doodl"):
        SaliencyOptions(method="other")
    with pytest.raises(ValueError, match="needs a gradient"):
        optimise_saliency(Generator(lambda prompt: None, "some", 32, False), predictor, PROMPT)
