"""Video to trajectories: classical coarse-to-fine optical flow from one frame to each following one.

Classical flow, as in the paper: learned flow is too smooth and looks unreal when it is rendered. Each frame is matched
with the start frame directly (no chaining, so nothing accumulates), from the previous displacement as first guess.
Flow means nothing where a picture has no texture or a pixel is hidden. There the displacement is filled in from
neighbours of like colour that are known, with a weak pull to rest (`_fill_in`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from foundation.video import read_video
from gid.motion.camera import remove_camera
from gid.motion.clip_rules import ClipRules, check_clip
from gid.motion.spectrum import SpectralVolume

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class FlowConfig:
    """Constants of the estimate; lengths in pixels of the working picture.

    Attributes:
        long_side: the working picture's longer side.
        texture: gradient (grey levels a pixel) at which a pixel counts half as textured.
        smoothness: weight of like-coloured neighbours against the pixel's own flow.
        colour: CIELAB distance at which neighbours stop counting as alike.
        rest: weight of the pull to rest; sqrt(smoothness / rest) cells is how far known motion reaches into flat areas.
        background_rest: the same in flat areas that touch the picture's border: sky, wall and darkness lie behind.
        noise: rms displacement (pixels) that compression noise alone produces; motion fades out below it.
        camera: the camera moves a little: take a similarity a frame out (`gid.motion.camera`).
    """

    long_side: int = 512
    texture: float = 4.0
    smoothness: float = 0.5
    colour: float = 6.0
    rest: float = 1.5e-3
    background_rest: float = 1e-2
    noise: float = 0.1
    camera: bool = False


@dataclass(frozen=True)
class Measurement:
    """What flow found in a clip, on a grid of half the working size.

    Attributes:
        trajectories: (T, 2, h, w) in pixels of the input frames.
        raw_displacement: (h, w) mean displacement before filling in, in the same pixels, that `ClipRules` judges.
        confidence: (h, w) in [0, 1]: texture that flow can hold on to, times how often it went there and back.
    """

    trajectories: Floats
    raw_displacement: Floats
    confidence: Floats


def estimate_trajectories(
    frames: Frames, start: int = 0, periodic: bool = False, config: FlowConfig | None = None
) -> Floats:
    """Displacement of each pixel of the start frame in each following frame.

    Args:
        frames: (N, H, W, 3) uint8 RGB, a static camera.
        start: index of the frame the displacements start from.
        periodic: the clip loops: after its last frame comes its first, so any start sees all N frames.
        config: constants of the estimate.

    Returns:
        (T, 2, H, W) float32 pixels (x right, y down); T = N if periodic, else N - start. The first is zero.

    Raises:
        ValueError: for frames of another shape or type, a start outside the clip, or fewer than 2 frames after it.
    """
    measured = measure(frames, start, periodic, config or FlowConfig())
    height, width = frames.shape[1:3]
    out = np.empty((len(measured.trajectories), 2, height, width), np.float32)
    for index, field in enumerate(measured.trajectories):
        for axis in range(2):
            out[index, axis] = cv2.resize(field[axis], (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def measure(frames: Frames, start: int, periodic: bool, config: FlowConfig) -> Measurement:
    """`estimate_trajectories` on the half-resolution grid it works on, with what the rejection rule needs."""
    _check_frames(frames, start)
    count, height, width = frames.shape[:3]
    scale = min(1.0, config.long_side / max(height, width))
    # DIS needs some pixels to build its pyramid on.
    size = (max(64, round(width * scale)), max(64, round(height * scale)))
    order = np.roll(np.arange(count), -start) if periodic else np.arange(start, count)
    colour = cv2.resize(frames[start], size, interpolation=cv2.INTER_AREA)
    greys = [cv2.cvtColor(cv2.resize(frames[i], size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for i in order]

    cells = (max(2, size[0] // 2), max(2, size[1] // 2))
    texture = _texture(greys[0], config.texture)
    low = np.zeros((len(order), 2, cells[1], cells[0]), np.float32)
    agreeing = np.zeros(texture.shape, np.float32)
    raw = np.zeros(texture.shape, np.float32)
    for index, weight, forward, agrees in _flows(greys, periodic):
        known = texture * (0.02 + agrees)
        total = _shrink(known, cells) + 1e-6
        for axis in range(2):
            mean = _shrink(known * forward[..., axis], cells) / total
            low[index, axis] += weight * mean
        agreeing += weight * agrees
        raw += weight * np.hypot(forward[..., 0], forward[..., 1])
    confidence = _shrink(texture * agreeing / np.float32(len(order) - 1), cells)
    if config.camera:
        low = remove_camera(low, confidence)
    filled = _fill_in(low, confidence, cv2.resize(colour, cells, interpolation=cv2.INTER_AREA), config)
    filled = _fade_noise(filled, config.noise)
    ratio = np.array([width / size[0], height / size[1]], np.float32)
    raw = _shrink(raw / np.float32(len(order) - 1), cells) * ratio[0]
    return Measurement(filled * ratio[None, :, None, None], raw, np.minimum(confidence, 1))


def _shrink(image: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _check_frames(frames: Frames, start: int) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; they must be uint8 of shape (N, H, W, 3)")
    if not 0 <= start < len(frames):
        raise ValueError(f"start frame {start} lies outside the clip of {len(frames)} frames")
    if len(frames) < 2:
        raise ValueError("the clip has one frame; motion needs at least 2. Give a video, not a picture")


def _flows(greys: list[Frames], periodic: bool) -> Iterator[tuple[int, float, Floats, Floats]]:
    """Yield (frame, weight, forward flow (H, W, 2), forward-backward agreement (H, W) of 0 or 1); weights sum to 1.

    A loop is followed from both its ends towards the middle, where the two estimates are blended: half the way to
    drift, and the last frame is as good as the second.
    """
    count = len(greys)
    if not periodic or count < 40:
        yield from ((i, 1.0, forward, agrees) for i, forward, agrees in _follow(greys, range(1, count)))
        return
    overlap = count // 20
    first, last = count // 2 - overlap, count // 2 + overlap
    for i, forward, agrees in _follow(greys, range(1, last)):
        yield i, min(1.0, (last - i) / (last - first)), forward, agrees
    for i, forward, agrees in _follow(greys, range(count - 1, first, -1)):
        yield i, min(1.0, (i - first) / (last - first)), forward, agrees


def _follow(greys: list[Frames], indices: range) -> Iterator[tuple[int, Floats, Floats]]:
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = greys[0].shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    forward = np.zeros((height, width, 2), np.float32)
    backward = np.zeros((height, width, 2), np.float32)
    agrees = np.ones((height, width), np.float32)
    for step, index in enumerate(indices):
        forward = np.asarray(method.calc(greys[0], greys[index], forward.copy()), np.float32)
        if step % 3:
            yield index, forward, agrees
            continue
        # The way back only judges; it changes slowly, so every third frame is enough.
        backward = np.asarray(method.calc(greys[index], greys[0], backward.copy()), np.float32)
        back = cv2.remap(
            backward,
            columns + forward[..., 0],
            rows + forward[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        error = np.square(forward + back).sum(-1)
        # Sundaram et al. 2010: the round trip may miss by a hundredth of its length and half a pixel squared.
        allowed = 0.01 * (np.square(forward).sum(-1) + np.square(back).sum(-1)) + 0.5
        agrees = (error < allowed).astype(np.float32)
        yield index, forward, agrees


def _texture(grey: Frames, half: float) -> Floats:
    """(H, W) in [0, 1]: how much of a gradient there is for flow to hold on to."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    # The fourth power: compression noise in a clear sky (gradient about 1) must count for next to nothing.
    energy = np.square(dx * dx + dy * dy)
    return np.asarray(energy / (energy + half**4), np.float32)


