"""What the motion map learns from: energy measured in clips, beside the tokens of the frames it was measured from.

Everything is kept in a folder, one file a clip and start frame, so that folds and members share the work:

    frames/NAME_K.npz   photo uint8 (H, W, 3), energy and confidence float32 (36, 64), seconds
    tokens/NAME_K@V.npy float16 (1152, 21, 37), the tokens of view V
"""

from __future__ import annotations

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
from gid.data.videos import clip_name, clips_in, scene_of
from gid.diffusion.motion_map import LAYERS, TOKENS
from gid.motion.energy import motion_energy, texture_confidence, to_grid

Floats = NDArray[np.float32]

# Stretched to 16:9, as all measures of motion energy are: 37 x 21 tokens.
SIZE = (518, 294)
TOKEN_GRID = (37, 21)
WINDOW = 150
KEPT = 120
MAX_PHOTO = 768


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
    """

    name: str
    number: int
    photo: NDArray[np.uint8]
    energy: Floats
    confidence: Floats

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
            yield MeasuredFrame(name, number, stored["photo"], stored["energy"], stored["confidence"])


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

    def maps(self) -> tuple[Floats, Floats]:
        """Energy and confidence (21, 37)."""
        found = []
        for values in (self.frame.energy, self.frame.confidence):
            fine = cv2.resize(values, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
            found.append(to_grid(np.asarray(VIEWS[self.view].of(np.asarray(fine)), np.float32), TOKEN_GRID))
        return found[0], found[1]


class MotionRows(Dataset[dict[str, Tensor]]):
    """Rows as tensors: components (K, 21, 37), energy and confidence (1, 21, 37)."""

    def __init__(self, rows: list[Row], components: list[NDArray[np.float16]]) -> None:
        self.rows, self.components = rows, components
        self.maps = [row.maps() for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        energy, confidence = self.maps[index]
        return {
            "components": torch.from_numpy(self.components[index]).float(),
            "energy": torch.from_numpy(energy)[None],
            "confidence": torch.from_numpy(confidence)[None],
        }

    def weights(self) -> list[float]:
        """Of each row, so that every scene is drawn as often as another."""
        scenes = [row.frame.scene for row in self.rows]
        return [1.0 / scenes.count(scene) for scene in scenes]
