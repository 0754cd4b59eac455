"""Frames to and from files: mp4, webm, gif and PNG sequences, written beside the target and renamed when whole."""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from foundation.files import UnwritableError, replacing, replacing_files

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

# Constant-quality settings: visually lossless at 512 pixels, and quick enough that rendering dominates.
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}),
}
_UNTAGGED = 2  # FFmpeg's number (ITU-T H.273) for a matrix that the file does not state
_BT709 = 1  # its number for that standard's matrix, primaries and transfer
_HD_ROWS = 720  # from here up a player takes an untagged clip for BT.709, below for BT.601
_FRAMES_AHEAD = 16  # that may wait for the encoder
SUFFIXES = (".mp4", ".webm", ".gif", ".png")
_GIF_COLOURS = 256


def read_video(
    path: str | Path, max_frames: int | None = None, size: tuple[int, int] | None = None
) -> tuple[Frames, float]:
    """Decode a video (or an animated gif) into memory.

    Args:
        path: the file.
        max_frames: stop after this many frames.
        size: (width, height) to resize each frame to while decoding (area mean when shrinking).

    Returns:
        Frames (T, H, W, 3) uint8 RGB, turned upright by the rotation the file states, and the frame rate in Hz. Colours
        are those that a browser shows: by the matrix and range of the file's tags, else limited range, BT.709 from 720
        coded rows up and BT.601 below.

    Raises:
        ValueError: the file is missing, is not a video, or ends before its first frame.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no video at {path}: give the path of an existing mp4, webm, mov or gif file")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}; it must be at least 1")
    frames: list[Frames] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no picture stream: give a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            fps = float(stream.average_rate or stream.guessed_rate or 30)
            for frame in container.decode(stream):
                frames.append(_upright(frame, size))
                if len(frames) == max_frames:
                    break
    except av.error.FFmpegError as error:
        # A file cut short still gives the frames before the cut; with none of them there is nothing to work on.
        if not frames:
            raise ValueError(
                f"{path} cannot be read as a video ({error.strerror or error}): it is damaged or of another type; "
                "convert it to mp4 and try again"
            ) from error
        logger.warning("%s is damaged after frame %d; the rest is left out", path, len(frames))
    if not frames:
        raise ValueError(f"{path} contains no frames: it is damaged or empty; convert it to mp4 and try again")
    return np.stack(frames), fps


def _upright(frame: av.VideoFrame, size: tuple[int, int] | None) -> Frames:
    matrix = None
    if frame.colorspace == _UNTAGGED and not frame.format.is_rgb:
        matrix = Colorspace.ITU709 if frame.height >= _HD_ROWS else Colorspace.ITU601
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=matrix).astype(np.uint8, copy=False)
    image: Frames = np.rot90(pixels, k=round(frame.rotation / 90) % 4)
    if size is not None and (image.shape[1], image.shape[0]) != size:
        shrinking = size[0] * size[1] < image.shape[0] * image.shape[1]
        method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    return np.ascontiguousarray(image, dtype=np.uint8)


def write_video(path: str | Path, frames: Iterable[Frames], fps: float = 30.0) -> Path:
    """Write frames as they come; only one chunk is held in memory (a gif keeps its palette images).

    The kind follows the suffix: `.mp4` (H.264, yuv420p), `.webm` (VP9), `.gif`, `.png` (`walk.png` becomes
    walk_0000.png, walk_0001.png, ...); a path without suffix is a folder of frame_0000.png, ... Both video codecs need
    even sizes, so an odd side grows by one repeated line. Their colours are BT.709 in limited range at every size, and
    tagged so: without tags players guess by the number of rows. Everything is written beside the target and renamed at
    the end: after a failure neither a half-written file nor a lost older one is left.

    Args:
        path: target file, or folder for a PNG sequence.
        frames: chunks (N, H, W, 3) uint8 RGB, N >= 1, all of one size.
        fps: frames a second, above 0 and at most 240 (a gif counts in 1/100 s; it shows at most 50).

    Returns:
        The path written (for PNG, the folder that holds the sequence).

    Raises:
        ValueError: unknown suffix, a folder that is named like a file, missing folder, no frames, frames of another
            shape or type, fps out of range, or the disk is full or read-only.
    """
    path = Path(path)
    if path.is_dir() and path.suffix.lower() in SUFFIXES:
        raise ValueError(f"cannot write {path}: it is a folder; name a file, or a folder without {path.suffix}")
    suffix = path.suffix.lower() if not path.is_dir() else ""
    if suffix and suffix not in SUFFIXES:
        raise ValueError(f"cannot write {path.name}: suffix {suffix!r} is not one of {', '.join(SUFFIXES)}")
    if not 0 < fps <= 240:
        raise ValueError(f"fps is {fps}; it must be above 0 and at most 240")
    images = _checked(frames)
    first = next(images, None)
    if first is None:
        raise ValueError("no frames to write: ask for at least one frame")
    images = itertools.chain([first], images)
    if suffix in ("", ".png"):
        return _write_sequence(path, images, sequence_name=path.stem if suffix else "frame")
    with replacing(path) as partial:
        if suffix == ".gif":
            _write_gif(partial, images, fps)
        else:
            _write_encoded(partial, images, fps, first.shape[1], first.shape[0], *_CODECS[suffix])
    return path


def _checked(chunks: Iterable[Frames]) -> Iterator[Frames]:
    """Yield single frames (H, W, 3), refusing anything that is not uint8 RGB of one size."""
    shape: tuple[int, ...] | None = None
    for chunk in chunks:
        if chunk.dtype != np.uint8 or chunk.ndim != 4 or chunk.shape[-1] != 3 or 0 in chunk.shape[1:3]:
            raise ValueError(f"frames are {chunk.dtype} {chunk.shape}; they must be uint8 of shape (N, H, W, 3)")
        if shape is not None and chunk.shape[1:] != shape:
            raise ValueError(f"a frame of {chunk.shape[1:]} follows frames of {shape}; all must have one size")
        shape = chunk.shape[1:]
        yield from chunk


def _write_encoded(
    path: Path, images: Iterable[Frames], fps: float, width: int, height: int, codec: str, options: dict[str, str]
) -> None:
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    container_options = {"movflags": "+faststart"} if path.suffix.lower() == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        if not isinstance(stream, av.VideoStream):
            raise ValueError(f"{codec} is not a video codec of the installed av; reinstall it with pip install av")
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        tags = stream.codec_context
        tags.colorspace = tags.color_primaries = tags.color_trc = _BT709
        tags.color_range = ColorRange.MPEG

        def encode(image: Frames) -> None:
            padded = np.pad(image, pad, mode="edge") if width % 2 or height % 2 else image
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            # The encoder's own conversion would be BT.601, whatever the stream's tags say.
            frame = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(frame))

        # One thread encodes while the caller's makes the next frames; it is waited for before the container closes.
        pending: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="encode") as encoder:
            for image in images:
                pending.append(encoder.submit(encode, image))
                if len(pending) > _FRAMES_AHEAD:
                    pending.popleft().result()
            for job in pending:
                job.result()
        container.mux(stream.encode(None))


def _write_gif(path: Path, images: Iterable[Frames], fps: float) -> None:
    iterator = iter(images)
    first = Image.fromarray(next(iterator))
    # One palette and no dithering: pixels that do not move must not shimmer from frame to frame.
    palette = first.quantize(_GIF_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    delay = max(100 / fps, 2.0)  # browsers slow anything below 1/50 s down to 1/10 s

    def paletted() -> Iterator[Image.Image]:
        for index, image in enumerate(itertools.chain([np.asarray(first)], iterator)):
            frame = Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
            # Whole hundredths whose running sum keeps the rate: 30 fps is 3, 3, 4, 3, 3, 4 ...
            frame.info["duration"] = 10 * (round((index + 1) * delay) - round(index * delay))
            yield frame

    rest = paletted()
    next(rest).save(path, format="GIF", save_all=True, append_images=rest, loop=0, disposal=1)


def _write_sequence(path: Path, images: Iterable[Frames], sequence_name: str) -> Path:
    numbered = path.suffix.lower() == ".png" and not path.is_dir()
    folder = path.parent if numbered else path

    def earlier() -> set[str]:
        """The frames of an earlier sequence of this name, which counts on without a gap."""
        names = (frame_name(sequence_name, index) for index in itertools.count())
        return set(itertools.takewhile(lambda name: os.path.lexists(folder / name), names))

    if numbered and not folder.is_dir():
        raise UnwritableError(path, f"the folder {folder} does not exist; create it or choose another one")
    with replacing_files(folder, earlier) as partial:
        for index, image in enumerate(images):
            Image.fromarray(image).save(partial / frame_name(sequence_name, index))
    return folder


def frame_name(sequence_name: str, index: int) -> str:
    """What a frame of a PNG sequence is called."""
    return f"{sequence_name}_{index:04d}.png"
