"""Training pairs of the renderer: photo, true motion and the true later frame, from procedural scenes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from foundation.files import replacing
from gid.data.scenes import SceneConfig, generate_scene
from gid.rendering.animate import DEAD_ZONE
from gid.rendering.projection import smoothstep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairsConfig:
    """What to render for training.

    Attributes:
        width, height: pixels of a scene.
        frames: later frames kept of each scene.
        samples: moments of the motion that importance is measured on.
    """

    width: int = 320
    height: int = 192
    frames: int = 3
    samples: int = 16


def write_pairs(folder: Path, seeds: range, config: PairsConfig | None = None) -> None:
    """Write one ``.npz`` a scene; what is already there is kept, so an interrupted run can be continued.

    Arrays: ``photo`` uint8 (H, W, 3), ``frames`` uint8 (n, H, W, 3), ``flows`` float16 (n, 2, H, W) pixels,
    ``importance`` and ``largest`` float16 (H, W) pixels, ``kind``.
    """
    config = config or PairsConfig()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in tqdm(seeds, desc="scenes"):
        target = folder / f"{seed:08d}.npz"
        if target.exists():
            continue
        arrays = make_pair(seed, config)
        with replacing(target) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def make_pair(seed: int, config: PairsConfig) -> dict[str, np.ndarray]:
    """One scene with a few of its later frames, drawn at random moments."""
    scene = generate_scene(seed, SceneConfig(config.width, config.height))
    rng = np.random.default_rng([seed, 77])
    size = torch.tensor([config.width, config.height]).view(1, 2, 1, 1)
    period = scene.volume.num_frames
    total = torch.zeros(config.height, config.width)
    largest = torch.zeros_like(total)
    for moment in torch.linspace(0, period - 1, config.samples):
        length = (scene.trajectories(moment[None]) * size).norm(dim=1)[0]
        total += length
        largest = torch.maximum(largest, length)
    times = rng.uniform(1, period - 1, config.frames)
    flows = scene.trajectories(torch.from_numpy(times).float()) * size
    return {
        "photo": scene.photo,
        "frames": np.stack([scene.frame(float(t)) for t in times]),
        "flows": flows.numpy().astype(np.float16),
        "importance": (total / config.samples).numpy().astype(np.float16),
        "largest": largest.numpy().astype(np.float16),
        "kind": np.array(scene.kind),
    }


@dataclass(frozen=True)
class Pair:
    """One training example; photo and target (3, H, W) in [0, 1], flow (2, H, W) and importance (1, H, W) in pixels."""

    photo: Tensor
    target: Tensor
    flow: Tensor
    importance: Tensor


def read_pairs(path: Path) -> list[Pair]:
    """All examples of one written scene, with the dead zone of `animate` applied."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in ("photo", "frames", "flows", "importance", "largest")}
    photo = _picture(arrays["photo"])
    importance = torch.from_numpy(arrays["importance"].astype(np.float32))[None]
    free = smoothstep(*DEAD_ZONE, torch.from_numpy(arrays["largest"].astype(np.float32)))
    flows = torch.from_numpy(arrays["flows"].astype(np.float32)) * free
    frames = zip(arrays["frames"], flows, strict=True)
    return [Pair(photo, _picture(frame), flow, importance) for frame, flow in frames]


class PairCrops(Dataset[dict[str, Tensor]]):
    """Random crops of the pairs in a folder, mirrored half of the time, mostly where layers part."""

    def __init__(self, paths: list[Path], crop: int, seed: int) -> None:
        if not paths:
            raise ValueError("no training pairs; write some with write_pairs first")
        self.paths, self.crop, self.seed = paths, crop, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = int(torch.randint(2**31, ()))  # the training loop seeds torch for every step
        rng = np.random.default_rng([self.seed, index, draw])
        pairs = read_pairs(self.paths[index])
        pair = pairs[rng.integers(len(pairs))]
        height, width = pair.photo.shape[1:]
        # Defects lie where motion changes abruptly: of a few windows, take the one with most of that.
        change = pair.flow.diff(dim=-1)[:, :-1].abs().sum(0) + pair.flow.diff(dim=-2)[..., :-1].abs().sum(0)
        corners = [
            (int(rng.integers(height - self.crop + 1)), int(rng.integers(width - self.crop + 1))) for _ in range(6)
        ]
        abrupt = [change[y : y + self.crop, x : x + self.crop].clamp(max=4).mean().item() for y, x in corners]
        y, x = corners[int(np.argmax(abrupt))]
        window = (slice(None), slice(y, y + self.crop), slice(x, x + self.crop))
        photo, target, flow = pair.photo[window], pair.target[window], pair.flow[window].clone()
        importance = pair.importance[window]
        if rng.random() < 0.5:
            photo, target, flow, importance = (part.flip(-1) for part in (photo, target, flow, importance))
            flow[0] = -flow[0]
        return {"photo": photo, "target": target, "flow": flow, "importance": importance}


def _picture(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255
