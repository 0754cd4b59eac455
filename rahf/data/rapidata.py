"""The Rapidata rich-feedback set (`Rapidata/text-2-image-Rich-Human-Feedback`, Apache-2.0).

Its labels mean other things than RichHF-18K's: a null heatmap was *not collected*, so it is left out rather than taken
as clean; words carry scores that grow with misalignment, split at spaces with their punctuation, and end with an entry
`[No_mistakes]`; "coherence" is plausibility, "style" the nearest to aesthetics, and there is no overall score.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from foundation.pictures import load_photo
from rahf.data.samples import RecordError, Sample
from rahf.prompts import ALIGNED, MISALIGNED, split_words

NO_MISTAKES = "[No_mistakes]"
SCORE_COLUMNS = {
    "coherence_score_norm": "plausibility",
    "alignment_score_norm": "alignment",
    "style_score_norm": "aesthetics",
}
MAP_COLUMNS = {"coherence_heatmap": "implausibility", "alignment_heatmap": "misalignment"}


def rapidata_samples(rows: Iterable[Mapping[str, Any]], word_threshold: float = 2.0) -> Iterator[Sample]:
    """Samples from the rows of the set (dictionaries, as `datasets` or a parquet reader gives them).

    word_threshold: word score from which a word counts as misaligned. Raises RecordError that names the row.
    """
    for place, row in enumerate(rows):
        yield parse_row(row, f"row {place}", word_threshold)


def parse_row(row: Mapping[str, Any], name: str, word_threshold: float = 2.0) -> Sample:
    """One row as a sample. Raises RecordError that names it if a column is absent or words do not fit the prompt."""
    try:
        prompt, image = str(row["prompt"]), row["image"]
        scores = {ours: float(row[column]) for column, ours in SCORE_COLUMNS.items() if row[column] is not None}
        maps = {ours: _map(row[column]) for column, ours in MAP_COLUMNS.items()}
        word_scores = row["word_scores"]
    except KeyError as error:
        raise RecordError(f"{name}: column {error} is absent") from error
    pixels = (load_photo(image).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Sample(
        name=name,
        image=pixels,
        prompt=prompt,
        heatmaps={ours: heatmap for ours, heatmap in maps.items() if heatmap is not None},
        scores=scores,
        words=_words(word_scores, prompt, name, word_threshold),
    )


def _map(value: Any) -> np.ndarray | None:
    """A heatmap (h,w) in [0, 1], or None if it was not collected (null, empty, or holding nulls)."""
    if value is None or len(value) == 0:
        return None
    heatmap = np.array([[np.nan if cell is None else float(cell) for cell in line] for line in value], np.float32)
    if not heatmap.size or np.isnan(heatmap).any():
        return None
    return np.clip(heatmap, 0, 1)


def _words(value: Any, prompt: str, name: str, threshold: float) -> tuple[int, ...] | None:
    """Labels for our words: one of theirs may hold several, or none when it is only punctuation."""
    if value is None:
        return None
    entries = [(str(word), float(score)) for word, score in (json.loads(value) if isinstance(value, str) else value)]
    labels: list[int] = []
    theirs: list[str] = []
    for word, score in entries:
        if word == NO_MISTAKES:
            continue
        inside = [part.text for part in split_words(word)]
        theirs += inside
        labels += [MISALIGNED if score >= threshold else ALIGNED] * len(inside)
    ours = [word.text for word in split_words(prompt)]
    if theirs != ours:
        raise RecordError(f"{name}: the scored words ({len(theirs)}) are not those of the prompt ({len(ours)})")
    return tuple(labels)
