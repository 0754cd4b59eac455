"""The motion models: paper sizes on the meta device, identities at insertion, tiny real forward passes."""

import dataclasses

import pytest
import torch

from foundation.efficientnet import PYRAMID_CHANNELS, EfficientNetLite0, convert_reference_weights
from gid.diffusion.autoencoder import MotionAutoencoder, MotionAutoencoderConfig
from gid.diffusion.denoiser import DenoiserConfig, FrequencyAttention, SpectralDenoiser
from gid.diffusion.photo_encoder import (
    ENVELOPE_GAIN,
    LOG_ENVELOPE_FLOOR,
    PhotoEncoder,
    PhotoEncoderConfig,
    envelope_from_log,
)

TINY = DenoiserConfig(4, 4, 6, (16, 32), 1, 8, 8, (False, True), True)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_paper_sizes() -> None:
    with torch.device("meta"):
        autoencoder = MotionAutoencoder.from_preset(MotionAutoencoderConfig.preset("paper"))
        plain = dataclasses.replace(DenoiserConfig.preset("paper"), frequency_attention=False)
        single = SpectralDenoiser.from_preset(plain)
        coordinated = SpectralDenoiser.from_preset(DenoiserConfig.preset("paper"))
        encoder = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("paper"))
    assert round(parameters(autoencoder) / 1e6, 1) == 55.3
    assert round(parameters(single) / 1e6, 1) == 241.5
    assert parameters(coordinated) - parameters(single) == sum(p.numel() for p in coordinated.attention_parameters())
    assert encoder.config.condition_channels == 16


def test_small_sizes_fit_a_plain_push() -> None:
    with torch.device("meta"):
        models = [
            MotionAutoencoder.from_preset(MotionAutoencoderConfig.preset("small")),
            SpectralDenoiser.from_preset(DenoiserConfig.preset("small")),
            PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small")),
        ]
    assert all(2 * parameters(model) < 10e6 for model in models)  # float16 bytes


@pytest.mark.parametrize("config", [MotionAutoencoderConfig, DenoiserConfig, PhotoEncoderConfig])
def test_unknown_presets_are_named(config: type) -> None:
    with pytest.raises(ValueError, match="huge"):
        config.preset("huge")


def test_frequency_attention_enters_as_an_identity() -> None:
    torch.manual_seed(0)
    denoiser = SpectralDenoiser.from_preset(TINY).eval()
    inputs = (torch.randn(8, 4, 8, 8), torch.full((8,), 500), torch.arange(4).repeat(2), torch.randn(8, 6, 8, 8))
    with torch.no_grad():
        together = denoiser(*inputs)
        denoiser.coordinate(False)
        torch.testing.assert_close(denoiser(*inputs), together)


def test_frequency_attention_is_attention_over_the_bands() -> None:
    torch.manual_seed(0)
    layer = FrequencyAttention(8, 3, 8)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(6, 8, 2, 2)
    with torch.no_grad():
        got = layer(x)
        for photo in range(2):
            for row in range(2):
                for column in range(2):
                    tokens = x[photo * 3 : photo * 3 + 3, :, row, column]
                    q, k, v = layer.qkv(layer.norm(tokens) + layer.position).chunk(3, dim=-1)
                    weights = torch.softmax(q @ k.T / 8**0.5, dim=-1)
                    expected = tokens + layer.out(weights @ v)
                    torch.testing.assert_close(got[photo * 3 : photo * 3 + 3, :, row, column], expected)


def test_slices_know_their_band_and_photos_do_not_mix() -> None:
    torch.manual_seed(0)
    denoiser = SpectralDenoiser.from_preset(TINY).eval()
    for parameter in denoiser.attention_parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, condition = torch.randn(1, 4, 8, 8).expand(8, -1, -1, -1).clone(), torch.randn(8, 6, 8, 8)
    time, bands = torch.full((8,), 500), torch.arange(4).repeat(2)
    with torch.no_grad():
        both = denoiser(x, time, bands, condition)
        alone = denoiser(x[:4], time[:4], bands[:4], condition[:4])
    torch.testing.assert_close(both[:4], alone, atol=1e-5, rtol=1e-4)
    assert float((both[0] - both[1]).abs().max()) > 1e-4


def test_autoencoder_shapes_and_whitening() -> None:
    config = MotionAutoencoderConfig((8, 16, 16), 1, 4, 4, False)
    model = MotionAutoencoder.from_preset(config).eval()
    slices = torch.randn(3, 4, 16, 32)
    with torch.no_grad():
        plain = model.encode_slices(slices)
        assert plain.shape == (3, 4, 4, 8)
        decoded = model.decode_slices(plain)
        assert decoded.shape == slices.shape
        model.register_to_config(latents_mean=(1.0, 2.0, 3.0, 4.0), latents_std=(2.0, 2.0, 2.0, 2.0))
        whitened = model.encode_slices(slices)
        expected = (plain - torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]) / 2
        torch.testing.assert_close(whitened, expected)
        torch.testing.assert_close(model.decode_slices(whitened), decoded, atol=1e-5, rtol=1e-4)


def test_efficientnet_pyramid_and_names() -> None:
    trunk = EfficientNetLite0().eval()
    with torch.no_grad():
        levels = trunk(torch.rand(1, 3, 64, 96))
    assert [level.shape[1] for level in levels] == list(PYRAMID_CHANNELS)
    assert [level.shape[-1] for level in levels] == [48, 24, 12, 6, 3]
    reference = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_fc.weight": torch.zeros(1)}
    assert list(convert_reference_weights(reference)) == ["stem.0.weight"]
    with pytest.raises(ValueError, match=r"layer4\.0"):
        convert_reference_weights({"layer4.0.weight": torch.zeros(1)})


def test_photo_encoder_shapes_and_limits() -> None:
    encoder = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small")).eval()
    with torch.no_grad():
        features = encoder(torch.rand(2, 3, 64, 128))
    assert features.condition.shape == (2, 32, 4, 8)
    assert features.log_envelope is not None
    assert features.log_envelope.shape == (2, 1, 16, 32)
    assert float(features.log_envelope.min()) >= LOG_ENVELOPE_FLOOR
    with pytest.raises(ValueError, match="70x64"):
        encoder(torch.rand(1, 3, 64, 70))
    with pytest.raises(ValueError, match="envelope"):
        PhotoEncoder(backbone="resnet", envelope=True)
    resnet = PhotoEncoder("resnet", 32, 5, False, 0.0).eval()
    with torch.no_grad():
        plain = resnet(torch.rand(1, 3, 16, 24))
    assert plain.condition.shape == (1, 5, 4, 6)
    assert plain.log_envelope is None


def test_what_is_near_the_floor_stands_still() -> None:
    logs = torch.tensor([LOG_ENVELOPE_FLOOR, LOG_ENVELOPE_FLOOR + 0.69, -5.0])
    envelope = envelope_from_log(logs)
    assert envelope[:2].tolist() == [0.0, 0.0]
    above_floor = 2.718281828**-5 - 2 * 2.718281828**LOG_ENVELOPE_FLOOR
    assert float(envelope[2]) == pytest.approx(ENVELOPE_GAIN * above_floor, rel=1e-4)
