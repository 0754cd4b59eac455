"""Layers of a photo: what moves is cut out, what lies behind is completed, and nothing is torn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gid.motion.spectrum import SpectralVolume
from gid.rendering.animate import animate, layers_of, render_displacements
from gid.rendering.completion import complete
from gid.rendering.cpu.layer_frames import LayerFrames
from gid.rendering.layers import take_apart
from gid.rendering.matting import soft_mask
from gid.rendering.renderer import Renderer
from gid.rendering.segments import find_segments

HEIGHT, WIDTH, CELL = 96, 128, 4
CENTRE, RADIUS = (64.0, 48.0), 22.0
PULL = 13.0  # a tenth of the longer side


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    return Renderer().eval()


def inside(scale: int = 1, grow: float = 0.0) -> np.ndarray:
    """(H, W) or, on the motion's grid, (h, w): the disc."""
    y, x = np.mgrid[0 : HEIGHT // scale, 0 : WIDTH // scale] * scale + (scale - 1) / 2
    return np.hypot(x - CENTRE[0], y - CENTRE[1]) < RADIUS + grow


def disc(background: str = "plain") -> torch.Tensor:
    """(3, H, W): a disc whose red and green say where on it a pixel lies, before blue that holds no red."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    photo = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    photo[..., 2] = 0.5 if background == "plain" else 0.4 + 0.2 * ((x // 4 + y // 4) % 2)
    on = inside()
    photo[on] = np.stack([0.3 + x / WIDTH * 0.7, 0.3 + y / HEIGHT * 0.7, np.zeros_like(x)], -1)[on]
    return torch.from_numpy(photo).permute(2, 0, 1).contiguous()


def motion(ramp: bool = False) -> SpectralVolume:
    """The disc sways sideways; with a ramp its motion fades over three cells, as a predicted one does."""
    share = inside(CELL).astype(np.float32)
    if ramp:
        padded = np.pad(share, 1, mode="edge")
        share = sum(padded[i : i + share.shape[0], j : j + share.shape[1]] for i in range(3) for j in range(3)) / 9
    coefficients = torch.zeros(2, 2, *share.shape, dtype=torch.complex64)
    coefficients[1, 0] = torch.from_numpy(share) * 0.02
    return SpectralVolume(coefficients, fps=30.0, num_frames=30, image_size=(WIDTH, HEIGHT))


def pulled(volume: SpectralVolume, pixels: float = PULL) -> torch.Tensor:
    """(1, 2, h, w): the disc pulled to the right, fractions of the photo's sides."""
    shape = volume.coefficients[1].real / volume.coefficients[1, 0].real.max()
    return (shape * pixels / WIDTH)[None]


def drawn(photo: torch.Tensor, volume: SpectralVolume, field: torch.Tensor, renderer: Renderer) -> torch.Tensor:
    length = torch.hypot(field[0, 0] * WIDTH, field[0, 1] * HEIGHT)
    return next(render_displacements(photo, [field], renderer, length, length, layers_of(photo, volume)))[0]


def test_segments_find_the_disc_and_leave_the_ground() -> None:
    segments = find_segments(motion().coefficients, WIDTH, HEIGHT)
    assert len(segments.strength) == 2
    assert np.array_equal(segments.labels == 1, inside(CELL))


def test_nothing_moves_nothing_is_cut_out() -> None:
    volume = motion()
    still = volume.with_coefficients(torch.zeros_like(volume.coefficients))
    layers = take_apart(disc(), still)
    assert len(layers.front.triangles) == 0
    assert np.array_equal(layers.plate, layers.photo)


@pytest.mark.parametrize("ramp", [False, True])
def test_matte_is_bounded_and_follows_the_photo(ramp: bool) -> None:
    layers = take_apart(disc(), motion(ramp))
    assert layers.alpha.min() >= 0
    assert layers.alpha.max() <= 1
    assert (layers.alpha[inside(grow=-3)] > 0.99).all()
    assert (layers.alpha[~inside(grow=6)] == 0).all()


def test_layers_make_up_the_photo() -> None:
    layers = take_apart(disc("checked"), motion())
    again = layers.objects[..., :3] + (1 - layers.alpha)[..., None] * layers.plate
    assert np.abs(again - layers.photo).max() < 1e-5


def test_plate_keeps_what_is_known_and_forgets_the_object() -> None:
    layers = take_apart(disc(), motion())
    known = layers.alpha == 0
    assert np.array_equal(layers.plate[known], layers.photo[known])
    assert layers.plate[..., 0].max() < 0.02
    assert np.abs(layers.plate[..., 2] - 0.5).max() < 0.05


def test_completion_goes_on_with_a_pattern() -> None:
    y, x = np.mgrid[0:96, 0:96]
    stripes = np.stack([(x // 6 % 2).astype(np.float32)] * 3, -1)
    hole = (np.abs(x - 47) < 9) & (np.abs(y - 47) < 9)
    given = stripes.copy()
    given[hole] = 0.5
    made = complete(given, hole)
    assert np.array_equal(made[~hole], given[~hole])
    assert np.abs(made - stripes)[hole].mean() < 0.12  # a smooth filling is off by 0.5


def test_completion_of_everything_or_nothing_leaves_the_picture() -> None:
    picture = np.random.default_rng(0).random((32, 40, 3)).astype(np.float32)
    assert np.array_equal(complete(picture, np.zeros((32, 40), bool)), picture)
    assert np.array_equal(complete(picture, np.ones((32, 40), bool)), picture)
    with pytest.raises(ValueError, match="hole"):
        complete(picture, np.zeros((4, 4), bool))


@pytest.mark.parametrize("ramp", [False, True])
def test_a_pulled_disc_is_not_torn(renderer: Renderer, ramp: bool) -> None:
    """Red and green tell where each pixel of the disc came from: neighbours must come from neighbours."""
    volume = motion(ramp)
    frame = drawn(disc(), volume, pulled(volume), renderer).permute(1, 2, 0).numpy()
    moved = np.roll(inside(grow=-3), round(PULL), axis=1)
    x = (frame[..., 0] - 0.3) / 0.7 * WIDTH
    y = (frame[..., 1] - 0.3) / 0.7 * HEIGHT
    assert (frame[moved][:, 0] > 0.25).all(), "specks of the background on the disc"
    clear = moved & (frame[..., 2] < 0.02)  # where colours are not mixed with the background's
    assert clear.sum() > 0.9 * moved.sum()
    for step in (np.abs(np.diff(x, axis=1)), np.abs(np.diff(y, axis=1))):
        both = clear[:, 1:] & clear[:, :-1]
        assert step[both].max() < 4
    left = inside(grow=-2) & ~np.roll(inside(grow=6), round(PULL), axis=1)
    assert left.sum() > 50
    assert frame[left][:, 0].max() < 0.05, "shreds of the disc are left behind"
    assert np.abs(frame[left][:, 2] - 0.5).max() < 0.06


def test_against_brute_force(renderer: Renderer) -> None:
    """A shift by whole pixels, composed with numpy: the moved object over the plate, pixel by pixel."""
    photo, volume = disc("checked"), motion()
    layers = take_apart(photo, volume)
    shift = 9
    frame = drawn(photo, volume, pulled(volume, shift), renderer).permute(1, 2, 0).numpy()
    moved = np.zeros_like(layers.objects)
    moved[:, shift:] = layers.objects[:, :-shift]
    wanted = moved[..., :3] + (1 - moved[..., 3:]) * layers.plate
    assert np.abs(frame - wanted).max() < 2e-3


def test_still_pixels_and_rest_are_the_photo_exactly(renderer: Renderer) -> None:
    photo, volume = disc("checked"), motion()
    frames = torch.cat(list(animate(photo, volume, renderer, num_frames=12, strength=4)))
    assert torch.equal(frames[0], photo)
    far = torch.from_numpy(~inside(grow=20))
    assert torch.equal(frames[..., far], photo[..., far].expand(len(frames), -1, -1))
    moved = (frames - photo).abs().amax((0, 1))
    assert float(moved[torch.from_numpy(inside())].max()) > 0.05


def test_what_touches_the_edge_goes_on_beyond_it(renderer: Renderer) -> None:
    """An object cut off by the photo's left edge and pulled inwards shows no gap there."""
    photo = torch.zeros(3, 64, 96)
    photo[2] = 0.5
    photo[0, 16:48, :32] = 0.8
    photo[2, 16:48, :32] = 0.0
    share = torch.zeros(16, 24)
    share[4:12, :8] = 1
    coefficients = torch.zeros(2, 2, 16, 24, dtype=torch.complex64)
    coefficients[1, 0] = share * 0.02
    volume = SpectralVolume(coefficients, fps=30.0, num_frames=30, image_size=(96, 64))
    field = torch.zeros(1, 2, 16, 24)
    field[0, 0] = share * (6 / 96)
    length = field[0, 0] * 96
    frame = next(render_displacements(photo, [field], renderer, length, length, layers_of(photo, volume)))[0]
    assert float(frame[0, 20:44, :30].min()) > 0.75


def test_layers_are_for_what_moves_far() -> None:
    photo, volume = disc(), motion()
    assert layers_of(photo, volume, reach=0.04 * WIDTH) is None
    assert layers_of(photo, volume, reach=0.05 * WIDTH) is not None


def test_soft_mask_leans_on_the_picture() -> None:
    picture = np.zeros((40, 40, 3), np.float32)
    picture[:, 20:] = (0.9, 0.2, 0.1)
    mask = np.zeros((40, 40), bool)
    mask[:, 18:] = True  # two pixels beyond the picture's edge
    alpha = soft_mask(picture, mask)
    assert alpha[:, 21:].min() > 0.8
    assert alpha[:, :17].max() < 0.2


def test_displacements_of_another_size_are_refused(renderer: Renderer) -> None:
    photo, volume = disc(), motion()
    field = torch.zeros(1, 2, 8, 8)
    with pytest.raises(ValueError, match="differ"):
        list(render_displacements(photo, [field], renderer, torch.zeros(24, 32), None, layers_of(photo, volume)))


def test_displacements_that_are_not_numbers_leave_the_rest(renderer: Renderer) -> None:
    photo, volume = disc(), motion()
    layers = take_apart(photo, volume)
    field = pulled(volume)
    field[0, :, 12, 16] = float("nan")
    ones = torch.ones(field.shape[2:])
    with ThreadPoolExecutor(1) as executor:
        frame = LayerFrames(layers, renderer, ones, ones).render(field, executor)
    assert torch.isfinite(frame).all()
