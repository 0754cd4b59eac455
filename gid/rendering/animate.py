"""From a photo and its motion to frames (paper, section 5), in chunks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gid.limits import FRAMES
from gid.motion.loops import evaluate, time_basis
from gid.motion.spectrum import SpectralVolume
from gid.motion.upsampling import PhotoGuide
from gid.rendering.cpu.frames import CpuFrames, GuidedFlow, compiled_rendering, drawing_threads
from gid.rendering.cpu.layer_frames import LayerFrames
from gid.rendering.layers import Layers, take_apart
from gid.rendering.projection import smoothstep
from gid.rendering.renderer import Renderer
from gid.rendering.segments import Segments

# Largest displacement of a pixel, in pixels of the video: below the first it stands still, above the second it moves
# freely. Flow noise and leaks of the model lie below; held still, they cannot shimmer.
DEAD_ZONE = (0.12, 0.4)
# Share of the photo's longer side from which on objects are drawn over a completed background (`studies/layers.md`).
FAR = 0.045


def animate(
    photo: Tensor,
    volume: SpectralVolume,
    renderer: Renderer,
    num_frames: int = 150,
    fps: float = 30.0,
    loop: bool = True,
    strength: float = 1.0,
    speed: float = 1.0,
    chunk: int | None = None,
) -> Iterator[Tensor]:
    """Render a video of a moving photo.

    Frame 0 is the photo itself. Pixels that no motion reaches are the photo's own in every frame.

    Args:
        photo: (3, H, W) in [0, 1]; the frames get its size, device and type.
        volume: its motion, at any resolution.
        renderer: makes the frames.
        num_frames: length of the video (limits of numbers: `gid.limits.FRAMES`).
        fps: output frames a second.
        loop: choose frequencies that close, for any length and speed, so that the last frame leads to the first.
        strength: factor on the motion (paper, section 6).
        speed: seconds of motion a second of video.
        chunk: frames a yielded tensor, and in memory, at once; by default what suits the device and the size.

    Yields:
        (n, 3, H, W) in [0, 1], n at most ``chunk``.

    Raises:
        ValueError: an option out of its range, or a volume made for a photo of another shape. At the call, before
            the first frame is asked for.
    """
    chunk = frames_at_once(photo) if chunk is None else chunk
    _check(photo, num_frames, fps, strength, speed, chunk)
    volume.check_photo(photo.shape[2], photo.shape[1])
    basis = time_basis(volume.to(photo.device), num_frames, fps, speed, loop) * strength
    return _animate(photo, volume, basis, renderer, chunk)


def frames_at_once(photo: Tensor) -> int:
    """How many frames of a photo (..., H, W) to draw together: enough to keep the device busy, in bounded memory."""
    most = max(8, torch.get_num_threads()) if photo.device.type == "cpu" else 32
    return max(1, min(most, 2**23 // (photo.shape[-1] * photo.shape[-2])))


@torch.no_grad()
def _animate(photo: Tensor, volume: SpectralVolume, basis: Tensor, renderer: Renderer, chunk: int) -> Iterator[Tensor]:
    coefficients = volume.to(photo.device).coefficients
    mean, largest = motion_range(coefficients, basis, photo.shape[1:])
    rows = (basis[start : start + chunk] for start in range(0, len(basis), chunk))
    displacements = (evaluate(part, coefficients) for part in rows)
    layers = layers_of(photo, volume, float(largest.max()))
    yield from render_displacements(photo, displacements, renderer, mean, largest, layers)


def layers_of(
    photo: Tensor, volume: SpectralVolume, reach: float = math.inf, segments: Segments | None = None
) -> Layers | None:
    """The layers of a photo (3, H, W), where they help and can be drawn.

    That is where something moves further than `FAR`, by compiled loops, from a motion coarser than the photo. For less,
    the photo drawn as one is finer: its parts need not be things.

    Args:
        photo: (3, H, W) in [0, 1].
        volume: all motion that will be drawn comes from it.
        reach: pixels that anything will move at most.
        segments: of the volume, where they are known already.
    """
    if reach < FAR * max(photo.shape[1:]):
        return None
    if photo.device.type != "cpu" or not compiled_rendering():
        return None
    if not _is_coarse(volume.coefficients.shape[2:], photo.shape[1:]):
        return None
    layers = take_apart(photo, volume, segments)
    return layers if len(layers.front.triangles) else None


@torch.no_grad()
def render_displacements(
    photo: Tensor,
    displacements: Iterable[Tensor],
    renderer: Renderer,
    importance: Tensor,
    largest: Tensor | None = None,
    layers: Layers | None = None,
) -> Iterator[Tensor]:
    """Render given displacements of a photo, for motion from anywhere (poke, gust, measured).

    Args:
        photo: (3, H, W) in [0, 1].
        displacements: tensors (n, 2, h, w) of any n and resolution, fractions of the image's width and height;
            brought to the photo's grid along its edges (`PhotoGuide`).
        renderer: makes the frames.
        importance: (h, w) mean length of each pixel's displacement over time, in pixels of the photo: what moves more
            is nearer.
        largest: (h, w) largest length over time in pixels of the photo, for the dead zone: what stays below 0.12 is
            held still. Without it, every displacement counts by itself.
        layers: of the photo (`layers_of`), by the volume that all displacements come from: objects are then drawn over
            a plate. The displacements have the size of ``importance``. Without them, the photo is drawn as one.

    Yields:
        (n, 3, H, W) in [0, 1], one tensor for each given; an all-zero displacement gives the photo itself.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ValueError(f"photo must be (3, H, W), got {tuple(photo.shape)}")
    if layers is not None:
        still = torch.ones_like(importance) if largest is None else smoothstep(*DEAD_ZONE, largest.cpu().float())
        for frames in _layered(photo, displacements, renderer, layers, importance, still):
            yield frames.to(photo.dtype)
        return
    batch = photo[None].float()
    guides: dict[torch.Size, PhotoGuide] = {}
    rank = _fitted(importance[None, None].to(batch), batch, guides)
    freedom = None
    if largest is not None:
        freedom = smoothstep(*DEAD_ZONE, _fitted(largest[None, None].to(batch), batch, guides))
    draw = _compiled if photo.device.type == "cpu" and compiled_rendering() else _mapwise
    for frames in draw(batch, _checked(displacements, batch), renderer, rank, freedom, guides):
        yield frames.to(photo.dtype)


