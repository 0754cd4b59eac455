"""Clips to training pairs: a photo and the spectral volume measured after it, cached one file a pair.

A pair file is safetensors: `photo` uint8 (3, H, W), `coefficients` float16 (K, 4, h, w) in the motion file's order
x_re, x_im, y_re, y_im, fractions of width and height, and `confidence` float16 (h, w) in [0, 1], where flow could see.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from foundation.files import replacing
from foundation.folders import files_in
from foundation.video import read_video
from gid.data.folds import REAL_CLIPS
from gid.motion.clip_rules import ClipRejected, ClipRules, check_clip
from gid.motion.flow import FlowConfig, measure, to_volume
from gid.motion.spectrum import SpectralVolume

logger = logging.getLogger(__name__)

PAIR_FORMAT = "gid-pair/2"
# Without the confidence: it counts as 1 everywhere.
OLDER_PAIR_FORMAT = "gid-pair/1"
CLIP_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
NUM_FRAMES, FPS = 150, 30.0


@dataclass(frozen=True)
class Pair:
    """One training or test example.

    Attributes:
        clip: the clip's name, without suffix and without a trailing "loop".
        start: frame of the clip that is the photo.
        photo: uint8 (3, H, W) RGB.
        volume: the motion measured from that frame on.
        confidence: float (h, w) in [0, 1] of each cell of the volume; None if it was not measured.
    """

    clip: str
    start: int
    photo: Tensor
    volume: SpectralVolume
    confidence: Tensor | None = None

    @property
    def scene(self) -> str:
        """The scene the clip belongs to."""
        return scene_of(self.clip)

    @property
    def name(self) -> str:
        """clip_start, the pair's file name."""
        return f"{self.clip}_{self.start:03d}"


def clip_name(path: str | Path) -> str:
    """`.../cat_loop.mp4` -> `cat`."""
    return re.sub(r"[_-]loop$", "", Path(path).stem)


def scene_of(clip: str) -> str:
    """The scene of a clip: that of `gid.data.folds`, its own name if it is not there."""
    return REAL_CLIPS[clip].scene if clip in REAL_CLIPS else clip


def held_out(clips: Iterable[str]) -> set[str]:
    """The clips of the test split: for those of `gid.data.folds` as written there, for others by a rule.

    The rule, fixed before any training, made the split of the 19 loops as well: scenes in alphabetical order; every
    third, starting from the second, is held out with all its clips.
    """
    clips = set(clips)
    scenes = sorted({scene_of(clip) for clip in clips if clip not in REAL_CLIPS})
    chosen = set(scenes[1::3])
    return {clip for clip in clips if (REAL_CLIPS[clip].left_out if clip in REAL_CLIPS else scene_of(clip) in chosen)}


def measure_clip(
    path: str | Path,
    starts: Sequence[int] = (0,),
    photo_size: tuple[int, int] = (448, 256),
    motion_size: tuple[int, int] = (112, 64),
    num_bands: int = 16,
    periodic: bool = True,
    rules: ClipRules | None = None,
) -> list[Pair]:
    """Measure the motion of one clip from each of the given start frames.

    Args:
        path: the clip.
        starts: frames that play the photo; in a loop every frame is one, and the loop is rolled to it.
        photo_size: (width, height) of the photos.
        motion_size: (width, height) of the volumes, by area mean.
        num_bands: K.
        periodic: the clip is a seamless loop. An open clip gives its 5 seconds after each start.
        rules: refuse clips by these rules; None accepts all.

    Returns:
        One pair per start.

    Raises:
        ClipRejected: by the rules.
        ValueError: not a video, or a start outside it.
    """
    _, fps = read_video(path, max_frames=1)
    span = int(np.ceil(NUM_FRAMES / FPS * fps)) + 1
    frames, fps = read_video(path, None if periodic else max(starts) + span)
    clip = clip_name(path)
    config = FlowConfig(camera=clip in REAL_CLIPS and REAL_CLIPS[clip].grade != "A")
    size = (frames.shape[2], frames.shape[1])
    pairs = []
    for start in starts:
        last = None if periodic else start + span
        measured = measure(frames[:last], start, periodic, config)
        if rules is not None:
            check_clip(measured.raw_displacement, size[0], rules)
        volume = to_volume(measured.trajectories, size, fps, periodic, num_bands, NUM_FRAMES, FPS, reflect=True)
        photo = cv2.resize(frames[start], photo_size, interpolation=cv2.INTER_AREA)
        photo_tensor = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))
        confidence = torch.from_numpy(cv2.resize(measured.confidence, motion_size, interpolation=cv2.INTER_AREA))
        pairs.append(Pair(clip, start, photo_tensor, _area_mean(volume, motion_size), confidence))
    return pairs


def _area_mean(volume: SpectralVolume, size: tuple[int, int]) -> SpectralVolume:
    real = volume.real.flatten(0, 1).numpy()
    small = np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in real])
    coefficients = torch.from_numpy(small).unflatten(0, (volume.num_bands, 4))
    return volume.with_coefficients(SpectralVolume.from_real(coefficients).coefficients)