def _fill_in(flow: Floats, confidence: Floats, image: Frames, config: FlowConfig) -> Floats:
    """Minimise sum c |F - F_measured|^2 + smoothness sum w_pq |F_p - F_q|^2 + rest sum |F|^2 for each frame.

    w_pq falls with the colour difference of neighbours p and q, so known motion spreads within an object and stops at
    its outline. One sparse factorisation serves all frames and both axes.
    """
    height, width = confidence.shape
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cell = np.arange(height * width).reshape(height, width)
    pairs, weights = [], []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        distance = np.square(lab[first] - lab[second]).sum(-1)
        pairs.append((cell[first].ravel(), cell[second].ravel()))
        weights.append(np.exp(-distance / (2 * config.colour**2)).ravel() + 1e-3)
    p, q = (np.concatenate(side) for side in zip(*pairs, strict=True))
    w = config.smoothness * np.concatenate(weights).astype(np.float64)
    graph = sparse.coo_matrix((w, (p, q)), shape=(cell.size, cell.size)).tocsr()
    graph = graph + graph.T
    known = confidence.ravel().astype(np.float64)
    rest = np.where(_background(graph, confidence, config), config.background_rest, config.rest)
    diagonal = known + rest + np.asarray(graph.sum(axis=1)).ravel()
    solver = splu(sparse.csc_matrix(sparse.diags(diagonal) - graph), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    right = flow.reshape(-1, cell.size).astype(np.float64) * known
    solved = solver.solve(np.ascontiguousarray(right.T)).T
    return np.ascontiguousarray(solved.reshape(flow.shape), dtype=np.float32)


def _background(graph: sparse.csr_matrix, confidence: Floats, config: FlowConfig) -> NDArray[np.bool_]:
    """(cells,) where the picture is flat and a path through like-coloured flat cells leads to its border."""
    flat = (confidence < 0.03).ravel()
    links = graph.tocoo()
    alike = (links.data > 0.8 * config.smoothness) & flat[links.row] & flat[links.col]
    paths = sparse.coo_matrix((links.data[alike], (links.row[alike], links.col[alike])), shape=graph.shape)
    component = connected_components(paths, directed=False)[1].reshape(confidence.shape)
    border = np.concatenate([component[0], component[-1], component[:, 0], component[:, -1]])
    return flat & np.isin(component.ravel(), border)


def _fade_noise(flow: Floats, noise: float) -> Floats:
    """Wiener gain max(0, 1 - noise^2 / rms^2) per cell: what does not rise above the noise comes to rest."""
    power = np.square(flow - flow.mean(0)).sum(1).mean(0)
    gain = np.maximum(0.0, 1 - noise**2 / np.maximum(power, 1e-12))
    return flow * cv2.GaussianBlur(gain.astype(np.float32), (0, 0), 1.0)


def to_volume(
    trajectories: Floats,
    size: tuple[int, int],
    clip_fps: float,
    periodic: bool,
    num_bands: int,
    num_frames: int,
    fps: float,
    reflect: bool = False,
) -> SpectralVolume:
    """Trajectories (T, 2, h, w) in pixels of frames of `size` (width, height) -> spectral volume.

    A loop of N frames at f Hz repeats after N / f seconds, so its transform already holds the harmonics of that period:
    it is stated as `num_frames` frames at num_frames * f / N Hz. A loop about m times as long as num_frames / fps keeps
    every m-th harmonic, which is the part of the motion that repeats m times in it. An open clip is resampled to `fps`
    and cut to `num_frames` (fewer if it is shorter). With `reflect` a shorter one runs back and forth instead, so that
    bands mean the same frequencies in every volume.

    Raises:
        ValueError: if the clip is too short for `num_bands`.
    """
    fractions = trajectories / np.asarray(size, np.float32)[None, :, None, None]
    if not periodic:
        seconds = np.arange(num_frames) / fps
        # Half a frame past the last one still shows the last one: 5 s at 29 fps fill 150 frames.
        there = seconds[seconds * clip_fps <= len(fractions) - 0.5]
        if len(there) < 2 * num_bands:
            raise ValueError(
                f"the clip is {len(fractions) / clip_fps:.2f} s long from its start frame; {num_bands} frequency bands "
                f"need at least {2 * num_bands / fps:.2f} s. Use a longer clip"
            )
        if not reflect:
            seconds = there
        elif len(there) < num_frames:
            length = (len(fractions) - 1) / clip_fps
            seconds = length - np.abs(length - seconds % (2 * length))
        return SpectralVolume.from_trajectories(
            torch.from_numpy(_at(fractions, seconds * clip_fps)), num_bands, fps, size, "measured"
        )
    repeats = max(1, round(len(fractions) / clip_fps * fps / num_frames))
    needed = 2 * repeats * num_bands
    if len(fractions) < needed:
        raise ValueError(f"the loop has {len(fractions)} frames; {num_bands} bands need at least {needed}")
    harmonics = torch.fft.rfft(torch.from_numpy(fractions), dim=0, norm="forward")[::repeats][:num_bands]
    rate = repeats * num_frames * clip_fps / len(fractions)
    return SpectralVolume(harmonics.contiguous(), rate, num_frames, size, "measured")


def _at(trajectories: Floats, times: NDArray[np.float64]) -> Floats:
    """Linear interpolation in time at fractional frames."""
    below = np.minimum(times.astype(np.int64), len(trajectories) - 1)
    above = np.minimum(below + 1, len(trajectories) - 1)
    part = (times - below).astype(np.float32)[:, None, None, None]
    return trajectories[below] * (1 - part) + trajectories[above] * part


def extract(
    path: str | Path,
    start: int = 0,
    periodic: bool = False,
    num_bands: int = 16,
    num_frames: int = 150,
    fps: float = 30.0,
    rules: ClipRules | None = None,
    config: FlowConfig | None = None,
) -> SpectralVolume:
    """Measure the spectral volume of a clip (`gid extract`).

    Args:
        path: video file with a static camera.
        start: the frame that plays the part of the photo.
        periodic: the clip is a seamless loop.
        num_bands: K, the number of frequency bands, the constant one included.
        num_frames: T, frames of the volume's period.
        fps: frame rate of the volume; an open clip is resampled to it.
        rules: when to refuse the clip.
        config: constants of the flow.

    Returns:
        Volume on the grid the flow was solved on (half of a picture of 512 pixels), model "measured".

    Raises:
        ClipRejected: the camera moves or nothing moves.
        ValueError: not a video, a start outside it, or too short.
    """
    config = config or FlowConfig()
    # Nothing beyond the working size is ever looked at: decode straight to it, and only as much as is needed.
    frames, clip_fps, size = _read(path, config.long_side, None if periodic else (start, num_frames / fps))
    measured = measure(frames, start, periodic, config)
    check_clip(measured.raw_displacement, frames.shape[2], rules or ClipRules())
    shown = (frames.shape[2], frames.shape[1])
    volume = to_volume(measured.trajectories, shown, clip_fps, periodic, num_bands, num_frames, fps)
    return volume.with_coefficients(volume.coefficients, size)


def _read(path: str | Path, long_side: int, window: tuple[int, float] | None) -> tuple[Frames, float, tuple[int, int]]:
    """Frames at the working size, their rate, and the clip's own (width, height)."""
    first, fps = read_video(path, max_frames=1)
    height, width = first.shape[1:3]
    scale = min(1.0, long_side / max(width, height))
    wanted = None if window is None else window[0] + int(np.ceil(window[1] * fps)) + 1
    frames, fps = read_video(path, wanted, (round(width * scale), round(height * scale)))
    return frames, fps, (width, height)
