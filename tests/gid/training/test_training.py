"""A shortened run of the whole recipe on tiny synthetic pairs: every stage, resuming, and the assembled pipeline."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.efficientnet import EfficientNetLite0
from foundation.features import load_encoder
from foundation.training import TrainingConfig, TrainingRun
from gid.data.videos import Pair, save_pair
from gid.diffusion.denoiser import DenoiserConfig, PhotoCondition, SpectralDenoiser
from gid.diffusion.motion_map import MotionMap
from gid.diffusion.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from gid.evaluation.metrics import background_leakage
from gid.motion.spectrum import SpectralVolume
from gid.training import envelope as envelope_stage
from gid.training.autoencoder import (
    AutoencoderTrainingConfig,
    fit_normalization,
    multi_scale_gradient,
    train_autoencoder,
)
from gid.training.dataset import MotionPair, PrepareConfig, PreparedMotion, prepare
from gid.training.denoiser import DenoiserTrainingConfig, take_over, train_denoiser, train_frequency_attention
from gid.training.envelope import EnvelopeTrainingConfig, picture_correlation, picture_leakage, train_envelope
from gid.training.latents import LatentConfig, LatentMotion, encode_latents, place_weight
from gid.training.mixture import Mixture

BANDS = 16


def swaying_square(seed: int) -> MotionPair:
    """A bright square that sways over dark noise; 128x64 photo, 32x16 motion."""
    generator = torch.Generator().manual_seed(seed)
    photo = torch.randint(0, 60, (3, 64, 128), generator=generator, dtype=torch.uint8)
    left = int(torch.randint(0, 80, (), generator=generator)) // 4 * 4
    photo[:, 16:48, left : left + 40] = 200
    coefficients = torch.zeros(BANDS, 4, 16, 32)
    values = torch.randn(BANDS, 4, 1, 1, generator=generator) * 0.01
    coefficients[:, :, 4:12, left // 4 : left // 4 + 10] = values
    return MotionPair("even" if seed % 2 == 0 else "odd", photo, coefficients)


def measured_square(seed: int) -> Pair:
    """The same as a measured clip, trusted in its left half only."""
    pair = swaying_square(seed)
    volume = SpectralVolume.from_real(pair.coefficients, fps=30, num_frames=150, image_size=(128, 64), model="measured")
    confidence = torch.zeros(16, 32)
    confidence[:, :16] = 1
    return Pair(f"square_{seed}", 0, pair.photo, volume, confidence)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("prepared")
    pairs = [swaying_square(seed) for seed in range(8)]
    assert prepare(pairs, 8, folder, EfficientNetLite0().eval(), PrepareConfig(variants=2, batch_size=3)) == 16
    return folder


def test_prepared_rows_hold_the_motion(prepared: Path) -> None:
    dataset = PreparedMotion(prepared)
    assert len(dataset) == 16
    row = dataset[0]
    pair = swaying_square(0)
    root = math.sqrt(128 * 64)
    torch.testing.assert_close(row["coefficients"][:, :2] * root, pair.coefficients[:, :2] * 128, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(row["coefficients"][:, 2:] * root, pair.coefficients[:, 2:] * 64, rtol=2e-3, atol=1e-3)
    assert row["stride4"].shape == (24, 16, 32)
    assert len(PreparedMotion(prepared, exclude={"odd"})) == 8
    with pytest.raises(ValueError, match="no row"):
        PreparedMotion(prepared, only={"none"})


def test_unfinished_set_is_not_trusted(prepared: Path, tmp_path: Path) -> None:
    for name in ("stride4", "stride8", "coefficients", "thumbnails"):
        (tmp_path / f"{name}.npy").write_bytes((prepared / f"{name}.npy").read_bytes())
    with pytest.raises(ValueError, match="no finished training set"):
        PreparedMotion(tmp_path)


def test_shares_decide_what_is_drawn(prepared: Path) -> None:
    parts = [PreparedMotion(prepared, only={"even"}), PreparedMotion(prepared, only={"odd"})]
    torch.manual_seed(0)
    drawn = torch.tensor(list(Mixture(parts, (0.9, 0.1)).sampler(4000)))
    assert 0.07 < float((drawn >= 8).float().mean()) < 0.13
    with pytest.raises(ValueError, match="one positive share"):
        Mixture(parts, (1.0,))


def test_without_adaptive_normalization_all_bands_share_one_scale(prepared: Path) -> None:
    rows = Mixture([PreparedMotion(prepared, arrays=("coefficients",))], (1.0,))
    torch.manual_seed(0)
    each = fit_normalization(rows, envelope=False, count=12).scales
    torch.manual_seed(0)
    shared = fit_normalization(rows, envelope=False, adaptive=False, count=12).scales
    torch.manual_seed(0)
    drawn = torch.stack([rows[i]["coefficients"] for i in rows.sampler(12)])[..., ::4, ::4]
    moving = drawn.abs().amax(dim=(1, 2), keepdim=True).expand_as(drawn) > 0
    values = drawn.abs()[moving].sort().values
    assert len(set(shared)) == 1 < len(set(each))
    assert len(shared) == len(each) == BANDS
    assert shared[0] == pytest.approx(float(values[round(0.95 * len(values)) - 1]))


def test_losses_against_closed_forms() -> None:
    a, b = torch.rand(3, 1, 6, 7), torch.rand(3, 1, 6, 7)
    for i in range(3):
        expected = torch.corrcoef(torch.stack([a[i].flatten(), b[i].flatten()]))[0, 1]
        torch.testing.assert_close(picture_correlation(a, b)[i], expected, atol=1e-4, rtol=1e-3)
        predicted, measured = a[i, 0], b[i, 0] ** 6
        ours = float(picture_leakage(a[i : i + 1], b[i : i + 1] ** 6))
        assert ours == pytest.approx(background_leakage(predicted, measured), rel=1e-4)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(multi_scale_gradient(ramp, torch.zeros(1, 1, 8, 8))) == pytest.approx(1 + 2 + 4)


@pytest.fixture(scope="module")
def stages(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All stages, a few steps each, with random features in place of ImageNet's (the recipe is the same)."""
    out = tmp_path_factory.mktemp("stages")
    few = {"steps": 3, "batch_size": 2, "save_every": 2, "warmup_steps": 1, "precision": "no"}
    train_autoencoder(
        AutoencoderTrainingConfig(out=out / "autoencoder", data=(prepared,), shares=(1.0,), slices=2, **few)
    )
    encoder = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small"))
    (out / "envelope").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # ImageNet's weights come with an optional package; random ones run the same code.
        patch.setattr(envelope_stage, "pretrained_trunk", lambda: encoder.trunk.eval())
        train_envelope(EnvelopeTrainingConfig(out=out / "envelope", data=(prepared,), shares=(1.0,), members=2, **few))
    (out / "pairs").mkdir()
    for seed in range(8):
        save_pair(measured_square(seed), out / "pairs" / f"{seed}.safetensors")
    encode_latents(
        LatentConfig(out / "pairs", out / "autoencoder", out / "latents", "clips", variants=2, include_held_out=True)
    )
    common = {"data": (out / "latents",), "shares": (1.0,), **few}
    train_denoiser(DenoiserTrainingConfig(out=out / "denoiser", **common))
    train_frequency_attention(
        DenoiserTrainingConfig(out=out / "attention", denoiser=out / "denoiser" / "denoiser", **common)
    )
    return {path.name: path for path in out.iterdir()}


