"""Selection: the best by feedback, and a folder that can be gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rahf.data.prompt_tables import read_prompts
from rahf.improve.generator import Generator, Setting
from rahf.improve.select import SelectOptions, read_prompt_list, select, select_folder
from rahf.predictor import Predictor

PROMPTS = ["a red ball", "two cats", "a green dog"]
OPTIONS = SelectOptions(count=3, by="aesthetics", keep=0.0)


def test_the_best_is_the_one_with_the_highest_score(inpainter: Generator, predictor: Predictor, quick: Setting) -> None:
    best = select("a cat", inpainter, predictor, replace(OPTIONS, setting=quick), seed=5)
    pictures = inpainter.generate("a cat", 3, 5, quick)
    assert torch.equal(best.pictures, pictures)
    scores = [predictor.predict(picture, "a cat").scores["aesthetics"] for picture in pictures]
    assert list(best.order) == sorted(range(3), key=lambda index: -scores[index])
    assert best.values == pytest.approx(scores, abs=1e-6)
    assert torch.equal(best.picture, pictures[int(np.argmax(scores))])
    assert best.before.scores["aesthetics"] == pytest.approx(scores[0], abs=1e-6)
    assert best.kept
    high = select("a cat", inpainter, predictor, replace(OPTIONS, keep=1.0, setting=quick), seed=5)
    assert not high.kept
    assert "none is kept" in high.stopped


def test_the_mean_counts_all_scores(inpainter: Generator, predictor: Predictor, quick: Setting) -> None:
    best = select("a cat", inpainter, predictor, replace(OPTIONS, by="mean", setting=quick))
    assert best.values == pytest.approx([np.mean(list(one.scores.values())) for one in best.feedback])


def test_a_folder_is_gone_on_with(inpainter: Generator, predictor: Predictor, quick: Setting, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    summary = select_folder(PROMPTS[:1], out, inpainter, predictor, replace(OPTIONS, setting=quick))
    assert (summary.done, summary.skipped) == (1, 0)
    (out / "pictures" / "000002.png").write_bytes(b"left by a run that was killed")
    summary = select_folder(PROMPTS, out, inpainter, predictor, replace(OPTIONS, setting=quick))
    assert (summary.done, summary.skipped) == (2, 1)
    select_folder(PROMPTS, whole, inpainter, predictor, replace(OPTIONS, setting=quick))
    for path in sorted(whole.rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()
    assert read_prompts(out / "kept.jsonl") == {f"pictures/{n + 1:06d}.png": PROMPTS[n] for n in range(3)}
    row = json.loads((out / "000002.json").read_text())
    again = inpainter.generate(PROMPTS[1], 1, row["seed"], quick)[0]
    kept = np.asarray(Image.open(out / row["filename"]))
    assert np.abs((again.permute(1, 2, 0).numpy() * 255).round() - kept.astype(float)).max() <= 1
    assert row["value"] == max(row["values"])


def test_what_is_not_good_enough_is_not_kept(
    inpainter: Generator, predictor: Predictor, quick: Setting, tmp_path: Path
) -> None:
    middle = sorted(
        max(select(prompt, inpainter, predictor, replace(OPTIONS, setting=quick), seed=3 * n).values)
        for n, prompt in enumerate(PROMPTS)
    )[1]
    select_folder(PROMPTS, tmp_path / "out", inpainter, predictor, replace(OPTIONS, keep=middle, setting=quick))
    assert len(read_prompts(tmp_path / "out" / "kept.jsonl")) == 2
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 2


def test_other_settings_and_prompts_are_refused(
    inpainter: Generator, predictor: Predictor, quick: Setting, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    select_folder(PROMPTS[:1], out, inpainter, predictor, replace(OPTIONS, setting=quick))
    with pytest.raises(ValueError, match="count 3, now 2"):
        select_folder(PROMPTS, out, inpainter, predictor, replace(OPTIONS, count=2, setting=quick))
    with pytest.raises(ValueError, match="prompt 1 of"):
        select_folder(["a blue cat"], out, inpainter, predictor, replace(OPTIONS, setting=quick))
    with pytest.raises(ValueError, match="0 prompts"):
        select_folder([], out, inpainter, predictor, replace(OPTIONS, setting=quick))
    failed = select_folder([PROMPTS[0], ", ,"], out, inpainter, predictor, replace(OPTIONS, setting=quick))
    assert [failure.file for failure in failed.failures] == ["prompt 2"]


def test_prompts_stand_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeffa red ball\n\n  two cats \n", encoding="utf-8")
    assert read_prompt_list(tmp_path / "prompts.txt") == ["a red ball", "two cats"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="no prompt"):
        read_prompt_list(tmp_path / "empty.txt")
