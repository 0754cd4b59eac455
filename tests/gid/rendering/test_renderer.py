"""The renderer: sizes, saving, what it must not change, and what it must reveal and hide."""

from __future__ import annotations

import pytest
import torch

from gid.rendering.projection import fill, look_up, project
from gid.rendering.renderer import Decoder, Renderer, RendererConfig, decode_where


def scene(height: int = 40, width: int = 56) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red square that moves 6 pixels right over a green ground, which stands still."""
    photo = torch.zeros(1, 3, height, width)
    photo[:, 1] = 0.5
    photo[:, :, 10:26, 12:28] = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1)
    flow = torch.zeros(1, 2, height, width)
    flow[:, 0, 10:26, 12:28] = 6.0
    return photo, flow, flow.norm(dim=1, keepdim=True) / 2


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    return Renderer().eval()


def render(renderer: Renderer, *scene_parts: torch.Tensor) -> torch.Tensor:
    photo, flow, importance = scene_parts
    with torch.no_grad():
        return renderer.render(photo, renderer.encode(photo), flow, importance)


def test_paper_preset_has_the_encoder_of_a_resnet_34():
    with torch.device("meta"):
        model = Renderer.from_preset(RendererConfig.preset("paper"))
    encoder = sum(p.numel() for p in model.pyramid.parameters())
    # torchvision's ResNet-34 without its classifier has 21,284,672 parameters; batch and group norm have as many.
    assert encoder == pytest.approx(21_284_672, rel=0.002)


def test_small_preset_weighs_little():
    parameters = sum(p.numel() for p in Renderer.from_preset(RendererConfig.preset("small")).parameters())
    assert parameters * 4 < 10_000_000


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match="huge"):
        RendererConfig.preset("huge")  # type: ignore[arg-type]


def test_saving_and_loading_keeps_every_weight(tmp_path, renderer):
    renderer.save_pretrained(tmp_path)
    again = Renderer.from_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    for (name, ours), (other, theirs) in zip(renderer.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)


def test_an_object_moves_in_front_and_reveals_what_is_behind(renderer):
    photo, flow, importance = scene()
    result = render(renderer, photo, flow, importance)
    red, green = photo[0, :, 12, 14], photo[0, :, 0, 0]
    torch.testing.assert_close(result[0, :, 12:24, 20:32], red.view(3, 1, 1).expand(3, 12, 12), atol=0.02, rtol=0)
    # The strip the object left shows the ground, not the object and not black.
    strip = result[0, :, 12:24, 13:16]
    assert (strip - green.view(3, 1, 1)).abs().mean() < 0.12
    # What nothing reaches is untouched.
    assert torch.equal(result[..., 35:], photo[..., 35:])
    assert torch.equal(result[:, :, :9], photo[:, :, :9])


def test_a_mover_of_lesser_importance_goes_behind(renderer):
    photo, flow, _ = scene()
    photo[:, :, 10:26, 32:40] = torch.tensor([0.1, 0.1, 0.9]).view(1, 3, 1, 1)
    front = torch.zeros(1, 1, 40, 56)
    front[..., 10:26, 32:40] = 8.0
    result = render(renderer, photo, flow, front)
    assert torch.equal(result[:, :, 12:24, 33:39].round(decimals=3), photo[:, :, 12:24, 33:39].round(decimals=3))


def test_trained_corrections_stay_near_defects(renderer):
    """Whatever the decoder's weights: no change where nothing moves or motion is smooth."""
    torch.manual_seed(3)
    wild = Renderer().eval()
    for parameter in wild.decoder.last.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    photo, flow, importance = scene()
    result, plain = render(wild, photo, flow, importance), render(renderer, photo, flow, importance)
    assert not torch.allclose(result, plain)
    assert torch.equal(result[..., 40:], photo[..., 40:])
    smooth = torch.full_like(flow, 1.3)
    ones = torch.ones_like(importance)
    assert torch.equal(render(wild, photo, smooth, ones), render(renderer, photo, smooth, ones))


