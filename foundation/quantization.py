"""Weights at eight bits: whole numbers from -127 to 127 and one half-precision scale for every sixteen of them.

One scale an output channel is not fine enough for a vision transformer: features of DINOv2 then differ by 2.5 % from
those in float32, with sixteen weights to a scale by 1 % and less (`tools/pack_encoder.py` prints both).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GROUP = 16
SCALE = ".scale"


def quantize(weight: Tensor, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """Round a weight symmetrically to eight bits, by groups along its flattened inner axes.

    Args:
        weight: (O, ...) float.
        group: neighbouring inputs of one output channel that share a scale; divides the weights of a channel.

    Returns:
        int8 of the weight's shape, and its scales, half (O, inputs / group).

    Raises:
        ValueError: the inputs cannot be divided into such groups.
    """
    inputs = weight[0].numel()
    if inputs % group:
        raise ValueError(f"a channel has {inputs} weights, which groups of {group} do not divide; use another group")
    grouped = weight.detach().float().reshape(len(weight), -1, group)
    # The scale is rounded before it divides, so that its own rounding is made up for.
    scale = (grouped.abs().amax(-1, keepdim=True) / 127).half().clamp_min(1e-7)
    whole = (grouped / scale.float()).round().clamp(-127, 127).to(torch.int8)
    return whole.reshape(weight.shape), scale[..., 0]


def dequantize(whole: Tensor, scale: Tensor) -> Tensor:
    """:func:`quantize` undone, float32, to half a scale."""
    grouped = whole.float().reshape(len(whole), scale.shape[1], -1)
    return (grouped * scale.float()[..., None]).reshape(whole.shape)


def pack(state: dict[str, Tensor], chosen: Callable[[str, Tensor], bool]) -> dict[str, Tensor]:
    """A state dict for storage: tensors that `chosen(name, tensor)` picks at eight bits, others in half precision."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if chosen(name, tensor):
            packed[name], packed[name + SCALE] = quantize(tensor)
        else:
            packed[name] = tensor.detach().half()
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """:func:`pack` undone: the state dict in float32.

    Raises:
        ValueError: an eight-bit tensor has no scales.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype != torch.int8:
            state[name] = tensor.float()
        elif name + SCALE in packed:
            state[name] = dequantize(tensor, packed[name + SCALE])
        else:
            raise ValueError(f"the eight-bit tensor {name} has no scales ({name}{SCALE}); download the weights again")
    return state
