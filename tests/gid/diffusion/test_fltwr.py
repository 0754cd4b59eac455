"""Other people's checkpoints: converted strictly and safely, and then equal to a direct evaluation of what they are."""

from __future__ import annotations

import copy
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel, VQModel
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from foundation.weights.state_dicts import CheckpointError, check_keys
from gid.cli.main import app
from gid.diffusion.conversion import convert_fltwr, load_autoencoder
from gid.diffusion.fltwr import DEVIATIONS, FltwrLayout, FltwrPipeline
from gid.diffusion.guidance import loop_energy
from gid.diffusion.pipeline import load_pipeline
from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume
from tests.tiny import photo, tiny_pipeline
from ui.animate.events import note_of
from ui.animate.service import AnimationService

TINY = FltwrLayout((8, 16, 16, 16), 1, 4)
WIDTH, HEIGHT = 64, 32  # of the motion in these tests; the model was trained at 256x160


def tiny_unet(seed: int = 0) -> UNet2DModel:
    """The layout of the facts, in a direct call of the library, with small sizes."""
    torch.manual_seed(seed)
    return UNet2DModel(
        in_channels=15,
        out_channels=12,
        class_embed_type="timestep",
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


def tiny_autoencoder(seed: int = 1) -> VQModel:
    torch.manual_seed(seed)
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        num_vq_embeddings=64,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and the folder of an autoencoder, as they would be downloaded."""
    folder = tmp_path_factory.mktemp("fltwr")
    torch.save({"model": tiny_unet().state_dict(), "epoch": 7}, folder / "unet_v1.pth")
    tiny_autoencoder().save_pretrained(folder / "vqvae")
    return folder / "unet_v1.pth", folder / "vqvae"


@pytest.fixture(scope="module")
def converted(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint, autoencoder = parts
    return convert_fltwr(checkpoint, tmp_path_factory.mktemp("out") / "weights", str(autoencoder), TINY)


@pytest.fixture
def pipeline(converted: Path) -> FltwrPipeline:
    loaded = load_pipeline(converted, "cpu")
    assert isinstance(loaded, FltwrPipeline)
    loaded.register_to_config(motion_area=WIDTH * HEIGHT)
    return loaded


# -- what comes out --------------------------------------------------------------------------------------------------


def test_the_folder_holds_no_pickle(converted: Path) -> None:
    kinds = {path.suffix for path in converted.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}
    assert not [path for path in converted.parent.iterdir() if path != converted]
    stored = load_file(converted / "denoiser" / "diffusion_pytorch_model.safetensors")
    for name, tensor in tiny_unet().state_dict().items():
        torch.testing.assert_close(stored[name], tensor, rtol=0, atol=0)


def test_the_published_sizes_are_the_librarys_defaults() -> None:
    with torch.device("meta"):
        built = FltwrLayout().build()
        direct = UNet2DModel(in_channels=15, out_channels=12, class_embed_type="timestep")
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in direct.state_dict().items()}
    check_keys(direct.state_dict(), built.state_dict(), "itself")


def test_the_noise_prediction_is_that_of_the_library(pipeline: FltwrPipeline) -> None:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(16, 12, HEIGHT // 4, WIDTH // 4, generator=generator)
    pixels = torch.rand(3, HEIGHT, WIDTH, generator=generator)
    condition, _ = pipeline._condition(pixels, WIDTH, HEIGHT)
    found = pipeline._predict(latents, torch.tensor(700), torch.arange(16), condition, 1.0)

    seen = tiny_autoencoder().encode(pixels[None] * 2 - 1).latents
    for frequency in (0, 1, 15):  # each on its own, as that model samples them
        direct = tiny_unet()(
            torch.cat([latents[frequency : frequency + 1], seen], 1), 700, class_labels=torch.tensor([frequency])
        ).sample
        torch.testing.assert_close(found[frequency : frequency + 1], direct, rtol=0, atol=1e-4)
        assert float(direct.detach().std()) > 1e-2


@torch.no_grad()
def described_trajectories(latents: Tensor) -> np.ndarray:
    """Clean latents (16, 12, h, w) -> displacements in pixels (149, H, W, 2), by the description and numpy alone."""
    autoencoder = tiny_autoencoder()
    full = np.zeros((149, 4 * latents.shape[2], 4 * latents.shape[3], 2), np.complex128)
    for frequency, deviation in enumerate(DEVIATIONS):
        maps = [autoencoder.decode(latents[frequency, None, 3 * c : 3 * c + 3]).sample.mean(1)[0] for c in range(4)]
        re_x, re_y, im_x, im_y = (m.double().numpy() * deviation * 2.82 for m in maps)
        full[frequency] = np.stack([re_x + 1j * im_x, re_y + 1j * im_y], -1)
        if frequency:
            full[149 - frequency] = full[frequency].conj()
    return np.fft.ifft(full, axis=0).real


def test_the_decoded_spectrum_is_that_of_the_description(pipeline: FltwrPipeline) -> None:
    pipeline.register_to_config(drift_floor=None)
    latents = torch.randn(16, 12, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        coefficients = pipeline.coefficients(pipeline.decode_maps(latents)[None])[0]
    # In fractions of the picture, which is what a volume holds.
    volume = SpectralVolume.from_real(
        coefficients / torch.tensor([WIDTH, WIDTH, HEIGHT, HEIGHT])[:, None, None], fps=30.0, num_frames=149
    )
    found = volume.displacement(torch.arange(149), pin_first=False).movedim(1, -1).numpy()
    expected = described_trajectories(latents) / np.array([WIDTH, HEIGHT])
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_drift_of_the_background_is_left_out(pipeline: FltwrPipeline) -> None:
    maps = torch.randn(1, 16, 4, 6, 9, generator=torch.Generator().manual_seed(5)) * 0.1 + 0.2
    maps[:, 3] *= 0.01  # nothing here is above the floor
    found = pipeline.coefficients(maps)[0] * 149
    values = maps[0].double().numpy()
    median = np.sort(np.abs(values).reshape(16, 4, -1))[..., (6 * 9 - 1) // 2]
    excess = np.maximum(median - 0.05, 0)[..., None, None]
    kept = values - np.sign(values) * np.minimum(np.abs(values), excess)
    scale = np.array(DEVIATIONS)[:, None, None, None] * 2.82
    np.testing.assert_allclose(found.numpy(), (kept * scale)[:, [0, 2, 1, 3]], rtol=1e-4, atol=1e-4)
    assert not excess[3].any()
    assert excess[4].all()


def test_a_whole_sample_is_that_of_a_loop_over_the_library(pipeline: FltwrPipeline) -> None:
    pipeline.register_to_config(drift_floor=None)
    pixels = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    volume = pipeline(pixels, seed=11, steps=3, solver="ddim").volumes[0]
    assert (volume.num_frames, volume.fps, volume.seed, volume.model) == (149, 30.0, 11, "fltwr-unet-v1")

    unet, autoencoder = tiny_unet(), tiny_autoencoder()
    scheduler = DDIMScheduler(1000, 0.0015, 0.0195, "scaled_linear", timestep_spacing="trailing")  # clips, by default
    scheduler.set_timesteps(3)
    noise = torch.randn((16, 12, HEIGHT // 4, WIDTH // 4), generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        seen = autoencoder.encode(pixels[None] * 2 - 1).latents
        clean = []
        for frequency in range(16):
            latents = noise[frequency, None]
            for time in scheduler.timesteps:
                predicted = unet(torch.cat([latents, seen], 1), time, torch.tensor([frequency])).sample
                latents = scheduler.step(predicted, time, latents).prev_sample
            clean.append(latents)
    expected = described_trajectories(torch.cat(clean)) / np.array([WIDTH, HEIGHT])
    found = volume.displacement(torch.arange(149), pin_first=False).movedim(1, -1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_it_runs_like_the_projects_own(pipeline: FltwrPipeline, tmp_path: Path) -> None:
    volumes = pipeline(photo(96, 64), seed=[1, 2], steps=2).volumes
    assert [volume.seed for volume in volumes] == [1, 2]
    assert not torch.equal(volumes[0].coefficients, volumes[1].coefficients)
    again = pipeline(photo(96, 64), seed=1, steps=2).volumes[0]
    torch.testing.assert_close(again.coefficients, volumes[0].coefficients, rtol=1e-3, atol=1e-5)
    assert pipeline.motion_size(300, 200) == (64, 32)
    assert pipeline.motion_size(200, 400) == (32, 64)
    volumes[0].save(tmp_path / "motion.safetensors")
    assert SpectralVolume.load(tmp_path / "motion.safetensors").model == "fltwr-unet-v1"


def test_loop_guidance_pulls_the_estimate_towards_a_loop(pipeline: FltwrPipeline) -> None:
    pipeline.register_to_config(drift_floor=None)
    scheduler = pipeline._solver("ddim", 4)
    time = torch.tensor(300)
    generator = torch.Generator().manual_seed(8)
    latents, noise = (torch.randn(16, 12, 8, 8, generator=generator) for _ in range(2))
    alpha = float(scheduler.alphas_cumprod[300]) ** 0.5

    def decode(clean: Tensor) -> Tensor:
        return pipeline._decode(clean, 1, None)

    def energy(predicted: Tensor) -> float:
        clean = (latents - (1 - alpha**2) ** 0.5 * predicted) / alpha
        with torch.no_grad():
            return float(loop_energy(decode(clean), 149))

    guided = pipeline._guided(noise, latents, time, scheduler, decode, 1e4)
    assert energy(guided) < energy(noise)
    torch.testing.assert_close(pipeline._guided(noise, latents, torch.tensor(999), scheduler, decode, 1.0), noise)


def test_the_original_size_is_kept_for_a_photo_of_that_shape(converted: Path) -> None:
    loaded = load_pipeline(converted, "cpu")
    assert loaded.motion_size(1280, 800) == (256, 160)
    assert loaded.motion_size(800, 1280) == (160, 256)


def test_guidance_is_refused(pipeline: FltwrPipeline) -> None:
    with pytest.raises(ValueError, match=r"guidance scale is 2\.75; these weights were trained without"):
        pipeline(photo(), steps=1, guidance_scale=2.75)


def test_the_missing_licence_is_told(pipeline: FltwrPipeline, tmp_path: Path) -> None:
    assert pipeline.config.weights_license == "none stated"
    assert "licence" in pipeline.notice
    path = tmp_path / "photo.png"
    photo(64, 32).save(path)
    service = AnimationService(pipeline, "folder")
    assert service.notice == pipeline.notice
    options, volume = MotionOptions(steps=1), pipeline(photo(64, 32), steps=1).volumes[0]
    assert pipeline.notice in note_of(service, options, volume, 1.0)
    embedded = AnimationService(tiny_pipeline(), "embedded")
    assert "plants" in note_of(embedded, options, volume, 1.0)
    still = volume.magnify(1e-6)
    assert "stands still" in note_of(embedded, options, still, 1.0)
    assert "stands still" not in note_of(embedded, MotionOptions(hold_still=False), still, 1.0)
    *_, video = service.animate(str(path), MotionOptions(steps=1), RenderOptions(frames=4))
    assert Path(str(video)).stat().st_size > 0


# -- what is refused -------------------------------------------------------------------------------------------------


def changed(tensors: dict[str, Tensor], change: Callable[[dict[str, Tensor]], Any]) -> dict[str, Tensor]:
    tensors = copy.copy(tensors)
    change(tensors)
    return tensors


def test_every_key_that_does_not_fit_is_named(parts: tuple[Path, Path], tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["conv_in.bias"]
        del tensors["mid_block.attentions.0.to_q.weight"]
        tensors["extra.weight"] = torch.zeros(1)
        tensors["conv_out.weight"] = torch.zeros(4, 8, 3, 3)

    path = tmp_path / "unet.pth"
    torch.save({"model": changed(tiny_unet().state_dict(), change)}, path)
    with pytest.raises(CheckpointError) as caught:
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)
    message = str(caught.value)
    assert "(2 keys missing, 1 unexpected, 1 misshaped)" in message
    for part in ("missing conv_in.bias", "missing mid_block.attentions.0.to_q.weight", "unexpected extra.weight"):
        assert part in message
    assert "conv_out.weight has shape (4, 8, 3, 3), not (12, 8, 3, 3)" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["unet.pth"]


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("wrapped", [True, False], ids=["in the torch format", "as a plain pickle"])
def test_what_a_checkpoint_holds_is_never_executed(parts: tuple[Path, Path], tmp_path: Path, wrapped: bool) -> None:
    trap, path = tmp_path / "executed", tmp_path / "unet.pth"
    content = {"model": {**tiny_unet().state_dict(), "trap": Malicious(trap)}}
    if wrapped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"model": Malicious(trap)}))
    with pytest.raises(CheckpointError, match=r"unsafe|no torch file"):
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)
    assert not trap.exists()
    if wrapped:  # the trap works
        torch.load(path, weights_only=False)
        assert trap.exists()


def test_a_malicious_autoencoder_is_not_executed(parts: tuple[Path, Path], tmp_path: Path) -> None:
    folder, trap = tmp_path / "vqvae", tmp_path / "executed"
    folder.mkdir()
    (folder / "config.json").write_bytes((parts[1] / "config.json").read_bytes())
    torch.save({**tiny_autoencoder().state_dict(), "trap": Malicious(trap)}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="could not be loaded"):
        convert_fltwr(parts[0], tmp_path / "out", str(folder), TINY)
    assert not trap.exists()
    assert not (tmp_path / "out").exists()


def test_the_autoencoder_of_the_original_repository_has_older_names(tmp_path: Path) -> None:
    model = tiny_autoencoder()
    model.save_config(tmp_path)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")
        return name

    tensors = {renamed(name): tensor for name, tensor in model.state_dict().items()}
    assert set(tensors) != set(model.state_dict())
    torch.save(tensors, tmp_path / "diffusion_pytorch_model.bin")
    loaded = load_autoencoder(str(tmp_path))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    other = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
    )
    other.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"4 latent channels at 1/2 of the size .* needs 3 at 1/4"):
        load_autoencoder(str(tmp_path))
    incomplete = tiny_autoencoder().state_dict()
    del incomplete["quantize.embedding.weight"]
    tiny_autoencoder().save_config(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(incomplete, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"quantize\.embedding\.weight"):
        load_autoencoder(str(tmp_path))


def test_an_autoencoder_that_cannot_be_had_is_told(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"nobody/nothing/vqvae could not be loaded .* --autoencoder"):
        convert_fltwr(parts[0], tmp_path / "out", "nobody/nothing/vqvae", TINY)
    with pytest.raises(ValueError, match="neither a folder nor"):
        convert_fltwr(parts[0], tmp_path / "out", "no such folder", TINY)
    assert not (tmp_path / "out").exists()


def damaged(kind: str, whole: bytes) -> bytes:
    if kind == "cut short":
        return whole[: len(whole) // 2]
    if kind == "empty":
        return b""
    return b"<html>Sign in to OneDrive</html>"


@pytest.mark.parametrize("kind", ["cut short", "empty", "a web page"])
def test_damaged_files_are_told(parts: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "unet.pth"
    path.write_bytes(damaged(kind, parts[0].read_bytes()))
    with pytest.raises(CheckpointError, match=r"unet\.pth (is cut short|holds more than tensors)"):
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)
    assert not (tmp_path / "out").exists()


def test_another_model_is_told(parts: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"no entry 'model' \(it holds state_dict"):
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)
    torch.save({"model": {"a": 1}}, path)
    with pytest.raises(CheckpointError, match="no plain state dict of tensors"):
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)
    bad = changed(tiny_unet().state_dict(), lambda tensors: tensors["conv_in.bias"].fill_(torch.nan))
    torch.save({"model": bad}, path)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in conv_in\.bias"):
        convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY)


def test_nothing_is_left_when_writing_fails(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def full(*_: Any) -> None:
        raise OSError(28, "the disk is full on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="the disk is full"):
        convert_fltwr(parts[0], tmp_path / "out", str(parts[1]), TINY)
    assert not list(tmp_path.iterdir())


def test_an_older_torch_file_is_read(parts: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "unet.pth"
    torch.save({"model": tiny_unet().state_dict()}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert convert_fltwr(path, tmp_path / "out", str(parts[1]), TINY).is_dir()


def test_an_existing_folder_is_kept(parts: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        convert_fltwr(parts[0], tmp_path, str(parts[1]), TINY)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "somebody", "-o", "out"], "--from is 'somebody'; known are fltwr"),
        (["--from", "fltwr", "-o", "out"], "unet_v1.pth is not a file"),
        (["--from", "fltwr", "-o", "no/such/out"], "does not exist; create it first"),
    ],
)
def test_the_command_tells_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["convert", "unet_v1.pth", *arguments])
    assert result.exit_code == 2
    assert says in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_checks_the_published_layout(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["convert", str(parts[0]), "--from", "fltwr", "-o", "out", "--autoencoder", str(parts[1])]
    )
    assert result.exit_code == 2
    assert "conv_in.weight has shape (8, 15, 3, 3), not (224, 15, 3, 3)" in result.stderr
