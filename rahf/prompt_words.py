"""The words of a visitor's prompt, in any script, without the syntax of the generator that it was written for.

RichHF-18K counts its labels by another, simpler rule, `rahf.prompts.split_words`; for plain English both agree.
Chinese and Japanese are split by character (katakana by run); Thai, Lao, Khmer and Burmese, which part neither words
nor sentences as others do, stay whole between spaces.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word of a prompt and where it stands.

    text: `prompt[start:end]`, with composed letters (NFC) and without what is not seen, such as soft hyphens.
    """

    text: str
    start: int
    end: int


# Parameters of Midjourney and its kin, with a value and without; `--no` takes all up to the next one.
_VALUED = (
    "ar aspect v version s stylize seed sameseed c chaos q quality style iw stop repeat r weird w h sref sw sv cref cw "
    "oref ow p profile niji exp cfg steps bs motion"
)
_BARE = "tile hd video uplight upbeta test testp creative raw draft turbo fast relax loop"
_START = r"(?:(?<=\s)|^)"
_SYNTAX = re.compile(
    "|".join(
        (
            r"<[^<>\s:]{1,80}:[^<>]{0,200}>",  # <lora:style:0.8>
            r"https?://[^\s,]+",
            r"\bembedding:[\w.\-]+(?::[\d.]+)?",
            r"(?<!\w)__[\w/*\-]+?__(?!\w)",  # wildcards
            r"::[-+]?\d*\.?\d*",  # hot:: dog::2
            r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*(?=[)\]}])",  # the weight in (x:1.3)
            r"(?<=[)\]])[-+]?\d*\.\d+",  # the weight in (x)1.3
            r"(?<![^\s,.;|])BREAK(?![^\s,.;|])",
            _START + r"--(?:no|negative)(?!\w).*?(?=\s--[a-z]|\Z)",
            _START + rf"--(?:{'|'.join(_VALUED.split())})(?!\w)(?:[\s=]+(?!--)[^\s,]+)?",
            _START + rf"--(?:{'|'.join(_BARE.split())})(?!\w)",
            _START + r"[\u2013\u2014](?:ar|aspect|v|version|stylize|chaos|seed|iw|weird|niji)\s+[\d.:]+",  # telephones
        )
    ),
    re.DOTALL,
)
# Punctuation that stands within words, or that belongs to one.
_INSIDE = frozenset("\u2019\u2018\u2010\u2011\u00b7\u2022")
_EDGES = "'\u2019\u2018`\u00b4-\u2010\u2011*+=~^_\\/<>\u2022\u00b7"
_PARTING = frozenset('\u200b\u2060\ufeff\u180e,.?!":;|`')
_JOINERS = frozenset("\u200c\u200d")
_LETTERS_BY_THEMSELVES = re.compile(
    "[\u3005\u3007\u3041-\u3096\u309d-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HYPHENS = re.compile("-{2,}")


def prompt_words(prompt: str) -> list[Word]:
    """The words of a prompt, in order; brackets, weights, `<lora:…>`, `--ar 16:9`, BREAK and the like are none.

    Each holds a letter, a digit, or a sign that is a picture by itself.
    """
    plain = _without_syntax(prompt)
    return [word for start, end in _runs(plain) for word in _word(plain, start, end)]


def _without_syntax(prompt: str) -> str:
    """The prompt with its syntax and its dashes as spaces, one for one, so that spans keep their places."""
    shouted = not any(letter.islower() for letter in prompt)

    def blank(match: re.Match[str]) -> str:
        return match.group() if shouted and match.group() == "BREAK" else " " * len(match.group())

    return _HYPHENS.sub(blank, _SYNTAX.sub(blank, prompt))


def _runs(plain: str) -> Iterator[tuple[int, int]]:
    """Stretches without a parting character, Chinese and Japanese ones cut further."""
    start: int | None = None
    kind = ""
    for place, letter in enumerate(plain):
        now = _kind(letter, plain[place - 1] if place else " ")
        if now == "within" and start is not None:
            continue
        if start is not None and (now != kind or now == "alone"):
            yield start, place
            start = None
        if start is None and now not in ("parting", "within"):
            start, kind = place, now
    if start is not None:
        yield start, len(plain)


def _kind(letter: str, before: str) -> str:
    """What a character is to the run it stands in: "parting", "within" (goes on whatever it is), or a kind of run."""
    if letter.isascii():
        return "parting" if letter.isspace() or letter in _PARTING or letter in "()[]{}" else "other"
    category = unicodedata.category(letter)
    if category in ("Mn", "Mc", "Me"):
        return "within"
    if letter in _JOINERS:
        return "within" if _joins(before) else "parting"
    if _LETTERS_BY_THEMSELVES.match(letter):
        return "alone"
    if _KATAKANA.match(letter):
        return "within" if letter == "\u30fc" and _LETTERS_BY_THEMSELVES.match(before) else "katakana"
    if letter == "\u00ad":  # a soft hyphen
        return "within"
    if letter in _PARTING or category[0] in "ZC" or category == "Sm":
        return "parting"
    return "parting" if category[0] == "P" and letter not in _INSIDE else "other"


def _joins(letter: str) -> bool:
    """Whether a zero-width joiner or non-joiner shapes what follows this character: in emoji and some scripts."""
    if letter.isascii() or not letter.isalpha():
        return unicodedata.category(letter) in ("So", "Sk", "Mn", "Mc")
    return not unicodedata.name(letter, "").startswith(("LATIN", "GREEK", "CYRILLIC", "CJK", "HANGUL", "HIRAGANA"))


def _word(plain: str, start: int, end: int) -> Iterator[Word]:
    """The word of a run without the quotation marks and signs at its edges, if there is one."""
    run = plain[start:end]
    left = len(run) - len(run.lstrip(_EDGES))
    right = len(run.rstrip(_EDGES))
    if left >= right or not any(_counts(letter) for letter in run):
        return
    text = run[left:right].replace("\u00ad", "")
    yield Word(unicodedata.normalize("NFC", text), start + left, start + right)


def _counts(letter: str) -> bool:
    return letter.isalnum() or unicodedata.category(letter) in ("So", "Lm", "Nl", "No")
