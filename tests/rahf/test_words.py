"""Word embeddings of byte-level text: hashes beside plain Python, and a decoder that does not look ahead."""

import pytest
import torch

from rahf.model.config import RAHFConfig
from rahf.model.rahf import RAHF, TextTokens
from rahf.model.word_embedding import PLACES, WordEmbedding, ordinals, spelling_hashes
from rahf.prompts import ByteTokenizer, pad
from tests.rahf.conftest import TINY

BASE, MIX, ROWS = 0x5851F42D4C957F2D, 0x9E3779B97F4A7C15, 4096
PROMPTS = ["two red Cats", "cat", "a bus of glass sses", "ünïcode 🌾 שלום", "s", "  two  blanks "]


def written_out(word: bytes) -> int:
    """The definition, byte by byte in unbounded integers."""
    word = word.lower()
    if word.endswith(b"s"):
        word = word[:-1]
    value = sum((byte + 3) * BASE**place for place, byte in enumerate(word))
    return ((value * MIX) % 2**64) >> (64 - 12)


def tokens(*prompts: str) -> torch.Tensor:
    tokenizer = ByteTokenizer()
    return pad([tokenizer.encode(prompt) for prompt in prompts]).ids


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("causal", [False, True])
def test_hashes_are_those_of_the_definition(prompt: str, causal: bool) -> None:
    found = spelling_hashes(tokens(prompt, "x" * 60), ROWS, causal)[0].tolist()
    place = 0
    for number, word in enumerate(prompt.encode().split(b" ")):
        place += number > 0  # the blank before the word
        for end in range(1, len(word) + 1):
            assert found[place + end - 1] == written_out(word[:end] if causal else word)
        place += len(word)


def test_singular_plural_and_capitals_share_a_row_and_other_words_do_not() -> None:
    rows = spelling_hashes(tokens("cat", "cats", "CAT", "car"), ROWS, causal=False)[:, 0].tolist()
    assert rows[0] == rows[1] == rows[2]
    assert rows[0] != rows[3]


def test_ordinals_count_words_and_stay_in_the_table() -> None:
    assert ordinals(tokens("a bc d"))[0].tolist() == [0, 1, 1, 1, 2, 2]
    assert int(ordinals(tokens("a " * 400)).max()) == PLACES - 1


def test_padding_has_no_embedding() -> None:
    embedding = WordEmbedding(64, 4)
    assert not embedding(tokens("ab", "a"))[1, 1].any()


@pytest.fixture(scope="module")
def words_model() -> RAHF:
    torch.manual_seed(0)
    return RAHF(TINY.changed(word_rows=64)).eval()


def test_the_decoder_does_not_look_ahead(words_model: RAHF) -> None:
    context = words_model.fuse(
        words_model.encode_image(torch.rand(1, 3, 32, 32)), TextTokens(tokens("cats"), tokens("cats") > 0)
    )
    one, other = tokens("a cat")[:, :4], tokens("a cows")[:, :4]
    logits = [words_model.decode(context, ids) for ids in (one, other)]
    torch.testing.assert_close(logits[0][:, :3], logits[1][:, :3])  # those that see the same bytes


def test_free_generation_takes_the_likeliest_byte_each_time(words_model: RAHF) -> None:
    ids = tokens("a cat", "dogs")
    fused = words_model.fuse(words_model.encode_image(torch.rand(2, 3, 32, 32)), TextTokens(ids, ids > 0))
    written = words_model.generate(fused, max_new_tokens=6)
    logits = words_model.decode(fused, written)
    for row, scores in zip(written, logits, strict=True):
        for place, byte in enumerate(row.tolist()):
            assert byte == int(scores[place].argmax())
            if byte == 1:
                break


@pytest.mark.parametrize(("rows", "tokenizer"), [(100, "bytes"), (64, "google-t5/t5-base")])
def test_impossible_tables_are_refused(rows: int, tokenizer: str) -> None:
    with pytest.raises(ValueError, match="word_rows"):
        RAHFConfig(word_rows=rows, tokenizer=tokenizer)
