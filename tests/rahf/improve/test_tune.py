"""Fine-tuning: only the adapters change, a run that was broken off ends as if it had not been, and they load again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rahf.improve.generator import LORA, Generator, Setting, add_lora, load_generator, remove_lora, wrap
from rahf.improve.tune import TuneConfig, add_adapter, read_kept, tune, tune_generator
from tests.rahf.improve.pipelines import make, save

PROMPT = "a red ball"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures as `select_folder` writes them: a red one, a blue one, and one that is wider than high."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "pictures").mkdir()
    rows = []
    for number, (colour, size, prompt) in enumerate(
        [((200, 30, 30), (32, 32), PROMPT), ((30, 30, 200), (32, 32), "a blue ball"), ((90, 200, 90), (48, 32), PROMPT)]
    ):
        pixels = np.full((size[1], size[0], 3), colour, np.uint8)
        pixels[8:20, 8:20] = 255
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        rows.append(f'{{"filename": "pictures/{number}.png", "prompt": "{prompt}"}}\n')
    (folder / "kept.jsonl").write_text("".join(rows))
    return folder


def config(kept: Path, out: Path, generator: str = "tiny") -> TuneConfig:
    return TuneConfig(
        out=out,
        kept=kept,
        generator=generator,
        rank=2,
        steps=6,
        batch_size=2,
        learning_rate=3e-3,
        warmup_steps=1,
        save_every=3,
    )


def adapters(generator: Generator) -> dict[str, torch.Tensor]:
    parameters = generator.pipeline.unet.named_parameters()
    return {name: value.detach().clone() for name, value in parameters if "lora_" in name}


@pytest.mark.parametrize("kind", ["sd", "sd-inpaint", "xl", "xl-inpaint"])
def test_only_the_adapters_change_and_they_load_again(kind: str, kept: Path, tmp_path: Path, quick: Setting) -> None:
    generator = wrap(make(kind), kind)
    plain = generator.generate(PROMPT, 1, 0, quick)
    parts = {
        part: {name: value.clone() for name, value in getattr(generator.pipeline, part).state_dict().items()}
        for part in ("unet", "vae", "text_encoder")
    }
    assert "3 pictures, 6 steps" in tune_generator(generator, config(kept, tmp_path))
    for part, before in parts.items():
        after = getattr(generator.pipeline, part).state_dict()
        known = {name.replace(".base_layer", ""): value for name, value in after.items() if "lora_" not in name}
        assert set(known) == set(before)
        assert all(torch.equal(value, known[name]) for name, value in before.items())
    tuned = generator.generate(PROMPT, 1, 0, quick)
    assert (tuned - plain).abs().max() > 1e-3

    other = wrap(make(kind), kind)
    add_lora(other, tmp_path / "lora")
    torch.testing.assert_close(other.generate(PROMPT, 1, 0, quick), tuned, atol=1e-5, rtol=0)
    add_lora(other, tmp_path / "lora", strength=0.0)
    torch.testing.assert_close(other.generate(PROMPT, 1, 0, quick), plain, atol=1e-5, rtol=0)
    remove_lora(other)
    assert torch.equal(other.generate(PROMPT, 1, 0, quick), plain)
    assert other.generate(PROMPT, 1, 0, quick).requires_grad is False


def test_new_adapters_change_nothing(quick: Setting) -> None:
    generator = wrap(make("sd-inpaint"))
    plain = generator.generate(PROMPT, 1, 0, quick)
    add_adapter(generator, 4)  # type: ignore[arg-type]
    torch.testing.assert_close(generator.generate(PROMPT, 1, 0, quick), plain, atol=1e-6, rtol=0)


def test_it_learns_what_was_kept(kept: Path, tmp_path: Path) -> None:
    """The error on the kept pictures falls."""
    from rahf.improve.tune import KeptPictures, LoraObjective

    generator = wrap(make("sd-inpaint"), "tiny")
    settings = replace(config(kept, tmp_path), steps=60, learning_rate=1e-2, save_every=60, rank=4)
    rows = read_kept(kept)
    tune_generator(generator, settings)

    def error(one: Generator) -> float:
        if not adapters(one):
            add_adapter(one, 4)  # type: ignore[arg-type]
        dataset = KeptPictures(one, rows, 0)  # type: ignore[arg-type]
        objective = LoraObjective(one, dataset.prompts, replace(settings, dropout=0.0))  # type: ignore[arg-type]
        batch = torch.utils.data.default_collate([dataset[index % 3] for index in range(60)])
        torch.manual_seed(11)
        with torch.no_grad():
            return float(objective(batch)[0])

    assert error(generator) < error(wrap(make("sd-inpaint"), "tiny"))


def test_a_broken_off_run_ends_as_if_it_had_not_been(kept: Path, tmp_path: Path) -> None:
    whole, halves = wrap(make("sd-inpaint"), "tiny"), wrap(make("sd-inpaint"), "tiny")
    tune_generator(whole, config(kept, tmp_path / "whole"))
    with pytest.raises(RuntimeError, match="power failure"):
        _broken_off(halves, config(kept, tmp_path / "halves"))
    again = wrap(make("sd-inpaint"), "tiny")
    tune_generator(again, config(kept, tmp_path / "halves"))
    expected, found = adapters(whole), adapters(again)
    assert expected
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    files = [load_file(tmp_path / name / "lora" / LORA) for name in ("whole", "halves")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())
    state = load_file(tmp_path / "whole" / "state" / "model.safetensors")  # of the adapters alone
    assert sum(value.numel() for value in state.values()) == sum(value.numel() for value in expected.values())


def _broken_off(generator: Generator, settings: TuneConfig) -> None:
    """A run whose power fails after the fourth step, past its first save."""
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise RuntimeError("power failure")

    generator.pipeline.unet.register_forward_pre_hook(fail)
    tune_generator(generator, settings)


def test_the_whole_way_by_names(kept: Path, tmp_path: Path, quick: Setting) -> None:
    folder = save("sd", tmp_path / "generator")
    tune(replace(config(kept, tmp_path / "out", str(folder)), steps=2))
    tuned = load_generator(folder, "cpu", lora=tmp_path / "out" / "lora")
    assert adapters(tuned)
    assert tuned.generate(PROMPT, 1, 0, quick).shape == (1, 3, 32, 32)


def test_what_cannot_be_learned_is_said(kept: Path, tmp_path: Path) -> None:
    generator = wrap(make("sd"), "tiny")
    few = tmp_path / "few"
    few.mkdir()
    (few / "kept.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"few|no prompt|0 pictures"):
        tune_generator(generator, config(few, tmp_path / "out"))
    (few / "kept.jsonl").write_text('{"filename": "a.png", "prompt": "a"}\n')
    with pytest.raises(ValueError, match="but missing; select again"):
        tune_generator(generator, config(few, tmp_path / "out"))
    with pytest.raises(ValueError, match="holds no pytorch_lora_weights"):
        add_lora(generator, few)
    with pytest.raises(ValueError, match="rank is 0"):
        replace(config(kept, tmp_path), rank=0)
    tune_generator(wrap(make("xl"), "large"), config(kept, tmp_path / "xl"))
    with pytest.raises(ValueError, match="does not fit tiny"):
        add_lora(generator, tmp_path / "xl" / "lora")
