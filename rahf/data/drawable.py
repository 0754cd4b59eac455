"""What the embedded generator is asked for: a vocabulary of sixteen kinds of things, and the prompts made of it.

A restricted grammar of `rahf.data.grammar`: one group of one to four, or two groups of one or two each that may stand
in a relation, in eight colours or their own. An eighth of all plans is held out: no picture of the generator's training
shows one, so that what it draws of them is put together, not remembered.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from rahf.data.grammar import COLOURS, COUNTS, ENDINGS, OPENINGS, RELATIONS, Group, Plan, noun_in_number, write_prompt

NOUNS: tuple[str, ...] = (
    "apple",
    "balloon",
    "butterfly",
    "cake",
    "car",
    "cat",
    "clock",
    "dog",
    "flower",
    "guitar",
    "hat",
    "heart",
    "house",
    "mushroom",
    "strawberry",
    "tree",
)
HELD_OUT = 8  # one plan of so many
SINGLE, COLOURED, RELATED = 0.55, 0.65, 0.6
COUNT_CHANCES: Mapping[bool, tuple[float, ...]] = {True: (0.4, 0.25, 0.2, 0.15), False: (0.75, 0.25)}


def draw_plan(generator: np.random.Generator, held_out: bool) -> Plan:
    """A random plan of the restricted grammar, from those held out or from all others."""
    while True:
        plan = _draw(generator)
        if is_held_out(plan) == held_out:
            return plan


def is_held_out(plan: Plan) -> bool:
    """Whether training must not show the plan: decided by its groups alone, in whatever order and relation."""
    key = ";".join(sorted(f"{group.count} {group.colour} {group.noun}" for group in plan.groups))
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0


def draw_prompts(count: int, seed: int, held_out: bool = True) -> list[tuple[str, Plan]]:
    """`count` prompts with the plans they tell of, decided by the seed."""
    generator = np.random.default_rng([seed, int(held_out)])
    plans = [draw_plan(generator, held_out) for _ in range(count)]
    return [(write_prompt(plan, generator)[0], plan) for plan in plans]


def vocabulary() -> list[str]:
    """Every word of such prompts, sorted."""
    phrases = [*NOUNS, *(noun_in_number(noun, 2) for noun in NOUNS), *COLOURS, *COUNTS, "an", "and"]
    phrases += [*RELATIONS.values(), *OPENINGS, *ENDINGS]
    return sorted({word for phrase in phrases for word in phrase.replace(",", " , ").split()})


def _draw(generator: np.random.Generator) -> Plan:
    single = bool(generator.random() < SINGLE)
    chances = COUNT_CHANCES[single]
    groups = tuple(
        Group(
            noun=str(noun),
            count=1 + int(generator.choice(len(chances), p=chances)),
            colour=str(generator.choice(list(COLOURS))) if generator.random() < COLOURED else None,
        )
        for noun in generator.choice(NOUNS, size=1 if single else 2, replace=False)
    )
    related = not single and generator.random() < RELATED
    return Plan(groups, str(generator.choice(list(RELATIONS))) if related else None)
