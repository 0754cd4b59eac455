"""Distances of pictures from a prompt: against what feedback says of the same words, and downhill by the gradient."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.pictures import load_photo
from rahf.improve.saliency.likeness import COMPOSED, PICTURE, Likeness
from rahf.predictor import Predictor

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("embedded", "cpu")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return load_photo(EXAMPLES / "flower.jpg", 224)


@pytest.fixture(scope="module")
def scene() -> Tensor:
    return load_photo(EXAMPLES / "feedback-dog.png", 224)


def test_of_a_picture_it_is_what_feedback_says_of_the_known_words(predictor: Predictor, photo: Tensor) -> None:
    prompt = "a pink flower above two dogs on a wooden thing"
    measure = Likeness(predictor, prompt, photo)
    assert measure.kind == PICTURE
    assert measure.words == ("pink", "flower", "above", "dogs")
    chances = {word.text: word.probability for word in predictor.predict(photo, prompt).words}
    mean = sum(-math.log(1 - chances[word]) for word in measure.words) / 4
    with torch.no_grad():
        assert float(measure.distance(photo[None])) == pytest.approx(mean, rel=1e-3)
        part = sum(-math.log(1 - chances[word]) for word in ("pink", "flower", "dogs")) / 3
        assert float(measure.distance(photo[None], part=True)) == pytest.approx(part, rel=1e-3)


def test_of_a_composed_scene_it_is_what_feedback_says_of_all_words(predictor: Predictor, scene: Tensor) -> None:
    """One word alone, so that the second pass of feedback's words changes nothing."""
    measure = Likeness(predictor, "dog", scene)
    assert measure.kind == COMPOSED
    chance = predictor.predict(scene, "dog").words[0].probability
    with torch.no_grad():
        assert float(measure.distance(scene[None])) == pytest.approx(-math.log(1 - chance), rel=1e-3)
    whole = Likeness(predictor, "a picture of two dogs to the left of a red hat", scene)
    assert whole.words == ("a", "picture", "of", "two", "dogs", "to", "the", "left", "of", "a", "red", "hat")


def test_of_a_part_of_a_composed_scene_counts_and_places_are_not_asked(predictor: Predictor, scene: Tensor) -> None:
    """What is left is the mean over "dogs", "red" and "hat", each worked out from the marks of all words."""
    measure = Likeness(predictor, "two dogs above a red hat", scene)
    with torch.no_grad():
        marks = measure._marks(scene[None])[0]
        assert float(measure.distance(scene[None], part=True)) == pytest.approx(
            float(F.softplus(marks[[1, 4, 5]]).mean()), rel=1e-5
        )


def test_the_right_prompt_is_nearer_than_a_wrong_one(predictor: Predictor, photo: Tensor, scene: Tensor) -> None:
    with torch.no_grad():
        for picture, right, wrong in ((photo, "a flower", "a train"), (scene, "a dog", "a guitar")):
            near, far = (float(Likeness(predictor, text, picture).distance(picture[None])) for text in (right, wrong))
            assert near < far


@pytest.mark.parametrize("name", ["photo", "scene"])
def test_the_gradient_leads_downhill(predictor: Predictor, name: str, request: pytest.FixtureRequest) -> None:
    """The slope along the gradient, by differences of the distance itself; two pictures are measured apart."""
    picture: Tensor = request.getfixturevalue(name) * 0.9 + 0.05
    measure = Likeness(predictor, "a red car", picture)
    pictures = torch.stack([picture, picture.flip(2)]).requires_grad_(True)
    first, second = measure.distance(pictures)
    (slope,) = torch.autograd.grad(first, pictures)
    assert float(slope[0].norm()) > 0
    assert float(slope[1].abs().max()) == 0
    direction = F.normalize(slope[0].flatten(), dim=0).view_as(picture)
    step = 0.004
    with torch.no_grad():
        down, up = (float(measure.distance((picture + sign * step * direction)[None])) for sign in (-1, 1))
    assert (up - down) / (2 * step) == pytest.approx(float(slope[0].norm()), rel=0.1)
    assert second > 0


def test_words_that_only_one_network_reads_go_to_it(predictor: Predictor, photo: Tensor, scene: Tensor) -> None:
    assert Likeness(predictor, "something quite nice", photo).kind == COMPOSED
    assert Likeness(predictor, "a flower", photo, COMPOSED).kind == COMPOSED
    assert Likeness(predictor, "a flower", scene, PICTURE).kind == PICTURE


def test_what_cannot_be_measured_is_refused(predictor: Predictor, photo: Tensor) -> None:
    with pytest.raises(ValueError, match="no word of 'something quite nice' is known"):
        Likeness(predictor, "something quite nice", photo, PICTURE)
    with pytest.raises(ValueError, match="the prompt is empty"):
        Likeness(predictor, "", photo)
    with pytest.raises(ValueError, match="judged as 'sketch'; choose one of auto"):
        Likeness(predictor, "a flower", photo, "sketch")
