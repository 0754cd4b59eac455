"""The interface over pipelines of diffusers, against the pipelines' own calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rahf.improve.generation.windows import Window, cut, cut_mask, paste, window_of
from rahf.improve.generator import Generator, Setting, Step, load_generator, wrap
from tests.rahf.improve.pipelines import SIDE, make

PROMPT = "two red cats"


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def everything() -> dict[str, Any]:
    """What a pipeline that inpaints takes for drawing from text alone: everything masked."""
    return {"image": torch.full((1, 3, SIDE, SIDE), 0.5), "mask_image": torch.ones(1, 1, SIDE, SIDE), "strength": 1.0}


def of_the_mean(pipeline: Any, grey: torch.Tensor) -> torch.Tensor:
    """Latents of a masked picture as the mean of the autoencoder, where the pipeline would draw from it."""
    return pipeline.vae.encode(2 * grey - 1).latent_dist.mode() * pipeline.vae.config.scaling_factor


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_are_those_of_the_pipeline(generator: Generator, guidance: float) -> None:
    options: dict[str, Any] = {"height": SIDE, "width": SIDE}
    if generator.name.endswith("inpaint"):
        grey = of_the_mean(generator.pipeline, torch.full((1, 3, SIDE, SIDE), 0.5))
        options |= everything() | {"masked_image_latents": grey}
    theirs = generator.pipeline(
        PROMPT,
        num_inference_steps=5,
        guidance_scale=guidance,
        num_images_per_prompt=2,
        generator=seeds(7, 8),
        output_type="pt",
        **options,
    ).images
    ours = generator.generate(PROMPT, 2, 7, Setting(steps=5, guidance=guidance))
    assert ours.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_other_predictions_are_understood(prediction: str) -> None:
    pipeline = make("sd", prediction)
    theirs = pipeline(PROMPT, num_inference_steps=4, guidance_scale=3.0, generator=seeds(3), output_type="pt").images
    ours = wrap(pipeline).generate(PROMPT, 1, 3, Setting(steps=4, guidance=3.0))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_noise_without_signal_at_the_start() -> None:
    """A schedule that begins with pure noise, where noise alone does not give the picture."""
    from diffusers import DDIMScheduler

    pipeline = make("sd", "v_prediction")
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    theirs = pipeline(PROMPT, num_inference_steps=5, generator=seeds(3), guidance_scale=2.0, output_type="pt").images
    ours = wrap(pipeline).generate(PROMPT, 1, 3, Setting(steps=5, guidance=2.0))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_latents_of_a_loop_of_ones_own_are_the_pipelines(generators: dict[str, Generator]) -> None:
    """noise(), alphas() and initial() are enough for DDIM."""
    generator = generators["sd"]
    conditioning, latents = generator.embed(PROMPT), generator.initial(1, 5)
    timesteps, alphas = generator.alphas(5)
    for index, timestep in enumerate(timesteps):
        with torch.no_grad():
            noise = generator.noise(latents, timestep, conditioning, 4.0)
        now, after = alphas[index], alphas[index + 1]
        latents = after.sqrt() * (latents - (1 - now).sqrt() * noise) / now.sqrt() + (1 - after).sqrt() * noise
    theirs = generator.pipeline(
        PROMPT, num_inference_steps=5, guidance_scale=4.0, generator=seeds(5), output_type="latent"
    ).images
    torch.testing.assert_close(latents, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_filling_is_that_of_the_pipeline(
    generator: Generator, picture: torch.Tensor, mask: torch.Tensor, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the mask; where a pipeline draws latents from the autoencoder's distribution it is held to the mean."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    kind = StableDiffusionXLInpaintPipeline if generator.name.startswith("xl") else StableDiffusionInpaintPipeline
    options = {} if generator.name.startswith("xl") else {"requires_safety_checker": False, "safety_checker": None}
    pipeline = kind(**generator.pipeline.components | options)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPT,
        image=picture[None],
        mask_image=mask[None, None].float(),
        height=SIDE,
        width=SIDE,
        strength=strength,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=seeds(2),
        output_type="pt",
    ).images
    ours = generator.inpaint(
        picture, mask, PROMPT, 1, 2, Setting(steps=6, guidance=3.0, strength=strength, seamless=False)
    )
    torch.testing.assert_close(ours[:, :, mask], theirs[:, :, mask], atol=2e-5, rtol=0)
    assert torch.equal(ours[0][:, ~mask], picture[:, ~mask])


def test_a_seed_is_a_picture(generator: Generator, quick: Setting, picture: torch.Tensor, mask: torch.Tensor) -> None:
    three = generator.generate(PROMPT, 3, 10, quick)
    assert torch.equal(three, generator.generate(PROMPT, 3, 10, quick))
    torch.testing.assert_close(generator.generate(PROMPT, 1, 12, quick)[0], three[2], atol=1e-5, rtol=0)
    assert not torch.allclose(three[0], three[1], atol=1e-3)
    assert torch.equal(
        generator.inpaint(picture, mask, PROMPT, 1, 4, quick), generator.inpaint(picture, mask, PROMPT, 1, 4, quick)
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (70, 45), (30, 24), (200, 190)])
@pytest.mark.parametrize("padding", [None, 3])
def test_nothing_changes_outside_of_the_mask(
    inpainter: Generator, quick: Setting, height: int, width: int, padding: int | None
) -> None:
    random = torch.Generator().manual_seed(height)
    picture = (torch.rand(3, height, width, generator=random) * 255).round() / 255
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[height // 2 : height // 2 + 9, -8:] = True
    made = inpainter.inpaint(picture, mask, PROMPT, 2, 0, Setting(steps=4, guidance=1.0, padding=padding))
    assert made.shape == (2, 3, height, width)
    bytes_of = lambda values: (values * 255).round().to(torch.uint8)  # noqa: E731
    for one in made:
        assert torch.equal(one[:, ~mask], picture[:, ~mask])
        assert torch.equal(bytes_of(one)[:, ~mask], bytes_of(picture)[:, ~mask])
        assert (one[:, mask] - picture[:, mask]).abs().mean() > 0.01


def test_a_mask_over_everything_draws_a_new_picture(
    inpainter: Generator, quick: Setting, picture: torch.Tensor
) -> None:
    everything = torch.ones(SIDE, SIDE, dtype=torch.bool)
    made = inpainter.inpaint(picture, everything, PROMPT, 1, 6, quick)
    torch.testing.assert_close(made, inpainter.generate(PROMPT, 1, 6, quick), atol=1e-5, rtol=0)


def test_windows_hold_the_mask_and_lie_in_the_picture() -> None:
    mask = torch.zeros(400, 600, dtype=torch.bool)
    mask[380:395, 5:25] = True
    assert window_of(mask, 128) == Window(0, 272, 128)
    assert window_of(mask, 128, padding=10) == Window(0, 360, 40)
    mask[10, 500] = True
    assert window_of(mask, 128).side == 496 + 32
    assert window_of(mask, 1024) == Window(0, -100, 600)


def test_a_window_of_the_right_size_is_cut_without_loss() -> None:
    picture = torch.rand(3, 50, 70)
    mask = torch.zeros(50, 70, dtype=torch.bool)
    mask[20:30, 60:69] = True
    window = window_of(mask, 32)
    shown = cut(picture, window, 32)
    assert torch.equal(shown[0], picture[:, window.top : window.top + 32, window.left : window.left + 32])
    assert torch.equal(
        cut_mask(mask, window, 32)[0, 0].nonzero().amin(0), torch.tensor([20 - window.top, 60 - window.left])
    )
    assert torch.equal(paste(picture, mask, window, shown)[0], picture)
    assert torch.equal(paste(picture, mask, window, shown, seamless=False)[0], picture)


def test_what_is_filled_in_meets_what_is_around() -> None:
    """A picture that comes back too bright: at the rim the step is gone, deep inside nothing is changed."""
    picture = torch.full((3, 128, 128), 0.4)
    made = picture[None] + 0.2
    made[:, :, 50:78, 50:78] = 0.9
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[24:104, 24:104] = True
    window = window_of(mask, 128)
    plain, seamless = (paste(picture, mask, window, made, value)[0] for value in (False, True))
    assert float(plain[0, 64, 24]) == pytest.approx(0.6)
    assert float(seamless[0, 64, 24]) == pytest.approx(0.4, abs=0.02)
    assert float(seamless[0, 64, 40]) == pytest.approx(0.6, abs=1e-3)
    assert torch.equal(seamless[:, 50:78, 50:78], made[0, :, 50:78, 50:78])
    assert torch.equal(seamless[:, ~mask], picture[:, ~mask])
    everything = torch.ones_like(mask)
    assert torch.equal(paste(picture, everything, window, made)[0], made[0])


def test_gradients_flow(generator: Generator) -> None:
    """Of noise, decoder and encoder, against finite differences."""
    conditioning, timestep = generator.embed(PROMPT), generator.alphas(4)[0][1]
    latents = generator.initial(1, 0)
    weight = torch.rand(latents.shape, generator=torch.Generator().manual_seed(3))

    def loss(values: torch.Tensor) -> torch.Tensor:
        seen = generator.predict(values, timestep, conditioning, 2.0)
        return (seen.epsilon * weight).sum() + generator.decode(seen.original).square().sum()

    point = latents.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(point), point)
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    step = 3e-3
    with torch.no_grad():
        measured = (loss(latents + step * direction) - loss(latents - step * direction)) / (2 * step)
    assert float((slope * direction).sum()) == pytest.approx(float(measured), rel=0.02)
    grown = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    (back,) = torch.autograd.grad(generator.encode(grown).square().sum(), grown)
    assert back.abs().sum() > 0


def test_a_step_can_be_replaced(inpainter: Generator, quick: Setting) -> None:
    seen: list[int] = []

    def adjust(step: Step) -> torch.Tensor:
        seen.append(step.index)
        assert float(step.after) > float(step.alpha)
        return step.advance(step.latents, step.predict(step.latents))

    changed = inpainter.generate(PROMPT, 1, 0, quick, adjust=adjust)
    assert seen == [0, 1, 2, 3]
    assert torch.equal(changed, inpainter.generate(PROMPT, 1, 0, quick))


def test_cost_counts_the_calls_of_the_network(inpainter: Generator, picture: torch.Tensor, mask: torch.Tensor) -> None:
    rows = 0

    def count(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    handle = inpainter.pipeline.unet.register_forward_pre_hook(count)
    setting = Setting(steps=5, guidance=3.0, strength=0.6)
    inpainter.generate(PROMPT, 3, 0, setting)
    assert rows == inpainter.cost(3, setting) == 30
    rows = 0
    inpainter.inpaint(picture, mask, PROMPT, 2, 0, setting)
    handle.remove()
    assert rows == inpainter.cost(2, setting, inpainting=True) == 12


def test_progress_goes_to_the_end(inpainter: Generator, quick: Setting) -> None:
    shares: list[float] = []
    inpainter.generate(PROMPT, 10, 0, quick, progress=lambda share, what: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_folder_is_loaded(generator_folder: Path, inpainter: Generator, quick: Setting) -> None:
    loaded = load_generator(generator_folder, "cpu")
    assert loaded.differentiable
    assert loaded.side == SIDE
    torch.testing.assert_close(
        loaded.generate(PROMPT, 1, 0, quick), inpainter.generate(PROMPT, 1, 0, quick), atol=1e-5, rtol=0
    )
    (generator_folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    assert load_generator(generator_folder, "cpu").license == "cc0-1.0"


def test_half_precision_draws_nearly_the_same(generator: Generator, quick: Setting, picture: torch.Tensor) -> None:
    half = wrap(make(generator.name).to(torch.bfloat16), "half")
    exact = generator.generate(PROMPT, 1, 0, quick)
    assert (half.generate(PROMPT, 1, 0, quick) - exact).abs().mean() < 0.05
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:, 16:] = True
    made = half.inpaint(picture, mask, PROMPT, 1, 0, quick)
    assert torch.equal(made[0][:, ~mask], picture[:, ~mask])
    assert (made - generator.inpaint(picture, mask, PROMPT, 1, 0, quick)).abs().mean() < 0.05
    with torch.enable_grad():
        latents = half.initial(1, 0).requires_grad_()
        half.noise(latents, half.alphas(4)[0][1], half.embed(PROMPT), 2.0).sum().backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()


@pytest.mark.parametrize("refuses", [True, False])
def test_a_safety_checker_is_asked(quick: Setting, refuses: bool) -> None:
    """What it refuses is black, as in the pipeline."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**sizes, "image_size": 32, "patch_size": 16}, text_config=sizes, projection_dim=4)
    ).eval()
    checker.concept_embeds_weights.data.fill_(-2.0 if refuses else 2.0)  # thresholds of a cosine
    checker.special_care_embeds_weights.data.fill_(2.0)
    parts = make("sd").components
    parts |= {
        "safety_checker": checker,
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    }
    pipeline = StableDiffusionPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    ours = wrap(pipeline).generate(PROMPT, 2, 0, quick)
    options: dict[str, Any] = {"guidance_scale": 3.0, "num_images_per_prompt": 2, "output_type": "pt"}
    theirs = pipeline(PROMPT, num_inference_steps=4, generator=seeds(0, 1), **options).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert bool((ours == 0).all()) is refuses


