"""How far pictures are from a prompt, differentiable in their pixels: what takes the place of CLIP's distance here.

There is no text tower, so a prompt is what can be said about its words. Which network answers is told, or decided once
by the judge's own gate on the picture that an optimisation begins with:

- pictures: the image-text space of `rahf.pictures`. Each noun, colour and relation of the prompt that the vocabulary
  has gets log odds of being shown, from its vector's similarity to the picture and its tokens, exactly as in feedback.
  Counts are left out, since the number of separate places has no gradient. Where it has no word of the prompt and
  nobody insists, the other network answers.
- composed scenes: the model of composed scenes reads the whole prompt, and its decoder gives for each word the log odds
  of the mark "not shown", counts and relations included, earlier words taken as shown.

The distance is the mean of -log of the chance that a word is shown. Of a part of a picture only nouns and colours are
asked: nothing says that a crop holds all three apples, or what lies above them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rahf.data.grammar import COUNTS, RELATIONS
from rahf.improve.scores import COMPOSED, KINDS, PICTURE
from rahf.pictures.feedback import PictureFeedback
from rahf.pictures.judge import Judgement
from rahf.pictures.vocabulary import Term, is_function_word, terms_of
from rahf.pictures.words import Seen, colour_maps
from rahf.predictor import Predictor
from rahf.prompts import ALIGNED, encode_prompts
from rahf.words import choice_logits, word_targets

AUTO = "auto"
_WHOLE_ONLY = {*COUNTS, *(word for wording in RELATIONS.values() for word in wording.split())}
_SEEN_IN_PART = ("noun", "colour")


class Likeness:
    """The distance of pictures from one prompt, and of parts of pictures.

    Attributes:
        kind: "composed scene" or "picture": which network answers.
        words: those of the prompt that count, in order.
    """

    def __init__(self, predictor: Predictor, prompt: str, picture: Tensor, kind: str = AUTO) -> None:
        """Choose the network by a picture (3,H,W) in [0, 1], or by name.

        Raises:
            ValueError: the prompt cannot be used, an unknown kind, or no word of the prompt that its network knows.
        """
        if kind not in (AUTO, *KINDS):
            raise ValueError(f"pictures cannot be judged as {kind!r}; choose one of {', '.join((AUTO, *KINDS))}")
        predictor.check_prompt(prompt)
        self.predictor, self.prompt = predictor, prompt
        spans = predictor.split(prompt)
        self._texts = [word.text for word in spans]
        self._terms = known_terms(predictor, prompt)
        if kind == PICTURE and not self._terms:
            raise ValueError(
                f"no word of {prompt[:60]!r} is known here, so nothing can be steered by it; name things and colours"
            )
        self.kind = kind_of(predictor, picture) if kind == AUTO and self._terms else kind.replace(AUTO, COMPOSED)
        places = list(range(len(self._texts)))
        if self.kind == PICTURE:
            places = sorted({place for term in self._terms for place in term.words})
        self.words = tuple(self._texts[place] for place in places)
        self._places = places
        self._in_part = [place for place in places if not _of_the_whole(self._texts[place])] or places

    def distance(self, pictures: Tensor, part: bool = False) -> Tensor:
        """(B,) distances, 0 where every word is shown for certain, of pictures (B,3,H,W) in [0, 1].

        part: the pictures are crops: only nouns and colours are asked.
        """
        judge = self.predictor.pictures
        if self.kind == COMPOSED or judge is None:
            places = torch.tensor(self._in_part if part else self._places)
            return F.softplus(self._marks(pictures)[:, places]).mean(1)
        terms = [term for term in self._terms if not part or term.kind in _SEEN_IN_PART]
        return F.softplus(-shown_odds(judge, terms or self._terms, pictures)).mean(1)

    def _marks(self, pictures: Tensor) -> Tensor:
        """(B,words) log odds that the model of composed scenes marks each word, earlier words taken as shown."""
        predictor, model = self.predictor, self.predictor.model
        count = len(pictures)
        texts = encode_prompts([self.prompt] * count, model.config, predictor.tokenizer, predictor.split)
        targets = word_targets([self._texts] * count, [[ALIGNED] * len(self._texts)] * count, predictor.tokenizer)
        output = model(pictures.to(model.device), texts, (), (), targets.ids.to(model.device))
        assert output.word_logits is not None
        return torch.stack(choice_logits(output.word_logits, targets, predictor.tokenizer)).to(pictures.device)


def known_terms(predictor: Predictor, prompt: str) -> list[Term]:
    """Nouns, colours and relations of a prompt that the judge of real pictures knows."""
    if predictor.pictures is None:
        return []
    words = predictor.pictures.words
    return [term for term in terms_of(predictor.split(prompt)) if term.kind != "count" and words.knows(term)]


def kind_of(predictor: Predictor, picture: Tensor) -> str:
    """What the judge takes a picture (3,H,W) for: one of `rahf.improve.scores.KINDS`."""
    judge = predictor.pictures
    composed = judge is None or judge.is_composed(judge.look(picture))
    return KINDS[0] if composed else KINDS[1]


def shown_odds(judge: PictureFeedback, terms: list[Term], pictures: Tensor) -> Tensor:
    """(B,terms) log odds that each term, none of them a count, is shown in pictures (B,3,H,W); differentiable."""
    config = judge.judge.config
    judgement: Judgement = judge.judge(judge.encoder(pictures.to(judge.encoder.mean), config.layers, config.tokens))
    whole, best, maps = judge.words.similarities(judgement)
    rows = []
    for place, picture in enumerate(pictures):
        colours = colour_maps(picture, maps.shape[-2:])
        seen = Seen(whole[place], best[place], maps[place], judgement.parts[place], colours, judge.words.index)
        rows.append(torch.stack([judge.words.logit(term, judge.words.features(term, seen)) for term in terms]))
    return torch.stack(rows).to(pictures.device)


def _of_the_whole(text: str) -> bool:
    """Whether a word has no picture of its own, or says how many there are, or where to one another."""
    return is_function_word(text) or text.lower() in _WHOLE_ONLY or text.isdigit()
