"""What became of a picture, told for the page: scores before and after, words, and how it went."""

from __future__ import annotations

import html

from rahf.feedback import Feedback
from rahf.model.config import SCORES
from ui.improve.jobs import Answer

WORTH_SAYING = 0.005  # differences below it are none


def told(answer: Answer) -> str:
    """The answer as HTML: a table of the scores, the words that are not shown, why it ended and what it cost."""
    before = answer.before.feedback if answer.before is not None else None
    after = answer.after.feedback
    rows = "".join(_row(name, before, after) for name in SCORES)
    head = "<th scope='col'>before</th>" if before is not None else ""
    table = (
        "<table class='improve-scores'><thead><tr><th scope='col'>score</th>"
        f"{head}<th scope='col'>{'after' if before is not None else 'value'}</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    cost = f"{answer.seconds:.1f} s, {answer.calls} looks of the network at one picture."
    parts = [f"<p>{html.escape(answer.stopped)}</p>", table, _words(before, after), f"<p class='quiet'>{cost}</p>"]
    return f"<div class='improve-told' role='status'>{''.join(parts)}</div>"


def _row(name: str, before: Feedback | None, after: Feedback) -> str:
    value = after.scores[name]
    cells = f"<th scope='row'>{name}</th>"
    if before is not None:
        change = value - before.scores[name]
        mark = "" if abs(change) < WORTH_SAYING else f" <small>{'+' if change > 0 else '−'}{abs(change):.2f}</small>"
        return f"<tr>{cells}<td>{before.scores[name]:.2f}</td><td>{value:.2f}{mark}</td></tr>"
    return f"<tr>{cells}<td>{value:.2f}</td></tr>"


def _words(before: Feedback | None, after: Feedback) -> str:
    """Words of the prompt that are not shown, before and after."""
    now = _missing(after)
    text = f"Not shown: {now}." if now else "Every word that can be judged is shown."
    if before is not None and (then := _missing(before)) != now:
        text += f" Before: {then}." if then else " Before: none."
    return f"<p>{html.escape(text)}</p>"


def _missing(feedback: Feedback) -> str:
    return ", ".join(dict.fromkeys(feedback.prompt[word.start : word.end] for word in feedback.misaligned()))
