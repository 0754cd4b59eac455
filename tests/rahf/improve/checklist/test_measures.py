"""Measures against pictures made so that the answer is known, and against other implementations where there are any."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.pictures import load_photo
from rahf.improve.checklist.measures import (
    SIDE,
    at_side,
    brightness,
    colour,
    grain,
    light,
    look,
    measure,
    order,
    sharpness,
    subject,
    texture,
)
from rahf.predictor import Predictor
from tests.rahf.improve.saliency.test_maps import EXAMPLES


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("embedded", "cpu")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return load_photo(EXAMPLES / "scene-flowers.jpg", 384)


def blurred(picture: Tensor, radius: int) -> Tensor:
    size = 2 * radius + 1
    return F.avg_pool2d(F.pad(picture[None], [radius] * 4, mode="replicate"), size, 1)[0]


def noisy(picture: Tensor, level: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + level * noise).clamp(0, 1)


def test_sharpness_falls_with_every_blur(photo: Tensor) -> None:
    values = [sharpness(brightness(blurred(photo, radius))) for radius in (0, 1, 3, 6)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.3


def test_sharpness_is_read_where_it_is_asked(photo: Tensor) -> None:
    """Half of the picture blurred: sharpness of each half, told by a weight."""
    mixed = torch.cat([photo[:, :, :192], blurred(photo, 6)[:, :, 192:]], dim=2)
    left = torch.zeros(mixed.shape[1:])
    left[:, :180] = 1
    grey = brightness(mixed)
    assert sharpness(grey, left) > sharpness(grey, left.flip(1)) + 0.3


def test_grain_is_the_noise_that_was_added() -> None:
    smooth = torch.linspace(0.3, 0.7, 256).expand(256, 256).contiguous()
    for level in (0.01, 0.03):
        values = noisy(smooth, level)
        mine = grain(values)
        assert mine == pytest.approx(level, rel=0.15)


def test_light_is_read_off_quantiles() -> None:
    dark = torch.rand(100, 100, generator=torch.Generator().manual_seed(0)) * 0.4
    values = light(dark)
    assert values["mid tones"] == pytest.approx(1 - 2 * abs(float(np.median(dark.numpy())) - 0.5), abs=1e-3)
    assert values["contrast"] == pytest.approx(float(np.diff(np.quantile(dark.numpy(), [0.05, 0.95]))[0]), abs=1e-3)
    half = torch.cat([torch.zeros(10, 20), torch.full((10, 20), 0.5)])
    assert light(half)["unclipped"] == pytest.approx(0.5)


def test_colourfulness_is_that_of_hasler_and_suesstrunk() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 40, 50, generator=generator)
    red, green, blue = (channel.numpy().astype(np.float64) for channel in picture)
    first, second = red - green, (red + green) / 2 - blue
    expected = np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())
    assert colour(picture)["colourfulness"] == pytest.approx(expected, rel=1e-4)
    assert colour(torch.full((3, 20, 20), 0.4)) == {"colourfulness": 0.0, "harmony": 0.0}


def test_harmony_is_of_one_hue_and_its_opposite() -> None:
    def striped(*colours: tuple[float, float, float]) -> Tensor:
        return torch.cat([torch.tensor(one).view(3, 1, 1).expand(3, 20, 20) for one in colours], dim=2)

    alone = colour(striped((0.9, 0.2, 0.2)))["harmony"]
    many = colour(striped((0.9, 0.2, 0.2), (0.2, 0.9, 0.2), (0.2, 0.2, 0.9), (0.9, 0.9, 0.2)))["harmony"]
    assert alone == pytest.approx(1, abs=1e-4)
    assert many < 0.6


def test_order_tells_empty_from_full_and_mirrored_from_not() -> None:
    ground = torch.full((128, 128), 0.5)
    full = torch.rand(128, 128, generator=torch.Generator().manual_seed(0))
    assert order(ground)["fullness"] == 0
    assert order(full)["fullness"] == 1
    half = torch.cat([ground[:, :64], full[:, :64]], dim=1)
    assert order(half)["fullness"] == pytest.approx(0.5, abs=0.01)
    ramp = torch.linspace(0, 1, 128).expand(128, 128)
    assert order(ramp)["symmetry"] == pytest.approx(-1, abs=0.01)
    assert order(torch.cat([ramp, ramp.flip(1)], dim=1))["symmetry"] == pytest.approx(1, abs=0.01)


def test_the_subject_is_whole_or_cut_off() -> None:
    grey = torch.rand(60, 80, generator=torch.Generator().manual_seed(0))
    saliency = torch.full((60, 80), 0.1)
    saliency[20:40, 30:50] = 0.9
    middle = subject(grey, saliency)
    assert middle["prominence"] == pytest.approx(0.8, abs=1e-5)
    assert middle["subject whole"] == 1
    assert middle["balance"] == pytest.approx(1, abs=0.02)
    cut = subject(grey, saliency.roll((-20, -30), (0, 1)))
    assert cut["subject whole"] == pytest.approx(1 - 40 / 280, abs=1e-5)
    assert cut["balance"] < 0.3


def test_detail_is_the_share_of_steps() -> None:
    board = torch.zeros(65, 65)
    board[:, 32:] = 0.5
    assert texture(board)["detail"] == pytest.approx(1 / 64)


def test_a_picture_in_two_sizes_gives_nearly_the_same(predictor: Predictor) -> None:
    picture = load_photo(EXAMPLES / "flower.jpg", 1024)
    assert max(at_side(picture).shape) == SIDE
    assert at_side(picture[:, :100, :100]).shape == (3, 100, 100)
    large, small = (measure(look(one, predictor)) for one in (picture, at_side(picture, 640)))
    for name in ("mid tones", "contrast", "colourfulness", "sharpness", "prominence", "fullness"):
        assert large[name] == pytest.approx(small[name], abs=0.06)


def test_people_and_faults_are_told_of_pictures_only(predictor: Predictor, photo: Tensor) -> None:
    of_photo = measure(look(photo, predictor))
    assert {"unbroken", "appeal", "people", "people right"} <= set(of_photo)
    assert of_photo["people"] < 0.5
    feedback = predictor.predict(photo, "a person")
    assert of_photo["people"] == pytest.approx(1 - feedback.words[1].probability, abs=1e-3)
    assert of_photo["appeal"] == pytest.approx(feedback.scores["aesthetics"], abs=1e-3)
    assert of_photo["people right"] == pytest.approx(feedback.scores["plausibility"], abs=1e-3)
    scene = measure(look(load_photo(EXAMPLES / "feedback-dog.png"), predictor))
    assert not {"unbroken", "appeal", "people"} & set(scene)
