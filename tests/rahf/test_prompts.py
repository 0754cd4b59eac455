"""Words, labels and spans; byte-level and sentencepiece tokens."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from transformers import PreTrainedTokenizerFast

from rahf.model.config import TASKS, RAHFConfig
from rahf.model.rahf import TextTokens
from rahf.prompts import (
    END,
    ByteTokenizer,
    SentencePieceTokenizer,
    clean_prompt,
    encode_prompts,
    load_tokenizer,
    marked_prompt,
    pad,
    parse_labels,
    plain_blanks,
    read_marked,
    split_words,
)


def unigram(folder: Path) -> SentencePieceTokenizer:
    """A sentencepiece-like tokenizer with T5's conventions, loaded as the real one is."""
    letters = [(character, -5.0) for character in "▁abcdefghijklmnopqrstuvwxyz_0"]
    words = [("▁a", -2.0), ("▁red", -2.0), ("▁cat", -2.0), ("▁ca", -2.5), ("ts", -2.5), ("▁dog", -2.0)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *words, *letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = token_decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder / "tokenizer")
    config = RAHFConfig(tokenizer="nobody/nothing")
    loaded = load_tokenizer(config, folder)
    assert isinstance(loaded, SentencePieceTokenizer)
    return loaded


def test_words_are_split_as_the_labels_count_them() -> None:
    prompt = 'A cat, two "red" dogs: sitting... by-the sea; 4k!?  it\'s'
    words = [word.text for word in split_words(prompt)]
    assert words == ["A", "cat", "two", "red", "dogs", "sitting", "by-the", "sea", "4k", "it's"]
    assert clean_prompt(prompt) == "A cat two red dogs sitting by-the sea 4k it's"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_spans_point_into_the_original(prompt: str) -> None:
    words = split_words(prompt)
    assert all(prompt[word.start : word.end] == word.text for word in words)
    outside = set(range(len(prompt))) - {i for word in words for i in range(word.start, word.end)}
    assert {prompt[i] for i in outside} <= set(',.?!":; ')
    assert len(plain_blanks(prompt)) == len(prompt)


def test_labels() -> None:
    assert parse_labels("0 1 1", ["a", "b", "c"]) == [0, 1, 1]
    assert marked_prompt(["a", "red", "cat"], [1, 0, 1]) == "a red_0 cat"
    assert read_marked("a red_0 cat") == [("a", False), ("red", True), ("cat", False)]
    with pytest.raises(ValueError, match="2 word labels came with 3 words"):
        parse_labels("0 1", ["a", "b", "c"])
    with pytest.raises(ValueError, match="other than 0 and 1"):
        parse_labels("0 2 1", ["a", "b", "c"])


@given(st.text(max_size=40))
def test_bytes_survive_the_round_trip(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([*tokenizer.encode(text), END, 77]) == text.encode("utf-8", "replace").decode("utf-8")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters=',.?!":; '), min_size=1), max_size=6))
def test_pieces_of_bytes_join_to_the_whole(words: list[str]) -> None:
    tokenizer = ByteTokenizer()
    assert list(chain.from_iterable(tokenizer.pieces(words))) == tokenizer.encode(" ".join(words))


def test_sentencepiece_pieces_join_to_the_whole(tmp_path: Path) -> None:
    tokenizer = unigram(tmp_path)
    words = ["a", "red", "cats", "zoo"]
    assert list(chain.from_iterable(tokenizer.pieces(words))) == tokenizer.encode("a red cats zoo")
    assert tokenizer.encode("cat_0") == tokenizer.encode("cat") + tokenizer.marker
    assert len(tokenizer.marker) == 2
    assert tokenizer.decode([*tokenizer.encode("a cat_0"), END, 5]) == "a cat_0"


def test_a_missing_tokenizer_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = RAHFConfig(tokenizer=str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_tokenizer(absent)


def test_padding() -> None:
    padded = pad([[5, 6, 1], [1]])
    assert padded.ids.tolist() == [[5, 6, 1], [1, 0, 0]]
    assert padded.mask.tolist() == [[True, True, True], [True, False, False]]


def test_augmented_prompts_carry_their_task(tiny_config: RAHFConfig) -> None:
    tokenizer = ByteTokenizer()
    plain = encode_prompts(["a, cat"], tiny_config, tokenizer)
    assert isinstance(plain, TextTokens)
    assert tokenizer.decode(plain.ids[0].tolist()) == "a cat"
    augmented = encode_prompts(["a, cat"], tiny_config.changed(variant="augmented_prompt"), tokenizer)
    assert not isinstance(augmented, TextTokens)
    assert list(augmented) == list(TASKS)
    assert tokenizer.decode(augmented["overall"].ids[0].tolist()) == "overall score a cat"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "empty"), (" \n ", "empty"), ("?!... ;", "only punctuation"), ("word " * 5000, "5000 words.*reads 256")],
)
def test_prompts_that_cannot_be_used(tiny_config: RAHFConfig, prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_prompts([prompt], tiny_config, ByteTokenizer())
