"""The one way in for pictures: any file a visitor may bring -> a `Photo`, upright sRGB pixels with digest and size.

A photo is read once: one read of the file, one hash, one decoding, all of the same bytes. What travels afterwards is
the value; `Photo.tensor` and `Photo.array` give its pixels at the size that is needed. The same file gives the same
numbers everywhere, because every size is made from the same kept pixels.

What is read: JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP and TIFF, and no other decoder can be reached. Orientation, colour
profiles and PNG's own notes on colour are heeded as browsers do, transparency is laid over white, of an animation the
first frame is taken. What a picture may cost is bounded before it is decoded.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foundation.decoding.colour import SRGB, with_info
from foundation.decoding.errors import DAMAGE, MAX_PIXELS, MIN_SIDE, PictureError, check_size, damaged
from foundation.decoding.files import MAX_BYTES, check_bytes, file_size, read_file
from foundation.decoding.formats import AS_IT_IS, Reading, read_container
from foundation.decoding.pixels import Pixels, decode, fitted, open_image, pixels_of, pixels_of_array, upright
from foundation.decoding.tiff import ORIENTATION

__all__ = [
    "KEPT_SIDE",
    "LARGEST_SIDE",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Photo",
    "PictureError",
    "PictureSource",
    "load_photo",
    "read_photo",
    "to_uint8",
]

PictureSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".gif", ".bmp", ".tif", ".tiff"),
)
KEPT_SIDE = 2048
LARGEST_SIDE = 4096

_REMEMBERED_SIDES = 2
_LARGEST_REMEMBERED = 1024
_SMALL_BYTES = 4_000_000
_SMALL_PIXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as a value. Equal photos have the same digest and the same kept size; they can be keys and be pickled.

    Attributes:
        digest: SHA-256 of the file's bytes, in hexadecimal; of the pixels, for what was no file.
        size: (width, height) of the whole picture in pixels, upright; the kept pixels may be fewer.
        name: of the file, for messages; "the photo" for what was no file.
        kept: (H, W, 3) uint8, or (H, W, 1 or 3) float32 in [0, 1] for what came with more than 8 bits; read-only sRGB.
    """

    digest: str
    size: tuple[int, int]
    name: str
    kept: Pixels = field(repr=False)
    _sides: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def side(self) -> int:
        """The longer side of the kept pixels."""
        return max(self.kept.shape[:2])

    def tensor(self, max_side: int | None = None) -> Tensor:
        """The pixels for a model.

        Args:
            max_side: shrink so that the longer side is at most this; smaller pictures stay as they are. None for all
                that is kept.

        Returns:
            (3, H, W) float32 RGB in [0, 1], the caller's own.

        Raises:
            ValueError: ``max_side`` is under 16.
        """
        _check_side(max_side)
        width, height = fitted((self.kept.shape[1], self.kept.shape[0]), max_side or self.side)
        if max(width, height) == self.side:
            return _as_tensor(self.kept).expand(3, -1, -1).contiguous()
        remembered = self._sides.get(max(width, height))
        if remembered is None:
            whole = _as_tensor(self.kept)[None]
            small = torch.nn.functional.interpolate(
                whole, (height, width), mode="bicubic", antialias=True, align_corners=False
            )
            remembered = small[0].clamp(0, 1)
            self._remember(max(width, height), remembered)
        return remembered.expand(3, -1, -1).clone()

    def array(self, max_side: int | None = None) -> NDArray[np.uint8]:
        """The pixels for showing.

        Args:
            max_side: as for `tensor`.

        Returns:
            (H, W, 3) uint8 RGB; read-only if nothing had to be shrunk or rounded.

        Raises:
            ValueError: ``max_side`` is under 16.
        """
        _check_side(max_side)
        if self.kept.dtype == np.uint8 and (max_side is None or max_side >= self.side):
            return self.kept  # type: ignore[return-value]  # the type checker does not follow the dtype
        return to_uint8(self.tensor(max_side)[None])[0]

    def image(self, max_side: int | None = None) -> Image.Image:
        """The pixels for Pillow: mode RGB, sized as by `array`, which see."""
        return Image.fromarray(self.array(max_side))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Photo) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sides": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.kept.flags.writeable = False

    def _key(self) -> tuple[str, tuple[int, ...]]:
        return self.digest, self.kept.shape

    def _remember(self, side: int, pixels: Tensor) -> None:
        """A page asks for the same few sizes again; large ones are not worth their memory."""
        if side <= _LARGEST_REMEMBERED:
            for oldest in list(self._sides)[: max(0, len(self._sides) + 1 - _REMEMBERED_SIDES)]:
                self._sides.pop(oldest, None)
            self._sides[side] = pixels