def test_rows_for_the_denoiser_hold_what_is_frozen(stages: dict[str, Path]) -> None:
    """The first row is the pair as it is; its tokens are the shared encoder's, its envelope that of the motion."""
    row = LatentMotion(stages["latents"])[0]
    pair = measured_square(0)
    pixels = torch.nn.functional.interpolate(pair.photo[None] / 255, (4 * 14, 8 * 14), mode="bilinear", antialias=True)
    tokens = load_encoder()(pixels.clamp(0, 1), tokens=32).stacked()[0]
    torch.testing.assert_close(row["tokens"], tokens, atol=0.02, rtol=2e-3)
    assert row["weight"].shape == row["envelope"].shape == (1, 4, 8)
    assert torch.all(row["weight"][0, :, 4:] == torch.tensor(0.02).half())
    motion = swaying_square(0).coefficients
    moving = motion.abs().amax(dim=(0, 1)).reshape(4, 4, 8, 4).amin(dim=(1, 3)) > 0
    pixels_moved = motion[1:].double() * torch.tensor([128, 128, 64, 64])[:, None, None]
    expected = (2 * pixels_moved.square().sum((0, 1)) / (128 * 64)).sqrt().log().reshape(4, 4, 8, 4).mean(dim=(1, 3))
    torch.testing.assert_close(row["envelope"][0][moving].double(), expected[moving], atol=0.02, rtol=0)


