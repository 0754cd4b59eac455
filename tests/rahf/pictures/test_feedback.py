"""From what the judge sees to feedback: scores, intervals, maps, words that are not judged, and who answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foundation.features import load_encoder
from rahf.model.rahf import RAHF
from rahf.pictures.feedback import PictureFeedback, fault_map, missing_map, weighted_shown
from rahf.pictures.judge import PARTS, JudgeConfig, Judgement, PictureJudge
from rahf.pictures.vocabulary import Term
from rahf.pictures.words import PictureWords, TermJudgement
from rahf.predictor import Predictor

CONFIG = JudgeConfig(tokens=36, hidden=4, dense_hidden=4, fault_hidden=4, members=2, concepts=2)


def make(composed: float) -> PictureFeedback:
    """An untrained judge on the real encoder that takes everything, or nothing, for a composed scene."""
    torch.manual_seed(0)
    judge = PictureJudge(CONFIG).eval()
    with torch.no_grad():
        judge.score_weight.normal_(std=0.02)
        judge.composed.weight.zero_()
        judge.composed.bias.fill_(composed)
        words = PictureWords(["cat", "dog"], CONFIG.embedding).eval()
        words.whole.normal_()
        words.local.normal_()
    return PictureFeedback(load_encoder(), judge, words)


def seen(faults: torch.Tensor, parts: torch.Tensor | None = None, wrong: float = 0.0) -> Judgement:
    rows, columns = faults.shape
    parts = torch.zeros(len(PARTS), rows, columns) if parts is None else parts
    return Judgement(
        embedding=torch.zeros(1, 4),
        dense=torch.zeros(1, 4, rows, columns),
        faults=faults[None, None],
        parts=parts[None],
        scores=torch.zeros(1, 2, 4),
        part_errors=torch.full((1, len(PARTS)), wrong),
        composed=torch.zeros(1),
    )


def test_a_real_picture_is_described_by_the_judge(tiny_model: RAHF) -> None:
    predictor = Predictor(tiny_model, pictures=make(-20.0))
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    found = predictor.predict(image, "a cat and a gizmo")
    assert found.judged_as == "picture"
    assert found.heatmaps["implausibility"].shape == (60, 90)
    assert [word.judged for word in found.words] == [True, True, True, True, False]
    assert set(found.intervals) == set(found.scores)
    assert found.to_dict()["words"][4]["judged"] is False
    assert all(low <= found.scores[name] <= high for name, (low, high) in found.intervals.items())


def test_a_composed_scene_is_left_to_the_model(tiny_model: RAHF) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    found = Predictor(tiny_model, pictures=make(20.0)).predict(image, "a cat and a gizmo")
    alone = Predictor(tiny_model).predict(image, "a cat and a gizmo")
    assert found.judged_as == "composed scene"
    assert found.scores == alone.scores
    assert [word.probability for word in found.words] == [word.probability for word in alone.words]


def test_each_image_of_a_batch_goes_its_way(tiny_model: RAHF) -> None:
    pictures = make(-20.0)
    images = [np.random.default_rng(n).integers(0, 255, (40, 40, 3), np.uint8) for n in range(3)]
    predictor = Predictor(tiny_model, pictures=pictures)
    together = predictor.predict_batch(images, ["a cat"] * 3)
    for image, found in zip(images, together, strict=True):
        assert predictor.predict(image, "a cat").scores == pytest.approx(found.scores)


def test_a_prompt_too_long_for_the_model_is_read_by_the_judge(tiny_model: RAHF) -> None:
    prompt = "a very detailed picture of a cat " * 20
    predictor = Predictor(tiny_model, pictures=make(-20.0))
    image = np.zeros((40, 40, 3), np.uint8)
    assert predictor.predict(image, prompt).judged_as == "picture"
    with pytest.raises(ValueError, match="shorten it"):
        Predictor(tiny_model).predict(image, prompt)


def test_without_a_known_word_alignment_is_unsure() -> None:
    pictures = make(-20.0)
    image = torch.rand(3, 50, 50)
    found = pictures.describe(pictures.look(image), image, "eldritch gizmo")
    assert "alignment" in found.unsure
    assert found.misaligned(0.0) == []
    assert [word.text for word in found.not_judged()] == ["eldritch", "gizmo"]
    assert [chance for _, chance in found.segments()] == [None, None, None]


def test_members_that_disagree_are_unsure() -> None:
    pictures = make(-20.0)
    image = torch.rand(3, 50, 50)
    scores = torch.tensor([[[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]])
    found = pictures.describe(replace(pictures.look(image), scores=scores), image, "a cat")
    assert "plausibility" in found.unsure
    assert "aesthetics" not in found.unsure
    widths = {name: high - low for name, (low, high) in found.intervals.items()}
    assert widths["plausibility"] > widths["aesthetics"]


def test_faults_and_wrong_parts_are_marked() -> None:
    faults = torch.full((8, 8), -6.0)
    faults[2:5, 2:5] = 6.0
    parts = torch.zeros(len(PARTS), 8, 8)
    parts[PARTS.index("hand"), 6, 6] = 1.0
    heatmap = fault_map(seen(faults, parts, wrong=0.9))
    assert heatmap[3, 3] > 0.9
    assert heatmap[6, 6] == pytest.approx(0.72 * (1 - 1 / 64 / 0.3))  # what covers much is believed less
    assert heatmap[0, 7] < 0.01
    assert fault_map(seen(faults, parts, wrong=0.0))[6, 6] < 0.1


def test_parts_all_over_a_picture_are_not_marked() -> None:
    everywhere = torch.full((len(PARTS), 8, 8), 0.6)
    assert fault_map(seen(torch.full((8, 8), -6.0), everywhere, wrong=0.9)).max() < 0.01


def test_what_lies_on_the_whole_picture_is_no_fault_at_a_place() -> None:
    grain = torch.full((8, 8), 1.0)
    assert fault_map(seen(grain)).max() < 0.02
    grain[2:5, 2:5] = 8.0
    heatmap = fault_map(seen(grain))
    assert heatmap[3, 3] > 0.9
    assert heatmap[0, 7] < 0.02
    clean = torch.full((8, 8), -6.0)
    np.testing.assert_allclose(fault_map(seen(clean)), torch.sigmoid(clean), rtol=1e-5)


def test_only_terms_that_are_not_shown_are_marked() -> None:
    where = np.zeros((4, 4), np.float32)
    where[1, 1] = 1
    colour = Term("colour", "red", (0,), ("cat",))
    assert missing_map([TermJudgement(colour, 0.9, where)], seen(torch.zeros(4, 4)))[1, 1] == pytest.approx(0.81)
    assert not missing_map([TermJudgement(colour, 0.2, where)], seen(torch.zeros(4, 4))).any()


def test_nouns_weigh_twice() -> None:
    where = np.zeros((2, 2), np.float32)
    terms = [
        TermJudgement(Term("noun", "cat", (1,)), 0.1, where),
        TermJudgement(Term("colour", "red", (0,)), 0.7, where),
    ]
    assert weighted_shown(terms) == pytest.approx((2 * 0.9 + 0.3) / 3)
    assert weighted_shown([]) is None
