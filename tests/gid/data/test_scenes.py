"""Procedural scenes: motion is exact, periodic, and zero where nothing hangs on a joint; shards survive broken runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gid.data.scenes import RECIPES, SceneConfig, generate_scene
from gid.data.shards import read_shard, read_shards, shard_path, write_shards

SMALL = SceneConfig(width=192, height=112, num_frames=40, num_bands=8)
MOVERS = ("flowers", "trees", "lanterns", "laundry", "candles", "hedge")


def _scene(kind: str, seed: int = 3):
    return generate_scene(seed, SceneConfig(width=192, height=112, num_frames=40, num_bands=8, kinds=(kind,)))


def test_same_seed_same_scene() -> None:
    one, two, other = generate_scene(5, SMALL), generate_scene(5, SMALL), generate_scene(6, SMALL)
    assert one.kind == two.kind
    np.testing.assert_array_equal(one.photo, two.photo)
    assert torch.equal(one.volume.coefficients, two.volume.coefficients)
    assert not np.array_equal(one.photo, other.photo)


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_every_kind(kind: str) -> None:
    scene = _scene(kind)
    assert scene.kind == kind
    assert scene.photo.shape == (112, 192, 3)
    assert scene.photo.dtype == np.uint8
    assert scene.volume.coefficients.shape == (8, 2, 28, 48)
    np.testing.assert_array_equal(scene.frame(0), scene.photo)
    assert (float(scene.volume.motion_energy().max()) > 1e-4) == (kind != "still")


@pytest.mark.parametrize("kind", MOVERS)
def test_still_layers_have_zero_motion_and_keep_their_colour(kind: str) -> None:
    scene = _scene(kind)
    still = ~scene.moving()
    moved = scene.trajectories([7, 19.5])
    assert not bool(moved[:, :, torch.from_numpy(still)].any())
    assert float(scene.trajectories([0]).abs().max()) == 0.0
    # Far from anything that moves the later frame is the photo, to the last bit.
    reach = int(2 * 192 * float(moved.abs().max())) + 12
    near = cv2.dilate((~still).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    np.testing.assert_array_equal(scene.frame(7)[~near], scene.photo[~near])


@pytest.mark.parametrize("kind", MOVERS)
def test_motion_repeats_without_a_seam(kind: str) -> None:
    scene = _scene(kind)
    start, end = scene.trajectories([3.0, 43.0])
    torch.testing.assert_close(start, end, atol=1e-5, rtol=0)
    difference = np.abs(scene.frame(0).astype(int) - scene.frame(40).astype(int))
    assert difference.mean() < 0.5


@pytest.mark.parametrize("kind", MOVERS)
def test_trajectories_land_on_the_same_colour(kind: str) -> None:
    scene = generate_scene(11, SceneConfig(width=256, height=144, num_frames=40, num_bands=8, kinds=(kind,)))
    time = 17.0
    shift = scene.trajectories([time])[0].numpy() * np.array([256, 144])[:, None, None]
    y, x = np.mgrid[0:144, 0:256].astype(np.float32)
    later = cv2.remap(
        scene.frame(time), (x + shift[0]).astype(np.float32), (y + shift[1]).astype(np.float32), cv2.INTER_LINEAR
    )
    # Inside movers the colour travels along; hidden pixels and soft edges are left to the tolerance of the median.
    inside = cv2.erode(scene.moving().astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    photo = cv2.GaussianBlur(scene.photo, (0, 0), 0.7).astype(float)
    later = cv2.GaussianBlur(later, (0, 0), 0.7).astype(float)
    frozen = cv2.GaussianBlur(scene.frame(time), (0, 0), 0.7).astype(float)
    carried = np.abs(photo - later).mean(-1)[inside]
    standing = np.abs(photo - frozen).mean(-1)[inside]
    assert np.median(carried) < 3.0
    assert carried.mean() < 0.9 * standing.mean()


@pytest.mark.parametrize("kind", MOVERS)
def test_volume_is_the_transform_of_the_trajectories(kind: str) -> None:
    scene = _scene(kind)
    full = scene.trajectories(range(40)).numpy()
    spectrum = np.fft.rfft(full, axis=0, norm="forward")
    np.testing.assert_allclose(spectrum[8:], 0, atol=2e-6)
    coefficients = scene.volume.coefficients.numpy()
    # Where all 16 pixels of a cell belong to one layer the cell holds the motion of their middle.
    blocks = scene._owner.reshape(28, 4, 48, 4).swapaxes(1, 2).reshape(28, 48, 16)
    whole = (blocks == blocks[..., :1]).all(-1)
    average = spectrum[:8].reshape(8, 2, 28, 4, 48, 4).mean((3, 5))
    np.testing.assert_allclose(coefficients[:, :, whole], average[:, :, whole], atol=2e-4)
    pinned = scene.volume.displacement(torch.tensor([0.0]), pin_first=False)
    assert float(pinned.abs().max()) < 1e-6


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="width is 62"):
        SceneConfig(width=62)
    with pytest.raises(ValueError, match="num_bands is 30"):
        SceneConfig(num_bands=30, num_frames=40)
    with pytest.raises(ValueError, match="volcano"):
        SceneConfig(kinds=("volcano",))


def test_shards_round_trip_and_resume(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, 5, SMALL, seed=20, shard_size=2, workers=1)
    assert [path.name for path in paths] == [shard_path(tmp_path, s, n).name for s, n in ((20, 2), (22, 2), (24, 1))]
    shards = list(read_shards(tmp_path))
    assert torch.cat([shard.seeds for shard in shards]).tolist() == [20, 21, 22, 23, 24]
    scene = generate_scene(23, SMALL)
    assert shards[1].kinds[1] == scene.kind
    assert shards[1].config == SMALL
    stored = shards[1].coefficients[1].float()
    torch.testing.assert_close(stored, scene.volume.real, atol=2e-5, rtol=2e-3)
    assert np.abs(shards[1].photos[1].permute(1, 2, 0).numpy().astype(int) - scene.photo).mean() < 12

    # A run killed while it wrote leaves a stray part file and no shard; another cut a file short.
    kept = paths[2].read_bytes()
    (tmp_path / f".{paths[0].name}.1.part").write_bytes(b"half")
    paths[0].unlink()
    cut = paths[1].read_bytes()[:1000]
    paths[1].unlink()  # The tensors read above still map the old file.
    paths[1].write_bytes(cut)
    stamp = paths[2].stat().st_mtime_ns
    write_shards(tmp_path, 5, SMALL, seed=20, shard_size=2, workers=1)
    assert paths[2].stat().st_mtime_ns == stamp
    assert paths[2].read_bytes() == kept
    again = list(read_shards(tmp_path))
    for before, after in zip(shards, again, strict=True):
        assert torch.equal(before.photos, after.photos)
        assert torch.equal(before.coefficients, after.coefficients)


def test_only_the_kinds_asked_for_are_drawn(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, 4, SMALL, workers=1, kinds=("candles", "cords"))
    shard = read_shard(path)
    assert set(shard.kinds) <= {"candles", "cords"}
    assert shard.config.kinds == ("candles", "cords")
    with pytest.raises(ValueError, match="unknown"):
        write_shards(tmp_path / "other", 1, SMALL, workers=1, kinds=("volcanoes",))


def test_machines_share_the_shards_out(tmp_path: Path) -> None:
    first = write_shards(tmp_path, 3, SMALL, shard_size=1, workers=1, machine=0, machines=2)
    second = write_shards(tmp_path, 3, SMALL, shard_size=1, workers=1, machine=1, machines=2)
    assert len(first) == 2
    assert len(second) == 1
    assert not set(first) & set(second)


def test_damaged_or_foreign_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no scenes"):
        list(read_shards(tmp_path))
    path = write_shards(tmp_path, 1, SMALL, workers=1)[0]
    with pytest.raises(ValueError, match="was made with"):
        write_shards(tmp_path, 1, SceneConfig(width=128, height=64, num_frames=40, num_bands=8), workers=1)
    path.write_bytes(b"not a shard at all")
    with pytest.raises(ValueError, match="damaged"):
        read_shard(path)
