"""Distances between the spectra of clips, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gid.data.videos import Pair
from gid.evaluation.spectra import between, spectra_table
from gid.motion.spectrum import SpectralVolume


def pair(clip: str, amplitude: float, right: float = 1.0, start: int = 0) -> Pair:
    """Bands that fall by half each; the right half of the picture moves `right` times as far."""
    field = torch.zeros(5, 2, 4, 8, dtype=torch.complex64)
    field[1:, 0] = amplitude * 0.5 ** torch.arange(4.0)[:, None, None]
    field[..., 4:] *= right
    return Pair(clip, start, torch.zeros(3, 16, 32, dtype=torch.uint8), SpectralVolume(field, image_size=(32, 16)))


def test_a_factor_of_two_is_six_decibels_and_nothing_after_the_best_factor() -> None:
    whole, shape = between(torch.tensor([0.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 0.5]))
    assert whole == pytest.approx(20 * math.log10(2), abs=1e-6)
    assert shape == pytest.approx(0, abs=0.13)  # factors are tried a quarter of a decibel apart


def test_the_table_knows_starts_halves_like_scenes_and_others() -> None:
    pairs = [pair("candle_2", 1.0, 2.0), pair("candle_2", 1.0, 2.0, 5), pair("candle_3", 10.0), pair("tree_1", 1.0)]
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in spectra_table(pairs)[2:]}
    numbers = {name: [float(cell) for cell in cells] for name, cells in rows.items()}
    assert numbers["another start frame of the clip"] == [0.0, 0.0]
    expected = 20 * math.log10(2) / 3  # one clip of three has unequal halves
    assert numbers["the left half of its picture from the right half"][0] == pytest.approx(expected, abs=0.06)
    assert numbers["candle_2 from candle_3, a like scene"][0] == pytest.approx(20 * math.log10(10 / 1.5), abs=0.06)
    with pytest.raises(ValueError, match="two"):
        spectra_table(pairs[:3])