def clips_in(folder: str | Path) -> list[Path]:
    """The video files of a folder, by name.

    Raises:
        ValueError: the folder is missing or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"the clip folder {folder} does not exist; give a folder that holds videos")
    clips = files_in(folder, CLIP_SUFFIXES)
    if not clips:
        raise ValueError(f"no clip in {folder}: put videos ({', '.join(CLIP_SUFFIXES)}) there")
    return clips


def prepare_clips(
    folder: str | Path,
    out_dir: str | Path,
    starts: int = 3,
    photo_size: tuple[int, int] = (448, 256),
    motion_size: tuple[int, int] = (112, 64),
    num_bands: int = 16,
    periodic: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> list[Path]:
    """Measure every clip of a folder into pair files `<clip>_<start>.safetensors`; files that exist are kept.

    Args:
        folder: clips.
        out_dir: where the pairs go; made if missing.
        starts: start frames per clip, spread evenly (over the loop, or over what leaves 5 seconds after it).
        photo_size: (width, height) of the photos.
        motion_size: (width, height) of the volumes.
        num_bands: K.
        periodic: the clips are seamless loops, taken as they are; open clips pass `ClipRules` or are left out, but for
            those of `gid.data.folds`, which were looked at, and are taken.
        shard: (index, count): take every count-th clip from index on, to share the work among machines.

    Returns:
        The pair files of this shard.

    Raises:
        ValueError: no clips, or impossible arguments.
    """
    index, count = shard
    if starts < 1 or not 0 <= index < count:
        raise ValueError(f"starts is {starts} and shard {shard}; need starts >= 1 and 0 <= index < count")
    clips = clips_in(folder)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for path in tqdm(clips[index::count], desc="measuring clips", unit="clip"):
        files = {
            start: out_dir / f"{clip_name(path)}_{start:03d}.safetensors" for start in _starts(path, starts, periodic)
        }
        missing = [start for start, file in files.items() if not file.exists()]
        for start in missing:
            try:
                rules = None if periodic or clip_name(path) in REAL_CLIPS else ClipRules()
                (pair,) = measure_clip(path, (start,), photo_size, motion_size, num_bands, periodic, rules)
            except ClipRejected as error:
                logger.warning("%s from frame %d is left out: %s", path.name, start, error)
                continue
            save_pair(pair, files[start])
        written += [file for file in files.values() if file.exists()]
    return written


def _starts(path: Path, number: int, periodic: bool) -> list[int]:
    capture = cv2.VideoCapture(str(path))
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = capture.get(cv2.CAP_PROP_FPS) or FPS
    capture.release()
    room = length if periodic else max(1, length - int(np.ceil(NUM_FRAMES / FPS * fps)))
    return sorted({room * i // number for i in range(number)})


def save_pair(pair: Pair, path: str | Path) -> None:
    """Write a pair file; beside and renamed.

    Raises:
        ValueError: the folder is missing or full.
    """
    volume = pair.volume
    width, height = volume.image_size or (pair.photo.shape[2], pair.photo.shape[1])
    metadata = {
        "format": PAIR_FORMAT,
        "clip": pair.clip,
        "start": str(pair.start),
        "fps": repr(volume.fps),
        "num_frames": str(volume.num_frames),
        "image_width": str(width),
        "image_height": str(height),
    }
    tensors = {"photo": pair.photo.contiguous(), "coefficients": volume.real.half().contiguous()}
    if pair.confidence is not None:
        tensors["confidence"] = pair.confidence.half().contiguous()
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)


def load_pair(path: str | Path) -> Pair:
    """Read a pair file.

    Raises:
        ValueError: not a pair file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (PAIR_FORMAT, OLDER_PAIR_FORMAT):
                raise ValueError(f"{path} is not a pair file ({PAIR_FORMAT}); make it with `gid data clips`")
            photo, coefficients = file.get_tensor("photo"), file.get_tensor("coefficients")
            confidence = file.get_tensor("confidence").float() if "confidence" in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); delete it and measure the clips again") from error
    volume = SpectralVolume.from_real(
        coefficients,
        fps=float(metadata["fps"]),
        num_frames=int(metadata["num_frames"]),
        image_size=(int(metadata["image_width"]), int(metadata["image_height"])),
        model="measured",
    )
    return Pair(metadata["clip"], int(metadata["start"]), photo, volume, confidence)


def load_pairs(folder: str | Path, clips: Iterable[str] | None = None) -> list[Pair]:
    """All pairs of a folder, or those of the given clips, by name.

    Raises:
        ValueError: the folder is missing or holds no pair.
    """
    wanted = None if clips is None else set(clips)
    files = sorted(Path(folder).glob("*.safetensors"))
    pairs = [pair for pair in map(load_pair, files) if wanted is None or pair.clip in wanted]
    if not pairs:
        raise ValueError(f"no measured pair in {folder}; measure a folder of clips with `gid data clips` first")
    return pairs


def measured_pairs(folder: str | Path, out_dir: str | Path, starts: int = 3) -> list[Pair]:
    """The pairs of a folder of loops, measured into `out_dir` where not yet done; or of a folder of pair files, as is.

    Raises:
        ValueError: the folder holds neither.
    """
    if any(Path(folder).glob("*.safetensors")):
        return load_pairs(folder)
    clips = {clip_name(path) for path in clips_in(folder)}
    prepare_clips(folder, out_dir, starts)
    return load_pairs(out_dir, clips)
