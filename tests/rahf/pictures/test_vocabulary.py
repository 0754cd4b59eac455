"""Which words of a prompt are judged, and as what."""

from pathlib import Path

import pytest

from rahf.pictures.vocabulary import (
    COLOURS,
    concept_of,
    is_function_word,
    read_concepts,
    read_terms,
    singular,
)


def found(prompt: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(term.kind, term.value, term.nouns) for term in read_terms(prompt)]


def test_the_vocabulary_has_a_thousand_nouns_and_twelve_colours() -> None:
    words = [word for concept in read_concepts() for word in concept.words]
    assert len(words) >= 1000
    assert len(words) == len(set(words))
    assert len(COLOURS) == len(set(COLOURS)) == 12


def test_counts_and_colours_belong_to_their_noun() -> None:
    assert found("Two red apples on top of a wooden table") == [
        ("count", "2", ("apple",)),
        ("colour", "red", ("apple",)),
        ("noun", "apple", ()),
        ("relation", "above", ("apple", "table")),
        ("noun", "table", ()),
    ]


def test_every_colour_of_a_list_belongs_to_the_noun_behind_it() -> None:
    assert [term for term in found("a white, yellow and blue train") if term[0] == "colour"] == [
        ("colour", "white", ("train",)),
        ("colour", "yellow", ("train",)),
        ("colour", "blue", ("train",)),
    ]


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        ("an orange cat", ["colour", "noun"]),
        ("a man holding an orange", ["noun", "noun"]),
        ("an orange", ["noun"]),
        ("a black and white photo", []),  # neither colour has a noun that is known
    ],
)
def test_orange_is_a_fruit_where_no_noun_follows(prompt: str, kinds: list[str]) -> None:
    assert [term.kind for term in read_terms(prompt)] == kinds


def test_longer_names_win() -> None:
    assert [(term.value, term.words) for term in read_terms("the traffic lights behind a teddy bear")] == [
        ("traffic light", (1, 2)),
        ("teddy bear", (5, 6)),
    ]


@pytest.mark.parametrize(
    ("plural", "word"),
    [
        ("puppies", "puppy"),
        ("benches", "bench"),
        ("boxes", "box"),
        ("tomatoes", "tomato"),
        ("knives", "knife"),
        ("buses", "bus"),
        ("glass", "glass"),
        ("cactus", "cactus"),
        ("dogs", "dog"),
        ("skis", "skis"),
    ],
)
def test_plurals(plural: str, word: str) -> None:
    assert singular(plural) == word


def test_a_word_outside_the_vocabulary_is_no_term() -> None:
    assert concept_of(["octarine"]) is None
    assert read_terms("an eldritch octarine gizmo") == []
    assert is_function_word("The")
    assert not is_function_word("gizmo")


def test_further_words_stand_for_their_concept() -> None:
    assert concept_of(["puppies"]) == "dog"
    assert concept_of(["fire", "hydrants"]) == "fire hydrant"


def test_a_line_of_another_form_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nouns.txt"
    file.write_text("dog | dog | puppy\ncat | cat\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 has 2 fields"):
        read_concepts(file)
    file.write_text("dog | dog | puppy\nwolf | dog | puppy\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'puppy' stands for 'dog' already"):
        read_concepts(file)
