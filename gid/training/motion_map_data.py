"""What the motion map learns from: motion measured in clips, beside the tokens of the frames it was measured from.

Motion is measured twice: as energy of optical flow, and as what a person sees, brightness over time, which is no noise
where nothing can be seen, and right where most of the picture sways together. Procedural scenes can be added, whose
motion is known. Everything is kept in a folder, one file a clip and start frame, so that folds and members share it:

    frames/NAME_K.npz   photo uint8 (H, W, 3), energy and confidence float32 (36, 64)
    visible/NAME.npy    float32 (36, 64), visible motion of the clip's first 150 frames
    tokens/NAME_K@V.npy float16 (1152, 21, 37), the tokens of view V
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from foundation.features import load_encoder
from foundation.files import replacing
from foundation.video import read_video
from gid.data.shards import read_shards
from gid.data.videos import clip_name, clips_in, scene_of
from gid.diffusion.motion_map import DETAIL, LAYERS, TOKENS, MotionMap
from gid.evaluation.visible import brightness, visible_motion
from gid.motion.energy import (
    GRID,
    LEAST_SHAKE,
    LONG_SIDE,
    SHAKES,
    brightness_of,
    motion_energy,
    shaken,
    texture_confidence,
    to_grid,
)

Floats = NDArray[np.float32]

# Stretched to 16:9, as all measures of motion energy are: 37 x 21 tokens.
SIZE = (518, 294)
TOKEN_GRID = (37, 21)
WINDOW = 150
KEPT = 120
MAX_PHOTO = 768
STRETCHED = (LONG_SIDE, LONG_SIDE * 9 // 16)
DETAIL_ENTRIES = [SHAKES.index(length) for length in DETAIL]
# A procedural scene in which nothing moves this far, in pixels, says nothing of where things move.
LEAST_ENERGY = 0.3
LEAST_PIXELS = 1e-4


@dataclass(frozen=True)
class View:
    """One way to look at a frame: a part of it, perhaps mirrored.

    Attributes:
        part: of each side.
        left, top: where it lies, 0 to 1.
        mirrored: left for right.
    """

    part: float = 1.0
    left: float = 0.0
    top: float = 0.0
    mirrored: bool = False

    def of(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """The part of an array (H, W, ...)."""
        height, width = values.shape[:2]
        tall, wide = max(1, int(height * self.part)), max(1, int(width * self.part))
        y, x = int((height - tall) * self.top), int((width - wide) * self.left)
        seen = values[y : y + tall, x : x + wide]
        return np.ascontiguousarray(seen[:, ::-1] if self.mirrored else seen)


WHOLE = View()
VIEWS = (WHOLE, View(mirrored=True), View(0.75, 0, 0.5), View(0.75, 1, 0.5, True), View(0.75, 0.5, 0))


@dataclass(frozen=True)
class MeasuredFrame:
    """One start frame of a clip.

    Attributes:
        name: of the clip.
        number: of the start frame, from 0.
        photo: uint8 (H, W, 3).
        energy: (36, 64) in pixels of a picture at most 512 wide or high.
        confidence: (36, 64) in [0, 1].
        visible: (36, 64) standard deviation of brightness over time, in grey levels.
        drawn: whether it is a procedural scene.
    """

    name: str
    number: int
    photo: NDArray[np.uint8]
    energy: Floats
    confidence: Floats
    visible: Floats
    drawn: bool = False

    @property
    def scene(self) -> str:
        """The scene of the clip."""
        return scene_of(self.name)


def measured_frames(folders: tuple[Path, ...], cache: Path, starts: int, every: int) -> list[MeasuredFrame]:
    """Start frames of all clips of `folders`, measured into `cache` where not yet done.

    Args:
        folders: of videos; those named ``..loop`` repeat, so that any start sees the whole of them.
        cache: folder of the data set.
        starts: frames a clip.
        every: of the frames of later starts, how many are looked at; the first start looks at all.

    Raises:
        ValueError: a folder without clips, or `starts` under 1.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}; give 1 or more start frames a clip")
    paths = [path for folder in folders for path in clips_in(folder)]
    return [frame for path in tqdm(paths, desc="measuring clips") for frame in _frames_of(path, cache, starts, every)]