def _checked(displacements: Iterable[Tensor], photo: Tensor) -> Iterator[Tensor]:
    for fields in displacements:
        if fields.ndim != 4 or fields.shape[1] != 2:
            raise ValueError(f"displacements must be (n, 2, h, w), got {tuple(fields.shape)}")
        yield fields.to(photo)


def _compiled(
    photo: Tensor,
    displacements: Iterable[Tensor],
    renderer: Renderer,
    rank: Tensor,
    freedom: Tensor | None,
    guides: dict[torch.Size, PhotoGuide],
) -> Iterator[Tensor]:
    """Frames on the CPU, by compiled loops."""
    frames = CpuFrames(renderer, photo[0], rank)
    guided: dict[torch.Size, GuidedFlow] = {}
    with drawing_threads() as executor:
        for fields in displacements:
            coarse = fields.shape[2:]
            drawn = []
            for part in fields.split(frames.group):
                if freedom is not None and _is_coarse(coarse, photo.shape[2:]):
                    if coarse not in guided:
                        guided[coarse] = GuidedFlow(_guide(photo, coarse, guides), freedom)
                    flows = guided[coarse](part, executor)
                else:
                    flows = torch.cat([_flow(field[None], photo, freedom, guides) for field in part])
                drawn.append(frames.render(flows, executor))
            yield torch.cat(drawn)


def _layered(
    photo: Tensor,
    displacements: Iterable[Tensor],
    renderer: Renderer,
    layers: Layers,
    importance: Tensor,
    freedom: Tensor,
) -> Iterator[Tensor]:
    """Frames of a photo in layers, on the CPU."""
    frames = LayerFrames(layers, renderer, importance.cpu().float(), freedom)
    with drawing_threads() as executor:
        for fields in _checked(displacements, photo[None].float()):
            if fields.shape[2:] != importance.shape:
                raise ValueError(f"displacements {tuple(fields.shape)} and importance {tuple(importance.shape)} differ")
            yield torch.cat([frames.render(part, executor) for part in fields.split(frames.base.group)])


