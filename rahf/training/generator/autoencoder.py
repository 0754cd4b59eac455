"""The generator's first stage: an autoencoder of pictures, eight pixels to a latent, four channels.

L1 + 0.2 multi-scale gradient + L1 of ImageNet features at strides 2 and 4 + a little KL. It is convolutional, so crops
of half the side teach it four times as fast as whole pictures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from foundation.efficientnet import EfficientNetLite0, pretrained_trunk
from foundation.files import replacing_files
from foundation.limits import Limit
from foundation.training import TrainingConfig, TrainingRun
from rahf.limits import TRAINING
from rahf.training.generator.beginning import begin_with_colours
from rahf.training.generator.scenes import Scenes

GRADIENT_WEIGHT, GRADIENT_SCALES = 0.2, 3
KL_WEIGHT = 1e-6
GROUPS = 4  # of the group norms: norms of a few channels each would wipe out the colour of a ground
FEATURE_LEVELS = 2
LATENT_CHANNELS = 4
HELD_BACK = 64  # scenes at the end of the set that are looked at and not trained on
BEGINNING = 24  # scenes that its first weights are fitted to
FOLDER = "vae"


@dataclass(frozen=True)
class AutoencoderConfig(TrainingConfig):
    """The generator's autoencoder.

    Attributes:
        scenes: folder that `rahf generator-scenes` wrote.
        widths: channels at each resolution; one resolution halves the one before.
        crop: side of the crops it is trained on, in pixels.
        features: weight of the loss on ImageNet features; 0 leaves them out.
        init: folder of an autoencoder whose decoder alone is trained on, so that its latents stay what they are.
        noise: deviation of noise on the latents that the decoder is given, which are of deviation 1; the generator's
            own latents are never quite clean.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING

    steps: int = 4000
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    warmup_steps: int = 50
    ema_decay: float = 0.999
    save_every: int = 250
    log_every: int = 50
    scenes: Path = field(kw_only=True)
    widths: tuple[int, ...] = (16, 32, 64, 96)
    crop: int = 64
    features: float = 0.5
    init: Path | None = None
    noise: float = 0.0


def build_autoencoder(widths: tuple[int, ...]) -> AutoencoderKL:
    """The network, untrained. Raises ValueError for widths that are no multiples of eight."""
    if any(width % 8 for width in widths):
        raise ValueError(f"widths are {widths}; each must be a multiple of 8")
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=GROUPS,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


