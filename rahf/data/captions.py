"""Captions of photographs as examples of words that are shown and, swapped, of words that are not.

A noun is swapped for one that other captions use as often, so that words alone say nothing; a colour or a count for
another one. What any caption or box of the photograph mentions never counts as wrong. Relations come from boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rahf.data.pictures import Picture
from rahf.pictures.vocabulary import COLOURS, Term, concept_of, read_terms

TRIES = 50
COUNTED = ("2", "3", "4", "5", "6")


@dataclass(frozen=True)
class Example:
    """A term that a photograph shows, or does not: `place` of the photograph in the list, and the term."""

    place: int
    term: Term
    shown: bool


def nouns_shown(picture: Picture) -> set[str]:
    """Every concept that a caption or a box of a photograph names."""
    named = {
        term.value for caption in picture.labels["captions"] for term in read_terms(caption) if term.kind == "noun"
    }
    boxes = picture.labels.get("boxes_xywh_orig") or []
    return named | {concept for box in boxes if (concept := concept_of(box[0].split()))}


def make_examples(pictures: Sequence[Picture], seed: int = 0) -> list[Example]:
    """Terms of all captions, each with a swapped one, and relations between boxes; decided by the seed alone."""
    generator = np.random.default_rng(seed)
    per_picture = [[list(read_terms(caption)) for caption in picture.labels["captions"]] for picture in pictures]
    pool = {
        kind: [term.value for captions in per_picture for terms in captions for term in terms if term.kind == kind]
        for kind in ("noun", "colour", "count")
    }
    examples: list[Example] = []
    for place, picture in enumerate(pictures):
        for terms in per_picture[place]:
            for term in dict.fromkeys(_bare(term) for term in terms if term.kind != "relation"):
                if term.kind == "count" and term.value == "1":
                    continue
                wrong = _swapped(term, picture, per_picture[place], pool, generator)
                examples.append(Example(place, term, True))
                if wrong is not None:
                    examples.append(Example(place, wrong, False))
        examples += _relations(place, picture, generator)
    return examples


def _bare(term: Term) -> Term:
    """A term without its place in the caption, so that repeated ones count once a caption."""
    return replace(term, words=())


def _swapped(
    term: Term,
    picture: Picture,
    captions: Sequence[Sequence[Term]],
    pool: dict[str, list[str]],
    generator: np.random.Generator,
) -> Term | None:
    if term.kind == "noun":
        shown = nouns_shown(picture)
        for _ in range(TRIES):
            other = pool["noun"][int(generator.integers(len(pool["noun"])))]
            if other not in shown:
                return replace(term, value=other)
        return None
    said = {
        other.value for terms in captions for other in terms if other.kind == term.kind and other.nouns == term.nouns
    }
    choices = [value for value in (COLOURS if term.kind == "colour" else COUNTED) if value not in said]
    return replace(term, value=choices[int(generator.integers(len(choices)))]) if choices else None


def _relations(place: int, picture: Picture, generator: np.random.Generator) -> list[Example]:
    """Up to two pairs of single boxes that lie clearly beside or above one another, each right and wrong."""
    boxes = picture.labels.get("boxes_xywh_orig") or []
    width, height = picture.labels.get("orig_size") or (1, 1)
    centres: dict[str, list[tuple[float, float]]] = {}
    for name, x, y, w, h in boxes:
        concept = concept_of(name.split())
        if concept:
            centres.setdefault(concept, []).append(((x + w / 2) / width, (y + h / 2) / height))
    single = sorted(name for name, found in centres.items() if len(found) == 1)
    generator.shuffle(single)
    examples = []
    for first, second in list(pairwise(single))[:2]:
        across, down = (centres[first][0][axis] - centres[second][0][axis] for axis in (0, 1))
        if max(abs(across), abs(down)) < 0.15:
            continue
        right = ("right" if across > 0 else "left") if abs(across) > abs(down) else ("below" if down > 0 else "above")
        wrong = {"left": "right", "right": "left", "above": "below", "below": "above"}[right]
        for value, shown in ((right, True), (wrong, False)):
            examples.append(Example(place, Term("relation", value, (), (first, second)), shown))
    return examples