def read_photo(
    source: PictureSource, max_side: int = KEPT_SIDE, *, name: str | None = None, follow_links: bool = True
) -> Photo:
    """Read a picture, once.

    Args:
        source: path of a file, the bytes of one, a Pillow image, an array (H, W), (H, W, 3) or (H, W, 4) of uint8,
            uint16 or floats in [0, 1], or a tensor (3, H, W) of floats in [0, 1].
        max_side: longer side of the pixels that are kept, 16 to 4096. Who wants the same numbers as everybody else
            leaves it alone and asks the photo for smaller pixels.
        name: what messages call it; the file's own name by default.
        follow_links: whether a path may be a symbolic link. Whatever the link leads to must be a regular file.

    Returns:
        the photo.

    Raises:
        PictureError: a ValueError that names what is wrong, the limit and the remedy: no regular file, over 100 MB, no
            picture of a known format, damaged, a side under 16 pixels, longer than 4:1, or more pixels than its format
            is decoded with: 100 megapixels, 25 for WebP, 32 for AVIF, 50 for HEIC and progressive JPEG without
            subsampling, 57 for TIFF of 3 x 8 bits, half as many for PNG of 4 x 16 bits.
        ValueError: ``max_side`` is out of range.
    """
    if not MIN_SIDE <= max_side <= LARGEST_SIDE:
        raise ValueError(f"max_side is {max_side}; it must be from {MIN_SIDE} to {LARGEST_SIDE}")
    if isinstance(source, Image.Image):
        return _from_pillow(source, max_side, name or "the photo")
    if isinstance(source, Tensor):
        return _from_array(_tensor_to_array(source), max_side, name or "the photo")
    if isinstance(source, np.ndarray):
        return _from_array(source, max_side, name or "the photo")
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        check_bytes(name or "the photo", len(data))
        with _Turn(len(data)) as turn:
            return _from_bytes(data, max_side, name or "the photo", turn)
    if not isinstance(source, str | os.PathLike) or str(source) == "":
        raise PictureError("no photo: give a picture file, for example a JPEG or PNG")
    path = Path(source)
    with _Turn(file_size(path, follow_links)) as turn:
        return _from_bytes(read_file(path, follow_links), max_side, name or path.name, turn)


def load_photo(source: PictureSource | Photo, max_side: int | None = None) -> Tensor:
    """Read a picture for a model, when nothing else about it is needed.

    Args:
        source: as for `read_photo`, or a photo that was read already.
        max_side: shrink so that the longer side is at most this; smaller photos stay as they are. None for as large as
            it is, up to 4096 pixels.

    Returns:
        (3, H, W) float32 RGB in [0, 1]; the numbers that ``read_photo(source).tensor(max_side)`` gives.

    Raises:
        ValueError: as `read_photo`, and for ``max_side`` under 16.
    """
    _check_side(max_side)
    if isinstance(source, Photo):
        return source.tensor(max_side)
    if max_side is not None and max_side <= KEPT_SIDE:
        return read_photo(source).tensor(max_side)
    return read_photo(source, LARGEST_SIDE).tensor(max_side)


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8, clamped and rounded to nearest.

    Raises:
        ValueError: for another shape.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; they must be (N, 3, H, W)")
    scaled = frames.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _check_side(max_side: int | None) -> None:
    if max_side is not None and max_side < MIN_SIDE:
        raise ValueError(f"max_side is {max_side}; it must be at least {MIN_SIDE}")