class AutoencoderObjective(nn.Module):
    """Crops (B,3,S,S) in [-1, 1] -> the loss of their reconstruction."""

    def __init__(
        self, model: AutoencoderKL, features: EfficientNetLite0 | None, weight: float, noise: float = 0.0
    ) -> None:
        super().__init__()
        self.model, self.weight, self.noise = model, weight, noise
        self.features = features.eval().requires_grad_(False) if features is not None else None

    def forward(self, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.model.encode(pictures).latent_dist
        latents = posterior.sample()
        if self.noise:
            latents = latents + self.noise * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        output = self.model.decode(latents).sample.float()
        difference = output - pictures
        l1 = difference.abs().mean()
        loss = l1 + GRADIENT_WEIGHT * _gradients(difference) + KL_WEIGHT * posterior.kl().float().mean()
        numbers = {"l1": l1.detach(), "mse": difference.detach().square().mean()}
        if self.features is not None:
            seen = self._levels(output)
            with torch.no_grad():
                wanted = self._levels(pictures)
            distance = torch.stack([_distance(a, b) for a, b in zip(seen, wanted, strict=True)]).mean()
            loss = loss + self.weight * distance
            numbers["features"] = distance.detach()
        return loss, numbers

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        assert self.features is not None
        return self.features.early((pictures + 1) / 2)[:FEATURE_LEVELS]


class Crops:
    """The batch of each step: crops of scenes, by seed and step."""

    def __init__(self, scenes: Scenes, config: AutoencoderConfig) -> None:
        self.pictures, self.config = scenes.pictures, config

    def __call__(self, step: int, process: int, processes: int) -> Tensor:
        """One process's part of the batch of a step, (B,3,S,S) in [-1, 1]."""
        generator = np.random.default_rng([self.config.seed, step, process])
        side = self.config.crop
        free = self.pictures.shape[1] - side
        rows = []
        for index in generator.integers(len(self.pictures) - HELD_BACK, size=self.config.batch_size // processes):
            x, y = generator.integers(free + 1, size=2)
            rows.append(self.pictures[index, y : y + side, x : x + side])
        return to_tensor(np.stack(rows))


def train_autoencoder(config: AutoencoderConfig) -> Path:
    """Train the generator's autoencoder, or the decoder of one.

    The folder `vae` in the run's holds it, its latents whitened.
    """
    torch.manual_seed(config.seed)
    scenes = Scenes.load(config.scenes)
    if len(scenes.pictures) <= HELD_BACK:
        raise ValueError(f"{config.scenes} holds {len(scenes.pictures)} scenes; more than {HELD_BACK} are needed")
    if config.init is None:
        model = build_autoencoder(config.widths)
        begin_with_colours(model, to_tensor(scenes.pictures[:BEGINNING]))
    else:
        model = AutoencoderKL.from_pretrained(config.init)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    norms_in_float32(model.to(memory_format=torch.channels_last))
    features = pretrained_trunk() if config.features else None
    objective = AutoencoderObjective(model, features, config.features, config.noise)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    run = TrainingRun(config, objective, learned, Crops(scenes, config))
    seen = to_tensor(scenes.pictures[-16:])

    def validate() -> dict[str, float]:
        with torch.no_grad():
            error = (model.decode(model.encode(seen).latent_dist.mode()).sample.clamp(-1, 1) - seen).square().mean()
        return {"psnr": float(-10 * torch.log10(error / 4))}

    run.train(lambda: reconstructions(model, seen), validate)
    with run.averaged():
        if config.init is None:
            whiten(model, scenes.pictures[:256])
        with replacing_files(config.out / FOLDER) as partial:
            model.save_pretrained(partial)
    return config.out


@torch.no_grad()
def whiten(model: AutoencoderKL, pictures: np.ndarray) -> None:
    """Change the layers beside the latent so that its channels have mean 0 and deviation 1 over some pictures.

    The reconstruction stays what it is, and the model's scaling factor can be 1.
    """
    latents = torch.cat(
        [model.encode(to_tensor(pictures[i : i + 16])).latent_dist.mode() for i in range(0, len(pictures), 16)]
    )
    every = latents.movedim(1, 0).flatten(1)
    mean, deviation = every.mean(1), every.std(1)
    encoder, decoder = model.quant_conv, model.post_quant_conv
    channels = len(mean)
    encoder.weight[:channels] /= deviation[:, None, None, None]
    encoder.bias[:channels] = (encoder.bias[:channels] - mean) / deviation
    encoder.bias[channels:] -= 2 * deviation.log()
    decoder.bias += (decoder.weight[:, :, 0, 0] * mean).sum(1)
    decoder.weight *= deviation[:, None, None]


@torch.no_grad()
def reconstructions(model: AutoencoderKL, pictures: Tensor) -> np.ndarray:
    """uint8 (H,W,3): pictures over what becomes of them."""
    output = model.decode(model.encode(pictures).latent_dist.mode()).sample
    rows = [torch.cat(list(half), dim=2) for part in (pictures, output) for half in part.split(8)]
    return to_pixels(torch.cat([rows[0], rows[2], rows[1], rows[3]], dim=1)[None])[0]


def norms_in_float32(model: nn.Module) -> None:
    """Let group norms compute in float32 under autocast: on CPUs their gradient in bfloat16 is five times as slow."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(),))


def batches_of(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N,H,W,3) uint8 -> (N,3,H,W) in [-1, 1]."""
    tensor = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)  # a copy: rows of a file are read-only
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_pixels(pictures: Tensor) -> np.ndarray:
    """(N,3,H,W) in [-1, 1] -> (N,H,W,3) uint8."""
    pixels: np.ndarray = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _gradients(error: Tensor) -> Tensor:
    """Mean |finite differences| of an error over GRADIENT_SCALES halvings."""
    total = error.new_zeros(())
    for _ in range(GRADIENT_SCALES):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total


def _distance(seen: Tensor, wanted: Tensor) -> Tensor:
    """L1 of features in units of each channel's deviation."""
    deviation = wanted.float().std(dim=(0, 2, 3), keepdim=True) + 1e-3
    return ((seen.float() - wanted.float()) / deviation).abs().mean()
