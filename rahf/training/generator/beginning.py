"""A beginning for the autoencoder that saves most of its training: latents are mean colours, pictures their squares.

From random weights the first thousand steps go into finding out that there are colours at all, for the norms of every
layer take away what is the same everywhere. Here three channels carry the colours through all layers, a constant fourth
keeps the norms from wiping them out, the residual layers begin by adding nothing, and the last layer of each half is
fitted in closed form. Training then only has the edges and textures to learn.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

CARRIED = 4  # channels: red, green, blue, and the constant
CONSTANT = 4.0


@torch.no_grad()
def begin_with_colours(model: AutoencoderKL, pictures: Tensor) -> None:
    """Set the weights of an untrained autoencoder.

    Args:
        model: with four latent channels or more.
        pictures: (N,3,H,W) in [-1, 1], for the fit of the last layers.
    """
    for half in (model.encoder, model.decoder):
        for name, layer in half.named_modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            if name.endswith("conv2"):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
            elif name.endswith("conv_shortcut") or ".upsamplers." in name:
                _carry(layer, ((layer.kernel_size[0] // 2,) * 2,))
            elif ".downsamplers." in name:
                _carry(layer, ((0, 0), (0, 1), (1, 0), (1, 1)))  # the mean of what a step of two pixels covers
        _carry(half.conv_in, ((1, 1),))
        half.conv_in.weight[CARRIED - 1] = 0
        half.conv_in.bias[CARRIED - 1] = CONSTANT
    for layer in (model.quant_conv, model.post_quant_conv):
        nn.init.zeros_(layer.bias)
        layer.weight[:] = torch.eye(len(layer.weight))[:, :, None, None]
    grid = F.avg_pool2d(pictures, 2 ** (len(model.config.block_out_channels) - 1))
    _fit(model.encoder.conv_out, _before_last(model.encoder, pictures), grid)
    # A near-certain posterior: unit variance would drown all but one channel.
    nn.init.constant_(model.encoder.conv_out.bias[model.config.latent_channels :], -6.0)
    model.encoder.conv_out.weight[model.config.latent_channels :] *= 0.1
    latents = model.encode(pictures).latent_dist.mode()
    _fit(model.decoder.conv_out, _before_last(model.decoder, latents), pictures)


def _carry(layer: nn.Conv2d, taps: Sequence[tuple[int, int]]) -> None:
    """Let a layer hand on the carried channels, each the mean of some taps of the kernel."""
    assert layer.bias is not None
    carried = min(CARRIED, layer.in_channels)
    layer.weight[:carried] = 0
    layer.bias[:carried] = 0
    for channel in range(carried):
        for row, column in taps:
            layer.weight[channel, channel, row, column] = 1 / len(taps)


def _before_last(half: nn.Module, given: Tensor) -> Tensor:
    """What the last layer of a half is given."""
    kept: list[Tensor] = []
    last = half.get_submodule("conv_out")
    handle = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    half(given)
    handle.remove()
    return kept[0]


def _fit(layer: nn.Conv2d, given: Tensor, wanted: Tensor) -> None:
    """The middle of a layer's kernel by least squares, its other taps zero, for as many channels as are wanted."""
    assert layer.bias is not None
    channels = wanted.shape[1]
    rows = given.movedim(1, -1).flatten(0, -2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    normal = rows.T @ rows + 1e-3 * len(rows) * torch.eye(rows.shape[1])
    solution = torch.linalg.solve(normal, rows.T @ wanted.movedim(1, -1).flatten(0, -2)).T
    layer.weight[:channels] = 0
    layer.weight[:channels, :, 1, 1] = solution[:, :-1]
    layer.bias[:channels] = solution[:, -1]
