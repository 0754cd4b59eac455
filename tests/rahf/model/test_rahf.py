"""The model against the description of the released one, and its promises: masks, gradients, skipping, saving."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rahf.model.config import HEATMAPS, PRESETS, SCORES, TASKS, WORDS, RAHFConfig, preset
from rahf.model.heads import ChannelNorm, HeatmapHead, ScoreHead
from rahf.model.rahf import RAHF, TextTokens


def texts(lengths: list[int], width: int | None = None, seed: int = 0) -> TextTokens:
    width = width or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(3, 259, (length - 1,), generator=generator)
        ids[row, length - 1] = 1
    return TextTokens(ids, torch.arange(width)[None] < torch.tensor(lengths)[:, None])


def test_public_preset_has_the_released_size_and_layout() -> None:
    with torch.device("meta"):
        model = RAHF(preset("public"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 642_612_710
    assert len(model.state_dict()) == 842
    assert PRESETS["public"].heatmap_size == 384
    assert PRESETS["public"].grid == 24


def test_public_heads_have_the_released_sizes() -> None:
    config = preset("public")
    with torch.device("meta"):
        heatmap = HeatmapHead(config.text_width, config.heatmap_stem, config.heatmap_stages)
        score = ScoreHead(config.text_width, config.grid, config.score_channels, config.score_hidden)
        assert heatmap(torch.empty(1, 768, 24, 24)).shape == (1, 384, 384)
        assert score(torch.empty(1, 768, 24, 24)).shape == (1,)
    assert sum(parameter.numel() for parameter in heatmap.parameters()) / 1e6 == pytest.approx(32.2, abs=0.05)
    assert sum(parameter.numel() for parameter in score.parameters()) / 1e6 == pytest.approx(12.4, abs=0.05)
    linear = score.state_dict()
    assert [tuple(linear[f"linear_layers.{i}.weight"].shape) for i in (0, 2, 4)] == [(512, 6912), (128, 512), (1, 128)]


def test_scores_alone_cost_at_most_two_fifths_of_everything() -> None:
    """Counted in floating-point operations on the meta device, part by part: together 1.9 TFLOP as described."""
    with torch.device("meta"):
        model, image, ids = RAHF(preset("public")), torch.empty(1, 3, 384, 384), torch.zeros(1, 32, dtype=torch.long)

    def encoder() -> Tensor:
        visual = model.encode_image(image)
        return model.t5.encoder(inputs_embeds=torch.cat([visual, model.t5.shared(ids)], dim=1)).last_hidden_state

    def count(part: Callable[[], object]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            part()
        return counter.get_total_flops()

    hidden = torch.empty(1, 609, 768, device="meta")
    features = torch.empty(1, 768, 24, 24, device="meta")
    towers = count(encoder)
    heatmaps = sum(count(partial(model.head(name), features)) for name in HEATMAPS)
    scores = sum(count(partial(model.head(name), features)) for name in SCORES)
    words = count(lambda: model.t5.lm_head(model.t5.decoder(ids, encoder_hidden_states=hidden).last_hidden_state))
    full = towers + heatmaps + scores + words
    assert full == pytest.approx(1.9e12, rel=0.05)
    assert heatmaps / full == pytest.approx(0.7, abs=0.03)
    assert towers + scores < 0.4 * full


def test_paper_preset_is_vit_b_at_512() -> None:
    assert (PRESETS["paper"].grid, PRESETS["paper"].heatmap_size, PRESETS["paper"].vit_layers) == (32, 512, 12)


def test_small_preset_fits_two_ten_megabyte_files_in_half_precision() -> None:
    with torch.device("meta"):
        model = RAHF(preset("small"))
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 2 * 9.4e6


def test_channel_norm_is_root_mean_square_over_channels() -> None:
    norm = ChannelNorm(5)
    norm.scale.data = torch.rand(5, 1, 1)
    x = torch.randn(2, 5, 3, 4)
    expected = x.numpy() / np.sqrt((x.numpy() ** 2).mean(axis=1, keepdims=True) + 1e-8) * norm.scale.detach().numpy()
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-5)


def test_outputs_have_their_shapes_and_ranges(tiny_model: RAHF) -> None:
    out = tiny_model(torch.rand(2, 3, 50, 40), texts([9, 5]), targets=torch.randint(0, 300, (2, 7)))
    assert set(out.heatmaps) == set(HEATMAPS)
    assert set(out.scores) == set(SCORES)
    for heatmap in out.heatmaps.values():
        assert heatmap.shape == (2, 16, 16)
        assert 0 < heatmap.min() <= heatmap.max() < 1
    for score in out.scores.values():
        assert score.shape == (2,)
    assert out.word_logits is not None
    assert out.word_logits.shape == (2, 7, 384)


def test_image_tokens_keep_their_places(tiny_model: RAHF) -> None:
    """Feature (row, column) must be token 1 + row * grid + column."""
    text = texts([6])
    visual = tiny_model.encode_image(torch.rand(1, 3, 32, 32))
    fused = tiny_model.fuse(visual, text)
    embedded = torch.cat([visual, tiny_model.t5.shared(text.ids)], dim=1)
    hidden = tiny_model.t5.encoder(inputs_embeds=embedded).last_hidden_state
    torch.testing.assert_close(fused.features[0, :, 2, 3], hidden[0, 1 + 2 * 4 + 3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused.context, hidden[:, 17:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_results_do_not_depend_on_the_batch(tiny_model: RAHF) -> None:
    """One image alone, and in a batch of eight beside short and long prompts."""
    lengths = [7, 3, 60, 2, 31, 7, 12, 100]
    images, text = torch.rand(8, 3, 32, 32), texts(lengths)
    targets = torch.randint(3, 300, (8, 20))
    together = tiny_model(images, text, targets=targets)
    for row, length in enumerate(lengths):
        alone_text = TextTokens(text.ids[row : row + 1, :length], text.mask[row : row + 1, :length])
        alone = tiny_model(images[row : row + 1], alone_text, targets=targets[row : row + 1])
        for name in HEATMAPS:
            torch.testing.assert_close(alone.heatmaps[name][0], together.heatmaps[name][row], atol=1e-5, rtol=0)
        for name in SCORES:
            torch.testing.assert_close(alone.scores[name][0], together.scores[name][row], atol=1e-5, rtol=0)
        assert alone.word_logits is not None
        assert together.word_logits is not None
        torch.testing.assert_close(alone.word_logits[0], together.word_logits[row], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_generation_does_not_depend_on_the_batch(tiny_model: RAHF) -> None:
    images, text = torch.rand(3, 3, 32, 32), texts([5, 40, 12])
    together = tiny_model.generate(tiny_model.fuse(tiny_model.encode_image(images), text), 15)
    for row, length in enumerate([5, 40, 12]):
        alone_text = TextTokens(text.ids[row : row + 1, :length], text.mask[row : row + 1, :length])
        alone = tiny_model.generate(tiny_model.fuse(tiny_model.encode_image(images[row : row + 1]), alone_text), 15)
        assert alone[0].tolist() == together[row, : alone.shape[1]].tolist()


@torch.no_grad()
def test_teacher_forcing_and_generation_agree(tiny_model: RAHF) -> None:
    """Each freely generated token is the likeliest one under teacher forcing of those before it."""
    fused = tiny_model.fuse(tiny_model.encode_image(torch.rand(1, 3, 32, 32)), texts([9]))
    generated = tiny_model.generate(fused, 12)
    forced = tiny_model.decode(fused, generated).argmax(-1)
    assert forced.tolist() == generated.tolist()


@torch.no_grad()
def test_decoder_matches_the_library_forward(tiny_model: RAHF) -> None:
    fused = tiny_model.fuse(tiny_model.encode_image(torch.rand(2, 3, 32, 32)), texts([9, 4]))
    targets = torch.randint(3, 300, (2, 6))
    expected = tiny_model.t5(encoder_outputs=(fused.context,), attention_mask=fused.mask.long(), labels=targets).logits
    torch.testing.assert_close(tiny_model.decode(fused, targets), expected, atol=1e-5, rtol=1e-5)


def test_scores_are_differentiable_in_an_image_of_any_size(tiny_model: RAHF) -> None:
    image = torch.rand(1, 3, 70, 45, requires_grad=True)
    out = tiny_model(image, texts([5]))
    (out.scores["plausibility"].sum() + out.heatmaps["implausibility"].mean()).backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert (image.grad != 0).float().mean() > 0.9


def test_gradient_agrees_with_a_finite_difference(tiny_config: RAHFConfig) -> None:
    torch.manual_seed(1)
    model = RAHF(tiny_config).eval().double()
    image, step = torch.rand(1, 3, 40, 40, dtype=torch.float64, requires_grad=True), 1e-5
    direction, text = torch.randn_like(image), texts([5])
    (gradient,) = torch.autograd.grad(model(image, text, heatmaps=()).scores["overall"].sum(), image)
    with torch.no_grad():
        ahead = model(image + step * direction, text, heatmaps=()).scores["overall"]
        behind = model(image - step * direction, text, heatmaps=()).scores["overall"]
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-2)


def test_only_what_is_asked_for_is_computed(tiny_model: RAHF) -> None:
    ran: list[str] = []
    parts = {**dict(tiny_model.heatmap_predictor.items()), **dict(tiny_model.score_predictor.items())}
    hooks = [part.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, part in parts.items()]
    hooks.append(tiny_model.t5.decoder.register_forward_hook(lambda *_: ran.append(WORDS)))
    tiny_model(torch.rand(1, 3, 32, 32), texts([4]), heatmaps=(), scores=("overall",))
    for hook in hooks:
        hook.remove()
    assert ran == ["overall"]


def test_preparation_squashes_like_pillow(tiny_model: RAHF) -> None:
    """The release squashed with Pillow's antialiased bilinear filter."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    prepared = tiny_model.prepare(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    np.testing.assert_allclose(prepared[0].permute(1, 2, 0).numpy() * 0.5 + 0.5, expected, atol=1.5 / 255)