def test_places_count_where_they_move_and_were_seen() -> None:
    envelope = torch.tensor([[0.0, 0.1, 1.0, 1.0]]).expand(1, 1, 8, 4).contiguous()
    confidence = torch.ones(8, 4)
    confidence[:4] = 0.5
    weight = place_weight(envelope, confidence)[0, 0]
    torch.testing.assert_close(weight[0], torch.tensor([0.02, 0.5 / 3, 0.5, 0.5]))
    torch.testing.assert_close(weight[7], torch.tensor([0.02, 1 / 3, 1.0, 1.0]))


def test_what_fits_of_an_earlier_denoiser_is_taken_over() -> None:
    wide = DenoiserConfig(16, 4, 8, (8, 16), 1, 8, 4, (False, True), True)
    earlier = SpectralDenoiser.from_preset(wide)
    later = SpectralDenoiser.from_preset(replace(wide, condition_channels=12, token_channels=3))
    copied = take_over(later, earlier)
    own, old = later.state_dict(), earlier.state_dict()
    differ = {name for name in old if own[name].shape != old[name].shape}
    assert differ == {"unet.conv_in.weight", "null_condition"}
    assert copied == len(old) - 2
    assert all(torch.equal(own[name], value) for name, value in old.items() if name not in differ)


def test_the_strength_of_an_envelope_does_not_change_the_condition() -> None:
    look = PhotoCondition(6, 4).eval()
    tokens, envelope = torch.randn(2, 6, 5, 7), torch.randn(2, 1, 4, 6)
    torch.testing.assert_close(look(tokens, envelope), look(tokens, envelope + 3))
    assert look(tokens, envelope).shape == (2, 4, 4, 6)


def test_latents_are_whitened(stages: dict[str, Path]) -> None:
    dataset = LatentMotion(stages["latents"])
    assert len(dataset) == 16
    latents = torch.stack([dataset[i]["latents"] for i in range(16)])
    assert latents.shape == (16, BANDS, 4, 4, 8)
    assert latents.movedim(2, 0).flatten(1).std(1).tolist() == pytest.approx([1.0] * 4, abs=0.3)


@pytest.mark.parametrize("stage", ["autoencoder", "envelope/member-0", "envelope/member-1", "denoiser", "attention"])
def test_every_stage_leaves_a_sheet_a_log_and_a_checkpoint(stages: dict[str, Path], stage: str) -> None:
    for name in ("samples-000003.png", "log.jsonl", "state/training.json"):
        assert (stages["autoencoder"].parent / stage / name).stat().st_size > 0


def test_envelope_heads_are_averaged(stages: dict[str, Path]) -> None:
    encoder = PhotoEncoder.from_pretrained(stages["envelope"] / "photo_encoder").eval()
    levels = encoder.trunk(torch.rand(1, 3, 64, 64))
    heads = [head(levels) for head in encoder.envelope_head.heads]
    assert not torch.equal(heads[0], heads[1])
    torch.testing.assert_close(encoder.log_envelope(levels), (heads[0] + heads[1]) / 2)


def test_attention_stage_trains_nothing_else(stages: dict[str, Path]) -> None:
    before = SpectralDenoiser.from_pretrained(stages["denoiser"] / "denoiser").state_dict()
    after = SpectralDenoiser.from_pretrained(stages["attention"] / "denoiser").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".attention." in name for name in changed)


