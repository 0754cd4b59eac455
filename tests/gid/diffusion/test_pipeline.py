"""The pipeline with tiny real networks: determinism, batches, aspects, guidance, saving, and clear errors."""

from __future__ import annotations

import ctypes
import math
import os
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file

from gid.diffusion.guidance import guide, loop_energy
from gid.diffusion.loading import resolve_device, resolve_weights
from gid.diffusion.photo_encoder import envelope_from_log
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.evaluation.metrics import motion_agreement
from gid.motion.normalization import envelope_of, to_isotropic
from gid.motion.spectrum import SpectralVolume
from tests.tiny import photo, tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> GIDPipeline:
    return tiny_pipeline()


def test_same_seed_same_motion_another_seed_another(pipeline: GIDPipeline) -> None:
    first, again, other = (pipeline(photo(), seed=seed, steps=2).volumes[0] for seed in (3, 3, 4))
    assert torch.equal(first.coefficients, again.coefficients)
    assert not torch.allclose(first.coefficients, other.coefficients, rtol=0.1)
    assert (first.seed, first.model, first.image_size) == (3, "tiny", (96, 64))


def test_a_batch_of_seeds_is_the_same_as_one_by_one(pipeline: GIDPipeline) -> None:
    together = pipeline(photo(), seed=[1, 2], steps=2).volumes
    for volume, seed in zip(together, (1, 2), strict=True):
        alone = pipeline(photo(), seed=seed, steps=2).volumes[0]
        # bfloat16 convolutions may be blocked differently for another batch size
        torch.testing.assert_close(volume.coefficients, alone.coefficients, rtol=0.05, atol=2e-4)


def test_photos_and_seeds_are_paired(pipeline: GIDPipeline) -> None:
    volumes = pipeline([photo(seed=1), photo(64, 96, seed=2)], seed=[5, 6], steps=1).volumes
    assert [(v.image_size, v.seed) for v in volumes] == [((96, 64), 5), ((64, 96), 6)]
    with pytest.raises(ValueError, match="2 photos and 3 seeds"):
        pipeline([photo(), photo()], seed=[1, 2, 3])


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 50), (50, 200), (97, 61)])
def test_any_aspect_gives_maps_of_about_that_aspect(pipeline: GIDPipeline, width: int, height: int) -> None:
    volume = pipeline(photo(width, height), steps=1).volumes[0]
    rows, columns = volume.coefficients.shape[-2:]
    assert rows % 16 == columns % 16 == 0
    assert abs(math.log((columns / rows) / (width / height))) <= math.log(2)
    assert 0.4 < rows * columns / (32 * 32) < 2.5


def test_energy_of_a_sample_is_the_predicted_envelope(pipeline: GIDPipeline) -> None:
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    volume = pipeline(image, steps=2).volumes[0]
    rows, columns = volume.coefficients.shape[-2:]
    with torch.no_grad():
        resized = torch.nn.functional.interpolate(image[None], (rows * 4, columns * 4), mode="bilinear", antialias=True)
        predicted = envelope_from_log(pipeline.photo_encoder(resized).log_envelope)[0]
    energy = envelope_of(to_isotropic(volume.real, columns, rows))
    # exact wherever the unit volume does not fade; bfloat16 where the processor has it
    assert float((energy <= predicted * 1.1).float().mean()) == 1.0


def test_coherence_changes_who_moves_with_whom_and_not_how_far() -> None:
    pipeline, image = tiny_pipeline(), torch.full((3, 96, 128), 0.4)
    found = {}
    for strength in (0.0, 64.0):
        pipeline.register_to_config(coherence=strength)
        volume = pipeline(image, steps=2).volumes[0]
        found[strength] = motion_agreement(volume, (1 / 8,))[0], volume.motion_energy()
    (loose, energy), (held, same) = found[0.0], found[64.0]
    assert held > loose + 0.2
    # Both have the envelope's energy: x and y may share it in another way, their sum stays.
    torch.testing.assert_close(energy.mean(), same.mean(), rtol=0.05, atol=0)


def test_callback_counts_every_step(pipeline: GIDPipeline) -> None:
    calls: list[tuple[int, int]] = []
    pipeline([photo(), photo()], steps=3, callback=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(1, 7)]


def test_guidance_one_is_the_conditional_prediction(pipeline: GIDPipeline) -> None:
    torch.nn.init.normal_(pipeline.denoiser.null_condition)
    plain = pipeline(photo(), steps=2).volumes[0].coefficients
    guided = pipeline(photo(), steps=2, guidance_scale=2.75).volumes[0].coefficients
    assert not torch.allclose(plain, guided, rtol=1e-2)
    assert torch.isfinite(torch.view_as_real(guided)).all()


def test_loop_energy_is_equation_seven() -> None:
    real = torch.randn(2, 6, 4, 3, 5, dtype=torch.float64).float()
    for i in range(2):
        frames = SpectralVolume.from_real(real[i], num_frames=20).trajectories(pin_first=False)
        step_last, step_first = frames[0] - frames[-1], frames[1] - frames[0]
        expected = (frames[-1] - frames[0]).abs().mean() + (step_last - step_first).abs().mean()
        torch.testing.assert_close(loop_energy(real, 20)[i], expected, atol=1e-4, rtol=1e-4)