def _frames_of(path: Path, cache: Path, starts: int, every: int) -> Iterator[MeasuredFrame]:
    name = clip_name(path)
    visible = _visible_of(path, cache / "visible" / f"{name}.npy")
    frames: NDArray[np.uint8] | None = None
    for number in range(starts):
        file = cache / "frames" / f"{name}_{number}.npz"
        if not file.is_file():
            if frames is None:
                frames, _ = read_video(path)
            photo, energy = _measured(frames, name != path.stem, number, starts, every)
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as partial, partial.open("wb") as stream:
                np.savez(stream, photo=photo, energy=energy, confidence=texture_confidence(photo))
        with np.load(file) as stored:
            yield MeasuredFrame(name, number, stored["photo"], stored["energy"], stored["confidence"], visible)


def _visible_of(path: Path, file: Path) -> Floats:
    """Visible motion of a clip (36, 64), measured once; the same for all its start frames."""
    if not file.is_file():
        frames, _ = read_video(path, max_frames=WINDOW)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.save(stream, to_grid(visible_motion(brightness(frames))))
    stored: Floats = np.load(file)
    return stored


def scene_frames(folders: tuple[Path, ...], every: int) -> list[MeasuredFrame]:
    """One in `every` of the procedural scenes in shards, as if measured; those in which nothing moves are left out.

    Raises:
        ValueError: a folder without shards, or `every` under 1.
    """
    if every < 1:
        raise ValueError(f"one scene in {every} was asked for; give 1 or more")
    frames = []
    for shard in (shard for folder in folders for shard in read_shards(folder)):
        for index in range(0, len(shard.photos), every):
            scale = torch.tensor([LONG_SIDE, LONG_SIDE, LONG_SIDE * 9 // 16, LONG_SIDE * 9 // 16])[:, None, None]
            motion = shard.coefficients[index, 1:].float() * scale
            energy = to_grid(motion.square().sum((0, 1)).mul(2).sqrt().numpy())
            if energy.max() < LEAST_ENERGY:
                continue
            photo = shard.photos[index].permute(1, 2, 0).contiguous().numpy()
            table, log_energy = torch.from_numpy(table_of(photo)), torch.from_numpy(np.log(energy + LEAST_PIXELS))
            seen = seen_when_moving(table[None], log_energy[None])[0].numpy()
            name = f"scene-{int(shard.seeds[index])}"
            frames.append(MeasuredFrame(name, 0, photo, energy, texture_confidence(photo), seen, True))
    return frames


def table_of(photo: NDArray[np.uint8]) -> Floats:
    """(9, 36, 64): what would be seen of a photo (H, W, 3) if it shook by each of `gid.motion.energy.SHAKES`."""
    stretched = np.asarray(cv2.resize(photo, STRETCHED, interpolation=cv2.INTER_AREA), np.uint8)
    return np.stack([to_grid(values) for values in shaken(brightness_of(stretched))])


def seen_when_moving(table: Tensor, log_energy: Tensor) -> Tensor:
    """What is seen of pictures that move by so much, between the entries of their tables; differentiable.

    Args:
        table: (B, 9, h, w) of :func:`table_of`, on any grid.
        log_energy: (B, h, w) logarithm of displacement in pixels of a picture 512 wide.

    Returns:
        (B, h, w) in grey levels.
    """
    place = (log_energy - math.log(LEAST_SHAKE)) / math.log(2)
    within = place.clamp(0, len(SHAKES) - 1 - 1e-3)
    lower = within.detach().floor().long()[:, None]
    share = within - lower[:, 0]
    seen = table.gather(1, lower)[:, 0] * (1 - share) + table.gather(1, lower + 1)[:, 0] * share
    # Under the first entry it falls as displacement does.
    return torch.where(place < 0, table[:, 0] * (place.clamp_max(0) * math.log(2)).exp(), seen)


def _measured(
    frames: NDArray[np.uint8], loops: bool, number: int, starts: int, every: int
) -> tuple[NDArray[np.uint8], Floats]:
    """Photo and energy of one start frame: a loop is rolled to it, an open clip keeps 4 seconds, or half, after it."""
    count = len(frames)
    if loops:
        start = count * number // starts
    else:
        start = max(0, count - 1 - (KEPT if count > WINDOW else count // 2)) * number // max(1, starts - 1)
    seen = (np.roll(frames, -start, axis=0) if loops else frames[start:])[:WINDOW]
    photo = seen[0]
    scale = min(1.0, MAX_PHOTO / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), motion_energy(seen, 0, 1 if number == 0 else every)


def tokens_of(frame: MeasuredFrame, view: int, cache: Path, device: torch.device) -> NDArray[np.float16]:
    """(1152, 21, 37) tokens of a view, computed once."""
    file = cache / "tokens" / f"{frame.name}_{frame.number}@{view}.npy"
    if not file.is_file():
        picture = np.asarray(VIEWS[view].of(frame.photo), np.uint8)
        shrinks = picture.shape[1] > SIZE[0]
        picture = np.asarray(
            cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8
        )
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].to(device).float() / 255
        with torch.no_grad():
            tokens = load_encoder(device)(pixels, LAYERS, TOKENS)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.save(stream, tokens.stacked()[0].half().cpu().numpy())
    with file.open("rb") as stream:
        stored: NDArray[np.float16] = np.load(stream)
    return stored


@dataclass(frozen=True)
class Row:
    """One view of one frame, on the grid of tokens."""

    frame: MeasuredFrame
    view: int

    def of(self, values: Floats, grid: tuple[int, int]) -> Floats:
        """The view's part of a map (36, 64), averaged to a grid (width, height)."""
        fine = cv2.resize(values, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
        return to_grid(np.asarray(VIEWS[self.view].of(np.asarray(fine)), np.float32), grid)


class MotionRows(Dataset[dict[str, Tensor]]):
    """Rows as tensors.

    components (K, 21, 37), contrasts (4, 21, 37), energy and confidence (1, 21, 37), visible (36, 64) and the table
    (9, 36, 64) of what would be seen.
    """

    def __init__(self, rows: list[Row], components: list[NDArray[np.float16]]) -> None:
        self.rows, self.components = rows, components
        tables: dict[tuple[str, int], Floats] = {}
        self.maps = []
        for row in rows:
            key = (row.frame.name, row.frame.number)
            if key not in tables:
                tables[key] = table_of(row.frame.photo)
            table = tables[key]
            self.maps.append(
                {
                    "energy": row.of(row.frame.energy, TOKEN_GRID)[None],
                    "confidence": row.of(row.frame.confidence, TOKEN_GRID)[None],
                    "visible": row.of(row.frame.visible, GRID),
                    "table": np.stack([row.of(each, GRID) for each in table]),
                    "contrasts": np.stack([row.of(each, TOKEN_GRID) for each in table[DETAIL_ENTRIES]]),
                }
            )

    def tell_details(self, model: MotionMap) -> None:
        """Let a model know how detail varies over real pictures, and keep what it then makes of it beside each row."""
        contrasts = torch.from_numpy(np.stack([each["contrasts"] for each in self.maps]))
        real = torch.tensor([not row.frame.drawn for row in self.rows])
        spread, mean = torch.std_mean(model.details(contrasts[real])[:, : len(DETAIL)], (0, 2, 3))
        model.get_buffer("detail_mean").copy_(mean)
        model.get_buffer("detail_spread").copy_(spread)
        for each, details in zip(self.maps, model.details(contrasts).numpy(), strict=True):
            each["details"] = details

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tensors = {name: torch.from_numpy(values) for name, values in self.maps[index].items()}
        return tensors | {"components": torch.from_numpy(self.components[index]).float()}

    def weights(self, drawn_share: float) -> list[float]:
        """Of each row, so that every real scene is drawn as often as another, and procedural ones by this share."""
        scenes = [row.frame.scene for row in self.rows]
        drawn = [row.frame.drawn for row in self.rows]
        counts = {kind: len({s for s, d in zip(scenes, drawn, strict=True) if d is kind}) for kind in (True, False)}
        shares = {True: drawn_share, False: 1 - drawn_share if counts[True] else 1.0}
        return [shares[d] / counts[d] / scenes.count(s) for s, d in zip(scenes, drawn, strict=True)]
