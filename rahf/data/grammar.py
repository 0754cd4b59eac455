"""Prompts of composed scenes: what is asked for, what is drawn instead, and which words that makes wrong."""

from dataclasses import dataclass, replace

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (242, 140, 30),
    "yellow": (245, 215, 50),
    "green": (60, 165, 70),
    "blue": (50, 100, 215),
    "purple": (135, 65, 180),
    "pink": (245, 140, 185),
    "brown": (130, 85, 50),
}
COUNTS: tuple[str, ...] = ("a", "two", "three", "four")
RELATIONS: dict[str, str] = {
    "above": "above",
    "below": "below",
    "left": "to the left of",
    "right": "to the right of",
}
OPPOSITE = {"above": "below", "below": "above", "left": "right", "right": "left"}
OPENINGS: tuple[str, ...] = ("", "", "a picture of", "an illustration of", "a 3d render of")
ENDINGS: tuple[str, ...] = ("", "", ", highly detailed", ", digital art", ", simple background")
SIGNS: tuple[str, ...] = ("OPEN", "HELLO", "STOP", "SALE", "CAFE", "PARK", "ZOO", "SHOP", "EXIT", "HOME")

_PLURALS = {
    **{same: same for same in ("sheep", "deer", "fish", "grapes", "scissors")},
    "mouse": "mice",
    "wolf": "wolves",
    "knife": "knives",
}

# How much of the alignment score each kind of word carries.
WEIGHTS = {"noun": 2.0, "colour": 1.0, "count": 1.0, "relation": 1.0, "text": 1.0}


@dataclass(frozen=True)
class Group:
    """Some equal objects: `count` of a `noun`, tinted with a named colour or in its own colours."""

    noun: str
    count: int
    colour: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a picture shows: groups, how the first stands to the second, the words on a sign."""

    groups: tuple[Group, ...]
    relation: str | None = None
    sign: str | None = None


@dataclass(frozen=True)
class Role:
    """What a word of the prompt says: its kind ("noun", ..., or "" for filling) and of which group."""

    kind: str = ""
    group: int = -1


@dataclass(frozen=True)
class AlignmentFault:
    """A way in which the drawing departs from the prompt: its kind, the group, and the roles of the words it breaks."""

    kind: str
    group: int
    breaks: tuple[str, ...]


def draw_plan(nouns: list[str], generator: np.random.Generator) -> Plan:
    """A random plan with one to three groups of different nouns."""
    number = int(generator.choice([1, 2, 3], p=[0.25, 0.55, 0.2]))
    chosen = generator.choice(nouns, size=min(number, len(nouns)), replace=False)
    groups = tuple(
        Group(
            noun=str(noun),
            count=int(generator.choice([1, 2, 3, 4], p=[0.6, 0.2, 0.12, 0.08])),
            colour=str(generator.choice(list(COLOURS))) if generator.random() < 0.5 else None,
        )
        for noun in chosen
    )
    relation = str(generator.choice(list(RELATIONS))) if len(groups) == 2 and generator.random() < 0.6 else None
    sign = str(generator.choice(SIGNS)) if generator.random() < 0.15 else None
    return Plan(groups, relation, sign)


def write_prompt(plan: Plan, generator: np.random.Generator) -> tuple[str, list[Role]]:
    """The prompt of a plan, and the role of each of its words."""
    words: list[tuple[str, Role]] = [(word, Role()) for word in str(generator.choice(OPENINGS)).split()]
    for place, group in enumerate(plan.groups):
        if place:
            link = RELATIONS[plan.relation] if plan.relation else "and"
            words += [(word, Role("relation" if plan.relation else "")) for word in link.split()]
        words += _phrase(group, place)
    if plan.sign:
        words += [(word, Role()) for word in ["and", "a", "sign", "that", "says"]]
        words.append((f'"{plan.sign}"', Role("text")))
    ending = str(generator.choice(ENDINGS))
    prompt = " ".join(word for word, _ in words) + ending
    return prompt, [role for _, role in words] + [Role()] * len(ending.replace(",", " ").split())


def misdraw(
    plan: Plan, nouns: list[str], generator: np.random.Generator, faults: int
) -> tuple[Plan, list[AlignmentFault]]:
    """A plan that departs from `plan` in up to `faults` ways, at most one a group."""
    made: list[AlignmentFault] = []
    if plan.relation and faults and generator.random() < 0.35:
        plan = replace(plan, relation=OPPOSITE[plan.relation])
        made.append(AlignmentFault("wrong relation", -1, ("relation",)))
    for place in generator.permutation(len(plan.groups))[: faults - len(made)]:
        plan, fault = _misdraw_group(plan, int(place), nouns, generator)
        made.append(fault)
    return plan, made


def word_labels(roles: list[Role], faults: list[AlignmentFault], broken_sign: bool = False) -> tuple[int, ...]:
    """1 for each word that the picture shows, 0 for each that it does not; filling words are always shown."""
    return tuple(0 if _is_broken(role, faults, broken_sign) else 1 for role in roles)


def alignment_score(roles: list[Role], labels: tuple[int, ...]) -> float:
    """The part of the weight of all telling words that is shown, in [0, 1]."""
    weights = np.array([WEIGHTS.get(role.kind, 0.0) for role in roles])
    return float((weights * np.array(labels)).sum() / weights.sum())


def noun_in_number(noun: str, count: int) -> str:
    """The noun as it stands behind a count."""
    return noun if count == 1 else _plural(noun)


def _phrase(group: Group, place: int) -> list[tuple[str, Role]]:
    noun = noun_in_number(group.noun, group.count)
    first = group.colour or noun
    count = "an" if group.count == 1 and first[0] in "aeiou" else COUNTS[group.count - 1]
    words = [(count, Role("count", place))]
    if group.colour:
        words.append((group.colour, Role("colour", place)))
    return [*words, (noun, Role("noun", place))]


def _plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")) or noun in ("tomato",):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def _misdraw_group(
    plan: Plan, place: int, nouns: list[str], generator: np.random.Generator
) -> tuple[Plan, AlignmentFault]:
    group = plan.groups[place]
    kinds = ["wrong object", "wrong count", "missing object", *(["wrong colour"] * 2 if group.colour else [])]
    if len(plan.groups) == 1:
        kinds.remove("missing object")  # a picture of nothing
    kind = str(generator.choice(kinds))
    if kind == "missing object":
        breaks: tuple[str, ...] = ("noun", "colour", "count")
        changed = replace(group, count=0)
    elif kind == "wrong count":
        breaks = ("count",)
        changed = replace(group, count=int(generator.choice([n for n in (1, 2, 3, 4) if n != group.count])))
    elif kind == "wrong colour":
        breaks = ("colour",)
        changed = replace(group, colour=str(generator.choice([name for name in COLOURS if name != group.colour])))
    else:
        breaks = ("noun",)
        taken = {other.noun for other in plan.groups}
        changed = replace(group, noun=str(generator.choice([noun for noun in nouns if noun not in taken])))
    groups = tuple(changed if other == place else item for other, item in enumerate(plan.groups))
    return replace(plan, groups=groups), AlignmentFault(kind, place, breaks)


def _is_broken(role: Role, faults: list[AlignmentFault], broken_sign: bool) -> bool:
    if role.kind == "text":
        return broken_sign
    if role.kind == "relation" and any(fault.kind == "missing object" for fault in faults):
        return True  # nothing stands in a relation to what is not there
    return any(role.kind in fault.breaks and role.group == fault.group for fault in faults)