def test_guidance_moves_the_estimate_down_the_energy() -> None:
    # One exact step: for v = alpha eps - sigma x0 the estimate of x0 moves against the gradient.
    alpha, sigma = 0.8, 0.6
    x, v, gradient = torch.randn(3, 4).unbind(0)
    before = alpha * x - sigma * v
    after = alpha * x - sigma * guide(v, gradient, alpha, sigma, 2.0)
    torch.testing.assert_close(after, before - 2.0 * sigma**2 / alpha * gradient)
    torch.testing.assert_close(guide(v, gradient, 0.05, 0.99, 2.0), v)


@pytest.mark.parametrize("recurrence", [1, 2])
def test_more_loop_guidance_lowers_the_loop_energy(pipeline: GIDPipeline, recurrence: int) -> None:
    energies = []
    for weight in (1.0, 2e4, 1e5):
        volume = pipeline(photo(), steps=4, solver="ddim", loop_guidance=weight, loop_recurrence=recurrence).volumes[0]
        energies.append(float(loop_energy(volume.real[None], volume.num_frames)))
    assert energies[0] > energies[1] > energies[2]


def test_loading_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    diffusers_logging.enable_propagation()
    try:
        load_pipeline("embedded", "cpu")
    finally:
        diffusers_logging.disable_propagation()
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("diffusers")]


def test_saved_pipelines_load_the_same(pipeline: GIDPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "weights")
    assert not list((tmp_path / "weights").rglob("*.bin"))
    loaded = load_pipeline(tmp_path / "weights", "cpu")
    assert loaded.config.scales == [1.0] * 16 or tuple(loaded.config.scales) == (1.0,) * 16
    expected = pipeline(photo(), seed=1, steps=2).volumes[0].coefficients
    torch.testing.assert_close(loaded(photo(), seed=1, steps=2).volumes[0].coefficients, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="openings are counted by inotify")
def test_each_file_of_weights_is_opened_once(pipeline: GIDPipeline, tmp_path: Path) -> None:
    """Counted by the system, so by whatever library: weights are checked and loaded from one reading."""
    pipeline.save_pretrained(tmp_path)
    folders = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    system = ctypes.CDLL(None)
    notices = system.inotify_init1(os.O_NONBLOCK)
    watched = {system.inotify_add_watch(notices, os.fsencode(folder), 0x20): folder.name for folder in folders}
    load_pipeline(tmp_path, "cpu")
    events, opened = os.read(notices, 2**16), Counter[str]()
    os.close(notices)
    while events:
        watch, _, _, length = struct.unpack_from("iIII", events)
        name = events[16 : 16 + length].rstrip(b"\0").decode()
        opened[f"{watched[watch]}/{name}"] += name.endswith(".safetensors")
        events = events[16 + length :]
    files = {f"{file.parent.name}/{file.name}" for file in tmp_path.rglob("*.safetensors")}
    assert len(files) == 4
    assert +opened == dict.fromkeys(files, 1)


def test_weights_are_explained_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"model_index\.json"):
        resolve_weights(tmp_path)
    with pytest.raises(ValueError, match="unknown"):
        resolve_weights("no such thing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GID_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match="holds no weights"):
        resolve_weights()


def test_damaged_weights_are_told(pipeline: GIDPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    file = next((tmp_path / "denoiser").glob("*.safetensors"))
    whole = file.read_bytes()
    for content, message in ((whole[:100], "is no safetensors file"), (whole[:-4], "truncated")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_pipeline(tmp_path, "cpu")


@pytest.mark.parametrize("change", ["one missing", "one too many", "another shape", "another part"])
def test_weights_of_another_make_are_told(pipeline: GIDPipeline, tmp_path: Path, change: str) -> None:
    """diffusers would leave what is missing as it is, which is nothing or noise."""
    pipeline.save_pretrained(tmp_path)
    file = tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    if change == "one missing":
        del tensors["null_condition"]
    elif change == "one too many":
        tensors["more"] = torch.zeros(2)
    elif change == "another shape":
        tensors["null_condition"] = torch.zeros(3, 5)
    else:
        tensors = load_file(tmp_path / "renderer" / file.name)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"do not fit this version.*(null_condition|more)"):
        load_pipeline(tmp_path, "cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cuda"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "0 steps"),
        ({"steps": 5000}, "5000 steps"),
        ({"guidance_scale": 0.5}, "guidance scale is 0.5"),
        ({"guidance_scale": math.nan}, "nan"),
        ({"solver": "euler"}, "euler"),
        ({"loop_guidance": -1.0}, "loop guidance is -1"),
        ({"loop_guidance": 200.0}, "ddim"),
        ({"loop_guidance": 200.0, "solver": "ddim", "loop_recurrence": 0}, "recurrence is 0"),
    ],
)
def test_options_out_of_range(pipeline: GIDPipeline, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(photo(), **options)


def test_unusable_photos(pipeline: GIDPipeline) -> None:
    with pytest.raises(ValueError, match=r"\(4, 64, 64\)"):
        pipeline(torch.rand(4, 64, 64))
    with pytest.raises(ValueError, match="NaN"):
        pipeline(torch.full((3, 64, 64), np.nan))
    with pytest.raises(ValueError, match="at least one"):
        pipeline([])
