"""Scenes pasted from cut-outs: what is red sways, what is green or blue stands still."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gid.data.scenes import Scene, SceneConfig, generate_scene
from gid.data.scenes.cutouts import CUTOUT_RECIPES, FOLDERS

COLOURS = {"plants": "red", "flowers": "red", "candles": "red", "things": "lime", "backgrounds": "blue"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plain disc or sheet of colour a kind."""
    root = tmp_path_factory.mktemp("cutouts")
    y, x = np.mgrid[-1:1:80j, -1:1:60j]
    disc = Image.fromarray(((x**2 + y**2 < 1) * 255).astype(np.uint8))
    for name in FOLDERS:
        (root / name).mkdir()
        picture = Image.new("RGB", (60, 80), COLOURS[name])
        if name == "backgrounds":
            picture.save(root / name / "a.jpg")
        else:
            picture.putalpha(disc)
            picture.save(root / name / "a.png")
    return root


def scene(folder: Path, kind: str, seed: int) -> Scene:
    return generate_scene(seed, SceneConfig(160, 96, kinds=(kind,), cutouts=str(folder)))


@pytest.mark.parametrize("kind", sorted(CUTOUT_RECIPES))
def test_same_seed_same_scene(folder: Path, kind: str) -> None:
    first, second = scene(folder, kind, 5), scene(folder, kind, 5)
    np.testing.assert_array_equal(first.photo, second.photo)
    assert torch.equal(first.volume.coefficients, second.volume.coefficients)


def test_plants_move_and_all_else_stands_still(folder: Path) -> None:
    compared = 0
    for seed in range(30):
        one = scene(folder, "cutout_plants", seed)
        colours = one.photo.astype(float)
        second = np.sort(colours, axis=-1)[..., 1]
        clear = colours.max(-1) > 2.5 * second + 20  # away from soft edges
        if (clear & (colours.argmax(-1) == 2)).mean() < 0.3:
            continue  # a drawn background, which has colours of its own
        red = clear & (colours.argmax(-1) == 0)
        assert one.moving()[red].all()
        assert not one.moving()[clear & ~red].any()
        assert one.volume.motion_energy().max() > 0
        compared += int(red.any())
    assert compared >= 5


def test_still_scenes_stand_still(folder: Path) -> None:
    for seed in range(5):
        assert not scene(folder, "cutout_still", seed).moving().any()


def test_wax_stands_still_below_a_flame_that_moves(folder: Path) -> None:
    for seed in range(5):
        moving = scene(folder, "cutout_candles", seed).moving()
        assert moving.any()
        assert not moving[-8:].any()  # flames stand in the upper four fifths


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plants holds no PNG"):
        scene(tmp_path, "cutout_still", 0)
    with pytest.raises(ValueError, match="unknown"):
        SceneConfig(160, 96, kinds=("trees",), cutouts=str(tmp_path))
