"""Answers by a chat model that sees pictures: any of transformers, by its chance of "yes" against "no"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.devices import resolve_device
from foundation.pictures import to_uint8
from rahf.improve.checklist.original import PROMPT
from rahf.improve.checklist.questions import Question
from rahf.improve.checklist.scoring import Answer

YES = ("yes", "Yes", "YES")
NO = ("no", "No", "NO")
BIDDING = "Answer with one word, yes or no."
AGREEMENT = 'Does the picture show "{prompt}"?'


class ChatAnswers:
    """A model of `AutoModelForImageTextToText` with a processor that has a chat template.

    Attributes:
        name: as it was asked for.
    """

    measured = False

    def __init__(self, model: Any, processor: Any, name: str = "chat model") -> None:
        """Raises ValueError for a processor without a chat template, or whose words for yes and no are the same."""
        if not getattr(processor, "chat_template", None):
            raise ValueError(f"{name} has no chat template; name a model that was made for questions on pictures")
        self.model, self.processor, self.name = model.eval(), processor, name
        self._yes, self._no = _first_tokens(processor.tokenizer, YES), _first_tokens(processor.tokenizer, NO)
        if not self._yes or not self._no or self._yes & self._no:
            raise ValueError(f"the tokenizer of {name} cannot tell yes from no; name another model")

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str = "auto",
        dtype: torch.dtype | str = "auto",
        revision: str | None = None,
        token: str | None = None,
    ) -> ChatAnswers:
        """From a folder or the Hub. Code that comes with a model is never run.

        Raises:
            ValueError: no such model, one of another kind, or a device that is not there.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        place = resolve_device(device)
        try:
            processor = AutoProcessor.from_pretrained(source, revision=revision, token=token)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype, revision=revision, token=token, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"{source} cannot be loaded as a chat model that sees pictures ({reason}); name a folder or a "
                "repository of the Hub that transformers' AutoModelForImageTextToText knows"
            ) from error
        return cls(model.to(place), processor, str(source))

    def answer(self, picture: Tensor, questions: Sequence[Question], prompt: str = "") -> list[Answer]:
        """Chances of yes; a question about the prompt is not asked where there is none."""
        made = []
        for question in questions:
            if PROMPT in question.text and not prompt:
                made.append(Answer(question, None, reason="not asked: there is no prompt"))
                continue
            chance = self.chance(picture, question.text.replace(PROMPT, prompt))
            made.append(Answer(question, chance, reason=f"chance of yes {chance:.2f}"))
        return made

    def alignment(self, picture: Tensor, prompt: str) -> float:
        """Chance of yes to the question whether the picture shows the prompt (Lin et al. 2024, "VQAScore")."""
        return self.chance(picture, AGREEMENT.format(prompt=prompt))

    @torch.inference_mode()
    def chance(self, picture: Tensor, question: str) -> float:
        """Chance in [0, 1] of yes against no as the first word of the answer on a picture (3,H,W) in [0, 1]."""
        from PIL import Image

        content = [{"type": "image"}, {"type": "text", "text": f"{question} {BIDDING}"}]
        messages = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        image = Image.fromarray(to_uint8(picture[None])[0])
        inputs = self.processor(images=[image], text=[text], return_tensors="pt").to(self.model.device)
        inputs = {
            key: value.to(self.model.dtype) if torch.is_floating_point(value) else value
            for key, value in inputs.items()
        }
        logits = self.model(**inputs).logits[0, -1].float()
        yes, no = (torch.logsumexp(logits[sorted(ids)], 0) for ids in (self._yes, self._no))
        return float(torch.sigmoid(yes - no))


def _first_tokens(tokenizer: Any, words: Sequence[str]) -> set[int]:
    """Ids that a word begins with, alone and behind a blank, where they are known."""
    found = set()
    for word in words:
        for text in (word, f" {word}"):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            # A blank of its own says nothing about the word behind it.
            ids = [one for one in ids if tokenizer.decode([one]).strip()]
            if ids and ids[0] != tokenizer.unk_token_id:
                found.add(int(ids[0]))
    return found