def test_what_cannot_be_done_is_said(
    inpainter: Generator, quick: Setting, picture: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        inpainter.generate("  ", 1, 0, quick)
    with pytest.raises(ValueError, match="mask is empty"):
        inpainter.inpaint(picture, torch.zeros_like(mask), PROMPT, 1, 0, quick)
    with pytest.raises(ValueError, match="32x32 pixels"):
        inpainter.inpaint(picture, mask[:20], PROMPT, 1, 0, quick)
    with pytest.raises(ValueError, match="multiple of 4"):
        inpainter.generate(PROMPT, 1, 0, Setting(side=66))
    with pytest.raises(ValueError, match="nothing is left"):
        inpainter.inpaint(picture, mask, PROMPT, 1, 0, Setting(steps=2, strength=0.1))
    with pytest.raises(ValueError, match="steps is 0"):
        Setting(steps=0)
    with pytest.raises(ValueError, match="count is 100"):
        inpainter.generate(PROMPT, 100, 0, quick)
    with pytest.raises(ValueError, match="neither a folder nor"):
        load_generator("nowhere at all")
    (tmp_path / "model_index.json").write_text('{"_class_name": "Something"}')
    with pytest.raises(ValueError, match="names no pipeline"):
        load_generator(tmp_path)


def test_a_full_device_is_told(inpainter: Generator, quick: Setting) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = inpainter.pipeline.unet.register_forward_pre_hook(full)
    with pytest.raises(ValueError, match="no memory left"):
        inpainter.generate(PROMPT, 2, 0, quick)
    handle.remove()
