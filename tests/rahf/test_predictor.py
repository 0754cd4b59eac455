"""Feedback end to end: words under teacher forcing, sizes, skipping, batches, bad input."""

import io
import itertools
import json
import math
import os
import pickle
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from foundation.pictures import PictureSource, load_photo
from rahf.feedback import Feedback, WordFeedback, rank
from rahf.model.config import HEATMAPS, SCORES, RAHFConfig
from rahf.model.heads import ChannelNorm, HeatmapHead, ScoreHead
from rahf.model.precision import LARGE, has_fast_bf16, resolve_precision
from rahf.model.rahf import RAHF, TextTokens
from rahf.predictor import Predictor
from rahf.prompts import END, ByteTokenizer, encode_prompts
from rahf.words import word_probabilities, word_targets


@pytest.fixture(scope="module")
def predictor(tiny_model: RAHF) -> Predictor:
    return Predictor(tiny_model, name="tiny")


def picture(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_feedback_is_complete_and_at_the_images_own_size(predictor: Predictor) -> None:
    prompt = 'A red cat, two "dogs"!'
    feedback = predictor.predict(picture(61, 37), prompt)
    assert feedback.image_size == (61, 37)
    assert set(feedback.scores) == set(SCORES)
    assert {name: heatmap.shape for name, heatmap in feedback.heatmaps.items()} == dict.fromkeys(HEATMAPS, (37, 61))
    assert [word.text for word in feedback.words] == ["A", "red", "cat", "two", "dogs"]
    assert all(prompt[word.start : word.end] == word.text for word in feedback.words)
    assert all(0 <= word.probability <= 1 for word in feedback.words)
    assert "".join(text for text, _ in feedback.segments()) == prompt
    assert feedback.generated is None
    again = pickle.loads(pickle.dumps(feedback))
    assert again.scores == feedback.scores
    json.dumps(feedback.to_dict())


def test_only_what_is_asked_for(predictor: Predictor) -> None:
    bare = predictor.predict(picture(), "a cat", scores_only=True)
    assert (bare.heatmaps, bare.words) == ({}, ())
    full = predictor.predict(picture(), "a cat", generate=True)
    assert bare.scores == pytest.approx(full.scores, abs=1e-6)
    assert isinstance(full.generated, str)
    assert predictor.predict(picture(), "a cat", words=False).words == ()
    assert predictor.predict(picture(), "a cat", heatmaps=False).heatmaps == {}


def test_a_batch_gives_what_single_calls_give(predictor: Predictor) -> None:
    prompts = ["a cat", "a much longer prompt about " + "many words " * 12, "dog"]
    images = [picture(40 + 9 * seed, 50, seed) for seed in range(3)]
    for alone, together in zip(
        map(predictor.predict, images, prompts), predictor.predict_batch(images, prompts), strict=True
    ):
        assert together.scores == pytest.approx(alone.scores, abs=1e-5)
        np.testing.assert_allclose(together.heatmaps["misalignment"], alone.heatmaps["misalignment"], atol=1e-5)
        expected = [word.probability for word in alone.words]
        assert [word.probability for word in together.words] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("words", [["ab"], ["a", "cat", "b"]])
def test_word_probability_is_the_ratio_of_two_sequences(tiny_model: RAHF, words: list[str]) -> None:
    """Against the definition, one word at a time, each behind the decisions before it."""
    tokenizer = ByteTokenizer()
    text = encode_prompts([" ".join(words)], tiny_model.config, tokenizer)
    assert isinstance(text, TextTokens)
    with torch.no_grad():
        fused = tiny_model.fuse(tiny_model.encode_image(torch.rand(1, 3, 32, 32)), text)

        def next_log_probability(prefix: str, token: int) -> float:
            target = torch.tensor([[*tokenizer.encode(prefix), token]])
            return float(tiny_model.decode(fused, target).log_softmax(-1)[0, -1, token])

        expected, prefix = [], ""
        for place, word in enumerate(words):
            prefix += (" " if place else "") + word
            following = ord(" ") + 3 if place + 1 < len(words) else END
            with_mark, without = next_log_probability(prefix, ord("_") + 3), next_log_probability(prefix, following)
            expected.append(1 / (1 + math.exp(without - with_mark)))
            if expected[-1] > 0.5:
                prefix += "_0"
        assert word_probabilities(tiny_model, fused, [words], tokenizer, passes=9)[0] == pytest.approx(
            expected, rel=1e-4
        )


def test_word_targets_mark_the_places_where_the_decoder_chooses() -> None:
    tokenizer = ByteTokenizer()
    targets = word_targets([["ab", "c"], ["x"]], [[0, 1], [1]], tokenizer)
    assert tokenizer.decode(targets.ids[0].tolist()) == "ab_0 c"
    assert targets.places == [[2, 6], [1]]
    assert targets.following == [[ord(" ") + 3, END], [END]]
    assert targets.ids[1].tolist() == [ord("x") + 3, END] + [-100] * 5


@pytest.mark.parametrize(
    "prompt", ["🐈‍⬛ on a 🛹", "قط أحمر على الطاولة", "猫 と 犬", "line\nbreak\ttab", "a_0 b_0", "x"]
)
def test_unusual_prompts_work(predictor: Predictor, prompt: str) -> None:
    feedback = predictor.predict(picture(), prompt)
    assert [word.text for word in feedback.words] == prompt.split()
    assert "".join(text for text, _ in feedback.segments()) == prompt


def test_augmented_variant_predicts(tiny_augmented: RAHF) -> None:
    feedback = Predictor(tiny_augmented).predict(picture(), "a red cat")
    assert len(feedback.words) == 3
    assert len(set(feedback.scores.values())) == 4


def test_saved_folder_predicts_the_same(predictor: Predictor, tmp_path: Path) -> None:
    predictor.model.save_pretrained(tmp_path / "weights")
    loaded = Predictor.from_pretrained(tmp_path / "weights", device="cpu")
    assert loaded.predict(picture(), "a cat").scores == predictor.predict(picture(), "a cat").scores
    with pytest.raises(ValueError, match="neither a folder nor a Hub repository"):
        Predictor.from_pretrained(tmp_path / "absent" / "folder")


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"nobody/nothing@v1 could not be fetched.*hf download nobody/nothing"):
        Predictor.from_pretrained("nobody/nothing@v1")