def _mapwise(
    photo: Tensor,
    displacements: Iterable[Tensor],
    renderer: Renderer,
    rank: Tensor,
    freedom: Tensor | None,
    guides: dict[torch.Size, PhotoGuide],
) -> Iterator[Tensor]:
    """Frames by torch operations on whole maps: batches on an accelerator, one at a time on the CPU."""
    features = renderer.encode(photo)
    for fields in displacements:
        drawn = []
        for part in fields.split(1 if photo.device.type == "cpu" else len(fields)):
            flow = _flow(part, photo, freedom, guides)
            many = photo.expand(len(part), -1, -1, -1)
            if not bool(flow.any()):
                drawn.append(many)
                continue
            shared = [feature.expand(len(part), -1, -1, -1) for feature in features]
            drawn.append(renderer.render(many, shared, flow, rank.expand(len(part), -1, -1, -1)))
        yield torch.cat(drawn)


def _flow(fields: Tensor, photo: Tensor, freedom: Tensor | None, guides: dict[torch.Size, PhotoGuide]) -> Tensor:
    """Displacements (n, 2, h, w) in fractions -> flow (n, 2, H, W) in pixels, with the dead zone applied."""
    height, width = photo.shape[2:]
    flow = _fitted(fields, photo, guides) * photo.new_tensor([width, height]).view(1, 2, 1, 1)
    if freedom is not None:
        return flow * freedom
    return flow * smoothstep(*DEAD_ZONE, flow.norm(dim=1, keepdim=True))


def motion_range(
    coefficients: Tensor, basis: Tensor, size: tuple[int, int] | torch.Size, samples: int = 48
) -> tuple[Tensor, Tensor]:
    """Mean and largest length of each pixel's displacement over a video.

    Args:
        coefficients: (K, 2, h, w) complex.
        basis: (N, K) the video's time basis; ``samples`` of its frames are looked at.
        size: (height, width) of the video in pixels.

    Returns:
        two maps (h, w) in pixels of the video.
    """
    chosen = torch.linspace(0, len(basis) - 1, min(samples, len(basis))).round().long()
    total = coefficients.real.new_zeros(coefficients.shape[2:])
    largest = torch.zeros_like(total)
    for row in basis[chosen]:
        x, y = evaluate(row[None], coefficients)[0]
        length = torch.hypot(x * size[1], y * size[0])
        total += length
        largest = torch.maximum(largest, length)
    return total / len(chosen), largest


def _fitted(maps: Tensor, photo: Tensor, guides: dict[torch.Size, PhotoGuide]) -> Tensor:
    """Maps (1, C, h, w) on the photo's grid; coarse ones are led by its colours."""
    size, coarse = photo.shape[2:], maps.shape[2:]
    if coarse == size:
        return maps
    if not _is_coarse(coarse, size):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return _guide(photo, coarse, guides)(maps)


def _is_coarse(coarse: torch.Size, size: torch.Size) -> bool:
    """Whether maps are so much smaller than the photo that its colours tell more about edges than they do."""
    return 2 * coarse[0] <= size[0] and 2 * coarse[1] <= size[1] and coarse != size


def _guide(photo: Tensor, coarse: torch.Size, guides: dict[torch.Size, PhotoGuide]) -> PhotoGuide:
    if coarse not in guides:
        guides[coarse] = PhotoGuide(photo, *coarse)
    return guides[coarse]


def _check(photo: Tensor, num_frames: int, fps: float, strength: float, speed: float, chunk: int) -> None:
    if photo.ndim != 3 or photo.shape[0] != 3 or not photo.is_floating_point():
        raise ValueError(f"photo must be floating point (3, H, W) in [0, 1], got {photo.dtype} {tuple(photo.shape)}")
    values = {"num_frames": num_frames, "fps": fps, "strength": strength, "speed": speed, "chunk": chunk}
    for name, value in values.items():
        FRAMES[name].check(name, value)
        if name in ("num_frames", "chunk") and int(value) != value:
            raise ValueError(f"{name} is {value}; it must be a whole number.")
