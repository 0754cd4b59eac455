"""Batches, losses, augmentation, resuming, evaluation and reports on a tiny model."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foundation.training import learning_rate
from rahf.data.augment import Augmentation, crop, recode, shift_colours
from rahf.data.samples import Sample
from rahf.evaluation.report import PAPER, collect, constant_predictions, summarise, table, to_json
from rahf.model.config import HEATMAPS, SCORES, RAHFConfig
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from rahf.prompts import ByteTokenizer
from rahf.sheets import contact_sheet, overlay, report
from rahf.training.batches import collate, losses
from rahf.training.feedback import TrainConfig, train


class Samples:
    """A set of samples in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def made(seed: int, words: tuple[int, ...] | None = (1, 0, 1), labelled: bool = True) -> Sample:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    heatmap = np.zeros((20, 24), np.float32)
    if seed % 2:
        heatmap[4:10, 6:14] = 0.8
    return Sample(
        name=str(seed),
        image=image,
        prompt="a red cat",
        heatmaps=dict.fromkeys(HEATMAPS, heatmap) if labelled else {},
        scores={name: float(generator.random()) for name in SCORES} if labelled else {},
        words=words,
    )


TOKENIZER = ByteTokenizer()


def test_batches_hold_what_the_samples_say(tiny_config: RAHFConfig) -> None:
    batch = collate([made(1), made(2, words=None, labelled=False)], tiny_config, TOKENIZER)
    assert batch.images.shape == (2, 3, 32, 32)
    assert TOKENIZER.decode(batch.targets.ids[0].tolist()) == "a red_0 cat"
    assert (batch.targets.ids[1] == -100).all()
    assert batch.marks == [[0, 1, 0], None]
    for heatmap in batch.heatmaps.values():
        assert heatmap.shape == (2, 16, 16)
        assert float(heatmap[0].mean()) == pytest.approx(0.8 * 48 / 480, rel=0.05)
        assert torch.isnan(heatmap[1]).all()
    assert torch.isnan(batch.scores["overall"]).tolist() == [False, True]


def test_losses_against_their_definitions(tiny_model: RAHF, tiny_config: RAHFConfig) -> None:
    batch = collate([made(1), made(3)], tiny_config, TOKENIZER)
    with torch.no_grad():
        output = tiny_model(batch.images, batch.texts, targets=batch.targets.ids)
        found = losses(output, batch, TOKENIZER)
    heatmap = [F.mse_loss(output.heatmaps[name], batch.heatmaps[name]) for name in HEATMAPS]
    score = [F.mse_loss(output.scores[name], batch.scores[name]) for name in SCORES]
    assert float(found["heatmap"]) == pytest.approx(float(sum(heatmap)) / 2, rel=1e-5)
    assert float(found["score"]) == pytest.approx(float(sum(score)) / 4, rel=1e-5)
    assert output.word_logits is not None
    expected = F.cross_entropy(output.word_logits.transpose(1, 2), batch.targets.ids)
    assert float(found["words"]) == pytest.approx(float(expected), rel=1e-5)
    mark, blank, end = ord("_") + 3, ord(" ") + 3, 1
    # "a red_0 cat": the decoder chooses behind "a", "red" and "cat".
    total = 0.0
    for row in output.word_logits:
        for place, following, marked in ((1, blank, False), (5, blank, True), (11, end, False)):
            chance = float(torch.sigmoid(row[place, mark] - row[place, following]))
            total -= math.log(chance if marked else 1 - chance)
    assert float(found["choice"]) == pytest.approx(total / 6, rel=1e-4)


def test_padding_and_missing_labels_do_not_count(tiny_model: RAHF, tiny_config: RAHFConfig) -> None:
    """A longer or unlabelled neighbour leaves the losses of a sample as they are."""
    alone = collate([made(1)], tiny_config, TOKENIZER)
    unlabelled = replace(made(2, words=None, labelled=False), prompt="a very much longer prompt than the other one")
    both = collate([made(1), unlabelled], tiny_config, TOKENIZER)
    with torch.no_grad():
        first, second = (
            losses(tiny_model(b.images, b.texts, targets=b.targets.ids), b, TOKENIZER) for b in (alone, both)
        )
    for name in first:
        assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-4), name
    bare = collate([made(2, words=None, labelled=False)], tiny_config, TOKENIZER)
    found = losses(tiny_model(bare.images, bare.texts, targets=bare.targets.ids), bare, TOKENIZER)
    assert {name: loss.item() for name, loss in found.items()} == dict.fromkeys(found, 0.0)
    torch.stack(list(found.values())).sum().backward()


