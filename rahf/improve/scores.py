"""The predictor's scores as functions of the pixels, with a gradient: for guidance and whatever optimises pictures.

The networks are those of `Predictor`, and so are the numbers. What is not differentiable in them is held still: which
of the two judges answers is decided once, and the words of a prompt count in the overall score of real pictures at the
value that they have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rahf.model.config import SCORES
from rahf.pictures.feedback import COMPOSED as COMPOSED_FROM
from rahf.pictures.feedback import EXPECTED_SHARE, SHOWN_SHARE, PictureFeedback, weighted_shown
from rahf.pictures.judge import JUDGED_SCORES, Judgement
from rahf.pictures.vocabulary import terms_of
from rahf.predictor import Predictor
from rahf.prompts import encode_prompts

COMPOSED, PICTURE = "composed scene", "picture"
KINDS = (COMPOSED, PICTURE)
LEAST = 1e-4  # chance that log odds are still taken of


class ScoreGradient:
    """One score of one prompt, of pictures (B,3,H,W) in [0, 1], as log odds with a gradient."""

    def __init__(self, predictor: Predictor, prompt: str, score: str, kind: str | None = None) -> None:
        """Choose.

        Args:
            predictor: its networks are used as they are; nothing in them is trained.
            prompt: of the pictures.
            score: one of the four.
            kind: what the pictures are judged as, "composed scene" or "picture"; by default what the predictor takes
                each batch for, by its first picture.

        Raises:
            ValueError: an unknown score or kind, or a prompt that cannot be used.
        """
        if score not in SCORES:
            raise ValueError(f"no score is called {score!r}; there are {', '.join(SCORES)}")
        if kind not in (None, *KINDS):
            raise ValueError(f"pictures cannot be judged as {kind!r}; choose one of {', '.join(KINDS)}")
        predictor.check_prompt(prompt)
        self.predictor, self.prompt, self.score = predictor, prompt, score
        self.kind = COMPOSED if predictor.pictures is None else kind

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> (B,) log odds of the score; differentiable in the pictures."""
        judge = self.predictor.pictures
        if judge is None or self.kind == COMPOSED:
            return self._composed(pictures)
        judgement = _look(judge, pictures)
        if self.kind is None and bool(judgement.composed[0] >= COMPOSED_FROM):
            return self._composed(pictures)
        return self._real(judge, judgement, pictures)

    def value(self, pictures: Tensor) -> Tensor:
        """(B,) the score itself in [0, 1]; differentiable."""
        return torch.sigmoid(self(pictures))

    def _composed(self, pictures: Tensor) -> Tensor:
        model = self.predictor.model
        predictor = self.predictor
        texts = encode_prompts([self.prompt] * len(pictures), model.config, predictor.tokenizer, predictor.split)
        output = model(pictures.to(model.device), texts, heatmaps=(), scores=(self.score,))
        return torch.logit(output.scores[self.score].float().clamp(LEAST, 1 - LEAST)).to(pictures.device)

    def _real(self, judge: PictureFeedback, judgement: Judgement, pictures: Tensor) -> Tensor:
        """What `PictureFeedback` makes of the members' odds; chances of words are constants."""
        odds = dict(zip(JUDGED_SCORES, judgement.scores.mean(1).unbind(1), strict=True))
        if self.score in ("alignment", "overall"):
            shown = torch.stack([self._shown(judge, one) for one in pictures.detach()]).to(odds["overall"])
            known = torch.isfinite(shown)
            expected = EXPECTED_SHARE * odds["alignment"]
            alignment = torch.where(known, expected + shown.nan_to_num(), odds["alignment"])
            mixed = (1 - SHOWN_SHARE) * odds["overall"] + SHOWN_SHARE * alignment
            odds["overall"] = torch.where(known, mixed, odds["overall"])
            odds["alignment"] = alignment
        return odds[self.score].to(pictures.device)

    def _shown(self, judge: PictureFeedback, picture: Tensor) -> Tensor:
        """() log odds of the words of the prompt in a picture (3,H,W); NaN where none is known."""
        judgement = judge.look(picture)
        found = weighted_shown(judge.words.judge(terms_of(self.predictor.split(self.prompt)), judgement, picture))
        return torch.tensor(float("nan")) if found is None else torch.logit(torch.tensor(found).clamp(0.02, 0.98))


def _look(judge: PictureFeedback, pictures: Tensor) -> Judgement:
    """`PictureFeedback.look` of several pictures, with a gradient."""
    config = judge.judge.config
    return judge.judge(judge.encoder(pictures.to(judge.encoder.mean), config.layers, config.tokens))
