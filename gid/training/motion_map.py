"""The motion map: heads on frozen tokens that say where an unseen photo moves, from clips of real scenes.

Loss, picture by picture: one minus the correlation of the map with the log of measured energy, weighted by how far the
measurement can be believed, over the whole picture and again over what moves in it; and one minus the correlation of
what a person would see if the picture moved by the map with what is seen in the clip, and how much of it would be seen
where the clip stands still. The last two need no optical flow. A correlation asks for shape alone:
how strong the wind was no photo can tell (the log of mean motion has a deviation of 1.4 over clips, and a regression on
the encoder's summary does not foresee it: r = 0.15 in folds by scene), so that its geometric mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.batches import ByWeight, RowBatches
from foundation.devices import resolve_device
from foundation.files import replacing_files
from foundation.folders import files_in
from foundation.limits import Limit
from foundation.pictures import SUFFIXES, load_photo
from foundation.training import TRAINING_LIMITS, TrainingConfig, TrainingRun
from gid.data.folds import clips_of_fold
from gid.diffusion.motion_map import LAYERS, TOP, MotionHead, MotionMap, see
from gid.motion.energy import LONG_SIDE
from gid.training.motion_map_data import (
    VIEWS,
    MeasuredFrame,
    MotionRows,
    Row,
    measured_frames,
    scene_frames,
    seen_when_moving,
    tokens_of,
)
from gid.training.stillness import fitted

# Share of the components that each layer's tokens get, and what keeps the scale of the least of them from growing.
SHARES = (0.2, 0.27, 0.53)
SOFT = 0.1
MOVING = 0.3
CERTAIN = 0.1
FEWEST = 40
# Under this share of its 95th percentile visible motion counts as none; and the displacement, in pixels of a picture
# 512 wide, at which a head's zero stands while it learns.
STILL = 0.1
TYPICAL_PIXELS = 2.0


@dataclass(frozen=True)
class MotionMapTrainingConfig(TrainingConfig):
    """Stage 2 of training.

    Attributes:
        clips: folders of videos; a name ending in "loop" says that the clip repeats.
        fold: leave the clips of this fold of `gid.data.folds` out; -1 trains on all.
        starts: start frames a clip.
        every: of the frames of later starts, one in how many is looked at.
        components: main components of the tokens that the heads see.
        width: channels of a head.
        blocks: residual blocks of a head.
        members: heads; each is a run of its own, with the next seed.
        moving: folders of photographs of things that move, beside the clips' first frames.
        still: folders of photographs of things that do not; without them every picture moves.
        decay: weight of the squared norm in the regression of whether a picture moves.
        inside_weight: of the correlation within what moves, against the one over the whole picture.
        visible_weight: of the correlation of visible motion, against the same.
        leakage_weight: of visible motion where the clip stands still, against the same.
        scenes: folders of shards of procedural scenes to learn from as well.
        every_scene: one in how many of them is taken.
        scene_share: of what a step is shown.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING_LIMITS | {
        "fold": Limit(-1, 4),
        "starts": Limit(1),
        "every": Limit(1),
        "components": Limit(7),
        "members": Limit(1),
        "decay": Limit(0),
        "inside_weight": Limit(0),
        "visible_weight": Limit(0),
        "leakage_weight": Limit(0),
        "every_scene": Limit(1),
        "scene_share": Limit(0, 1),
    }

    clips: tuple[Path, ...] = ()
    fold: int = -1
    starts: int = 3
    every: int = 4
    components: int = 120
    width: int = 32
    blocks: int = 1
    members: int = 6
    moving: tuple[Path, ...] = ()
    still: tuple[Path, ...] = ()
    decay: float = 1e-5
    inside_weight: float = 0.5
    visible_weight: float = 2.5
    leakage_weight: float = 0.75
    scenes: tuple[Path, ...] = ()
    every_scene: int = 8
    scene_share: float = 0.25
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 1.0
    ema_decay: float = 0.95
    precision: str = "no"


def weighted_correlation(predicted: Tensor, measured: Tensor, weight: Tensor) -> Tensor:
    """Pearson correlation of maps (B, 1, h, w), picture by picture, cells counted by their weight -> (B,)."""
    share = weight / weight.sum((1, 2, 3), keepdim=True).clamp_min(1e-9)
    a = predicted - (share * predicted).sum((1, 2, 3), keepdim=True)
    b = measured - (share * measured).sum((1, 2, 3), keepdim=True)
    both = (share * a * b).sum((1, 2, 3))
    # Still pictures have no variance; the small term makes their correlation 0 instead of NaN.
    return both / ((share * a * a).sum((1, 2, 3)) * (share * b * b).sum((1, 2, 3)) + 1e-8).sqrt()


