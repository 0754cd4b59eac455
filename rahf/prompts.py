"""Prompts as RichHF-18K treats them: words, labels, spans in the original text, and tokens.

In its labels words are what stands between `, . ? ! " : ;` and spaces; a visitor's prompt, in whatever script, is split
by `rahf.prompt_words`. The cleaned prompt joins the words with single spaces, case kept; the target text appends `_0`
to every misaligned word.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from rahf.model.config import TASKS, RAHFConfig
from rahf.model.rahf import Texts, TextTokens
from rahf.prompt_words import Word, prompt_words

MARK = "_0"
MISALIGNED, ALIGNED = 0, 1
PAD, END, UNKNOWN = 0, 1, 2
MAX_LETTERS = 50_000

Splitter = Callable[[str], list[Word]]

_WORD = re.compile(r'[^,.?!":; ]+')
_BLANKS = str.maketrans({"\n": " ", "\t": " ", "\r": " ", "\u00a0": " "})


def split_words(prompt: str) -> list[Word]:
    """The words of a prompt, in order, exactly as the labels of RichHF-18K count them; `prompt[start:end] == text`."""
    return [Word(match.group(), match.start(), match.end()) for match in _WORD.finditer(prompt)]


def plain_blanks(prompt: str) -> str:
    """Line breaks, tabs and no-break spaces as spaces, one for one, so that spans keep their places."""
    return prompt.translate(_BLANKS)


def label_words(prompt: str) -> list[Word]:
    """`split_words` where line breaks and tabs part words too, as for training on labelled prompts."""
    return split_words(plain_blanks(prompt))


def clean_prompt(prompt: str) -> str:
    """What the encoder reads: the words joined by single spaces."""
    return " ".join(word.text for word in split_words(prompt))


def marked_prompt(words: Sequence[str], labels: Sequence[int]) -> str:
    """The target text: words joined by spaces, `_0` behind those whose label is 0."""
    return " ".join(word + MARK if label == MISALIGNED else word for word, label in zip(words, labels, strict=True))


def parse_labels(label: str, words: Sequence[str]) -> list[int]:
    """Space-separated 0 (misaligned) and 1 for each word.

    Raises ValueError if an entry is neither, or if there are not as many as there are words.
    """
    entries = label.split()
    if any(entry not in ("0", "1") for entry in entries):
        raise ValueError(f"word label {label!r} holds something other than 0 and 1")
    if len(entries) != len(words):
        raise ValueError(f"{len(entries)} word labels came with {len(words)} words")
    return [int(entry) for entry in entries]


def read_marked(text: str) -> list[tuple[str, bool]]:
    """Words of a (generated) marked prompt, and whether each carries the mark."""
    return [(word.removesuffix(MARK), word.endswith(MARK)) for word in text.split()]


class TextTokenizer(Protocol):
    """What the model needs of a tokenizer; ids 0, 1, 2 are padding, end and unknown."""

    marker: list[int]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the end mark."""

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of each word, such that joined they are the ids of the words joined by spaces."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, up to the end mark."""


class ByteTokenizer:
    """UTF-8 bytes, each as byte + 3, as in ByT5: no vocabulary file, and nothing is unknown."""

    def __init__(self) -> None:
        self.marker = self.encode(MARK)

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode("utf-8", errors="replace")]

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        return [self.encode(word if place == 0 else f" {word}") for place, word in enumerate(words)]

    def decode(self, ids: Sequence[int]) -> str:
        whole = list(ids)
        whole = whole[: whole.index(END)] if END in whole else whole
        return bytes(token - 3 for token in whole if 3 <= token < 259).decode("utf-8", errors="replace")


class SentencePieceTokenizer:
    """T5's sentencepiece vocabulary, in which no piece crosses a space."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.marker = self.encode("a" + MARK)[len(self.encode("a")) :]

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        return [self.encode(word) or [UNKNOWN] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        whole = list(ids)
        whole = whole[: whole.index(END)] if END in whole else whole
        return str(self._tokenizer.decode(whole, skip_special_tokens=True))


def load_tokenizer(config: RAHFConfig, folder: str | Path | None = None, **hub: Any) -> TextTokenizer:
    """The tokenizer that `config` names: bytes, the one kept in `folder/tokenizer`, or one from the Hub or a folder.

    Raises ValueError with the remedy if it cannot be had.
    """
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    from transformers import AutoTokenizer  # a second of imports that the embedded weights' bytes do without

    kept = Path(folder) / "tokenizer" if folder is not None else None
    source = str(kept) if kept is not None and kept.is_dir() else config.tokenizer
    try:
        return SentencePieceTokenizer(AutoTokenizer.from_pretrained(source, **hub))
    except (OSError, ValueError) as error:
        where = kept or "the weights folder, as `tokenizer`"
        raise ValueError(
            f"the tokenizer {source!r} cannot be loaded; connect once so that it is fetched, or save it to {where}"
        ) from error


def pad(rows: Sequence[Sequence[int]]) -> TextTokens:
    """Rows of ids, padded at the end, with their mask."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), PAD, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = True
    return TextTokens(ids, mask)


def encode_prompts(
    prompts: Sequence[str], config: RAHFConfig, tokenizer: TextTokenizer, split: Splitter = prompt_words
) -> Texts:
    """Cleaned and tokenised prompts; for the augmented-prompt variant one text for each output, its task in front.

    split: what the words of a prompt are; `label_words` for those whose labels were counted so.
    Raises ValueError for a prompt without words or one longer than the model reads.
    """
    cleaned = [check_prompt(prompt, split) for prompt in prompts]
    if config.blind == "text":
        cleaned = ["unknown"] * len(cleaned)
    if config.variant == "multi_head":
        return _encode(cleaned, config, tokenizer)
    return {name: _encode([f"{task} {text}" for text in cleaned], config, tokenizer) for name, task in TASKS.items()}


def check_prompt(prompt: str, split: Splitter = prompt_words) -> str:
    """The cleaned prompt, its words joined by spaces. Raises ValueError if it holds none or is far too long."""
    if len(prompt) > MAX_LETTERS:
        raise ValueError(f"the prompt has {len(prompt)} letters; the limit is {MAX_LETTERS}: shorten it")
    if not prompt.strip():
        raise ValueError("the prompt is empty; give the text that the image was made from")
    cleaned = " ".join(word.text for word in split(prompt))
    if not cleaned:
        raise ValueError(f"the prompt {prompt[:40]!r} holds no word, only punctuation; give the text of the image")
    return cleaned


def _encode(texts: Sequence[str], config: RAHFConfig, tokenizer: TextTokenizer) -> TextTokens:
    rows = []
    for text in texts:
        row = [*tokenizer.encode(text), END]
        if len(row) > config.max_text_tokens:
            unit = "bytes" if config.tokenizer == "bytes" else "tokens"
            raise ValueError(
                f"the prompt has {len(text.split())} words, {len(row)} {unit} with its end mark; this model reads "
                f"{config.max_text_tokens}: shorten it"
            )
        rows.append(row)
    return pad(rows)
