"""Stage 1: the motion autoencoder, L1 + 0.2 multi-scale gradient + 1e-6 KL (paper, section 7)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foundation.files import replacing_files, write_text
from foundation.training import TrainingRun
from gid.diffusion.autoencoder import MotionAutoencoder, MotionAutoencoderConfig
from gid.motion.normalization import EnvelopeNormalization, FrequencyAdaptiveNormalization
from gid.training.common import tile
from gid.training.dataset import PreparedMotion
from gid.training.mixture import Mixture, MixtureRunConfig

GRADIENT_WEIGHT = 0.2
KL_WEIGHT = 1e-6
GRADIENT_SCALES = 3


@dataclass(frozen=True)
class AutoencoderTrainingConfig(MixtureRunConfig):
    """Stage 1.

    Attributes:
        preset: sizes of the autoencoder.
        slices: random frequency slices taken from each volume of a batch.
        envelope: divide the envelope out first (``small``), or the paper's way without (``False``).
        adaptive: one scale for each frequency (the paper's adaptive normalization), or the same for all: its ablation.
    """

    preset: Literal["paper", "small"] = "small"
    slices: int = 8
    envelope: bool = True
    adaptive: bool = True


def unit_coefficients(coefficients: Tensor, envelope: bool) -> Tensor:
    """What the frequency-adaptive normalization is fitted to: unit-energy coefficients, or the paper's plain ones."""
    return EnvelopeNormalization().normalize(coefficients)[0] if envelope else coefficients


def fit_normalization(
    dataset: Mixture, envelope: bool, adaptive: bool = True, count: int = 300
) -> FrequencyAdaptiveNormalization:
    """Fit the scale of each band, or one for all, to ``count`` rows drawn by share, thinned to every fourth pixel."""
    rows = (dataset[i]["coefficients"] for i in dataset.sampler(count))
    thinned = (unit_coefficients(row, envelope)[..., ::4, ::4] for row in rows)
    if adaptive:
        return FrequencyAdaptiveNormalization.fit(thinned)
    volumes = list(thinned)
    joined = FrequencyAdaptiveNormalization.fit(volume.flatten(0, 1)[None] for volume in volumes)
    return FrequencyAdaptiveNormalization(joined.scales * volumes[0].shape[0])


def multi_scale_gradient(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean |difference of finite differences| over GRADIENT_SCALES halvings."""
    error = prediction - target
    total = error.new_zeros(())
    for _ in range(GRADIENT_SCALES):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total


class AutoencoderObjective(nn.Module):
    """The reconstruction loss of random frequency slices of a batch of volumes."""

    def __init__(
        self, model: MotionAutoencoder, normalization: FrequencyAdaptiveNormalization, config: AutoencoderTrainingConfig
    ) -> None:
        super().__init__()
        self.model = model
        self.normalization = normalization
        self.config = config

    def slices(self, batch: dict[str, Tensor]) -> Tensor:
        """Batch of volumes -> (B * slices, 4, h, w) normalized slices, different bands of each volume."""
        normalized = self.normalization.normalize(unit_coefficients(batch["coefficients"], self.config.envelope))
        chosen = torch.rand(normalized.shape[:2], device=normalized.device).topk(self.config.slices, dim=1).indices
        rows = torch.arange(len(normalized), device=normalized.device)[:, None]
        return normalized[rows, chosen].flatten(0, 1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        slices = self.slices(batch)
        posterior = self.model.posterior(slices)
        output = self.model.reconstruct(posterior.sample()).float()
        l1 = F.l1_loss(output, slices)
        gradient = multi_scale_gradient(output, slices)
        loss = l1 + GRADIENT_WEIGHT * gradient + KL_WEIGHT * posterior.kl().float().mean()
        return loss, {"l1": l1.detach(), "mean_abs": slices.abs().mean()}

    @torch.no_grad()
    def sheet(self, batch: dict[str, Tensor]) -> np.ndarray:
        """uint8 (H, W, 3): slices (real x, real y) beside their reconstructions."""
        slices = self.slices(batch)[:24]
        output = self.model.reconstruct(self.model.posterior(slices).mode())
        rows = torch.cat([slices[:, :1], output[:, :1], slices[:, 2:3], output[:, 2:3]], dim=3)
        return tile(rows / 3 + 0.5, columns=2)


def train_autoencoder(config: AutoencoderTrainingConfig) -> Path:
    """Train, whiten the latents, write ``autoencoder/`` and ``normalization.json`` into ``config.out``."""
    parts = [PreparedMotion(folder, set(config.exclude), arrays=("coefficients",)) for folder in config.data]
    dataset = Mixture(parts, config.shares)
    torch.manual_seed(config.seed)
    normalization = fit_normalization(dataset, config.envelope, config.adaptive)
    model = MotionAutoencoder.from_preset(MotionAutoencoderConfig.preset(config.preset))
    objective = AutoencoderObjective(model.to(memory_format=torch.channels_last), normalization, config)
    run = TrainingRun(config, objective, list(model.parameters()), dataset.batches(config))
    examples = next(iter(DataLoader(dataset, 4, sampler=dataset.sampler(4))))
    run.train(lambda: objective.sheet(examples))
    with run.averaged():
        whiten(model, objective, dataset)
        with replacing_files(config.out / "autoencoder") as partial:
            model.save_pretrained(partial)
    fields = {"scales": normalization.scales, "envelope": config.envelope}
    write_text(config.out / "normalization.json", json.dumps(fields, indent=1))
    return config.out


@torch.no_grad()
def whiten(model: MotionAutoencoder, objective: AutoencoderObjective, dataset: Mixture, batches: int = 20) -> None:
    """Write the latents' mean and deviation into the model's configuration, so that diffusion sees unit variance."""
    latents = []
    for batch in DataLoader(dataset, 8, sampler=dataset.sampler(8 * batches)):
        latents.append(model.posterior(objective.slices(batch)).mode())
    every = torch.cat(latents).movedim(1, 0).flatten(1)
    model.register_to_config(latents_mean=tuple(every.mean(1).tolist()), latents_std=tuple(every.std(1).tolist()))
