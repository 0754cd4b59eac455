"""Reports show every script: by a font that covers it, else as numbers; never as boxes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from foundation.lettering import draw, in_reading_order, length, missing, shown
from rahf.feedback import Feedback, WordFeedback
from rahf.prompt_words import prompt_words
from rahf.sheets import LINE, MOST_LINES, _listed, report

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "\U000f0000"  # for private use: no font has it


def feedback(prompt: str) -> Feedback:
    words = tuple(WordFeedback(word.text, word.start, word.end, 0.5) for word in prompt_words(prompt))
    return Feedback(prompt, (40, 30), {"overall": 0.5}, {}, words)


def test_what_no_font_covers_is_a_number_and_said() -> None:
    assert shown(f"cat {NOWHERE}") == "cat U+F0000 "
    assert missing(f"cat {NOWHERE}{NOWHERE}") == NOWHERE
    assert missing("cat два שני café") == ""
    plain = report(np.zeros((30, 40, 3), np.uint8), feedback("a cat"))
    noted = report(np.zeros((30, 40, 3), np.uint8), feedback(f"a {NOWHERE}"))
    assert noted.height == plain.height + LINE


def test_words_that_are_not_judged_are_listed_below_the_words() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    known = feedback("a zorbly cat")
    words = tuple(replace(word, judged=word.text != "zorbly") for word in known.words)
    judged = tuple(replace(word, judged=True) for word in words)
    plain, noted = (report(picture, replace(known, words=row)) for row in (judged, words))
    assert noted.height == plain.height + LINE
    many = tuple(WordFeedback(f"word{n}", n, n + 1, 0.0, judged=False) for n in range(10))
    assert _listed("not judged: ", [word.text for word in many], 10_000).endswith("word8, word9")
    short = _listed("not judged: ", [word.text for word in many], 250)
    assert length(short) <= 250
    kept = short.count("word")
    assert 0 < kept < 10
    assert short.endswith(f"and {10 - kept} more")


def test_spaces_and_signs_of_direction_are_not_drawn() -> None:
    assert shown("a\tb\nc\u3000d\u2028e\u00a0f\u200e\u200bg\ufeff") == "a b c d e fg"


def pixels(text: str) -> np.ndarray:
    sheet = Image.new("L", (400, 30), 255)
    draw(ImageDraw.Draw(sheet), (5, 5), text, 0)  # type: ignore[arg-type]
    return np.asarray(sheet)


def test_lengths_are_those_of_what_is_drawn() -> None:
    for text in ("two bears", "два медведя", f"a {NOWHERE} b", "שני דובים"):
        columns = np.flatnonzero((pixels(text + "|") < 128).any(axis=0))
        assert columns[-1] - 5 == pytest.approx(length(text), abs=5)


def test_a_fonts_own_box_is_never_drawn() -> None:
    """DejaVu Sans, as most fonts, draws a box for what it lacks; the number has no such outline."""
    assert not np.array_equal(pixels(NOWHERE), pixels("\ufffd"))
    assert np.array_equal(pixels(NOWHERE), pixels("U+F0000 "))


def make_font(path: Path, letter: str) -> None:
    """A font with a square for one letter."""
    pen = TTGlyphPen(None)
    for step, place in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        pen.moveTo(place) if step == 0 else pen.lineTo(place)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    path.parent.mkdir(parents=True)
    font.save(path)


def test_a_font_of_the_system_is_found_by_what_it_covers(tmp_path: Path) -> None:
    make_font(tmp_path / ".fonts" / "square.ttf", NOWHERE)
    (tmp_path / ".fonts" / "broken.ttf").write_bytes(b"no font")
    program = (
        f"from foundation.lettering import shown, missing, length; text = 'a {NOWHERE}'\n"
        "print(shown(text) == text, missing(text) == '', round(length(text) - length('a ')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "True", "14"]


def test_neighbours_that_run_from_right_to_left_change_places() -> None:
    def order(*texts: str) -> list[str]:
        return [text for text, _ in in_reading_order([(text, None) for text in texts])]

    assert order("two", " ", "שני", " ", "דובים", " ", "bears") == ["two", " ", "דובים", " ", "שני", " ", "bears"]
    assert order("שני", ", ", "דובים", "!") == ["דובים", ", ", "שני", "!"]
    assert order("a", " ", "b", ".") == ["a", " ", "b", "."]
    assert order(" ", "אחד", " ", "שתיים", " ", "שלוש") == [" ", "שלוש", " ", "שתיים", " ", "אחד"]


@pytest.mark.parametrize("prompt", ["a cat " * 3000, "x" * 50_000, NOWHERE * 500])
def test_a_report_stays_a_picture(prompt: str) -> None:
    sheet = report(np.zeros((30, 40, 3), np.uint8), feedback(prompt))
    assert sheet.width <= 1100
    assert sheet.height < 400 + LINE * (MOST_LINES + 5)