def test_runs_resume_and_log(stages: dict[str, Path], prepared: Path) -> None:
    out = stages["autoencoder"]
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    few = {"batch_size": 2, "save_every": 2, "warmup_steps": 1, "precision": "no"}
    train_autoencoder(AutoencoderTrainingConfig(out=out, data=(prepared,), shares=(1.0,), slices=2, steps=5, **few))
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]
    assert (out / "samples-000005.png").is_file()


def test_frozen_parts_stay_in_evaluation_mode(prepared: Path, tmp_path: Path) -> None:
    objective = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    config = TrainingConfig(tmp_path, precision="no")
    batches = Mixture([PreparedMotion(prepared)], (1.0,)).batches(config)
    run = TrainingRun(config, objective, list(objective[0].parameters()), batches)
    objective.train()
    objective[1].eval()
    with run.averaged():
        assert not objective.training
    assert objective.training
    assert not objective[1].training


def test_statistics_follow_the_training_pictures_only_if_asked(prepared: Path, tmp_path: Path) -> None:
    few = {"steps": 2, "batch_size": 4, "save_every": 1, "warmup_steps": 1, "precision": "no"}
    start = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small"))
    start.save_pretrained(tmp_path / "start")
    before = start.trunk.blocks[9].project[1].running_var
    for adapt in (False, True):
        out = tmp_path / str(adapt)
        train_envelope(
            EnvelopeTrainingConfig(
                out=out, data=(prepared,), shares=(1.0,), init=tmp_path / "start", adapt_statistics=adapt, **few
            )
        )
        after = PhotoEncoder.from_pretrained(out / "photo_encoder").trunk.blocks[9].project[1].running_var
        assert torch.equal(before, after) is not adapt


def test_assembled_pipeline_samples_motion(stages: dict[str, Path], tmp_path: Path) -> None:
    from gid.diffusion.pipeline import load_pipeline
    from gid.rendering.renderer import Renderer, RendererConfig
    from gid.training.assemble import AssembleConfig, assemble

    Renderer.from_preset(RendererConfig((8, 8), (1, 1), 3, (8, 8))).save_pretrained(tmp_path / "renderer")
    MotionMap(members=1, components=8, width=8).save_pretrained(tmp_path / "map" / "motion_map")
    parts = (stages["autoencoder"], stages["attention"], tmp_path / "renderer", tmp_path / "weights")
    config = AssembleConfig(*parts, motion_map=tmp_path / "map")
    pipeline = load_pipeline(assemble(config), "cpu")
    volume = pipeline(torch.rand(3, 90, 160), steps=2).volumes[0]
    assert volume.num_bands == BANDS
    assert volume.image_size == (160, 90)
    assert float(volume.motion_energy().max()) > 0
    assert not list(tmp_path.glob(".*"))


def test_assembling_can_take_envelope_heads_of_other_runs(stages: dict[str, Path], tmp_path: Path) -> None:
    from gid.rendering.renderer import Renderer, RendererConfig
    from gid.training.assemble import AssembleConfig, assemble

    Renderer.from_preset(RendererConfig((8, 8), (1, 1), 3, (8, 8))).save_pretrained(tmp_path / "renderer")
    runs = (stages["envelope"], stages["envelope"])
    out = assemble(
        AssembleConfig(
            stages["autoencoder"],
            stages["attention"],
            tmp_path / "renderer",
            envelope_run=runs,
            out=tmp_path / "weights",
            half=False,
        )
    )
    merged = PhotoEncoder.from_pretrained(out / "photo_encoder").eval()
    before = PhotoEncoder.from_pretrained(stages["envelope"] / "photo_encoder").eval()
    photo = torch.rand(1, 3, 64, 64)
    assert len(merged.envelope_head.heads) == 4
    torch.testing.assert_close(merged(photo).log_envelope, before(photo).log_envelope)
    torch.testing.assert_close(merged(photo).condition, before(photo).condition)
