"""Faults of bodies: what they change, and that it is where they say."""

import numpy as np
import pytest
from skimage.data import astronaut

from rahf.data.body_faults import BODY_FAULTS, extra_part, missing_part, moved_features
from rahf.data.faults import is_visible

FACE = (150, 50, 140, 170)  # in a photograph of a woman, 512 x 512
HAND = (380, 330, 70, 60)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.asarray(astronaut())


@pytest.mark.parametrize("kind", BODY_FAULTS)
@pytest.mark.parametrize("box", [FACE, HAND, (-20, -10, 80, 60), (480, 490, 90, 90)])
@pytest.mark.parametrize("severity", [0.4, 1.0])
def test_only_what_the_mask_covers_changes_much(
    photograph: np.ndarray, kind: str, box: tuple[int, int, int, int], severity: float
) -> None:
    spoiled, mask = BODY_FAULTS[kind](photograph, box, severity, np.random.default_rng(0))
    assert spoiled.shape == photograph.shape
    assert spoiled.dtype == np.uint8
    assert mask.shape == photograph.shape[:2]
    assert mask.dtype == bool
    change = np.abs(spoiled.astype(int) - photograph.astype(int)).mean(-1)
    assert change[~mask].mean() < 0.5  # the soft rim
    assert mask.mean() < 0.5


@pytest.mark.parametrize("kind", BODY_FAULTS)
def test_a_face_that_is_spoiled_can_be_seen(photograph: np.ndarray, kind: str) -> None:
    spoiled, mask = BODY_FAULTS[kind](photograph, FACE, 0.9, np.random.default_rng(1))
    assert is_visible(photograph, spoiled, mask)


@pytest.mark.parametrize("kind", BODY_FAULTS)
def test_the_generator_decides(photograph: np.ndarray, kind: str) -> None:
    first, second, third = (BODY_FAULTS[kind](photograph, HAND, 0.8, np.random.default_rng(n))[0] for n in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_an_extra_part_shows_the_part_again(photograph: np.ndarray) -> None:
    """A flat picture with one red square gets a second one."""
    picture = np.full((200, 200, 3), 90, np.uint8)
    picture[90:110, 90:110] = (220, 20, 20)
    spoiled, mask = extra_part(picture, (80, 80, 40, 40), 1.0, np.random.default_rng(0))
    red = (spoiled[..., 0] > 150) & (spoiled[..., 1] < 80)
    assert red[95:105, 95:105].all()
    assert 200 < (red & mask).sum() < 700


def test_a_missing_part_looks_like_its_surroundings() -> None:
    picture = np.full((200, 200, 3), 90, np.uint8)
    picture[90:110, 90:110] = (220, 20, 20)
    spoiled, _ = missing_part(picture, (70, 70, 60, 60), 1.0, np.random.default_rng(0))
    assert not ((spoiled[..., 0] > 150) & (spoiled[..., 1] < 80)).any()


def test_moved_features_bend_one_half_up_or_down() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[98:102] = 255  # a level line through the box
    spoiled, _ = moved_features(picture, (40, 40, 120, 120), 1.0, np.random.default_rng(0))
    heights = [
        float(np.average(np.arange(200), weights=spoiled[:, column, 0].astype(float) + 1e-9)) for column in (85, 115)
    ]
    assert abs(heights[0] - 99.5) < 2
    assert abs(heights[1] - 99.5) > 8
