"""Stage 2b: the logistic regression that tells pictures in which things move from pictures of things that stand still.

Rows: photographs sorted by hand into two folders, the training clips' frames, and procedural scenes (a scene without
motion counts as still). Both sides weigh the same; scenes weigh less than photographs, which they resemble little.
Minimised exactly (a convex problem of 321 unknowns); what it does on pictures left out, by name, is measured beside.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from tqdm.auto import tqdm

from foundation.efficientnet import EfficientNetLite0, pretrained_trunk
from foundation.files import replacing_files, write_text
from foundation.folders import files_in
from foundation.pictures import SUFFIXES, load_photo
from gid.data.videos import held_out, load_pairs
from gid.diffusion.stillness import Stillness

logger = logging.getLogger(__name__)
MOTION_AREA = 112 * 64  # photos are shown at four times the motion's size, as in the pipeline
MULTIPLE = 16
STILL_SCENE = 1e-3  # rms displacement that no pixel of a still scene reaches; a flame is small, but moves


@dataclass(frozen=True)
class StillnessTrainingConfig:
    """Stage 2b.

    Attributes:
        out: folder to write.
        moving: folder of photographs of plants, flowers, cloth, flames.
        still: folder of photographs of things, buildings, bare land.
        clips: folder of measured clips; those of the test split are left out.
        scenes: folders of scene shards.
        rare: folders of scene shards that show what no photograph of the set does (candles, lanterns, cloth): all of
            their scenes are taken.
        per_shard: scenes taken of each shard, spread evenly.
        scene_weight: of a scene, beside a photograph's 1.
        decay: weight of the squared norm, features in units of 15 standard deviations.
        threshold, least: of :class:`gid.diffusion.stillness.Stillness`.
        folds: parts the pictures are dealt into, to measure what is not known.
    """

    out: Path
    moving: Path
    still: Path
    clips: Path | None = None
    scenes: tuple[Path, ...] = ()
    rare: tuple[Path, ...] = ()
    per_shard: int = 14
    scene_weight: float = 0.25
    decay: float = 1e-4
    threshold: float = -1.0
    least: float = 0.15
    folds: int = 5


@dataclass(frozen=True)
class Row:
    """One picture: its group (pictures of one group stay together), features (320,), label and weight."""

    group: str
    features: Tensor
    moves: bool
    weight: float


def train_stillness(config: StillnessTrainingConfig) -> Path:
    """Fit and write ``stillness/`` and ``report.json`` into ``config.out``.

    Raises:
        ValueError: if a folder has no photographs, or everything moves or nothing does.
    """
    trunk = pretrained_trunk()
    model = Stillness(config.threshold, config.least)
    model.keep_statistics(trunk)
    rows = list(tqdm(_rows(config, model, trunk), desc="looking at pictures", unit="picture"))
    features = torch.stack([row.features for row in rows])
    moves = torch.tensor([row.moves for row in rows])
    weights = torch.tensor([row.weight for row in rows])
    weight, bias = fitted(features, moves, weights, config.decay)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    groups = sorted({row.group for row in rows})
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).tolist()
    fold = torch.tensor([order[groups.index(row.group)] % config.folds for row in rows])
    scores = torch.zeros(len(rows))
    for index in range(config.folds):
        known, asked = fold != index, fold == index
        part, offset = fitted(features[known], moves[known], weights[known], config.decay)
        scores[asked] = features[asked] @ part + offset
    report = measured(model.factor(scores), scores, moves, weights)
    logger.info("on pictures left out: %s", report)
    config.out.mkdir(parents=True, exist_ok=True)
    with replacing_files(config.out / "stillness") as partial:
        model.save_pretrained(partial)
    write_text(config.out / "report.json", json.dumps(report, indent=1) + "\n")
    return config.out


def fitted(features: Tensor, moves: Tensor, weights: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Weights (C,) and bias () of the regularised logistic regression; both labels weigh the same.

    Raises:
        ValueError: if all rows have one label.
    """
    if bool(moves.all()) or not bool(moves.any()):
        raise ValueError(f"all {len(moves)} pictures have one label; give pictures that move and pictures that do not")
    spread = features.std(0)
    unit = spread.clamp_min(0.05 * spread.mean()) * 15
    target = moves.float()
    balance = weights / torch.where(moves, (weights * target).sum(), (weights * (1 - target)).sum()) / 2
    x = features / unit
    weight, bias = torch.zeros(features.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(x @ weight + bias, target, reduction="none")
        loss = (each * balance).sum() + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (weight / unit).detach(), bias.detach()


def measured(factors: Tensor, scores: Tensor, moves: Tensor, weights: Tensor) -> dict[str, float]:
    """Counts, area under the ROC curve, and how much of the motion is kept on either side."""
    photographs = weights == weights.max()
    yes, no, swaying = moves & photographs, ~moves & photographs, moves & ~photographs
    return {
        "moving": int(yes.sum()),
        "still": int(no.sum()),
        "scenes": int((~photographs).sum()),
        "auc": float((scores[yes][:, None] > scores[no][None]).float().mean()),
        "kept_moving": float(factors[yes].mean()),
        "kept_moving_worst": float(factors[yes].min()),
        "kept_still": float(factors[no].mean()),
        "kept_moving_scenes": float(factors[swaying].mean()) if bool(swaying.any()) else 1.0,
    }


def _rows(config: StillnessTrainingConfig, model: Stillness, trunk: EfficientNetLite0) -> Iterator[Row]:
    def row(group: str, photo: Tensor, moves: bool, weight: float = 1.0) -> Row:
        return Row(group, model.features(trunk, shown(photo)[None])[0], moves, weight)

    for folder, moves in ((config.moving, True), (config.still, False)):
        if not folder.is_dir():
            raise ValueError(f"the folder of photographs {folder} does not exist; give --moving and --still")
        files = files_in(folder, SUFFIXES)
        if not files:
            raise ValueError(f"no photograph in {folder}; put pictures ({', '.join(SUFFIXES)}) there")
        for path in files:
            yield row(path.stem, load_photo(path, max_side=512), moves)
    if config.clips is not None:
        pairs = load_pairs(config.clips)
        left_out = held_out(pair.clip for pair in pairs)
        for pair in pairs:
            if pair.clip not in left_out:
                yield row(pair.scene, pair.photo.float() / 255, True)
    for folders, per_shard in ((config.scenes, config.per_shard), (config.rare, 0)):
        for path in [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]:
            for index, photo, amplitude in _scenes(path, per_shard):
                yield row(f"{path.stem}-{index}", photo, amplitude > STILL_SCENE, config.scene_weight)


def _scenes(path: Path, count: int) -> Iterator[tuple[int, Tensor, float]]:
    """Number, photo and largest rms displacement of ``count`` scenes of a shard, spread evenly; of all for 0."""
    with safe_open(path, framework="pt") as shard:
        photos, volumes = shard.get_slice("photos"), shard.get_slice("coefficients")
        total = photos.get_shape()[0]
        for index in range(0, total, max(1, total // count) if count else 1):
            motion = volumes[index : index + 1][0].float()
            amplitude = float((2 * motion[1:].square().sum((0, 1))).sqrt().max())
            yield index, photos[index : index + 1][0].float() / 255, amplitude


def shown(photo: Tensor) -> Tensor:
    """(3, H, W) a photo at the size at which the pipeline shows it to the trunk."""
    aspect = photo.shape[-1] / photo.shape[-2]
    ideal = (MOTION_AREA * aspect) ** 0.5
    columns, rows = max(1, round(ideal / MULTIPLE)) * MULTIPLE, max(1, round(ideal / aspect / MULTIPLE)) * MULTIPLE
    resized = F.interpolate(photo[None], (rows * 4, columns * 4), mode="bilinear", antialias=True)
    return resized[0].clamp(0, 1)
