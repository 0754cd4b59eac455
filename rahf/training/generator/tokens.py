"""The generator's reader of prompts: CLIP's tokenizer over a restricted vocabulary, and a small CLIP text model."""

import string
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rahf.data.drawable import vocabulary

START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
END_OF_WORD = "</w>"
LENGTH = 32  # tokens a prompt; what is longer is cut off


def build_tokenizer() -> CLIPTokenizer:
    """Byte pairs that join every word of the vocabulary to one token; any other word falls into pieces of them."""
    merges: list[Any] = byte_pairs(vocabulary())
    letters = [*string.ascii_lowercase, *string.digits, ","]
    tokens = [START, END, UNKNOWN, *letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges)]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def byte_pairs(words: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of pieces to join, in their order, until each word is one piece (Sennrich et al. 2016).

    The pair that most words have goes first, and of several the first by the alphabet, so that the tokens are the same
    each time: those of the `tokenizers` package are not.
    """
    pieces = [[*word[:-1], word[-1] + END_OF_WORD] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_joined(word, best) for word in pieces]
    return merges


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """Two layers of CLIP's text model, untrained."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config)
    model.set_attn_implementation("eager")  # with so few words, faster on CPUs than the fused kernel
    return model


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    """A word's pieces with each such pair made one, from the left."""
    result: list[str] = []
    index = 0
    while index < len(word):
        both = tuple(word[index : index + 2]) == pair
        result.append(word[index] + word[index + 1] if both else word[index])
        index += 2 if both else 1
    return result
