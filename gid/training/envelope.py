"""Stage 2: the envelope heads - where the photo moves, and how far - and the late blocks of the pretrained trunk.

Loss: Huber on the log envelope, plus one minus the correlation of the envelopes themselves, picture by picture: the log
alone is satisfied by the large still areas. Plus the background leakage of the evaluation: how much moves that should
not. Several heads are trained one after the other, each from its own start on its own draw of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foundation.efficientnet import EfficientNetLite0, pretrained_trunk
from foundation.files import replacing_files
from foundation.training import TrainingRun
from gid.diffusion.photo_encoder import (
    LOG_ENVELOPE_FLOOR,
    EnvelopeEnsemble,
    EnvelopeHead,
    PhotoEncoder,
    PhotoEncoderConfig,
    envelope_from_log,
)
from gid.training.common import load_part, tile
from gid.training.dataset import PreparedMotion
from gid.training.mixture import Mixture, MixtureRunConfig


@dataclass(frozen=True)
class EnvelopeTrainingConfig(MixtureRunConfig):
    """Stage 2.

    Attributes:
        tune_late: train the trunk's late blocks too, at a tenth of the learning rate.
        adapt_statistics: let the batch statistics of the trunk's late blocks follow the training pictures.
        log_weight: weight of the Huber loss of the log envelope.
        correlation_weight: weight of one minus the correlation.
        leakage_weight: weight of the mean envelope where the picture stands still over the mean elsewhere.
        init: folder of a photo encoder whose one envelope head is trained on; fresh ones without.
        members: heads; each is a run of ``steps`` steps in its own folder, with the next seed.
    """

    tune_late: bool = False
    adapt_statistics: bool = False
    log_weight: float = 0.3
    correlation_weight: float = 1.0
    leakage_weight: float = 0.0
    init: Path | None = None
    members: int = 1
    batch_size: int = 16
    steps: int = 150
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


def picture_leakage(predicted: Tensor, measured: Tensor) -> Tensor:
    """Mean predicted envelope (B, 1, h, w) where the measured one is near zero, over the mean elsewhere -> (B,).

    As :func:`gid.evaluation.metrics.background_leakage` has it, but at most 2, and 0 in a picture without still pixels.
    """
    a, b = predicted.flatten(1), measured.flatten(1)
    still = (b < 0.1 * b.quantile(0.95, dim=1, keepdim=True)).float()
    inside = (a * still).sum(1) / still.sum(1).clamp_min(1)
    outside = (a * (1 - still)).sum(1) / (1 - still).sum(1).clamp_min(1)
    return (inside / outside.clamp_min(1e-5)).clamp_max(2)


class EnvelopeObjective(nn.Module):
    """Huber on the log envelope, correlation and leakage of the envelopes, over early features."""

    def __init__(
        self, encoder: PhotoEncoder, log_weight: float, correlation_weight: float, leakage_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_weight = log_weight
        self.correlation_weight = correlation_weight
        self.leakage_weight = leakage_weight

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 1, h, w) log envelope from the cached early levels."""
        return self.encoder.envelope_from_early(batch["stride4"].float(), batch["stride8"].float()).float()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        target = log_envelope(batch["envelope"])
        prediction = self.predict(batch)
        huber = F.smooth_l1_loss(prediction, target, beta=0.5)
        correlation = picture_correlation(prediction.exp() * 100, target.exp() * 100)
        # Pictures that hardly move have no shape worth correlating with.
        moves = (target.exp().amax(dim=(1, 2, 3)) > 2e-3).float()
        miss = ((1 - correlation) * moves).sum() / moves.sum().clamp_min(1)
        leakage = picture_leakage(envelope_from_log(prediction), batch["envelope"])
        leak = (leakage * moves).sum() / moves.sum().clamp_min(1)
        loss = self.log_weight * huber + self.correlation_weight * miss + self.leakage_weight * leak
        return loss, {"huber": huber.detach(), "correlation": 1 - miss.detach(), "leakage": leak.detach()}


def train_envelope(config: EnvelopeTrainingConfig) -> Path:
    """Train the envelope heads (and late trunk) and write ``photo_encoder/`` into ``config.out``.

    Raises:
        ValueError: if several heads are to share a trunk that each would train, or ``init`` holds several.
    """
    if (config.tune_late or config.adapt_statistics) and config.members > 1:
        raise ValueError(f"the trunk cannot change with members={config.members}: heads share it; use members=1")
    arrays = ("stride4", "stride8", "envelope", "thumbnails")
    dataset = Mixture(
        [PreparedMotion(folder, set(config.exclude), arrays=arrays) for folder in config.data], config.shares
    )
    if config.members == 1:
        encoder = _train_head(config, dataset)
    else:
        heads = [
            _train_head(replace(config, out=config.out / f"member-{i}", seed=config.seed + i), dataset)
            for i in range(config.members)
        ]
        torch.manual_seed(config.seed)  # of the condition layers, which the denoiser's stage trains
        encoder = PhotoEncoder.from_preset(replace(PhotoEncoderConfig.preset("small"), members=config.members))
        encoder.trunk = heads[0].trunk
        encoder.envelope_head = EnvelopeEnsemble([cast("EnvelopeHead", head.envelope_head) for head in heads])
    with replacing_files(config.out / "photo_encoder") as partial:
        encoder.save_pretrained(partial)
    return config.out


def _train_head(config: EnvelopeTrainingConfig, dataset: Mixture) -> PhotoEncoder:
    """One head in a run of its own; the encoder comes back with the averaged weights."""
    torch.manual_seed(config.seed)
    if config.init is None:
        encoder = PhotoEncoder.from_preset(PhotoEncoderConfig.preset("small"))
        encoder.trunk = pretrained_trunk()
    else:
        encoder = load_part(PhotoEncoder, config.init, "envelope")
        if not isinstance(encoder.envelope_head, EnvelopeHead):
            raise ValueError(f"{config.init} has no single envelope head; start from a run of one member")
    trunk = cast("EfficientNetLite0", encoder.trunk)
    late = [p for block in trunk.blocks[5:] for p in block.parameters()]
    head = [p for name, p in encoder.named_parameters() if name.startswith("envelope_head.")]
    encoder.requires_grad_(False)
    for parameter in head + (late if config.tune_late else []):
        parameter.requires_grad_(True)
    objective = EnvelopeObjective(encoder, config.log_weight, config.correlation_weight, config.leakage_weight)
    groups: list[dict[str, Any]] = [{"params": head}]
    if config.tune_late:
        groups.append({"params": late, "lr": config.learning_rate / 10})
    run = TrainingRun(config, objective, groups, dataset.batches(config))
    objective.train()
    trunk.eval()  # batch statistics stay as they are
    if config.adapt_statistics:
        trunk.blocks[5:].train()
    examples = next(iter(DataLoader(dataset, 12, sampler=dataset.sampler(12))))
    run.train(lambda: envelope_sheet(objective, examples))
    run.keep_average()
    return encoder


@torch.no_grad()
def envelope_sheet(objective: EnvelopeObjective, batch: dict[str, Tensor]) -> np.ndarray:
    """uint8 (H, W, 3): photo | measured | predicted envelope, a row each."""
    target, prediction = log_envelope(batch["envelope"]).exp(), objective.predict(batch).exp()
    top = target.flatten(1).quantile(0.99, dim=1).clamp_min(1e-3)[:, None, None, None]
    maps = [(value / top).expand(-1, 3, -1, -1) for value in (target, prediction)]
    rows = torch.cat([batch["thumbnails"].float() / 255, *maps], dim=3)
    return tile(rows, columns=2)
