"""The embedded generator's stages, tiny: what they are shown, what they keep, and files that diffusers opens."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer

import rahf
from rahf.data.drawable import NOUNS, draw_plan, draw_prompts, is_held_out, vocabulary
from rahf.data.grammar import COLOURS, COUNTS, Group, Plan
from rahf.data.sprites import CLIPART, EMOJI, SpriteLibrary
from rahf.training.generator.autoencoder import (
    AutoencoderConfig,
    build_autoencoder,
    to_pixels,
    to_tensor,
    train_autoencoder,
    whiten,
)
from rahf.training.generator.denoiser import DenoiserConfig, draw, train_generator
from rahf.training.generator.latents import Latents, prepare_latents, random_mask
from rahf.training.generator.packing import pack_generator
from rahf.training.generator.scenes import Scenes, arrange, drawable_sprites, prepare_scenes
from rahf.training.generator.tokens import LENGTH, build_tokenizer

SINGULAR = {**{noun: noun for noun in NOUNS}, "butterflies": "butterfly", "strawberries": "strawberry"}
SINGULAR |= {f"{noun}s": noun for noun in NOUNS}
PHRASE = re.compile(
    rf"\b(an?|two|three|four) (?:({'|'.join(COLOURS)}) )?({'|'.join(sorted(SINGULAR, reverse=True))})\b"
)


def plan_in(prompt: str) -> Plan:
    """The groups that a prompt names, read by an expression of this test's own."""
    return Plan(
        tuple(
            Group(SINGULAR[noun], 1 if count == "an" else COUNTS.index(count) + 1, colour or None)
            for count, colour, noun in PHRASE.findall(prompt)
        )
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight discs of each noun, every third of them clip art."""
    folder = tmp_path_factory.mktemp("sprites")
    index = []
    rows, columns = np.mgrid[:24, :24]
    for place, noun in enumerate(NOUNS):
        for number in range(8):
            pixels = np.zeros((24, 24, 4), np.uint8)
            pixels[(rows - 12) ** 2 + (columns - 12) ** 2 < 120] = [15 * place, 30 * number, 90, 255]
            file = f"{noun}-{number}.png"
            Image.fromarray(pixels).save(folder / file)
            index.append({"file": file, "noun": noun, "source": file, "kind": EMOJI if number % 3 else CLIPART})
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def scenes(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_scenes(library, tmp_path_factory.mktemp("made") / "scenes", 72, 4)


@pytest.fixture(scope="module")
def autoencoder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("autoencoder")
    config = AutoencoderConfig(
        out=out, scenes=scenes, widths=(8, 8, 8, 8), features=0, steps=2, batch_size=2, crop=32, precision="no"
    )
    return train_autoencoder(config) / "vae"


@pytest.fixture(scope="module")
def latents(scenes: Path, autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_latents(scenes, autoencoder, tmp_path_factory.mktemp("encoded") / "latents")


def config_of(out: Path, latents: Path, autoencoder: Path) -> DenoiserConfig:
    return DenoiserConfig(
        out=out,
        latents=latents,
        autoencoder=autoencoder,
        widths=(32, 32),
        text_width=32,
        steps=3,
        sheet=8,
        batch_size=4,
        save_every=100,
        schedule="reciprocal_sqrt",
        precision="no",
    )


@pytest.fixture(scope="module")
def trained(latents: Path, autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_generator(config_of(tmp_path_factory.mktemp("run"), latents, autoencoder))


def test_every_word_of_the_vocabulary_is_one_token_and_comes_back(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    for word in vocabulary():
        if word != "3d":  # CLIP reads digits one by one
            assert len(tokenizer(word).input_ids) == 3, word
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for prompt, _ in draw_prompts(20, 0):
        ids = again(prompt, padding="max_length", truncation=True).input_ids
        assert len(ids) == LENGTH
        assert ids == tokenizer(prompt, padding="max_length", truncation=True).input_ids
        words = re.sub(r"<\|\w+\|>", " ", again.decode(ids)).split()
        assert words == prompt.replace(",", " , ").replace("3d", "3 d").split()


def test_tokens_are_the_same_in_every_process() -> None:
    # A run that is resumed must not give its words other numbers; hashes of strings differ from process to process.
    code = "from rahf.training.generator.tokens import *; print(build_tokenizer()('a zebra, two cats').input_ids)"
    ids = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert ids == {f"{build_tokenizer()('a zebra, two cats').input_ids}\n".encode()}


def test_words_that_are_not_known_are_read_in_pieces() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("a zebra é").input_ids
    assert len(ids) > 5
    assert tokenizer.unk_token_id in ids
    assert len(tokenizer("zebra " * 50, truncation=True).input_ids) == LENGTH


def test_held_out_plans_are_an_eighth_and_told_apart_by_their_groups() -> None:
    generator = np.random.default_rng(0)
    assert all(is_held_out(draw_plan(generator, True)) for _ in range(50))
    every = [
        Plan((Group(noun, count, colour),)) for noun in NOUNS for count in (1, 2, 3, 4) for colour in (None, *COLOURS)
    ]
    assert 0.08 < np.mean([is_held_out(plan) for plan in every]) < 0.17
    for _ in range(50):
        plan = draw_plan(generator, bool(generator.random() < 0.5))
        turned = replace(plan, groups=plan.groups[::-1], relation=None)
        assert is_held_out(turned) == is_held_out(plan)


def test_prompts_say_what_their_plans_say() -> None:
    for held_out in (True, False):
        for prompt, plan in draw_prompts(60, 1, held_out):
            assert plan_in(prompt).groups == plan.groups
            assert is_held_out(plan_in(prompt)) == held_out


def test_training_sees_no_held_out_plan_and_no_test_sprite(library: Path, scenes: Path) -> None:
    made = Scenes.load(scenes)
    assert made.pictures.shape == (72, 128, 128, 3)
    plans = [plan_in(prompt) for prompt in made.prompts]
    assert not any(is_held_out(plan) for plan in plans)
    counts = [sum(group.count for group in plan.groups) for plan in plans]
    assert counts == (made.boxes[:, :, 2] > 0).sum(axis=1).tolist()
    held_back = {sprite.source for kept in SpriteLibrary.load(library).split("test").values() for sprite in kept}
    index = {entry["file"]: entry["kind"] for entry in json.loads((library / "index.json").read_text())}
    for kept in drawable_sprites(library).values():
        assert kept
        assert all(sprite.source not in held_back and index[sprite.source] == EMOJI for sprite in kept)


def test_objects_stand_on_the_grid_and_in_their_relation() -> None:
    generator = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        plan = draw_plan(generator, False)
        placed = arrange(plan, generator)
        assert [group for group, _ in placed] == [i for i, group in enumerate(plan.groups) for _ in range(group.count)]
        taken = np.zeros((128, 128), int)
        for _, (x, y, width, height) in placed:
            assert x % 8 == y % 8 == 0
            taken[y : y + height, x : x + width] += 1
        assert taken.max() == 1
        assert taken.sum() == sum(width * height for _, (_, _, width, height) in placed)
        if plan.relation:
            seen.add(plan.relation)
            axis = 1 if plan.relation in ("above", "below") else 0
            first, second = ([box[axis] for group, box in placed if group == i] for i in (0, 1))
            if plan.relation in ("above", "left"):
                assert max(first) + 56 <= min(second)
            else:
                assert max(second) + 56 <= min(first)
    assert seen == {"above", "below", "left", "right"}


def test_a_library_without_one_of_the_nouns_is_refused(library: Path, tmp_path: Path) -> None:
    index = json.loads((library / "index.json").read_text())
    for entry in index:
        Image.open(library / entry["file"]).save(tmp_path / entry["file"])
    (tmp_path / "index.json").write_text(json.dumps([entry for entry in index if entry["noun"] != "tree"]))
    with pytest.raises(ValueError, match="no emoji of tree"):
        drawable_sprites(tmp_path)


def test_whitening_changes_latents_and_not_pictures() -> None:
    torch.manual_seed(0)
    model = build_autoencoder((8, 8, 8, 8)).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        before = model.decode(model.encode(to_tensor(pictures)).latent_dist.mode()).sample
        deviation = model.encode(to_tensor(pictures)).latent_dist.std
        spread = model.encode(to_tensor(pictures)).latent_dist.mode().movedim(1, 0).flatten(1).std(1)
        whiten(model, pictures)
        after = model.encode(to_tensor(pictures)).latent_dist
        channels = after.mode().movedim(1, 0).flatten(1)
        torch.testing.assert_close(model.decode(after.mode()).sample, before, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(channels.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(channels.std(1), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(after.std, deviation / spread[:, None, None], rtol=1e-3, atol=1e-5)


def test_pixels_come_back() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    tensor = to_tensor(pictures)
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    np.testing.assert_array_equal(to_pixels(tensor), pictures)


def test_masks_leave_something_and_hide_whole_objects() -> None:
    boxes = np.array([[10, 20, 40, 40], [80, 70, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]], np.int16)
    hidden = 0
    for seed in range(60):
        mask = random_mask(boxes, 128, np.random.default_rng(seed))
        assert mask.shape == (128, 128)
        assert mask.any()
        assert not mask.all()
        hidden += bool(mask[20:60, 10:50].all() or mask[70:100, 80:110].all())
    assert hidden > 15


def test_latents_are_those_of_the_pictures(scenes: Path, autoencoder: Path, latents: Path) -> None:
    made, kept = Scenes.load(scenes), Latents.load(latents)
    assert kept.prompts == made.prompts
    assert kept.latents.shape == (72, 4, 16, 16)
    model = AutoencoderKL.from_pretrained(autoencoder).eval()
    with torch.no_grad():
        exact = model.encode(to_tensor(made.pictures[5:6])).latent_dist.mode()[0]
        blank = model.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mode()[0]
    # Encoded in bfloat16. A scene of which no part is masked is masked as a whole: it is drawn from nothing.
    assert np.abs(kept.latents[5].astype(np.float32) - exact.numpy()).mean() < 0.05
    assert np.abs(kept.masked[5].astype(np.float32) - blank.numpy()).mean() < 0.05
    assert kept.masks[5].all()
    assert not kept.masks[6].all()
    assert not np.array_equal(kept.masked[6], kept.latents[6])


def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(
    trained: Path, latents: Path, autoencoder: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "run", latents, autoencoder)
    train_generator(replace(config, steps=2))
    train_generator(config)
    name = "pipeline/unet/diffusion_pytorch_model.safetensors"
    straight, resumed = load_file(trained / name), load_file(config.out / name)
    for key, value in straight.items():
        torch.testing.assert_close(resumed[key], value, msg=key)
    # The text encoder learns along: its words are no longer those that the run before started from.
    words = [load_file(folder / "pipeline/text_encoder/model.safetensors") for folder in (trained, config.out)]
    for key, value in words[0].items():
        torch.testing.assert_close(words[1][key], value, msg=key)
    assert list(config.out.glob("samples-*.png"))


def test_packed_files_open_and_draw(trained: Path, tmp_path: Path) -> None:
    lines = pack_generator(trained, tmp_path / "packed")
    files = [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert len(lines) == len(files)
    assert all(path.stat().st_size < 10_000_000 for path in files)
    assert not any(str(tmp_path) in path.read_text() for path in files if path.suffix == ".json")
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "packed", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert all(p.dtype == torch.float32 for p in pipeline.text_encoder.parameters())
    pictures = draw(pipeline, ["a red apple", "two blue cats"], 0, steps=2)
    assert pictures.shape == (2, 128, 128, 3)
    assert pictures.std() > 0
    np.testing.assert_array_equal(draw(pipeline, ["a red apple", "two blue cats"], 0, steps=2), pictures)
    with pytest.raises(FileExistsError):
        pack_generator(trained, tmp_path / "packed")


def test_the_embedded_generator_draws_the_colour_and_the_number_that_are_asked_for() -> None:
    folder = Path(rahf.__file__).parent / "weights" / "generator"
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 18_500_000
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert all(len(pipeline.tokenizer(word).input_ids) == 3 for word in vocabulary() if word != "3d")
    prompts = ["four red hearts", "four blue hearts", "a blue heart", "a red heart"]
    pictures = draw(pipeline, prompts, 0, steps=12).astype(int)
    red, blue = pictures[..., 0] - pictures[..., 2] > 90, pictures[..., 2] - pictures[..., 0] > 90
    covered = [(float(red[i].mean()), float(blue[i].mean())) for i in range(4)]
    assert covered[0][0] > 3 * covered[0][1]
    assert covered[1][1] > 3 * covered[1][0]
    assert covered[0][0] > 1.5 * covered[3][0]  # four hearts are more than one
    assert covered[1][1] > 1.5 * covered[2][1]


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    for load in (Scenes.load, Latents.load):
        with pytest.raises(ValueError, match="rahf generator-"):
            load(tmp_path)
    with pytest.raises(ValueError, match="no generator"):
        pack_generator(tmp_path, tmp_path / "packed")
    with pytest.raises(ValueError, match="multiple of 8"):
        build_autoencoder((12, 8, 8, 8))
