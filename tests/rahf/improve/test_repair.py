"""Repair: where it draws, what it keeps, when it stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rahf.feedback import Feedback, WordFeedback
from rahf.improve.generator import Generator, Setting, wrap
from rahf.improve.masks import free_place, grow, mask_from_heatmap
from rahf.improve.repair import MISSING, RepairOptions, choose, mask_of, repair
from rahf.predictor import Predictor
from tests.rahf.improve.pipelines import SIDE, make

PROMPT = "a red ball"
ANY = RepairOptions(candidates=3, rounds=2, gain=0.0, tolerance=1.0, floor=0.0)


def feedback(plausibility: float, alignment: float, *missing: float) -> Feedback:
    words = tuple(WordFeedback(f"w{index}", 0, 1, chance) for index, chance in enumerate(missing))
    return Feedback("w", (8, 8), {"plausibility": plausibility, "alignment": alignment}, words=words)


def test_a_mask_is_what_the_heatmap_marks_and_a_little_around() -> None:
    heatmap = np.zeros((40, 60), np.float32)
    heatmap[10, 20], heatmap[30, 50] = 0.8, 0.19
    alone = mask_from_heatmap(heatmap, threshold=0.25, floor=0.16, dilation=0.0)
    assert alone.nonzero().tolist() == [[10, 20]]
    assert mask_from_heatmap(heatmap, 0.2, 0.16, 0.0).sum() == 2
    grown = mask_from_heatmap(heatmap, 0.25, 0.16, 0.05).numpy()
    rows, columns = np.mgrid[:40, :60]
    assert np.array_equal(grown, (rows - 10) ** 2 + (columns - 20) ** 2 <= 9)
    assert not mask_from_heatmap(heatmap * 0.1, 0.25, 0.16, 0.05).any()
    assert not mask_from_heatmap(np.zeros((4, 4), np.float32), 0.25, 0.0, 0.0).any()
    assert not grow(np.zeros((4, 4), bool), 3).any()


def test_something_missing_gets_the_emptiest_place() -> None:
    picture = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    picture[:, 20:60, 40:85] = 0.5
    place = free_place(picture, share=0.45)
    rows, columns = place.nonzero().T
    assert place.sum() == 29 * 29
    assert rows.min() >= 18
    assert rows.max() <= 62
    assert columns.min() >= 38
    assert columns.max() <= 87


def test_the_best_candidate_that_loses_nothing_is_chosen() -> None:
    options = RepairOptions(gain=0.02, tolerance=0.1)
    now = feedback(0.5, 0.7)
    assert choose(now, [feedback(0.6, 0.7), feedback(0.9, 0.5), feedback(0.8, 0.65)], options) == 2
    assert choose(now, [feedback(0.51, 0.9)], options) is None
    assert choose(now, [feedback(0.99, 0.0)], options) is None
    words = replace(options, what=MISSING)
    now = feedback(0.5, 0.5, 0.9, 0.9)
    assert choose(now, [feedback(0.5, 0.9, 0.9, 0.9), feedback(0.5, 0.4, 0.9, 0.1)], words) == 1
    assert choose(now, [feedback(0.5, 0.51, 0.9, 0.9)], words) is None


def test_what_is_outside_of_a_mask_stays_to_the_byte(
    inpainter: Generator, predictor: Predictor, tmp_path: Path, quick: Setting
) -> None:
    """Of a picture of another size than the generator's, from file to file, over several rounds."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    mask = torch.zeros(50, 70, dtype=torch.bool)
    mask[10:30, 40:60] = True
    repaired = repair(
        tmp_path / "picture.png", PROMPT, inpainter, predictor, mask, replace(ANY, candidates=8, setting=quick), seed=1
    )
    assert repaired.changed
    after = (repaired.picture * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(after[~mask.numpy()], pixels[~mask.numpy()])
    assert not np.array_equal(after[mask.numpy()], pixels[mask.numpy()])


def test_the_most_plausible_is_kept_and_each_round_goes_on_from_it(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, mask: torch.Tensor, quick: Setting
) -> None:
    repaired = repair(picture, PROMPT, inpainter, predictor, mask, replace(ANY, setting=quick), seed=3)
    score = predictor.predict(picture, PROMPT).scores["plausibility"]
    assert repaired.before.scores["plausibility"] == pytest.approx(score)
    current = picture
    for number, one in enumerate(repaired.rounds):
        expected = inpainter.inpaint(current, mask, PROMPT, 3, 3 + 3 * number, quick)
        assert torch.equal(one.candidates, expected)
        scores = [predictor.predict(made, PROMPT).scores["plausibility"] for made in expected]
        if one.chosen is None:
            assert max(scores) <= score
            break
        assert one.chosen == int(np.argmax(scores))
        assert scores[one.chosen] > score
        score, current = scores[one.chosen], expected[one.chosen]
    assert torch.equal(repaired.picture, current)
    assert repaired.after.scores["plausibility"] == pytest.approx(score)
    assert repaired.calls == len(repaired.rounds) * inpainter.cost(3, quick, inpainting=True)


def test_the_same_seed_gives_the_same(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, quick: Setting
) -> None:
    one, two = (
        repair(picture, PROMPT, inpainter, predictor, None, replace(ANY, setting=quick), seed=5) for _ in range(2)
    )
    assert torch.equal(one.picture, two.picture)
    assert one.stopped == two.stopped


def test_it_stops_when_nothing_gets_better(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, mask: torch.Tensor, quick: Setting
) -> None:
    none = repair(picture, PROMPT, inpainter, predictor, mask, replace(ANY, gain=1.0, setting=quick))
    assert none.stopped.startswith("none of 3 new drawings")
    assert len(none.rounds) == 1
    assert torch.equal(none.picture, picture)
    assert none.after is none.before
    clean = repair(picture, PROMPT, inpainter, predictor, None, replace(ANY, floor=1.0, setting=quick))
    assert "nothing is marked" in clean.stopped
    assert (clean.calls, clean.rounds) == (0, ())


def test_words_that_are_not_shown_get_a_place(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, quick: Setting
) -> None:
    """Of a model that finds every word missing, and of one that finds none."""
    options = replace(ANY, what=MISSING)
    harsh, mild = (
        Predictor(type(predictor.model)(predictor.model.config.changed(word_threshold=value)))
        for value in (1e-9, 1 - 1e-9)
    )
    for one in (harsh, mild):
        one.model.load_state_dict(predictor.model.state_dict())
    found = repair(picture, PROMPT, inpainter, harsh, None, replace(options, setting=quick))
    assert found.rounds
    marked = found.before.heatmaps["misalignment"]
    assert bool(found.rounds[0].mask[np.unravel_index(marked.argmax(), marked.shape)])
    high = repair(picture, PROMPT, inpainter, harsh, None, replace(options, floor=1.0, setting=quick))
    assert int(high.rounds[0].mask.sum()) == round(0.45 * SIDE) ** 2
    shown = repair(picture, PROMPT, inpainter, mild, None, replace(options, setting=quick))
    assert "every word" in shown.stopped
    assert not shown.rounds


def test_a_mask_over_everything_lets_new_pictures_compete(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, quick: Setting
) -> None:
    everything = torch.ones(SIDE, SIDE, dtype=torch.bool)
    repaired = repair(picture, PROMPT, inpainter, predictor, everything, replace(ANY, rounds=1, setting=quick), seed=8)
    torch.testing.assert_close(
        repaired.rounds[0].candidates, inpainter.generate(PROMPT, 3, 8, quick), atol=1e-5, rtol=0
    )


def test_a_full_device_loses_nothing(
    predictor: Predictor, picture: torch.Tensor, mask: torch.Tensor, quick: Setting
) -> None:
    """The first round is kept when the second finds no memory."""
    generator = wrap(make("sd-inpaint"))
    looks = 0

    def full(*_: Any) -> None:
        nonlocal looks
        looks += 1
        if looks > quick.steps:
            raise torch.OutOfMemoryError("CUDA out of memory")

    generator.pipeline.unet.register_forward_pre_hook(full)
    options = replace(ANY, candidates=8)
    repaired = repair(picture, PROMPT, generator, predictor, mask, replace(options, setting=quick), seed=0)
    assert repaired.changed
    assert len(repaired.rounds) == 1
    assert "no memory left" in repaired.stopped
    with pytest.raises(ValueError, match="no memory left"):
        repair(picture, PROMPT, generator, predictor, mask, replace(options, setting=quick), seed=0)


def test_what_cannot_be_mended_is_said(
    inpainter: Generator, predictor: Predictor, picture: torch.Tensor, mask: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        repair(picture, " ", inpainter, predictor)
    with pytest.raises(ValueError, match="mask is empty"):
        repair(picture, PROMPT, inpainter, predictor, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="32x32 pixels"):
        repair(picture, PROMPT, inpainter, predictor, mask[:, :8])
    with pytest.raises(ValueError, match="what is 'both'"):
        RepairOptions(what="both")
    with pytest.raises(ValueError, match="threshold is 0"):
        RepairOptions(threshold=0.0)
    blind = wrap(make("sd-inpaint"), "painter")
    blind.can_inpaint = False
    with pytest.raises(ValueError, match="painter cannot fill a mask"):
        repair(picture, PROMPT, blind, predictor)


def test_a_mask_can_be_painted(tmp_path: Path) -> None:
    painted = np.zeros((20, 30), np.uint8)
    painted[5:9, 3:8] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    assert np.array_equal(mask_of(tmp_path / "mask.png", (30, 20)).numpy(), painted > 0)
    with pytest.raises(ValueError, match="mask is 30x20"):
        mask_of(tmp_path / "mask.png", (20, 20))
    Image.fromarray(painted * 0).save(tmp_path / "dark.png")
    with pytest.raises(ValueError, match="nothing in it is light"):
        mask_of(tmp_path / "dark.png", (30, 20))
