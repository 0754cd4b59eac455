"""Frames of one photo on the CPU: compiled loops a frame to a thread, and the decoder once for a group of frames.

The same picture as :meth:`gid.rendering.renderer.Renderer.render` draws map by map with torch, several times faster:
only what moves is projected and sampled, features are splatted only into the tiles that are decoded, and the decoder
works in bfloat16 where the processor multiplies it natively.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gid.motion.upsampling import PhotoGuide
from gid.rendering.projection import LARGEST_MARGIN, METRIC_LIMIT, splatting_metric
from gid.rendering.renderer import HALO, TILE, WHOLE, Decoder, Renderer
from gid.rendering.splatting import cpu

Array = NDArray[Any]

# Working memory of the frames that are drawn at once.
_MEMORY = 2**30
_REGIONS = 8  # decoded at once
_FILL_LEVELS = 5
_LANES = 8  # the loops take features in groups of this many channels


def compiled_rendering() -> bool:
    """Whether frames can be drawn by compiled loops here."""
    return cpu.kernels() is not None


def decoder_batches(count: int) -> list[int]:
    """Regions to decode together, ``count`` in all: powers of two, so that few shapes of convolution occur.

    The library behind them keeps compiled code and memory for every shape it has seen: with as many regions as happen
    to be wanted, the memory of a long video would grow.
    """
    whole, rest = divmod(count, _REGIONS)
    return [_REGIONS] * whole + [size for size in (_REGIONS >> bit for bit in range(1, 16)) if size & rest]


def decoder_type() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (elsewhere it would be slower), else float32."""
    native = torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


@dataclass
class _Draft:
    """A frame that waits for the decoder's correction; maps are numpy, float32 unless said."""

    frame: Array  # (3, H, W)
    sharp: Array  # (H, W, 4)
    filled: Array
    hole: Array  # (H, W)
    still: Array  # uint8
    gate: Array
    regions: Array  # (n, 4) int64: y, x, height, width
    halo: int
    pictures: Array  # (n, h, w, 36)
    features: list[Array]  # (n, h, w, C + 1) each


