"""The words that feedback on real pictures judges, and where they stand in a prompt.

`nouns.txt` beside this file lists the concepts, the label names whose CLIP embeddings begin each, and the further
words that imply it: "puppy" is judged as "dog", because a picture without a dog shows no puppy. A word that is neither
here nor a colour, a count or a plain relation is not judged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rahf.prompt_words import Word, prompt_words

NOUNS_FILE = Path(__file__).parent / "nouns.txt"
# The eleven basic colour terms of English and gold.
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "gold")
_COLOUR_WORDS = {name: name for name in COLOURS} | {
    "gray": "grey", "silver": "grey", "golden": "gold", "violet": "purple", "crimson": "red", "scarlet": "red",
    "navy": "blue", "azure": "blue", "magenta": "pink", "maroon": "brown", "tan": "brown", "emerald": "green",
}  # fmt: skip
COUNTS = {word: count for count, word in enumerate(("one", "two", "three", "four", "five", "six"), start=1)}
# What one thing is to another; the longest wording is tried first.
RELATIONS = {
    "to the left of": "left", "left of": "left", "to the right of": "right", "right of": "right",
    "on top of": "above", "above": "above", "over": "above", "below": "below", "under": "below",
    "underneath": "below", "beneath": "below",
}  # fmt: skip
# Words without a picture of their own: neither judged nor missed.
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "of",
        "in",
        "on",
        "at",
        "to",
        "with",
        "by",
        "for",
        "from",
        "as",
        "is",
        "are",
        "was",
        "were",
        "be",
        "being",
        "been",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "there",
        "their",
        "his",
        "her",
        "he",
        "she",
        "they",
        "them",
        "who",
        "which",
        "while",
        "very",
        "some",
        "any",
        "other",
        "another",
        "next",
        "near",
        "into",
        "onto",
        "up",
        "down",
        "out",
        "off",
        "over",
        "under",
        "has",
        "have",
        "had",
        "having",
        "do",
        "does",
        "doing",
        "not",
        "no",
        "nor",
        "but",
        "so",
        "than",
        "then",
        "also",
        "just",
        "each",
        "every",
        "all",
        "both",
        "many",
        "several",
        "few",
        "more",
        "most",
        "such",
        "own",
        "same",
        "about",
        "around",
        "between",
        "among",
        "through",
        "during",
        "across",
        "along",
        "against",
        "behind",
        "beside",
        "beneath",
        "below",
        "above",
        "front",
        "back",
        "top",
        "bottom",
        "left",
        "right",
        "side",
        "inside",
        "outside",
        "together",
        "where",
        "what",
        "when",
        "how",
    ]
)
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "knives": "knife",
    "leaves": "leaf", "shelves": "shelf", "geese": "goose", "feet": "foot", "teeth": "tooth", "loaves": "loaf",
    "buses": "bus", "glasses": "glasses", "oxen": "ox", "wolves": "wolf", "scissors": "scissors", "skis": "skis",
    "clothes": "clothes", "stairs": "stairs", "clouds": "clouds", "grass": "grass", "bus": "bus", "glass": "glass",
    "dress": "dress", "moss": "moss", "canvas": "canvas", "cactus": "cactus", "tennis": "tennis",
}  # fmt: skip

Kind = Literal["noun", "colour", "count", "relation"]


@dataclass(frozen=True)
class Concept:
    """What one or several words stand for: the names whose embeddings begin it, and the words, itself first."""

    name: str
    labels: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """A judged part of a prompt.

    Attributes:
        kind: of the word.
        value: the concept, the colour, the count as a digit, or the relation.
        words: positions of its words in the prompt's list of words.
        nouns: concepts it speaks of: the coloured or counted noun, or what stands on both sides of a relation.
    """

    kind: Kind
    value: str
    words: tuple[int, ...]
    nouns: tuple[str, ...] = ()


@lru_cache(maxsize=4)
def read_concepts(path: Path = NOUNS_FILE) -> tuple[Concept, ...]:
    """The concepts of a file with lines `concept | labels | further words`.

    Raises ValueError for a line of another form, and for a word that stands for two concepts.
    """
    found: list[Concept] = []
    owner: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("|")
        if len(fields) != 3:
            raise ValueError(f"{path.name}, line {number} has {len(fields)} fields; write concept | labels | words")
        name, labels, further = (_list(field) for field in fields)
        words = tuple(dict.fromkeys((*name, *further)))
        for word in words:
            if owner.setdefault(word, name[0]) != name[0]:
                raise ValueError(f"{path.name}, line {number}: {word!r} stands for {owner[word]!r} already")
        found.append(Concept(name[0], labels, words))
    return tuple(found)


@lru_cache(maxsize=4)
def _owners(path: Path = NOUNS_FILE) -> dict[str, str]:
    return {word: concept.name for concept in read_concepts(path) for word in concept.words}


def singular(word: str) -> str:
    """The singular of an English noun by its ending; words that only look like plurals stay."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def concept_of(words: Sequence[str]) -> str | None:
    """The concept that one or several words name, in the singular or the plural; None if it is not known."""
    owners = _owners()
    text = " ".join(words)
    for tried in (text, " ".join((*words[:-1], singular(words[-1])))):
        if tried in owners:
            return owners[tried]
    return None


