"""A tiny random chat model that sees pictures, of a class of transformers, saved and loaded as any other would be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rahf.improve.checklist.chat import ChatAnswers
from rahf.improve.checklist.questions import Question, QuestionList
from rahf.improve.checklist.scoring import checklist

WORDS = ("[unk]", "[pad]", "<image>", "yes", "no", "Yes", "No", "USER", "ASSISTANT", ":", "is", "it", "clear", "?")
TEMPLATE = (
    "{% for message in messages %}USER : {% for part in message['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)


def processor(template: str | None = TEMPLATE, words: tuple[str, ...] = WORDS) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    plain = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[unk]"))
    plain.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="[unk]",
        pad_token="[pad]",
        extra_special_tokens={"image_token": "<image>"},
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=2, vision_feature_layer=-1)
    place = tmp_path_factory.mktemp("chat")
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    model.save_pretrained(place)
    processor().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatAnswers:
    return ChatAnswers.from_pretrained(folder, "cpu")


PICTURE = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(1))


def test_the_chance_is_that_of_yes_against_no(chat: ChatAnswers) -> None:
    """Worked out from the model's own logits behind the same text, put together by hand."""
    from PIL import Image

    image = Image.fromarray((PICTURE * 255).round().byte().permute(1, 2, 0).numpy())
    text = "USER : <image> is it clear ? Answer with one word, yes or no. ASSISTANT :"
    inputs = chat.processor(images=[image], text=[text], return_tensors="pt")
    with torch.no_grad():
        logits = chat.model(**inputs).logits[0, -1].float()
    chances = logits[[WORDS.index(word) for word in ("yes", "Yes", "no", "No")]].softmax(0)
    assert chat.chance(PICTURE, "is it clear ?") == pytest.approx(float(chances[:2].sum()), abs=1e-4)
    assert chat.chance(1 - PICTURE, "is it clear ?") != pytest.approx(float(chances[:2].sum()), abs=1e-4)


def test_a_model_that_says_yes_answers_every_question_with_yes(chat: ChatAnswers) -> None:
    """Pushed to yes and to no by its last layer: the score follows."""
    questions = QuestionList("one", (Question("clear", "clear", "is it clear ?", 0.5),), 2.0, 1.0)
    head = chat.model.lm_head
    before = head.weight.detach().clone()
    found = {}
    try:
        for word in ("yes", "no"):
            with torch.no_grad():
                head.weight.zero_()
            hook = head.register_forward_hook(
                lambda module, args, output, word=word: output + 20 * torch.eye(len(WORDS))[WORDS.index(word)]
            )
            found[word] = checklist(PICTURE, "it is", answerer=chat, questions=questions)
            hook.remove()
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    assert found["yes"].score == pytest.approx(1 + 2 + 0.5, abs=1e-3)
    assert found["no"].score == pytest.approx(1 - 0.5, abs=1e-3)
    assert found["yes"].answered_by == chat.name


def test_a_question_about_the_prompt_needs_one(chat: ChatAnswers) -> None:
    question = Question("agreement", "agreement", "is it [[prompt]] ?", 1.0)
    assert chat.answer(PICTURE, [question], "")[0].yes is None
    answered = chat.answer(PICTURE, [question], "clear")[0]
    assert answered.yes == pytest.approx(chat.chance(PICTURE, "is it clear ?"))


def test_what_is_no_such_model_is_refused(chat: ChatAnswers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded as a chat model"):
        ChatAnswers.from_pretrained(tmp_path, "cpu")
    with pytest.raises(ValueError, match="has no chat template"):
        ChatAnswers(chat.model, processor(template=None))
    silent = tuple(word for word in WORDS if word.lower() != "no")
    with pytest.raises(ValueError, match="cannot tell yes from no"):
        ChatAnswers(chat.model, processor(words=silent))
