"""Colours, places, counts and words of real pictures, on maps and pictures whose truth is known."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from rahf.pictures.judge import PARTS, Judgement
from rahf.pictures.vocabulary import COLOURS, Term, read_terms
from rahf.pictures.words import PictureWords, Seen, colour_maps, to_lab

NAMES = ["apple", "cat", "person", "table"]


def seen_with(maps: torch.Tensor, picture: torch.Tensor | None = None) -> Seen:
    grid = (int(maps.shape[1]), int(maps.shape[2]))
    colours = colour_maps(torch.zeros(3, 32, 32) if picture is None else picture, grid)
    best = maps.flatten(1).amax(1)
    return Seen(best, best, maps, torch.zeros(len(PARTS), *grid), colours, {n: i for i, n in enumerate(NAMES)})


def blobs(*places: tuple[int, int], size: int = 16) -> torch.Tensor:
    field = torch.full((size, size), -1.0)
    for row, column in places:
        field[row : row + 2, column : column + 2] = 4.0
    return field


def test_lab_is_that_of_another_library() -> None:
    colours = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    expected = rgb2lab(colours.numpy()[None])[0]
    np.testing.assert_allclose(to_lab(colours).numpy(), expected, atol=0.1)


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        ("red", (0.86, 0.08, 0.10)),
        ("green", (0.13, 0.55, 0.15)),
        ("blue", (0.10, 0.25, 0.80)),
        ("yellow", (0.98, 0.88, 0.15)),
        ("black", (0.04, 0.04, 0.04)),
        ("white", (0.99, 0.99, 0.99)),
        ("grey", (0.50, 0.50, 0.50)),
        ("pink", (0.98, 0.60, 0.75)),
        ("purple", (0.50, 0.15, 0.60)),
        ("brown", (0.42, 0.26, 0.15)),
        ("orange", (0.95, 0.52, 0.08)),
        ("gold", (0.80, 0.64, 0.24)),
    ],
)
def test_a_plain_colour_has_its_name(name: str, rgb: tuple[float, float, float]) -> None:
    picture = torch.tensor(rgb)[:, None, None].expand(3, 40, 30)
    maps = colour_maps(picture, (5, 4))
    assert maps.shape == (12, 5, 4)
    torch.testing.assert_close(maps.sum(0), torch.ones(5, 4))
    assert COLOURS[int(maps.mean((1, 2)).argmax())] == name


def test_a_colour_is_looked_for_where_its_noun_is() -> None:
    picture = torch.zeros(3, 64, 64)
    picture[2] = 0.8  # blue ground
    picture[:, 8:32, 8:32] = torch.tensor([0.85, 0.1, 0.1])[:, None, None]  # a red thing
    apple = torch.full((16, 16), -1.0)
    apple[2:8, 2:8] = 4.0
    maps = torch.stack([apple, blobs((12, 12)), blobs(), blobs()])
    seen = seen_with(maps, picture)
    red_apple, red_cat = (seen.colour(Term("colour", "red", (), (noun,))) for noun in ("apple", "cat"))
    blue_apple = seen.colour(Term("colour", "blue", (), ("apple",)))
    assert red_apple[0] > 0.6
    assert red_cat[0] < 0.1
    assert blue_apple[0] < 0.4
    assert red_apple[1] > blue_apple[1]


def test_separate_places_are_counted() -> None:
    maps = torch.stack([blobs((1, 1), (6, 6), (12, 2)), blobs((3, 3)), blobs(), blobs()])
    seen = seen_with(maps)
    three, one = (seen.places(Term("count", "3", (), (noun,))) for noun in ("apple", "cat"))
    assert torch.expm1(three[:3]).tolist() == pytest.approx([3, 3, 3])
    assert torch.expm1(one[:3]).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(("relation", "holds"), [("left", True), ("right", False), ("above", False), ("below", True)])
def test_relations_follow_the_places(relation: str, holds: bool) -> None:
    maps = torch.stack([blobs((12, 1)), blobs((2, 12)), blobs(), blobs()])  # apple: left below; cat: right above
    distance = seen_with(maps).relation(Term("relation", relation, (), ("apple", "cat")))[0]
    assert (distance > 0.3) if holds else (distance < -0.3)


def make_words(embedding: int = 8) -> PictureWords:
    words = PictureWords(NAMES, embedding)
    with torch.no_grad():
        words.whole.copy_(torch.eye(4, embedding))
        words.local.copy_(torch.eye(4, embedding))
        words.weights["noun"].copy_(torch.tensor([3.0, 3.0, 0.0, 0.0, -3.0]))
    return words


def judgement_of(embedding: torch.Tensor, grid: int = 6) -> Judgement:
    dense = embedding[:, None, None].expand(-1, grid, grid)[None].clone()
    nothing = torch.zeros(1, len(PARTS), grid, grid)
    return Judgement(
        embedding[None], dense, nothing[:, :1], nothing, torch.zeros(1, 1, 4), torch.zeros(1, 3), torch.zeros(1)
    )


def test_a_noun_is_shown_where_the_picture_lies_near_it() -> None:
    words = make_words()
    cat = judgement_of(torch.eye(8)[1])
    terms = read_terms("a cat beside an apple")
    found = {one.term.value: one for one in words.judge(terms, cat, torch.rand(3, 32, 32))}
    assert found["cat"].probability < 0.1 < 0.9 < found["apple"].probability
    assert found["cat"].where.shape == (6, 6)


def test_terms_of_unknown_nouns_get_no_probability() -> None:
    words = make_words()
    terms = read_terms("two dogs and a cat")  # dogs are in the vocabulary, but not among these vectors
    found = words.judge(terms, judgement_of(torch.eye(8)[1]), torch.rand(3, 32, 32))
    assert [one.term.value for one in found] == ["cat"]
    assert words.judge([], judgement_of(torch.eye(8)[1]), torch.rand(3, 32, 32)) == []


def test_similarities_are_standardised() -> None:
    words = make_words()
    with torch.no_grad():
        words.whole_mean.fill_(0.5)
        words.whole_scale.fill_(0.25)
    whole, best, maps = words.similarities(judgement_of(torch.eye(8)[2]))
    assert whole[0].tolist() == pytest.approx([-2, -2, 2, -2])
    assert best[0].tolist() == pytest.approx([0, 0, 1, 0])
    assert maps.shape == (1, 4, 6, 6)
