"""The image encoder: against transformers, at any size, and its embedded eight-bit weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from foundation.features import EMBEDDED, ImageEncoder, _load, build_encoder, encode, load_encoder, patch_grid
from foundation.quantization import dequantize, pack, quantize, unpack

FLOWER = Path(__file__).parents[2] / "examples" / "flower.jpg"


@pytest.fixture
def tiny() -> ImageEncoder:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, patch_size=14, image_size=70, use_mask_token=False
    )
    model = Dinov2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return ImageEncoder(model)


def test_tokens_are_those_of_transformers(tiny: ImageEncoder) -> None:
    picture = torch.rand(2, 3, 70, 98)
    features = tiny(picture, layers=(0, 2), tokens=35)
    assert features.grid == (7, 5)
    processor = BitImageProcessor(
        do_resize=False,
        do_center_crop=False,
        do_rescale=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    pixels = torch.stack([torch.as_tensor(np.array(processor(p.numpy())["pixel_values"][0])) for p in picture])
    with torch.no_grad():
        output = tiny.model(pixels, output_hidden_states=True)
    expected = output.last_hidden_state
    assert torch.allclose(features.tokens[2].flatten(2).transpose(1, 2), expected[:, 1:], atol=1e-5)
    assert torch.allclose(features.summary, expected[:, 0], atol=1e-5)
    first = torch.nn.functional.layer_norm(
        output.hidden_states[1], (32,), tiny.model.layernorm.weight, tiny.model.layernorm.bias, 1e-6
    )
    assert torch.allclose(features.tokens[0][1, :, 2, 3], first[1, 1 + 2 * 7 + 3], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "grid"), [((1920, 1080), (37, 21)), ((500, 500), (28, 28)), ((1080, 1920), (21, 37)), ((3, 1), (48, 16))]
)
def test_the_grid_follows_the_aspect(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert patch_grid(*size) == grid


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (313, 97), (640, 427)])
def test_any_size_is_taken(tiny: ImageEncoder, size: tuple[int, int]) -> None:
    features = tiny(torch.rand(1, 3, size[1], size[0]), layers=(2,), tokens=48)
    columns, rows = features.grid
    assert features.tokens[2].shape == (1, 32, rows, columns)
    assert rows * columns <= 96
    assert features.tokens[2].isfinite().all()


def test_wrong_arguments_are_named(tiny: ImageEncoder) -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*give \(B, 3, H, W\)"):
        tiny(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"layers are \(3,\); choose some of 0 to 2"):
        tiny(torch.rand(1, 3, 28, 28), layers=(3,))
    with pytest.raises(ValueError, match="tokens is 5; choose 16 to 4096"):
        patch_grid(100, 100, 5)
    with pytest.raises(ValueError, match="0x10; both sides"):
        patch_grid(0, 10)


def test_gradients_reach_the_pixels_and_no_weight(tiny: ImageEncoder) -> None:
    picture = torch.rand(1, 3, 56, 56, requires_grad=True)
    tiny(picture, layers=(1,), tokens=16).tokens[1].square().sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_eight_bits_are_off_by_half_a_step() -> None:
    weight = torch.randn(24, 4, 8, generator=torch.Generator().manual_seed(1))
    whole, scale = quantize(weight, 16)
    assert whole.dtype == torch.int8
    assert scale.shape == (24, 2)
    step = weight.reshape(24, 2, 16).abs().amax(-1) / 127
    error = (dequantize(whole, scale) - weight).reshape(24, 2, 16).abs().amax(-1)
    # Half a step, and the largest number's share of the scale's own rounding to half precision.
    assert (error <= step * (0.5 + 127 * 2**-11) + 1e-6).all()
    with pytest.raises(ValueError, match="32 weights, which groups of 24 do not divide"):
        quantize(weight, 24)


def test_packed_weights_come_back() -> None:
    state = {"matrix": torch.randn(4, 32), "bias": torch.randn(4)}
    packed = pack(state, lambda name, _: name == "matrix")
    assert {name: tensor.dtype for name, tensor in packed.items()} == {
        "matrix": torch.int8,
        "matrix.scale": torch.float16,
        "bias": torch.float16,
    }
    back = unpack(packed)
    assert set(back) == set(state)
    assert all(torch.allclose(back[name], state[name], atol=0.02) for name in state)
    del packed["matrix.scale"]
    with pytest.raises(ValueError, match="matrix has no scales"):
        unpack(packed)


def test_the_embedded_shards_are_small_and_share_no_tensor() -> None:
    shards = sorted(EMBEDDED.glob("*.safetensors"))
    assert all(shard.stat().st_size < 10_000_000 for shard in shards)
    assert sum(shard.stat().st_size for shard in shards) < 28_000_000
    names: list[str] = []
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names += file.keys()
    assert len(names) == len(set(names))


def flower() -> Tensor:
    picture = Image.open(FLOWER).convert("RGB").resize((518, 294), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def test_golden_slice_of_the_embedded_encoder() -> None:
    """The numbers are of the source in float32, run by transformers: the embedded weights are within 2 % of them."""
    features = encode(flower())
    assert features.grid == (37, 21)
    for layer, expected in GOLDEN.items():
        got = features.tokens[layer][0, :8, 10, 18]
        assert float((got - torch.tensor(expected)).norm() / torch.tensor(expected).norm()) < 0.02
    summary = torch.tensor(GOLDEN_SUMMARY)
    assert float((features.summary[0, :8] - summary).norm() / summary.norm()) < 0.02


def test_one_copy_and_one_pass_a_photo() -> None:
    assert load_encoder() is load_encoder("cpu")
    picture = torch.rand(3, 64, 64)
    first = encode(picture, digest="a", tokens=16)
    assert encode(picture, digest="a", tokens=16) is first
    assert encode(picture, digest="b", tokens=16) is not first
    assert encode(picture, digest="a", tokens=25) is not first


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no encoder"):
        build_encoder(tmp_path)
    (tmp_path / "config.json").write_text((EMBEDDED / "config.json").read_text())
    shard = sorted(EMBEDDED.glob("*.safetensors"))[0]
    (tmp_path / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(ValueError, match="not complete"):
        build_encoder(tmp_path)


GOLDEN: dict[int, list[float]] = {
    3: [-2.4093, 28.5693, 1.5449, -0.0262, -2.397, -3.2982, -0.2935, 4.7847],
    7: [2.3723, 18.0257, 1.5327, 0.9026, -0.2897, -1.9011, -2.0363, 9.6933],
    11: [-0.2976, 1.1917, 0.2711, -2.6763, -0.1182, -1.8895, 0.1582, 3.1095],
}
GOLDEN_SUMMARY = [-0.3363, -0.8104, -0.563, -1.1971, -0.1528, -1.9999, 0.5341, 4.8637]


def test_a_gradient_can_be_had_whoever_asked_first() -> None:
    with torch.inference_mode():
        encoder = _load.__wrapped__("cpu", torch.float32)
    assert not any(tensor.is_inference() for tensor in (*encoder.parameters(), *encoder.buffers()))
    pixels = torch.rand(1, 3, 56, 56, requires_grad=True)
    (slope,) = torch.autograd.grad(encoder(pixels, tokens=16).summary.sum(), pixels)
    assert float(slope.abs().sum()) > 0