def test_folder_in_batches(predictor: Predictor, tmp_path: Path) -> None:
    for seed in range(5):
        picture(seed=seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "note.txt").write_text("no image")
    found = list(predictor.predict_folder(tmp_path, "a cat", batch_size=2, scores_only=True))
    assert [path.name for path, _ in found] == [f"{seed}.png" for seed in range(5)]
    prompts = {"0.png": "a", **{str(seed): "b" for seed in range(1, 5)}}
    assert [item.prompt for _, item in predictor.predict_folder(tmp_path, prompts, scores_only=True)] == list("abbbb")
    with pytest.raises(ValueError, match=r"no prompt is given for 4\.png; add a line"):
        next(predictor.predict_folder(tmp_path, dict(itertools.islice(prompts.items(), 4))))
    with pytest.raises(ValueError, match="is not a folder"):
        next(predictor.predict_folder(tmp_path / "absent", "a cat"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        next(predictor.predict_folder(tmp_path / "empty", "a cat"))
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(predictor.predict_folder(tmp_path, "a cat", batch_size=0))


def test_lists_must_match(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="1 images came with 2 prompts"):
        predictor.predict_batch([picture()], ["a", "b"])
    assert predictor.predict_batch([], []) == []


# Images.


def test_image_modes(tmp_path: Path) -> None:
    plain = picture(20, 24)
    expected = np.asarray(plain)
    for mode in ("RGB", "RGBA", "CMYK", "P", "L", "LA", "1", "I;16", "HSV", "YCbCr"):
        converted = plain.convert(mode) if mode != "I;16" else Image.fromarray(expected[..., 0].astype(np.uint16) * 257)
        loaded = load_photo(converted)
        assert loaded.shape == (3, 24, 20), mode
        assert 0 <= loaded.min() <= loaded.max() <= 1, mode
        if mode in ("RGB", "RGBA", "CMYK"):
            np.testing.assert_allclose(loaded.permute(1, 2, 0), expected / 255, atol=2 / 255, err_msg=mode)
        if mode == "I;16":
            np.testing.assert_allclose(loaded[0], expected[..., 0] / 255, atol=1e-4)


def test_sixteen_bit_files_and_arrays(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for source in (tmp_path / "grey.png", grey, grey.astype(np.float32) / 65535):
        np.testing.assert_allclose(load_photo(source)[1], grey / 65535, atol=1e-4)


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert load_photo(clear).min() == 1
    palette = Image.new("P", (20, 20), 3)
    palette.info["transparency"] = 3
    assert load_photo(palette).min() == 1
    half = np.zeros((20, 20, 4), np.float32)
    half[..., 3] = 0.25
    np.testing.assert_allclose(load_photo(half), 0.75)


def test_rotation_mark_and_animation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(30, 20).save(tmp_path / "turned.jpg", exif=exif)
    assert load_photo(tmp_path / "turned.jpg").shape == (3, 30, 20)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert load_photo(tmp_path / "moving.gif")[:, 5, 5].tolist() == [1, 0, 0]


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    whole = io.BytesIO()
    picture(200, 200).save(whole, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:3000])
    (tmp_path / "text.png").write_text("hello")
    unusable: list[tuple[PictureSource, str]] = [
        (tmp_path / "cut.jpg", r"cut\.jpg is damaged"),
        (tmp_path / "text.png", r"text\.png is not an image"),
        (tmp_path / "absent.png", "is not a file"),
        (picture(15, 40), "15x40 pixels; each side must be at least 16"),
        (picture(100, 20), "4:1"),
        (np.zeros((20, 20, 2)), r"\(20, 20, 2\)"),
        (np.full((20, 20, 3), np.nan), "not finite"),
        (np.full((20, 20, 3), -0.5), "floats must be"),
        (torch.zeros(3, 20, 20) + 2, "outside"),
        (torch.zeros(1, 20, 20), r"\(1, 20, 20\)"),
    ]
    for source, message in unusable:
        with pytest.raises(ValueError, match=message):
            load_photo(source)


def test_over_a_hundred_megapixels_is_refused_before_decoding(tmp_path: Path) -> None:
    Image.new("1", (12000, 9000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="over 100 megapixels"):
        load_photo(tmp_path / "huge.png")
    Image.new("1", (20000, 10000)).save(tmp_path / "vast.png")
    with pytest.raises(ValueError, match="over 100 megapixels"):
        load_photo(tmp_path / "vast.png")


# Feedback.


def made_up() -> Feedback:
    heatmap = np.zeros((30, 60), np.float32)
    heatmap[2:6, 3:9] = 0.5
    heatmap[25:27, 55:57] = 0.9
    words = (WordFeedback("red", 2, 5, 0.8), WordFeedback("cat", 6, 9, 0.1))
    return Feedback("a red cat!", (60, 30), dict.fromkeys(SCORES, 0.5), {"implausibility": heatmap}, words)


def test_regions_and_reasons() -> None:
    feedback = made_up()
    first, second = feedback.regions("implausibility")
    assert (first.x, first.y, first.width, first.height, first.area) == (3, 2, 6, 4, 24)
    assert first.peak == 0.5
    assert second.peak == pytest.approx(0.9)
    assert feedback.reasons() == [
        "not shown: red",
        "implausibility 0.50 in the upper left (6x4 px)",
        "implausibility 0.90 in the lower right (2x2 px)",
    ]
    assert feedback.segments() == [("a ", None), ("red", 0.8), (" ", None), ("cat", 0.1), ("!", None)]
    with pytest.raises(ValueError, match="has no heatmap 'misalignment'"):
        feedback.regions("misalignment")


def test_ranking() -> None:
    items = [Feedback("", (1, 1), {"plausibility": p, "alignment": a}) for p, a in [(0.2, 0.9), (0.8, 0.1), (0.6, 0.6)]]
    assert [place for place, _ in rank(items)] == [2, 0, 1]
    assert rank(items, {"plausibility": 2})[0] == (1, pytest.approx(0.8))
    assert rank([]) == []
    with pytest.raises(ValueError, match="no score is called beauty"):
        rank(items, {"beauty": 1})
    with pytest.raises(ValueError, match="must not be negative"):
        rank(items, {"plausibility": -1})


# Speed paths: the same outputs, whatever the layout in memory, the chunks and the number format.


def heads() -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """Heads with weights that let the outputs use their range, and features for each."""
    torch.manual_seed(3)
    made: list[torch.nn.Module] = [HeatmapHead(24, (16, 12), (12, 8)), ScoreHead(24, 6, (16, 5), (8,))]
    for head in made:
        for parameter in head.parameters():
            if parameter.shape[1:] in ((), (1, 1)):  # a bias, or the scale of a norm
                torch.nn.init.uniform_(parameter, -0.5, 1.5)
            else:
                torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return [(head, torch.randn(3, 24, 6, 6)) for head in made]


@pytest.mark.parametrize("chunk", [16, 300, 2**18])
def test_heads_without_gradients_give_what_they_give_with(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("rahf.model.heads.CHUNK", chunk)
    for head, features in heads():
        expected = head(features).detach()
        before = features.clone()
        with torch.no_grad():
            lean = head(features)
            alone = head(features[1:2])
        assert expected.std() > 0.005
        torch.testing.assert_close(lean, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(alone, expected[1:2], atol=1e-5, rtol=0)
        assert torch.equal(features, before), "what the caller holds stays as it is"


def test_in_place_norm_matches_its_definition() -> None:
    generator = np.random.default_rng(0)
    values, added = generator.normal(size=(2, 2, 7, 5, 4)).astype(np.float32)
    norm = ChannelNorm(7)
    scale = generator.normal(size=(7, 1, 1)).astype(np.float32)
    norm.scale.data = torch.from_numpy(scale)
    expected = np.maximum(values / np.sqrt((values**2).mean(axis=1, keepdims=True) + 1e-8) * scale + added, 0)
    for kind, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-2)):
        x, residual = (
            torch.from_numpy(array.copy()).to(kind, memory_format=torch.channels_last) for array in (values, added)
        )
        with torch.no_grad():
            found = norm.normalise_(x, residual, relu=True)
        assert found.data_ptr() == x.data_ptr()
        np.testing.assert_allclose(found.float().numpy(), expected, atol=tolerance)


def test_bfloat16_stays_close_to_float32(tiny_config: RAHFConfig) -> None:
    torch.manual_seed(0)
    exact = RAHF(tiny_config).eval()
    for head in (*exact.heatmap_predictor.values(), *exact.score_predictor.values()):
        for layer in head.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    half = RAHF(tiny_config).eval()
    half.load_state_dict(exact.state_dict())
    half.to(torch.bfloat16)
    image = picture(64, 64)
    ours, theirs = (Predictor(model).predict(image, "a red cat") for model in (exact, half))
    assert np.std(ours.heatmaps["implausibility"]) > 0.05
    for name in HEATMAPS:
        np.testing.assert_allclose(theirs.heatmaps[name], ours.heatmaps[name], atol=2e-2)
        assert theirs.heatmaps[name].dtype == np.float32
    assert theirs.scores == pytest.approx(ours.scores, abs=2e-2)
    expected = [word.probability for word in ours.words]
    assert [word.probability for word in theirs.words] == pytest.approx(expected, abs=2e-2)


def test_precision_follows_the_size_of_the_weights_and_the_processor(tmp_path: Path) -> None:
    assert resolve_precision("bfloat16", "cpu", tmp_path) == torch.bfloat16
    (tmp_path / "model.safetensors").touch()
    assert resolve_precision("auto", "cpu", tmp_path) == torch.float32
    os.truncate(tmp_path / "model.safetensors", LARGE + 1)  # a hole: takes no room on the disk
    fast = has_fast_bf16("cpu")
    assert resolve_precision("auto", "cpu", tmp_path) == (torch.bfloat16 if fast else torch.float32)
    assert resolve_precision("auto", "mps", tmp_path) == torch.float32
    with pytest.raises(ValueError, match="precision is 'double'; it must be one of auto, float32"):
        resolve_precision("double", "cpu", tmp_path)
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "flags" in flags.read_text():
        known = set(flags.read_text().split())
        assert fast == bool({"avx512_bf16", "amx_bf16"} & known)


def test_saved_weights_load_in_the_precision_asked_for(predictor: Predictor, tmp_path: Path) -> None:
    predictor.model.save_pretrained(tmp_path / "weights")
    for precision, kind in (("auto", torch.float32), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16)):
        assert Predictor.from_pretrained(tmp_path / "weights", "cpu", precision).model.dtype == kind