def test_crops_move_heatmaps_along() -> None:
    y, x = np.mgrid[0:80, 0:120]
    pattern = ((x // 10 + y // 10) % 2).astype(np.float32)
    image = np.repeat((pattern[..., None] * 255).astype(np.uint8), 3, axis=-1)
    sample = Sample("x", image, "a cat", dict.fromkeys(HEATMAPS, pattern), words=(1, 1))
    for seed in range(10):
        smaller = crop(sample, 0.8, np.random.default_rng(seed))
        assert min(smaller.image.shape[0] / 80, smaller.image.shape[1] / 120) >= 0.79
        for heatmap in smaller.heatmaps.values():
            assert np.array_equal(heatmap * 255, smaller.image[..., 0])


def test_augmentation_is_repeatable_and_keeps_labels() -> None:
    sample, strong = made(1), Augmentation(1, 0.8, 1, 0.3, 1, 1)
    first, second = (strong(sample, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert (first.words, first.scores, first.prompt) == (sample.words, sample.scores, sample.prompt)
    assert np.ptp(first.image, axis=-1).max() == 0  # grey
    none = Augmentation(0, 0.8, 0, 0, 0, 0)(sample, np.random.default_rng(4))
    assert np.array_equal(none.image, sample.image)
    assert np.abs(shift_colours(sample.image, 0.0, np.random.default_rng(0)).astype(int) - sample.image).max() <= 4
    flat = np.full((32, 32, 3), 128, np.uint8)
    assert np.abs(recode(flat, 90).astype(int) - 128).max() <= 2


def test_learning_rate_rises_then_falls_as_a_reciprocal_root(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path, learning_rate=1.0, warmup_steps=100)
    assert learning_rate(0, config) == pytest.approx(0.01)
    assert learning_rate(99, config) == pytest.approx(1.0)
    assert learning_rate(399, config) == pytest.approx(0.5)


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_config: RAHFConfig, tmp_path: Path) -> None:
    source = Samples([made(seed) for seed in range(6)])
    config = TrainConfig(tmp_path, steps=4, batch_size=2, warmup_steps=2, save_every=2, log_every=2, learning_rate=1e-3)
    model_config = tiny_config.changed(dropout=0.1)

    def fresh() -> RAHF:
        torch.manual_seed(0)
        return RAHF(model_config)

    parts = replace(config, out=tmp_path / "parts")
    train(fresh(), source, TOKENIZER, replace(config, out=tmp_path / "whole"))
    train(fresh(), source, TOKENIZER, replace(parts, steps=2))
    torch.manual_seed(99)
    train(fresh(), source, TOKENIZER, parts)
    one, other = (RAHF.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    for (name, first), second in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]) == {
        *("step", "seconds", "loss", "gradient_norm"),
        *("heatmap", "score", "words", "choice"),
    }
    with pytest.raises(ValueError, match="trained with other learning_rate"):
        train(fresh(), source, TOKENIZER, replace(parts, learning_rate=2e-3))
    with pytest.raises(ValueError, match="no sample"):
        train(fresh(), Samples([]), TOKENIZER, replace(config, out=tmp_path / "none"))


def test_training_learns_a_few_samples(tiny_config: RAHFConfig, tmp_path: Path) -> None:
    source = Samples([made(seed, words=(1, seed % 2, 1)) for seed in range(4)])
    few = {"steps": 40, "batch_size": 4, "warmup_steps": 5, "save_every": 40, "log_every": 8}
    config = TrainConfig(tmp_path / "run", **few, learning_rate=3e-3, augmentation=None)
    torch.manual_seed(0)
    model = RAHF(tiny_config)
    train(model, source, TOKENIZER, config)
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    for name in ("heatmap", "words", "choice"):
        assert logged[-1][name] < logged[0][name], name
    feedback = Predictor(RAHF.from_pretrained(tmp_path / "run")).predict(source[1].image, "a red cat")
    assert set(feedback.scores) == set(SCORES)


def test_blind_models_see_one_input_only(tiny_config: RAHFConfig) -> None:
    torch.manual_seed(0)
    no_image = Predictor(RAHF(tiny_config.changed(blind="image")))
    assert no_image.predict(made(1).image, "a cat").scores == no_image.predict(made(2).image, "a cat").scores
    assert no_image.predict(made(1).image, "a cat").scores != no_image.predict(made(1).image, "a dog").scores
    no_text = Predictor(RAHF(tiny_config.changed(blind="text")))
    assert no_text.predict(made(1).image, "a cat").scores == no_text.predict(made(1).image, "a dog").scores
    with pytest.raises(ValueError, match="'prompt'"):
        tiny_config.changed(blind="prompt")


class Oracle(Predictor):
    """Gives the labels of the samples it was made with."""

    def __init__(self, model: RAHF, samples: Sequence[Sample]) -> None:
        super().__init__(model)
        self.known = {sample.image.tobytes(): sample for sample in samples}

    def predict_batch(self, images, prompts, *args, **kwargs):  # type: ignore[no-untyped-def]
        found = super().predict_batch(images, prompts, *args, **kwargs)
        truth = [self.known[image.tobytes()] for image in images]
        return [
            replace(
                item,
                scores=dict(sample.scores) or item.scores,
                heatmaps=dict(sample.heatmaps) or item.heatmaps,
                words=tuple(
                    replace(word, probability=1.0 - label)
                    for word, label in zip(item.words, sample.words or (1,) * len(item.words), strict=True)
                ),
            )
            for item, sample in zip(found, truth, strict=True)
        ]


def test_evaluation_of_a_perfect_model_and_of_a_constant(tiny_model: RAHF, tmp_path: Path) -> None:
    samples = [made(seed, words=(1, seed % 3 > 0, 1)) for seed in range(9)] + [made(20, words=None, labelled=False)]
    source = Samples(samples)
    perfect = summarise(collect(Oracle(tiny_model, samples), source, batch_size=4), resamples=50)
    for name in ("plausibility plcc", "overall srcc", "misalignment cc", "words f1", "words per sample f1"):
        assert perfect[name].value == pytest.approx(1), name
    assert perfect["implausibility mse"].value == 0
    assert perfect["implausibility mse"].count == 9
    assert perfect["implausibility mse of clean"].count == 5
    assert perfect["implausibility auc"].count == 4
    constant = summarise(constant_predictions(source, source), resamples=50)
    assert math.isnan(constant["plausibility plcc"].value)
    assert constant["words recall"].value == 0
    assert constant["implausibility auc"].value > 0.9  # its mean map is where every fault of these samples is
    text = table({"perfect": perfect, "constant": constant})
    assert "| implausibility auc |" in text
    assert "| words f1 | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] | 0.439 |" in text
    assert set(PAPER) <= set(perfect)
    assert json.loads(json.dumps(to_json(constant)))["plausibility plcc"]["value"] is None
    real = summarise(collect(Predictor(tiny_model), source, batch_size=3, limit=5), resamples=20)
    assert real["plausibility plcc"].count == 5


def test_reports_are_pictures(tiny_model: RAHF) -> None:
    image = made(1).image
    feedback = Predictor(tiny_model).predict(image, "a red cat, " + "many words " * 20)
    sheet = report(image, feedback)
    assert sheet.width > 900
    assert sheet.height > 400
    assert contact_sheet([sheet, sheet, sheet]).size == (2 * sheet.width, 2 * sheet.height)
    with pytest.raises(ValueError, match="no report"):
        contact_sheet([])
    clear = overlay(image, np.zeros(image.shape[:2], np.float32))
    assert np.array_equal(clear, image)
    assert not np.array_equal(overlay(image, np.ones(image.shape[:2], np.float32)), image)
