"""Composed scenes: labels follow from what was planted, sprites and backgrounds of the splits are apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rahf.data import faults, grammar
from rahf.data.augment import crop
from rahf.data.scenes import TEST_GROUNDS, TRAIN_GROUNDS, ComposedScenes, SceneConfig, degrade, ground, tint
from rahf.data.sprites import Sprite, SpriteLibrary, build_library
from rahf.model.config import HEATMAPS, SCORES
from rahf.prompts import split_words


def shape(kind: str, shade: int) -> np.ndarray:
    image = Image.new("RGBA", (60, 60))
    pen = ImageDraw.Draw(image)
    fill = (shade, 120, 255 - shade, 255)
    if kind == "ball":
        pen.ellipse((5, 5, 55, 55), fill=fill)
    elif kind == "box":
        pen.rectangle((8, 8, 52, 52), fill=fill)
    elif kind == "star":
        pen.polygon([(30, 2), (38, 22), (58, 30), (38, 38), (30, 58), (22, 38), (2, 30), (22, 22)], fill=fill)
    else:
        pen.polygon([(30, 4), (56, 56), (4, 56)], fill=fill)
    return np.asarray(image)


@pytest.fixture(scope="module")
def library() -> SpriteLibrary:
    return SpriteLibrary(
        [
            Sprite(kind, shape(kind, shade), f"{kind}{shade}")
            for kind in ("ball", "box", "star", "tent")
            for shade in (0, 80, 160, 240)
        ]
    )


def test_scenes_are_labelled_whole_and_repeatable(library: SpriteLibrary) -> None:
    scenes = ComposedScenes(library, 40, seed=3, config=SceneConfig(size=96))
    for index in range(40):
        sample = scenes[index]
        assert sample.image.shape == (96, 96, 3)
        assert set(sample.heatmaps) == set(HEATMAPS)
        assert set(sample.scores) == set(SCORES)
        assert sample.words is not None
        assert len(sample.words) == len(split_words(sample.prompt))
        for heatmap in sample.heatmaps.values():
            assert heatmap.shape == (96, 96)
            assert heatmap.dtype == np.float32
            assert 0 <= heatmap.min() <= heatmap.max() <= 1
        # What is whole is whole everywhere, and what is planted shows in map and score alike.
        assert (sample.scores["plausibility"] == 1) == (sample.heatmaps["implausibility"].max() == 0)
        assert (sample.scores["alignment"] == 1) == all(sample.words)
        if all(sample.words):
            assert sample.heatmaps["misalignment"].max() == 0
    again = ComposedScenes(library, 40, seed=3, config=SceneConfig(size=96))[7]
    assert np.array_equal(again.image, scenes[7].image)
    assert again.prompt == scenes[7].prompt
    with pytest.raises(IndexError):
        scenes[40]


def test_an_unspoiled_scene_is_perfect(library: SpriteLibrary) -> None:
    config = SceneConfig(size=64, implausible=0, misaligned=0, degraded=0)
    for sample in (ComposedScenes(library, 5, config=config)[index] for index in range(5)):
        assert set(sample.scores.values()) == {1.0}
        assert all(sample.words or ())
        assert all(heatmap.max() == 0 for heatmap in sample.heatmaps.values())


def test_splits_share_neither_sprites_nor_backgrounds(library: SpriteLibrary) -> None:
    train, test = library.split("train"), library.split("test")
    sources = [{sprite.source for sprites in part.values() for sprite in sprites} for part in (train, test)]
    assert not sources[0] & sources[1]
    assert set(test) <= set(train)
    assert not set(TRAIN_GROUNDS) & set(TEST_GROUNDS)
    single = SpriteLibrary([Sprite(kind, shape(kind, 0), kind) for kind in ("ball", "box")])
    with pytest.raises(ValueError, match="only 0 nouns have sprites for 'test'"):
        single.split("test")
    with pytest.raises(ValueError, match="must be 'train' or 'test'"):
        single.split("validation")


@pytest.mark.parametrize("seed", range(60))
def test_word_labels_follow_from_what_is_drawn(seed: int) -> None:
    """Compare the asked and the drawn plan directly, whatever the faults are called."""
    generator = np.random.default_rng(seed)
    nouns = ["cat", "dog", "mouse", "bus", "apple"]
    asked = grammar.draw_plan(nouns, generator)
    prompt, roles = grammar.write_prompt(asked, generator)
    drawn, departures = grammar.misdraw(asked, nouns, generator, int(generator.integers(0, 3)))
    labels = grammar.word_labels(roles, departures)
    assert len(roles) == len(split_words(prompt))
    gone = any(group.count == 0 for group in drawn.groups)
    for word, role, label in zip(split_words(prompt), roles, labels, strict=True):
        if role.kind in ("noun", "colour", "count"):
            before, after = asked.groups[role.group], drawn.groups[role.group]
            same = getattr(before, role.kind) == getattr(after, role.kind) and after.count > 0
            assert bool(label) == same, (prompt, word.text, drawn)
        elif role.kind == "relation":
            assert bool(label) == (asked.relation == drawn.relation and not gone)
        else:
            assert label == 1
    whole = asked == drawn
    assert (grammar.alignment_score(roles, labels) == 1) == whole


def test_relations_hold_in_the_picture(library: SpriteLibrary) -> None:
    from rahf.data.scenes import draw

    sprites = library.split("train")
    for relation in grammar.RELATIONS:
        plan = grammar.Plan((grammar.Group("ball", 2), grammar.Group("box", 3)), relation)
        for seed in range(5):
            canvas = np.full((120, 120, 3), 255, np.uint8)
            _, instances, _ = draw(canvas, plan, sprites, np.random.default_rng(seed))
            assert [item.group for item in instances] == [0, 0, 1, 1, 1]
            middles = [(item.box[0] + item.box[2] / 2, item.box[1] + item.box[3] / 2) for item in instances]
            axis = 0 if relation in ("left", "right") else 1
            first, second = [m[axis] for m in middles[:2]], [m[axis] for m in middles[2:]]
            if relation in ("left", "above"):
                assert max(first) < min(second)
            else:
                assert min(first) > max(second)


@pytest.mark.parametrize("name", [*faults.OBJECT_FAULTS, "garble"])
@pytest.mark.parametrize("severity", [0.4, 1.0])
def test_faults_change_the_picture_inside_their_mask_only(name: str, severity: float) -> None:
    generator = np.random.default_rng(5)
    image = generator.integers(0, 256, (90, 100, 3), dtype=np.uint8)
    fault = faults.garble if name == "garble" else faults.OBJECT_FAULTS[name]
    spoiled, mask = fault(image, (20, 30, 44, 36), severity, generator)
    assert spoiled.dtype == np.uint8
    changed = (spoiled != image).any(axis=-1)
    assert changed[mask].mean() > 0.8
    box = np.zeros_like(mask)
    box[30:66, 20:64] = True
    assert not mask[~box].any()
    assert not changed[~box].any()
    # What the soft rim of a fault changes beside its mask is slight.
    difference = np.abs(spoiled.astype(int) - image).mean(axis=-1)
    assert difference[~mask].mean() < 0.25 * difference[mask].mean()


def test_planted_warp_in_any_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for seed in range(5):
        spoiled, mask = faults.plant_warp(image, np.random.default_rng(seed))
        assert spoiled.shape == image.shape
        assert 0.005 < mask.mean() < 0.15


def test_heatmaps_are_wider_than_their_masks() -> None:
    mask = np.zeros((120, 120), bool)
    mask[50:70, 40:60] = True
    heatmap = faults.spread(mask, 0.7)
    assert heatmap[60, 50] == pytest.approx(0.7, abs=0.01)
    assert (heatmap[mask] > 0.3).all()
    assert heatmap[60, 63] > 0
    assert heatmap[:40].max() == 0


@pytest.mark.parametrize("kind", TRAIN_GROUNDS + TEST_GROUNDS)
def test_backgrounds(kind: str) -> None:
    image = ground(kind, 40, np.random.default_rng(0))
    assert image.shape == (40, 40, 3)
    assert image.dtype == np.uint8
    assert kind == "plain" or image.std(axis=(0, 1)).max() > 1
    with pytest.raises(ValueError, match="'lava'"):
        ground("lava", 40, np.random.default_rng(0))


def test_degradation_and_tint() -> None:
    image = ground("checks", 64, np.random.default_rng(1))
    for seed in range(6):
        worse, amount = degrade(image, np.random.default_rng(seed))
        assert 0 < amount <= 1
        assert worse.dtype == np.uint8
        assert not np.array_equal(worse, image)
    for name, colour in grammar.COLOURS.items():
        tinted = tint(shape("ball", 100), name)[30, 30, :3].astype(float)
        direction = tinted / np.linalg.norm(tinted) @ (np.array(colour) / np.linalg.norm(colour))
        assert direction > 0.97, name


def test_a_library_is_built_without_doubles(tmp_path: Path, library: SpriteLibrary) -> None:
    emoji, clipart = tmp_path / "emoji", tmp_path / "clipart" / "animals"
    emoji.mkdir()
    clipart.mkdir(parents=True)
    Image.fromarray(shape("ball", 200)).save(emoji / "1f408.webp")  # CAT
    Image.fromarray(shape("tent", 200)).save(emoji / "1f431.webp")  # CAT FACE
    for name, kind in {"cat_01": "star", "cat_02": "star", "dog_01": "ball", "cat_bw": "tent", "xyz": "ball"}.items():
        Image.fromarray(shape(kind, 0)).save(clipart / f"{name}.png")
    assert build_library(tmp_path / "lib", [emoji], tmp_path / "clipart") == 4
    index = json.loads((tmp_path / "lib" / "index.json").read_text())
    sources = {entry["source"].split("/")[-1] for entry in index}
    assert sources - {"cat_01.png", "cat_02.png"} == {"1f408.webp", "1f431.webp", "dog_01.png"}
    assert {entry["kind"] for entry in index} == {"emoji", "clip art"}
    loaded = SpriteLibrary.load(tmp_path / "lib")
    assert {noun: len(sprites) for noun, sprites in loaded.by_noun.items()} == {"cat": 3, "dog": 1}
    with pytest.raises(FileExistsError):
        build_library(tmp_path / "lib", [emoji])
    with pytest.raises(ValueError, match="no sprite was found"):
        build_library(tmp_path / "none", [tmp_path])
    with pytest.raises(ValueError, match="holds no sprite library"):
        SpriteLibrary.load(tmp_path)


def test_vector_drawings_are_read(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="comes with the extra `train`")
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle cx="5" cy="5" r="4" fill="#c02010"/></svg>'
    )
    (tmp_path / "1f431.svg").write_text(drawing)
    assert build_library(tmp_path / "lib", [tmp_path]) == 1
    sprite = SpriteLibrary.load(tmp_path / "lib").by_noun["cat"][0]
    visible = sprite.pixels[..., 3] > 128
    assert sprite.pixels[visible].mean(axis=0)[:3] == pytest.approx([0xC0, 0x20, 0x10], abs=3)
    assert visible.mean() == pytest.approx(np.pi / 4, abs=0.04)


def test_a_font_without_such_glyphs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match="no font"):
        build_library(tmp_path / "lib", font=tmp_path / "font.ttf")


def test_objects_are_what_is_drawn_and_move_with_a_crop(library: SpriteLibrary) -> None:
    scenes = ComposedScenes(library, 8, "train", 4)
    for index in range(8):
        sample = scenes[index]
        assert all(item.noun in library.by_noun and item.mask.any() for item in sample.objects)
        cut = crop(sample, 0.8, np.random.default_rng(index))
        assert all(item.mask.shape == cut.image.shape[:2] for item in cut.objects)