def _as_tensor(kept: Pixels) -> Tensor:
    values = np.ascontiguousarray(kept.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(values / np.float32(255) if kept.dtype == np.uint8 else np.array(values))


class _Gates:
    """How many pictures are decoded at once in this process: two large ones and eight small ones.

    Two large ones may take 600 MB each, however many wait; small ones need not wait for them.
    """

    def __init__(self) -> None:
        self.large = threading.BoundedSemaphore(2)
        self.small = threading.BoundedSemaphore(8)


_gates = _Gates()


def _fresh_gates() -> None:
    """A forked process has none of the threads that hold a place."""
    global _gates
    _gates = _Gates()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_gates)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """The C library's way of returning memory to the system, where there is one (glibc)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def _give_memory_back() -> None:
    """What a large picture took would otherwise stay with the thread that decoded it: half as much again, measured."""
    trim = _trim()
    if trim is not None:
        trim(0)


class _Turn:
    """One picture's place at the gates, by the size of its file in bytes, and as soon as it is known by its pixels."""

    def __init__(self, size: int) -> None:
        self._gates = _gates
        self._gate = self._gates.large if size > _SMALL_BYTES else self._gates.small

    def __enter__(self) -> _Turn:
        self._gate.acquire()
        return self

    def wait_if_large(self, pixels: int) -> None:
        """Go over to the large ones if there are many pixels; never while holding two places."""
        if pixels > _SMALL_PIXELS and self._gate is self._gates.small:
            self._gate.release()
            self._gate = self._gates.large
            self._gate.acquire()

    def __exit__(self, *error: object) -> None:
        if self._gate is self._gates.large:
            _give_memory_back()
        self._gate.release()


def _from_bytes(data: bytes, side: int, name: str, turn: _Turn) -> Photo:
    container = read_container(data, name)
    with open_image(container, name) as image:
        digest = hashlib.sha256(data).hexdigest()
        del data  # from here on only the decoder holds the file, and lets it go when it has done
        container = replace(container, data=b"")
        turn.wait_if_large(image.width * image.height)
        kept, size = decode(image, container, side, name)
    return Photo(digest, size, name, kept)


def _from_pillow(image: Image.Image, side: int, name: str) -> Photo:
    check_size(name, *image.size)
    with _Turn(0) as turn:
        turn.wait_if_large(image.width * image.height)
        try:
            if image.tell() != 0:
                image.seek(0)
            image.load()
            reading = Reading(with_info(SRGB, image.info), image.getexif().get(ORIENTATION, 1))
            kept = pixels_of(image, fitted(image.size, side), reading, name)
        except PictureError:
            raise
        except DAMAGE as error:
            raise damaged(name, error) from error
    return Photo(_digest(kept), upright(image.size, reading.orientation), name, kept)


def _from_array(array: NDArray[Any], side: int, name: str) -> Photo:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise PictureError(f"{name} array has shape {array.shape}; it must be (H, W), (H, W, 3) or (H, W, 4)")
    height, width, channels = array.shape
    check_size(name, width, height)
    target = fitted((width, height), side)
    if array.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
        kept = pixels_of(image, target, AS_IT_IS, name)
    elif array.dtype == np.uint16:
        kept = pixels_of_array(array / np.float32(65535), target)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise PictureError(f"{name} array holds values that are not finite; floats must be in [0, 1]")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise PictureError(
                f"{name} array holds floats from {low:g} to {high:g}, outside [0, 1]; floats must be in [0, 1]: divide "
                "8-bit values by 255 first"
            )
        kept = pixels_of_array(array, target)
    else:
        raise PictureError(f"{name} array is {array.dtype}; it must be uint8, uint16 or floats in [0, 1]")
    return Photo(_digest(kept), (width, height), name, kept)


def _tensor_to_array(tensor: Tensor) -> NDArray[Any]:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point():
        raise PictureError(
            f"an image tensor is {tuple(tensor.shape)} {tensor.dtype}; it must be (3, H, W) floats in [0, 1]"
        )
    return tensor.detach().float().cpu().permute(1, 2, 0).numpy()


def _digest(kept: Pixels) -> str:
    """Of what was no file."""
    return hashlib.sha256(f"{kept.dtype} {kept.shape} ".encode() + kept.tobytes()).hexdigest()
