"""Stage 2: the envelope head - where the photo moves, and how far - and the late blocks of the pretrained trunk.

Loss: Huber on the log envelope, plus one minus the correlation of the envelopes themselves, picture by picture: the log
alone is satisfied by the large still areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from commons.efficientnet import pretrained_trunk
from gid.models.photo_encoder import LOG_ENVELOPE_FLOOR, PhotoEncoder, PhotoEncoderConfig
from gid.training.common import Run, tile
from gid.training.dataset import PreparedMotion
from gid.training.mixture import Mixture, MixtureRunConfig


@dataclass(frozen=True)
class EnvelopeTrainingConfig(MixtureRunConfig):
    """Stage 2.

    Attributes:
        tune_late: train the trunk's late blocks too, at a tenth of the learning rate.
        log_weight: weight of the Huber loss of the log envelope.
        correlation_weight: weight of one minus the correlation.
    """

    tune_late: bool = False
    log_weight: float = 0.3
    correlation_weight: float = 1.0
    batch_size: int = 16
    steps: int = 400
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.97


def log_envelope(envelope: Tensor) -> Tensor:
    """Envelope (B, 1, h, w) in fractions of sqrt(w h) -> its log, floored where motion cannot be told from noise."""
    return envelope.clamp_min(float(np.exp(LOG_ENVELOPE_FLOOR))).log()


def picture_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of maps (B, 1, h, w), picture by picture -> (B,)."""
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    # Still pictures have no variance; the small term makes their correlation 0 instead of NaN.
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-12).sqrt()


class EnvelopeObjective(nn.Module):
    """Huber on the log envelope and the correlation of the envelopes, over early features."""

    def __init__(self, encoder: PhotoEncoder, log_weight: float, correlation_weight: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_weight = log_weight
        self.correlation_weight = correlation_weight

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 1, h, w) log envelope from the cached early levels."""
        levels = self.encoder.levels_from(batch["stride4"].float(), batch["stride8"].float())
        return self.encoder.log_envelope(levels).float()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        target = log_envelope(batch["envelope"])
        prediction = self.predict(batch)
        huber = F.smooth_l1_loss(prediction, target, beta=0.5)
        correlation = picture_correlation(prediction.exp() * 100, target.exp() * 100)
        # Pictures that hardly move have no shape worth correlating with.
        moves = (target.exp().amax(dim=(1, 2, 3)) > 2e-3).float()
        miss = ((1 - correlation) * moves).sum() / moves.sum().clamp_min(1)
        loss = self.log_weight * huber + self.correlation_weight * miss
        return loss, {"huber": huber.detach(), "correlation": 1 - miss.detach()}


def train_envelope(config: EnvelopeTrainingConfig) -> Path:
    """Train the envelope head (and late trunk) and write ``photo_encoder/`` into ``config.out``."""
    arrays = ("stride4", "stride8", "envelope", "thumbnails")
    parts = [PreparedMotion(folder, set(config.exclude), arrays=arrays) for folder in config.data]
    dataset = Mixture(parts, config.shares)
    torch.manual_seed(config.seed)
    encoder = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small"))
    encoder.trunk = trunk = pretrained_trunk()
    late = [p for block in trunk.blocks[5:] for p in block.parameters()]
    head = [p for name, p in encoder.named_parameters() if name.startswith("envelope_head.")]
    encoder.requires_grad_(False)
    for parameter in head + (late if config.tune_late else []):
        parameter.requires_grad_(True)
    objective = EnvelopeObjective(encoder, config.log_weight, config.correlation_weight)
    groups: list[dict[str, Any]] = [{"params": head}]
    if config.tune_late:
        groups.append({"params": late, "lr": config.learning_rate / 10})
    run = Run(config, objective, groups, dataset, dataset.sampler)
    objective.train()
    trunk.eval()  # batch statistics stay ImageNet's
    examples = next(iter(DataLoader(dataset, 12, sampler=dataset.sampler(12))))
    run.train(lambda: envelope_sheet(objective, examples))
    with run.averaged():
        encoder.save_pretrained(config.out / "photo_encoder")
    return config.out


@torch.no_grad()
def envelope_sheet(objective: EnvelopeObjective, batch: dict[str, Tensor]) -> np.ndarray:
    """uint8 (H, W, 3): photo | measured | predicted envelope, a row each."""
    target, prediction = log_envelope(batch["envelope"]).exp(), objective.predict(batch).exp()
    top = target.flatten(1).quantile(0.99, dim=1).clamp_min(1e-3)[:, None, None, None]
    maps = [(value / top).expand(-1, 3, -1, -1) for value in (target, prediction)]
    rows = torch.cat([batch["thumbnails"].float() / 255, *maps], dim=3)
    return tile(rows, columns=2)
