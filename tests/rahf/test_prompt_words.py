"""Words of a visitor's prompt: any script, no generator syntax, spans into the original; plain English as before."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahf.model.config import RAHFConfig
from rahf.model.rahf import TextTokens
from rahf.prompt_words import prompt_words
from rahf.prompts import MAX_LETTERS, ByteTokenizer, check_prompt, encode_prompts, label_words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        # scripts
        ("两只熊和一个红气球，坐在草地上。", "两 只 熊 和 一 个 红 气 球 坐 在 草 地 上"),
        ("一匹のテディベアとコーヒー", "一 匹 の テディベア と コーヒー"),
        ("红气球balloon 3个", "红 气 球 balloon 3 个"),
        ("빨간 풍선, 곰 두 마리", "빨간 풍선 곰 두 마리"),
        ("हिन्दी में दो भालू।", "हिन्दी में दो भालू"),
        ("دببة، وبالون أحمر؟", "دببة وبالون أحمر"),
        ("می‌خواهم یک گربه", "می‌خواهم یک گربه"),
        ("два медведя… и шар", "два медведя и шар"),
        ("ภาพแมว สีแดง", "ภาพแมว สีแดง"),
        ("👩‍🚀 riding a 🐎️", "👩‍🚀 riding a 🐎️"),
        # what parts words
        ("two bears\u3000and a red\u3000balloon", "two bears and a red balloon"),
        ("bears—two–red―one", "bears two red one"),
        ("bears--two -- red", "bears two red"),
        ("two\u200bbears\ufeffred\u2060one", "two bears red one"),
        ("“two” ¿bears? «red» ‘one’ 「two」", "two bears red one two"),
        ("ＡＢ！red、（blue）：x", "ＡＢ red blue x"),
        ("one\ttwo\r\nthree\u00a0four\u2028five\u202fsix", "one two three four five six"),
        # what does not
        ("by-the sea, it's 50% & 4k, don’t", "by-the sea it's 50% 4k don’t"),
        ("cat\u00adfish", "catfish"),
        ("long_hair cat/dog", "long_hair cat/dog"),
        # generator syntax
        ("(two bears:1.3), <lora:style:0.8>", "two bears"),
        ("((masterpiece)), [blurry], {a|b} BREAK a cat", "masterpiece blurry a b a cat"),
        ("[cat:dog:0.5] (red:-.7)", "cat dog red"),
        ("hot:: dog::2 cat::-.5", "hot dog cat"),
        ("bears --no balloon, red --ar 16:9", "bears"),
        ("bears --ar 16:9 --v 6.1 --style raw --tile --s=250 in grass", "bears in grass"),
        ("bears —ar 16:9", "bears"),
        ("a dog --very fluffy", "a dog very fluffy"),
        ("bear++ (red)1.3", "bear red"),
        (r"cat \(animal\)", "cat animal"),
        ("embedding:EasyNegative:1.1, __colour__ cat https://a.b/c.png?d=e", "cat"),
        ("BREAK DANCE", "BREAK DANCE"),
        ("a 3:2 picture of a:b", "a 3 2 picture of a b"),
        # nothing
        ("\u200b", ""),
        ("... — !? () -", ""),
        ("<lora:x:1> --ar 1:1", ""),
    ],
)
def test_words(prompt: str, words: str) -> None:
    assert [word.text for word in prompt_words(prompt)] == words.split(" " if words else None)


def test_decomposed_letters_are_composed_and_spans_stay() -> None:
    prompt = "un " + unicodedata.normalize("NFD", "café brûlé")
    first, second, third = prompt_words(prompt)
    assert (first.text, second.text, third.text) == ("un", "café", "brûlé")
    assert prompt[second.start : second.end] == unicodedata.normalize("NFD", "café")
    assert check_prompt(prompt) == check_prompt(unicodedata.normalize("NFC", prompt)) == "un café brûlé"


PLAIN = st.from_regex(r"[A-Za-z0-9]+([-'][A-Za-z0-9]+)*", fullmatch=True)


@given(
    st.lists(
        st.tuples(PLAIN, st.sampled_from([" ", ", ", ". ", "? ", "! ", '" ', "; ", ": ", "\n", "\t"])), max_size=12
    )
)
def test_plain_prompts_are_split_as_labels_count_them(parts: list[tuple[str, str]]) -> None:
    prompt = "".join(word + between for word, between in parts if word != "BREAK")
    assert prompt_words(prompt) == label_words(prompt)


@given(
    st.text(max_size=80)
    | st.text(st.sampled_from("ab熊ー(:1.3)<lora>[]{}|-—_ --no ar\u200b\u0301\u200d,"), max_size=80)
)
def test_any_text_gives_spans_in_order(prompt: str) -> None:
    words = prompt_words(prompt)
    for word in words:
        assert word.text == unicodedata.normalize("NFC", prompt[word.start : word.end].replace("\u00ad", ""))
        assert not any(letter.isspace() for letter in word.text)
        word.text.encode("utf-8")
    assert all(first.end <= second.start for first, second in pairwise(words))
    if words:
        assert check_prompt(prompt) == " ".join(word.text for word in words)


def test_words_again_are_the_same_words() -> None:
    """What a report shows may be pasted back."""
    cleaned = check_prompt("(two bears:1.3) on the beach —ar 16:9, 一匹の熊")
    assert cleaned == "two bears on the beach 一 匹 の 熊"
    assert check_prompt(cleaned) == cleaned


@pytest.mark.parametrize(
    "prompt", ["(" * 40_000 + "a", "_" * 40_000 + "a", "--no " * 9000 + "a", ":" * 40_000 + "a", "<a:" * 13_000]
)
def test_long_prompts_of_signs_take_no_time(prompt: str) -> None:
    assert len(prompt_words(prompt)) <= 13_000 * 2


def test_the_model_reads_words_and_training_reads_labels(tiny_config: RAHFConfig) -> None:
    tokenizer, prompt = ByteTokenizer(), "(a cat:1.2) <lora:x:1>"
    for arguments, text in (((), "a cat"), ((label_words,), "(a cat 1 2) <lora x 1>")):
        found = encode_prompts([prompt], tiny_config, tokenizer, *arguments)
        assert isinstance(found, TextTokens)
        assert tokenizer.decode(found.ids[0].tolist()) == text
    with pytest.raises(ValueError, match="holds no word"):
        encode_prompts(["<lora:x:1>"], tiny_config, tokenizer)
    with pytest.raises(ValueError, match=f"has {MAX_LETTERS + 1} letters; the limit is {MAX_LETTERS}"):
        check_prompt("a" * (MAX_LETTERS + 1))