@torch.no_grad()
def test_augmented_variant_runs_one_pass_a_task(tiny_augmented: RAHF) -> None:
    prompts = {name: texts([6, 9], seed=seed) for seed, name in enumerate(TASKS)}
    out = tiny_augmented(torch.rand(2, 3, 32, 32), prompts, targets=torch.randint(3, 300, (2, 5)))
    assert len(tiny_augmented.heatmap_predictor) == len(tiny_augmented.score_predictor) == 1
    assert not torch.allclose(out.scores["plausibility"], out.scores["overall"])
    assert not torch.allclose(out.heatmaps["implausibility"], out.heatmaps["misalignment"])
    with pytest.raises(ValueError, match="one text an output"):
        tiny_augmented(torch.rand(2, 3, 32, 32), texts([6, 9]))


def test_wrong_requests_are_named(tiny_model: RAHF) -> None:
    with pytest.raises(ValueError, match="'beauty'"):
        tiny_model(torch.rand(1, 3, 32, 32), texts([4]), scores=("beauty",))
    with pytest.raises(ValueError, match=r"2 images came with 1 prompts"):
        tiny_model(torch.rand(2, 3, 32, 32), texts([4]))
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\)"):
        tiny_model(torch.rand(1, 1, 32, 32), texts([4]))
    with pytest.raises(ValueError, match="'huge'"):
        preset("huge")
    with pytest.raises(ValueError, match="multiple of patch_size"):
        RAHFConfig(image_size=100)


@torch.no_grad()
def test_saving_and_loading_gives_the_same_model(tiny_model: RAHF, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "weights")
    loaded = RAHF.from_pretrained(tmp_path / "weights")
    assert loaded.config == tiny_model.config
    assert json.loads((tmp_path / "weights" / "config.json").read_text())["variant"] == "multi_head"
    image, text = torch.rand(1, 3, 32, 32), texts([8])
    targets = torch.randint(3, 300, (1, 5))
    before, after = tiny_model(image, text, targets=targets), loaded(image, text, targets=targets)
    assert torch.equal(before.heatmaps["misalignment"], after.heatmaps["misalignment"])
    assert torch.equal(before.word_logits, after.word_logits)
    assert loaded.t5.lm_head.weight is loaded.t5.shared.weight
    assert not loaded.training


@torch.no_grad()
def test_half_precision_stays_close(tiny_model: RAHF) -> None:
    half = copy.deepcopy(tiny_model).to(torch.bfloat16)
    image, text = torch.rand(1, 3, 32, 32), texts([8])
    full = tiny_model(image, text).scores["plausibility"]
    assert float(half(image, text).scores["plausibility"]) == pytest.approx(float(full), abs=0.02)