class CpuFrames:
    """Everything about one photo that its frames share.

    Args:
        renderer: on the CPU, float32.
        photo: (3, H, W) float32 in [0, 1].
        importance: (1, 1, H, W) pixels, mean length of each pixel's displacement over time.
        dtype: of the decoder; :func:`decoder_type` if not given.
    """

    def __init__(self, renderer: Renderer, photo: Tensor, importance: Tensor, dtype: torch.dtype | None = None) -> None:
        self.kernels: Any = importlib.import_module("gid.rendering.cpu.frame_kernels")
        self.holes: Any = importlib.import_module("gid.rendering.cpu.hole_kernels")
        self.mending: Any = importlib.import_module("gid.rendering.cpu.mending_kernels")
        self.height, self.width = photo.shape[1:]
        self.multiple = renderer.multiple
        self.padded = tuple(side + -side % self.multiple for side in (self.height, self.width))
        self.dtype = decoder_type() if dtype is None else dtype
        self.decoder = _for_inference(renderer.decoder, self.dtype)
        self.picture = np.zeros((self.height, self.width, 4), np.float32)
        self.picture[..., :3] = photo.permute(1, 2, 0).numpy()
        self.pad = LARGEST_MARGIN + 2
        self.wide = np.pad(self.picture, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)), mode="reflect")
        metric = splatting_metric(importance, renderer.metric_scale)
        self.importance = importance[0, 0].contiguous().numpy()
        layers = [importance, (metric - METRIC_LIMIT).exp(), (-metric).exp(), torch.zeros_like(metric)]
        self.source = torch.cat(layers, 1)[0].permute(1, 2, 0).contiguous().numpy()
        self.still_known = ((-2 * importance.clamp(max=20)).exp() + 1e-8)[0, 0].contiguous().numpy()
        self.features, self.weights = self._levels(renderer, photo[None], importance)
        self.channels = tuple(renderer.config.feature_channels)

    @torch.no_grad()
    def _levels(self, renderer: Renderer, photo: Tensor, importance: Tensor) -> tuple[list[Array], list[Array]]:
        """Features (n, h, w, 8) of every level, in groups of channels with 1 behind them, and their weights (h, w)."""
        down, right = self.padded[0] - self.height, self.padded[1] - self.width
        rank = F.pad(importance, (0, right, 0, down), mode="replicate")
        features, weights = [], []
        for level in renderer.encode(photo):
            rank = F.avg_pool2d(rank, 2)
            metric = splatting_metric(rank, renderer.metric_scale)
            weights.append((metric - metric.amax()).clamp(min=-50).exp()[0, 0].contiguous().numpy())
            channels = torch.cat([level[0], torch.ones_like(level[0, :1])])
            groups = F.pad(channels, (0, 0, 0, 0, 0, -len(channels) % _LANES)).unflatten(0, (-1, _LANES))
            features.append(groups.permute(0, 2, 3, 1).contiguous().numpy())
        return features, weights

    @property
    def group(self) -> int:
        """How many frames may be drawn at once: as many as threads or 8, within the working memory."""
        a_frame = 4 * self.height * self.width * (16 + 16)
        return max(1, min(max(8, torch.get_num_threads()), _MEMORY // a_frame))

    def render(self, flows: Tensor, executor: Executor) -> Tensor:
        """Draw frames.

        Args:
            flows: (n, 2, H, W) float32 pixels, exactly 0 where the photo stands still.
            executor: its threads draw one frame each.

        Returns:
            (n, 3, H, W) float32 in [0, 1].
        """
        frames = np.empty((len(flows), 3, self.height, self.width), np.float32)
        for first in range(0, len(flows), self.group):
            part = slice(first, first + self.group)
            jobs = list(zip(flows[part].numpy(), frames[part], strict=True))
            drafts = [draft for draft in executor.map(lambda job: self._draft(*job), jobs) if draft is not None]
            self._mend([draft for draft in drafts if draft.halo], executor)
            for draft in drafts:
                if not draft.halo:
                    self._mend([draft], executor)
        return torch.from_numpy(frames)

    def _draft(self, flow: Array, frame: Array) -> _Draft | None:
        """Draw a frame without correction; None if none is wanted."""
        k, (height, width) = self.kernels, (self.height, self.width)
        low, high = np.empty(height, np.int32), np.empty(height, np.int32)
        if not k.touched(flow, low, high):
            frame[:] = self.picture[..., :3].transpose(2, 0, 1)
            return None
        # One pixel more is composed, because neighbours enter; and one more than that is splatted.
        outer_low, outer_high = low.copy(), high.copy()
        k.widened(outer_low, outer_high, width, low, high)
        k.widened(low, high, width, outer_low, outer_high)
        margin = int(np.ceil(min(k.edge_inflow(flow), LARGEST_MARGIN)))
        total = np.empty((2, height + 4, width + 4, _LANES), np.float32)
        k.splat_layers(flow, self.source, margin, outer_low, outer_high, total)
        sharp = np.empty((height, width, 4), np.float32)
        hole, seam, known, gate = (np.empty((height, width), np.float32) for _ in range(4))
        still = np.empty((height, width), np.uint8)
        any_hole, any_seam = k.compose(
            flow, total, min(margin, 1), low, high, self.wide, self.pad, self.still_known,
            sharp, hole, seam, still, known,
        )  # fmt: skip
        filled = sharp
        if any_hole:
            filled = np.empty_like(sharp)
            self.holes.fill(sharp, known, _FILL_LEVELS, filled)
        self.mending.finish(self.picture, sharp, filled, hole, still, low, high, frame)
        wanted = np.empty((-(-height // TILE), -(-width // TILE)), np.uint8)
        open_anywhere = (any_hole or any_seam) and self.holes.open_gate(hole, seam, still, TILE, gate, wanted)
        if not (open_anywhere and wanted.any()):
            return None
        regions, halo = self._regions(wanted)
        pictures = np.empty((len(regions), regions[0, 2] // 2, regions[0, 3] // 2, 36), np.float32)
        self.mending.cut_pictures(sharp, filled, hole, seam, self.importance, *self.padded, regions, pictures)
        return _Draft(
            frame, sharp, filled, hole, still, gate, regions, halo, pictures,
            self._splatted(flow, regions),
        )  # fmt: skip

    def _regions(self, wanted: Array) -> tuple[Array, int]:
        """What to decode and how wide its mere context is: tiles, or the whole picture if many are wanted."""
        if HALO % self.multiple or wanted.mean() > WHOLE:
            return np.array([[0, 0, *self.padded]], np.int64), 0
        regions = np.full((np.count_nonzero(wanted), 4), TILE + 2 * HALO, np.int64)  # in rows, as the loops take them
        regions[:, :2] = np.argwhere(wanted) * TILE - HALO
        return regions, HALO

    def _splatted(self, flow: Array, regions: Array) -> list[Array]:
        """Features of every level, splatted with the motion resized and rescaled to it, cut at the regions."""
        result = []
        for level, (features, weight) in enumerate(zip(self.features, self.weights, strict=True)):
            scale = 2 ** (level + 1)
            groups, height, width, _ = features.shape
            coarse = np.empty((2, height, width), np.float32)
            self.mending.halved_flow(flow, coarse)
            flow = coarse
            mask = np.empty((height + 2, width + 2), np.uint8)
            self.mending.mark(regions, scale, mask)
            total = np.zeros((groups, height + 2, width + 2, _LANES), np.float32)
            self.mending.splat_features(features, weight, flow, mask, total)
            side = regions[0, 2:] // scale
            out = np.empty((len(regions), *side, self.channels[level] + 1), np.float32)
            self.mending.cut_features(total, regions, scale, out)
            result.append(out)
        return result

    @torch.no_grad()
    def _mend(self, drafts: list[_Draft], executor: Executor) -> None:
        """Decode the regions of several frames together and correct the frames."""
        if not drafts:
            return
        pictures = _joined([draft.pictures for draft in drafts], self.dtype)
        levels = range(len(self.features))
        features = [_joined([draft.features[level] for draft in drafts], self.dtype) for level in levels]
        sizes = decoder_batches(len(pictures))
        decoded = torch.cat(
            [self.decoder.decode(*part).float() for part in _splits(pictures, features, sizes)]
        ).contiguous()
        parts = decoded.split([len(draft.regions) for draft in drafts])

        def correct(draft: _Draft, part: Tensor) -> None:
            d = draft
            self.mending.mend(part.numpy(), d.regions, d.halo, d.sharp, d.filled, d.hole, d.still, d.gate, d.frame)

        list(executor.map(correct, drafts, parts))


class GuidedFlow:
    """Coarse displacements to flow in pixels, along the photo's edges and within the dead zone, compiled.

    Args:
        guide: of the photo.
        freedom: (1, 1, H, W) in [0, 1], the share of its motion that each pixel makes.
    """

    def __init__(self, guide: PhotoGuide, freedom: Tensor) -> None:
        self.kernels: Any = importlib.import_module("gid.rendering.cpu.frame_kernels")
        self.rows = torch.stack(guide.rows).numpy()
        self.columns = torch.stack(guide.columns).numpy()
        self.weights = torch.cat(guide.weights, 1)[0].permute(1, 2, 0).contiguous().numpy()
        self.freedom = freedom[0, 0].contiguous().numpy()
        free = self.freedom != 0
        any_free = free.any(1)
        width = free.shape[1]
        self.low = np.where(any_free, free.argmax(1), width).astype(np.int32)
        self.high = np.where(any_free, width - free[:, ::-1].argmax(1), 0).astype(np.int32)

    def __call__(self, fields: Tensor, executor: Executor) -> Tensor:
        """(n, 2, h, w) fractions of the picture's sides -> (n, 2, H, W) pixels."""
        flows = np.empty((len(fields), 2, *self.freedom.shape), np.float32)
        shared = (self.rows, self.columns, self.weights, self.freedom, self.low, self.high)
        jobs = zip(fields.contiguous().numpy(), flows, strict=True)
        list(executor.map(lambda job: self.kernels.guided_flow(job[0], *shared, job[1]), jobs))
        return torch.from_numpy(flows)


def compile_loops(renderer: Renderer) -> None:
    """Draw a tiny picture in which everything happens, so that every loop is compiled, or read from disk.

    In the caller's thread alone: beside a program that ends, no other could be started any more.
    """
    photo, importance = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    importance[..., 8:24, 8:24] = 5
    field = torch.zeros(1, 2, 8, 8)
    field[..., 2:6, 2:6] = 0.17
    executor = _Inline()
    flow = GuidedFlow(PhotoGuide(photo, 8, 8), (importance > 0).float())(field, executor)
    CpuFrames(renderer, photo[0], importance).render(flow, executor)


@contextmanager
def drawing_threads() -> Iterator[Executor]:
    """As many threads as torch uses; with one, nothing is started and the caller's own does the work."""
    threads = torch.get_num_threads()
    context = ThreadPoolExecutor(threads, thread_name_prefix="frame") if threads > 1 else nullcontext(_Inline())
    with context as executor:
        yield executor


class _Inline(Executor):
    """Runs what it is given at once."""

    def map(self, fn: Any, *iterables: Any, **_: Any) -> Iterator[Any]:
        return iter([fn(*arguments) for arguments in zip(*iterables, strict=False)])


def _joined(parts: list[Array], dtype: torch.dtype) -> Tensor:
    """Regions (n, h, w, C) of several frames as one (N, C, h, w) batch, channels last in memory."""
    return torch.from_numpy(np.concatenate(parts)).to(dtype).permute(0, 3, 1, 2)


def _splits(pictures: Tensor, features: list[Tensor], sizes: list[int]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The batch in parts of the given sizes."""
    return zip(
        pictures.split(sizes), map(list, zip(*(level.split(sizes) for level in features), strict=True)), strict=True
    )


def _for_inference(decoder: Decoder, dtype: torch.dtype) -> Decoder:
    inference = copy.deepcopy(decoder).eval().requires_grad_(False).to(dtype)
    for parameter in inference.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return inference