def read_terms(prompt: str) -> list[Term]:
    """The judged terms of a prompt, in order; a colour, count or relation counts only beside nouns that are known."""
    return terms_of(prompt_words(prompt))


def terms_of(words: Sequence[Word]) -> list[Term]:
    """`read_terms` for a prompt that is split already."""
    plain = [re.sub(r"[^a-z0-9-]", "", word.text.lower().removesuffix("'s")) for word in words]
    nouns = _nouns(plain)
    starts = {term.words[0]: term for term in nouns}
    taken = {place for term in nouns for place in term.words}
    terms: list[Term] = list(nouns)
    for place, word in enumerate(plain):
        if place in taken:
            continue
        colour, count = _COLOUR_WORDS.get(word.removesuffix("-colored")), _count(word)
        head = _head(plain, place, starts)
        if colour and head:
            terms.append(Term("colour", colour, (place,), (head.value,)))
        elif count and head:
            terms.append(Term("count", str(count), (place,), (head.value,)))
    terms += _relations(plain, nouns, taken)
    return sorted(terms, key=lambda term: term.words[0])


def is_function_word(word: str) -> bool:
    """Whether a word has no picture of its own."""
    return re.sub(r"[^a-z0-9]", "", word.lower()) in FUNCTION_WORDS


def _nouns(plain: Sequence[str]) -> list[Term]:
    terms: list[Term] = []
    place = 0
    while place < len(plain):
        for length in (3, 2, 1):
            words = plain[place : place + length]
            concept = concept_of(words) if len(words) == length and all(words) else None
            if concept and not (words[0] == "orange" and length == 1 and _names_noun(plain, place + 1)):
                terms.append(Term("noun", concept, tuple(range(place, place + length))))
                break
        else:
            length = 1
        place += length
    return terms


def _names_noun(plain: Sequence[str], place: int) -> bool:
    """Whether a noun starts at a place or one word later: then an "orange" before it is a colour."""
    return any(concept_of(plain[start : start + 1]) for start in (place, place + 1) if start < len(plain))


def _head(plain: Sequence[str], place: int, starts: dict[int, Term]) -> Term | None:
    """The noun that a colour or count at a place belongs to: at most three words on, further colours and their "and"
    left out, the last noun of a compound."""
    steps = 0
    for start in range(place + 1, len(plain)):
        if start in starts:
            term = starts[start]
            following = starts.get(term.words[-1] + 1)
            return following or term
        if plain[start] in _COLOUR_WORDS or plain[start] in ("and", "colored", "coloured"):
            continue
        steps += 1
        if steps == 3 or plain[start] in FUNCTION_WORDS:
            return None
    return None


def _relations(plain: Sequence[str], nouns: Sequence[Term], taken: set[int]) -> list[Term]:
    found: list[Term] = []
    used: set[int] = set()
    for wording, relation in RELATIONS.items():
        parts = wording.split()
        for place in range(len(plain) - len(parts) + 1):
            span = tuple(range(place, place + len(parts)))
            if list(plain[place : place + len(parts)]) != parts or used.intersection(span) or taken.intersection(span):
                continue
            before = [term for term in nouns if place - 4 <= term.words[-1] < place]
            after = [term for term in nouns if span[-1] < term.words[0] <= span[-1] + 4]
            if before and after and before[-1].value != after[0].value:
                found.append(Term("relation", relation, span, (before[-1].value, after[0].value)))
                used.update(span)
    return found


def _count(word: str) -> int | None:
    if word in COUNTS:
        return COUNTS[word]
    return int(word) if word in tuple("123456") else None


def _list(field: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in field.split(",") if part.strip())