def visible_scores(log_energy: Tensor, visible: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """What would be seen of a map beside what is seen in the clip, as `gid.evaluation.visible` compares the two.

    Args:
        log_energy: (B, 1, r, c) logarithm of displacement in pixels of a picture 512 wide.
        visible: (B, h, w) of the clips, in grey levels.
        table: (B, 9, h, w) of `table_of`.

    Returns:
        correlation (B,) of log(1 + x / mean), and leakage (B,): the mean where the clip stands still over the mean
        elsewhere, 0 where nothing stands still.
    """
    moving = F.interpolate(log_energy, visible.shape[-2:], mode="bilinear")[:, 0]
    mine = seen_when_moving(table, moving)
    a, b = ((x / (x.mean((1, 2), keepdim=True) + 1e-6)).log1p()[:, None] for x in (mine, visible))
    correlation = weighted_correlation(a, b, torch.ones_like(a))
    still = (visible < STILL * visible.flatten(1).quantile(0.95, dim=1)[:, None, None]).float()
    leaked = (mine * still).sum((1, 2)) / still.sum((1, 2)).clamp_min(1)
    elsewhere = (mine * (1 - still)).sum((1, 2)) / (1 - still).sum((1, 2)).clamp_min(1)
    return correlation, leaked / (elsewhere + 1e-6)


class MotionMapObjective(nn.Module):
    """One minus the correlations of one head, and its leakage."""

    def __init__(self, head: MotionHead, weights: tuple[float, float, float]) -> None:
        """Keep it, with the weights of the correlation inside, of visible motion and of its leakage."""
        super().__init__()
        self.head, self.weights = head, weights

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        energy, confidence = batch["energy"], batch["confidence"]
        target = (energy / energy.mean((1, 2, 3), keepdim=True).clamp_min(1e-6) + 0.1).log()
        predicted = self.head(batch["components"], batch["details"])
        overall = weighted_correlation(predicted, target, confidence + 1e-3).mean()
        top = energy.flatten(1).quantile(0.95, dim=1)[:, None, None, None]
        inside = weighted_correlation(predicted, target, (energy > MOVING * top) * confidence + 1e-5).mean()
        log_energy = predicted + math.log(TYPICAL_PIXELS)
        seen, leakage = (x.mean() for x in visible_scores(log_energy, batch["visible"], batch["table"]))
        within, visible, leaking = self.weights
        loss = 1 - overall + within * (1 - inside) + visible * (1 - seen) + leaking * leakage
        numbers = {"correlation": overall, "inside": inside, "visible": seen, "leakage": leakage}
        return loss, {name: value.detach() for name, value in numbers.items()}


def train_motion_map(config: MotionMapTrainingConfig) -> Path:
    """Train the heads and write ``motion_map/`` into ``config.out``; measured frames are kept beside it.

    Raises:
        ValueError: no folder of clips, or no clip is left.
    """
    if not config.clips:
        raise ValueError("no folder of clips was given; name one or more with --clips")
    cache = config.out / "data"
    left_out = clips_of_fold(config.fold) if config.fold >= 0 else set()
    found = measured_frames(config.clips, cache, config.starts, config.every)
    frames = [frame for frame in found if frame.name not in left_out]
    if not frames:
        raise ValueError(f"no clip of {', '.join(map(str, config.clips))} is left outside fold {config.fold}")
    device = resolve_device("auto")
    # Other starts show nearly the same picture: it is looked at whole, and in its first frame from all sides.
    rows = [Row(frame, view) for frame in frames for view in range(len(VIEWS) if frame.number == 0 else 1)]
    rows += [Row(frame, 0) for frame in scene_frames(config.scenes, config.every_scene)]
    model = MotionMap(
        channels=len(LAYERS) * 384,
        components=config.components,
        width=config.width,
        blocks=config.blocks,
        members=config.members,
    )
    basis = main_components(
        [tokens_of(row.frame, 0, cache, device) for row in rows if row.view == 0 and not row.frame.drawn],
        config.components,
    )
    model.get_buffer("mean").copy_(basis[0])
    model.get_buffer("projection").copy_(basis[1])
    with torch.no_grad():
        components = [
            model.project(torch.from_numpy(tokens_of(row.frame, row.view, cache, device)).float()[None])[0]
            .half()
            .numpy()
            for row in rows
        ]
    data = MotionRows(rows, components)
    data.tell_details(model)
    for number, head in enumerate(model.heads):
        assert isinstance(head, MotionHead)
        _train_head(replace(config, out=config.out / f"head-{number}", seed=config.seed + number), head, data)
    model.register_to_config(amount=typical_amount(frames))
    if config.still:
        _fit_moves(model, frames, config, device)
    with replacing_files(config.out / "motion_map") as partial:
        model.eval().save_pretrained(partial)
    return config.out


def _fit_moves(
    model: MotionMap, frames: list[MeasuredFrame], config: MotionMapTrainingConfig, device: torch.device
) -> None:
    """Logistic regression of whether a picture shows something that moves; every scene counts once."""
    firsts = [frame for frame in frames if frame.number == 0]
    scenes = [frame.scene for frame in firsts]
    pictures = [(torch.from_numpy(frame.photo).permute(2, 0, 1) / 255, True) for frame in firsts]
    weights = [1.0 / scenes.count(scene) for scene in scenes]
    for folders, moves in ((config.moving, True), (config.still, False)):
        files = [path for folder in folders for path in files_in(folder, SUFFIXES)]
        pictures += [(load_photo(path, max_side=768), moves) for path in files]
        weights += [1.0] * len(files)
    summaries = torch.stack([see(photo, device).summary[0].cpu() for photo, _ in pictures])
    slope, constant = fitted(
        summaries, torch.tensor([moves for _, moves in pictures]), torch.tensor(weights), config.decay
    )
    with torch.no_grad():
        model.moves.weight.copy_(slope[None])
        model.moves.bias.fill_(float(constant))


def _train_head(config: MotionMapTrainingConfig, head: MotionHead, data: MotionRows) -> None:
    torch.manual_seed(config.seed)
    head.begin()
    weights = (config.inside_weight, config.visible_weight, config.leakage_weight)
    objective = MotionMapObjective(head, weights).train()
    batches = RowBatches(data, ByWeight(data.weights(config.scene_share), config.batch_size, config.seed))
    run = TrainingRun(config, objective, list(head.parameters()), batches)
    run.train()
    run.keep_average()
    head.eval()


def main_components(tokens: list[NDArray[np.float16]], count: int) -> tuple[Tensor, Tensor]:
    """Mean (C,) and projection (count, C) of tokens (C, r, c): main components of each layer's standardized channels.

    Components come scaled by the root of their own deviation: between leaving and undoing their differences in size.
    """
    cells = np.concatenate([each[:, ::2, ::2].reshape(len(each), -1).T.astype(np.float32) for each in tokens])
    mean, deviation = cells.mean(0), cells.std(0) + 1e-3
    channels = len(mean) // len(LAYERS)
    projection = np.zeros((count, len(mean)), np.float32)
    counts = [max(1, round(count * share)) for share in SHARES[:-1]]
    row = 0
    for layer, size in enumerate([*counts, count - sum(counts)]):
        part = slice(layer * channels, (layer + 1) * channels)
        standard = (cells[:, part] - mean[part]) / deviation[part]
        size = min(size, channels)
        values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
        chosen = vectors[:, ::-1][:, :size] / np.sqrt(np.sqrt(np.maximum(values[::-1][:size], 0)) + SOFT)
        projection[row : row + size, part] = (chosen / deviation[part, None]).T
        row += size
    return torch.from_numpy(mean), torch.from_numpy(projection)


def typical_amount(frames: list[MeasuredFrame]) -> float:
    """Geometric mean of :func:`amount_of`, every scene counted once."""
    scenes = [frame.scene for frame in frames]
    weight = np.array([1.0 / scenes.count(scene) for scene in scenes])
    return float(np.exp(weight @ np.log([amount_of(frame) for frame in frames]) / weight.sum()))


def amount_of(frame: MeasuredFrame) -> float:
    """Energy of what moves most in a frame, where it can be believed, as a fraction of sqrt(width * height)."""
    height, width = frame.photo.shape[:2]
    root = np.sqrt(width * height) * min(1.0, LONG_SIDE / max(width, height))
    certain = frame.confidence > CERTAIN
    chosen = frame.energy[certain] if int(certain.sum()) >= FEWEST else frame.energy
    return float(np.quantile(chosen, TOP) / root) + 1e-6
