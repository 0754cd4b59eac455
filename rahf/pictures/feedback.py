"""Feedback on real pictures: the shared encoder, the judge's heads and its words, as one object.

Where the judge takes a picture for a composed scene of clip art it says so, and the model of composed scenes answers
instead (`rahf.predictor`).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from foundation.features import ImageEncoder, load_encoder
from rahf.feedback import Feedback, WordFeedback
from rahf.pictures.judge import JUDGED_SCORES, Judgement, PictureJudge, load_judge, read_config, trust
from rahf.pictures.vocabulary import is_function_word, terms_of
from rahf.pictures.words import PictureWords, TermJudgement
from rahf.prompt_words import Word, prompt_words
from rahf.prompts import Splitter

FOLDER = "pictures"  # beside the weights of the model of composed scenes
WORDS_FILE = "words.safetensors"
COMPOSED = 0.87  # chance of a composed scene from which on the other model answers: between all of both in training
NINETY = 1.645  # deviations on both sides that hold 90% of a normal distribution
WEIGHTS = {"noun": 2.0, "colour": 1.0, "count": 1.0, "relation": 1.0}
HIGHEST = 0.95  # of a heatmap at the worst place
USUAL = -4.3  # log odds of a fault at the middle place of a picture; nine of ten photographs have less
# How much the log odds of what is expected of such a picture count in alignment beside the words; alignment in overall.
EXPECTED_SHARE, SHOWN_SHARE = 0.6, 0.15
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PictureFeedback:
    """The judge with everything that it needs. Stateless between calls: safe to share between threads."""

    encoder: ImageEncoder
    judge: PictureJudge
    words: PictureWords

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "PictureFeedback":
        """From the folder `pictures` of the weights. Raises ValueError if it is incomplete or damaged."""
        return cls(load_encoder(device), load_judge(folder, device), load_words(folder, device))

    @torch.inference_mode()
    def look(self, picture: Tensor) -> Judgement:
        """What the judge sees in one picture (3,H,W) in [0, 1]."""
        config = self.judge.config
        return self.judge(self.encoder(picture[None].to(self.encoder.mean), config.layers, config.tokens))

    def is_composed(self, judgement: Judgement) -> bool:
        """Whether the picture is taken for a composed scene."""
        return bool(judgement.composed[0] >= COMPOSED)

    @torch.inference_mode()
    def describe(
        self,
        judgement: Judgement,
        picture: Tensor,
        prompt: str,
        words: bool = True,
        heatmaps: bool = True,
        split: Splitter = prompt_words,
    ) -> Feedback:
        """Feedback on one picture (3,H,W) from what the judge sees in it."""
        spans = split(prompt)
        found = self.words.judge(terms_of(spans), judgement, picture)
        scores, intervals, unsure = self._scores(judgement, found)
        size = (picture.shape[2], picture.shape[1])
        maps = {"implausibility": fault_map(judgement), "misalignment": missing_map(found, judgement)}
        return Feedback(
            prompt=prompt,
            image_size=size,
            scores=scores,
            heatmaps={name: at_size(values, size) for name, values in maps.items()} if heatmaps else {},
            words=_words(prompt, spans, found) if words else (),
            word_threshold=self.judge.config.word_threshold,
            intervals=intervals,
            unsure=unsure,
            judged_as="picture",
        )

    def _scores(
        self, judgement: Judgement, found: list[TermJudgement]
    ) -> tuple[dict[str, float], dict[str, tuple[float, float]], tuple[str, ...]]:
        """Scores, their 90% intervals, and the names of those that the members disagree about."""
        config = self.judge.config
        odds = judgement.scores[0].mean(0)
        spread = judgement.spread()[0]
        values = dict(zip(JUDGED_SCORES, odds.tolist(), strict=True))
        widths = dict(zip(JUDGED_SCORES, spread.tolist(), strict=True))
        shown = weighted_shown(found)
        if shown is not None:
            values["alignment"] = EXPECTED_SHARE * values["alignment"] + _odds(shown)
            values["overall"] = (1 - SHOWN_SHARE) * values["overall"] + SHOWN_SHARE * values["alignment"]
        unsure = [name for name in JUDGED_SCORES if widths[name] > config.spread_limits[JUDGED_SCORES.index(name)]]
        if shown is None and "alignment" not in unsure:
            unsure.append("alignment")
        intervals = {}
        for place, name in enumerate(JUDGED_SCORES):
            half = NINETY * math.hypot(widths[name], config.residuals[place])
            intervals[name] = (_chance(values[name] - half), _chance(values[name] + half))
        return {name: _chance(values[name]) for name in JUDGED_SCORES}, intervals, tuple(unsure)


def load_words(folder: Path, device: str = "cpu") -> PictureWords:
    """The words of a judge's folder, in float32. Raises ValueError if they are missing or damaged."""
    config, concepts = read_config(folder)
    words = PictureWords(concepts, config.embedding)
    try:
        words.load_state_dict({name: value.float() for name, value in load_file(folder / WORDS_FILE).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the words in {folder} are damaged ({error}); install the package again") from error
    return words.eval().requires_grad_(False).to(device)


def weighted_shown(found: list[TermJudgement]) -> float | None:
    """Mean chance that a term is shown, nouns weighing twice; None if there is no term that is known."""
    weights = [WEIGHTS[one.term.kind] for one in found]
    if not weights:
        return None
    return sum(w * (1 - one.probability) for w, one in zip(weights, found, strict=True)) / sum(weights)


def fault_map(judgement: Judgement) -> np.ndarray:
    """(h,w) in [0, 1]: chance of a fault, and of a wrong part of a person where such a part is.

    What lies on the whole picture, such as grain on a dark or cloudy one, is no fault at a place: by as much as the
    middle of all places is above the usual, all of them are lowered.
    """
    faults = judgement.faults[0].mean(0)
    faults = faults - (faults.median() - USUAL).clamp(min=0)
    faults = F.avg_pool2d(F.pad(faults[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0].sigmoid()
    believed = judgement.part_errors[0] * trust(judgement.parts[0].mean((1, 2)))
    suspected = (judgement.parts[0] * believed[:, None, None]).amax(0)
    return torch.maximum(faults, 0.8 * suspected).clamp(max=HIGHEST).cpu().numpy()


def missing_map(found: list[TermJudgement], judgement: Judgement) -> np.ndarray:
    """(h,w) in [0, 1]: where what does not fit the prompt is: nouns whose colour, number or place is wrong, and what
    comes nearest to a noun that is missing."""
    total = np.zeros(tuple(judgement.dense.shape[-2:]), np.float32)
    for one in found:
        weight = 0.6 if one.term.kind == "noun" else 0.9
        if one.probability > 0.5:
            total = np.maximum(total, weight * one.probability * one.where)
    return total


def at_size(heatmap: np.ndarray, size: Size) -> np.ndarray:
    """(h,w) -> float32 (H,W) of `size` = (width, height), bilinear."""
    grown = F.interpolate(torch.from_numpy(heatmap)[None, None].float(), (size[1], size[0]), mode="bilinear")
    return np.asarray(grown[0, 0].numpy())


def _words(prompt: str, spans: list[Word], found: list[TermJudgement]) -> tuple[WordFeedback, ...]:
    """Every word of the prompt; those of no known term are not judged, function words count as shown."""
    chances: dict[int, float] = {}
    for one in found:
        for place in one.term.words:
            chances[place] = max(chances.get(place, 0.0), one.probability)
    return tuple(
        WordFeedback(
            prompt[word.start : word.end],
            word.start,
            word.end,
            chances.get(place, 0.0),
            judged=place in chances or is_function_word(word.text),
        )
        for place, word in enumerate(spans)
    )


def _odds(chance: float) -> float:
    chance = min(max(chance, 0.02), 0.98)
    return math.log(chance / (1 - chance))


def _chance(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