def test_decoding_tiles_is_decoding_the_picture():
    torch.manual_seed(4)
    config = RendererConfig()
    decoder = Decoder(config).eval()
    torch.nn.init.normal_(decoder.last.weight, std=0.1)
    picture = torch.randn(1, Decoder.picture_channels, 200, 312)
    features = [torch.randn(1, c + 1, 100 >> i, 156 >> i) for i, c in enumerate(config.feature_channels)]
    gate = torch.zeros(1, 1, 200, 312)
    gate[..., 70:75, 70:75] = gate[..., 195:, 300:] = 1
    with torch.no_grad():
        whole, tiled = decoder(picture, features), decode_where(decoder, picture, features, gate)
    inside = (tiled[..., 64:128, 64:128] - whole[..., 64:128, 64:128]).abs()
    # Random weights look far; what lies beyond a tile's halo still counts for little, and not at all in its middle.
    assert inside.mean() < 0.03 * whole.std()
    assert inside[..., 28:36, 28:36].max() < 1e-3 * whole.std()
    assert torch.all(tiled[..., :64, :] == 0)
    assert torch.any(tiled[..., 195:, 300:] != 0)


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    model = Renderer()
    torch.nn.init.normal_(model.decoder.last.weight, std=0.1)
    photo, flow, importance = scene()
    model.render(photo, model.encode(photo), flow, importance).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_motion_that_is_not_finite_does_not_spread(renderer):
    photo, flow, importance = scene()
    flow[0, 0, 3, 3] = float("nan")
    result = render(renderer, photo, flow, importance)
    assert torch.isfinite(result).all()


def test_projection_of_a_uniform_shift_has_no_defects():
    flow = torch.full((1, 2, 20, 30), 2.5)
    projection = project(flow, torch.full((1, 1, 20, 30), 2.0))
    torch.testing.assert_close(projection.near, flow)
    assert torch.all(projection.covered == 1)
    assert torch.all(projection.near_share == 1)
    assert not projection.still.any()


def test_look_up_is_exact_at_whole_pixels_and_third_order_between():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    image = (0.5 + 0.3 * torch.sin(x / 5) * torch.cos(y / 6)).expand(1, 3, 24, 32)
    shift = torch.full((1, 2, 24, 32), 1.5)
    expected = 0.5 + 0.3 * torch.sin((x - 1.5) / 5) * torch.cos((y - 1.5) / 6)
    result = look_up(image, shift)[0, 0]
    assert (result - expected)[5:-5, 5:-5].abs().max() < 4e-3
    whole = look_up(image, torch.full((1, 2, 24, 32), 2.0))
    torch.testing.assert_close(whole[..., 2:, 2:], image[..., :-2, :-2], atol=1e-5, rtol=0)


def test_fill_continues_a_colour_into_a_hole():
    image = torch.full((1, 3, 33, 47), 0.25)
    known = torch.ones(1, 1, 33, 47)
    image[..., 10:20, 10:30], known[..., 10:20, 10:30] = 9.0, 0.0
    torch.testing.assert_close(fill(image, known), torch.full_like(image, 0.25))


def test_mismatched_shapes_are_named(renderer):
    photo, flow, importance = scene()
    features = renderer.encode(photo)
    with pytest.raises(ValueError, match="flow must be"):
        renderer.render(photo, features, flow[..., :-1], importance)
    with pytest.raises(ValueError, match="importance must be"):
        renderer.render(photo, features, flow, importance[:, 0])
    with pytest.raises(ValueError, match="another photo"):
        renderer.render(photo, [f[..., :2, :] for f in features], flow, importance)


def test_a_batch_is_drawn_as_its_pictures(renderer):
    """What an accelerator does, frames in batches, against one at a time."""
    photo, flow, importance = scene(80, 112)
    flows = torch.cat([flow, 0.5 * flow, torch.zeros_like(flow)])
    features = renderer.encode(photo)
    many = [part.expand(3, -1, -1, -1) for part in (photo, *features)]
    with torch.no_grad():
        together = renderer.render(many[0], many[1:], flows, importance.expand(3, -1, -1, -1))
        alone = torch.cat([renderer.render(photo, features, one[None], importance) for one in flows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert torch.equal(together[2], photo[0])
