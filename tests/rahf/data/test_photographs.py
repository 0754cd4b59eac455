"""Photographs with planted faults, and mixtures of sources."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rahf.data.faults import is_visible, warp
from rahf.data.photographs import Mixture, SpoiledPhotographs, plant_faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for place in range(2):
        noise = generator.integers(0, 255, (90, 120, 3), np.uint8)
        Image.fromarray(noise).resize((240, 180)).save(path / f"{place}.png")
    return path


def test_faults_are_where_the_heatmap_says(folder: Path) -> None:
    image = np.asarray(Image.open(folder / "0.png").convert("RGB"))
    spoiled, heatmap, burden = plant_faults(image, np.random.default_rng(1), chance=1.0)
    changed = (spoiled != image).any(axis=-1)
    assert changed.any()
    assert burden > 0
    assert not (changed & (heatmap == 0)).sum() > 0.02 * changed.sum()


def test_samples_depend_on_seed_and_place_alone_and_say_nothing_of_words(folder: Path) -> None:
    first, again = (SpoiledPhotographs(folder, 20, 3, 64) for _ in range(2))
    samples = [first[place] for place in range(20)]
    assert np.array_equal(samples[7].image, again[7].image)
    assert all(sample.words is None and set(sample.heatmaps) == {"implausibility"} for sample in samples)
    for sample in samples:
        clean = not sample.heatmaps["implausibility"].any()
        assert (sample.scores["plausibility"] == 1.0) == clean
    assert len({sample.scores["plausibility"] == 1.0 for sample in samples}) == 2


def test_a_twist_of_plain_sky_is_no_fault() -> None:
    sky = np.full((64, 64, 3), 180, np.uint8)
    spoiled, mask = warp(sky, (10, 10, 40, 40), 1.0, np.random.default_rng(0))
    assert not is_visible(sky, spoiled, mask)
    _, heatmap, burden = plant_faults(sky, np.random.default_rng(3), chance=0.0)
    assert burden == 0
    assert not heatmap.any()


def test_a_mixture_keeps_its_shares(folder: Path) -> None:
    sources = [SpoiledPhotographs(folder, 400, seed, 32) for seed in (0, 1)]
    mixture = Mixture(sources, [0.75, 0.25], 400)  # type: ignore[arg-type]
    first = sum(mixture[place].name.split("-")[1] == "0" for place in range(400))
    assert 270 < first < 330


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0]])
def test_impossible_shares_are_refused(folder: Path, shares: list[float]) -> None:
    source = SpoiledPhotographs(folder, 4, 0, 32)
    with pytest.raises(ValueError, match="shares"):
        Mixture([source, source], shares, 4)  # type: ignore[list-item]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        SpoiledPhotographs(tmp_path, 4)
