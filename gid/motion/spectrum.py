"""The spectral volume: per-pixel Fourier coefficients of motion (paper, section 4.1).

A trajectory F_t(p) is the displacement of the photo's pixel p at frame t, measured from frame 0. Its temporal Fourier
transform, cut after K terms, is the *spectral volume*: K complex maps for x and K for y. Displacements are fractions of
the image's width (x) and height (y), so a volume does not depend on the resolution it is rendered at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from foundation.files import is_safetensors, write_bytes
from gid.motion.motion_file import MOTION_FORMAT, read_motion_file


@dataclass(frozen=True)
class SpectralVolume:
    """Fourier coefficients of the motion of every pixel of one photo.

    Attributes:
        coefficients: complex64 (K, 2, H, W); ``[:, 0]`` is x as a fraction of the image's width, ``[:, 1]`` is y as a
            fraction of its height. ``torch.fft.rfft(F, dim=0, norm="forward")[:K]`` of trajectories F (T, 2, H, W).
        fps: frames a second of the trajectories; bin k lies at ``k * fps / num_frames`` Hz.
        num_frames: T, the length of the trajectories and the period of the motion, in frames.
        image_size: (width, height) in pixels of the photo it was made for, if known.
        model: the weights that predicted it, or how it was measured.
        seed: the seed it was sampled with, if any.

    Raises:
        ValueError: for a wrong shape or type, more bands than T has, or coefficients that are not finite.
    """

    coefficients: Tensor
    fps: float = 30.0
    num_frames: int = 150
    image_size: tuple[int, int] | None = None
    model: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.coefficients.shape)
        if len(shape) != 4 or shape[1] != 2 or 0 in shape:
            raise ValueError(f"coefficients have shape {shape}; a spectral volume is (K, 2, H, W)")
        if not self.coefficients.is_complex():
            raise ValueError(f"coefficients are {self.coefficients.dtype}; a spectral volume is complex")
        if not math.isfinite(self.fps) or self.fps <= 0:
            raise ValueError(f"fps is {self.fps}; it must be a positive number")
        if self.num_frames < 2 or shape[0] > self.num_frames // 2 + 1:
            raise ValueError(
                f"{shape[0]} bands do not fit {self.num_frames} frames, which hold {self.num_frames // 2 + 1}"
            )
        if not bool(torch.isfinite(torch.view_as_real(self.coefficients)).all()):
            raise ValueError("coefficients hold NaN or infinity; measure or sample the motion again")

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Tensor,
        num_bands: int = 16,
        fps: float = 30.0,
        image_size: tuple[int, int] | None = None,
        model: str = "",
        seed: int | None = None,
    ) -> SpectralVolume:
        """Transform trajectories (T, 2, H, W), fractions of width and height, into their first ``num_bands`` bins.

        Raises:
            ValueError: if the shape is another, or T frames hold fewer than ``num_bands`` independent bins.
        """
        if trajectories.ndim != 4 or trajectories.shape[1] != 2:
            raise ValueError(f"trajectories have shape {tuple(trajectories.shape)}; they must be (T, 2, H, W)")
        frames = trajectories.shape[0]
        if not 1 <= num_bands <= frames // 2 + 1:
            raise ValueError(f"{num_bands} bands asked for; {frames} frames hold 1 to {frames // 2 + 1}")
        coefficients = torch.fft.rfft(trajectories.float(), dim=0, norm="forward")[:num_bands]
        return cls(coefficients, fps, frames, image_size, model, seed)

    @classmethod
    def from_real(cls, coefficients: Tensor, **fields: Any) -> SpectralVolume:
        """Make a volume from real channels (K, 4, H, W) in the order x_re, x_im, y_re, y_im."""
        if coefficients.ndim != 4 or coefficients.shape[1] != 4:
            raise ValueError(f"real coefficients have shape {tuple(coefficients.shape)}; they must be (K, 4, H, W)")
        pairs = coefficients.float().unflatten(1, (2, 2)).movedim(2, -1).contiguous()
        return cls(torch.view_as_complex(pairs), **fields)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def num_bands(self) -> int:
        """K, the number of frequency bands, the constant one included."""
        return self.coefficients.shape[0]

    @property
    def frequencies(self) -> Tensor:
        """(K,) frequency of every band in Hz."""
        return torch.arange(self.num_bands, dtype=torch.float32) * (self.fps / self.num_frames)

    @property
    def real(self) -> Tensor:
        """(K, 4, H, W) float32 in the order x_re, x_im, y_re, y_im."""
        return torch.view_as_real(self.coefficients).movedim(-1, 2).flatten(1, 2)

    def displacement(self, times: Tensor, pin_first: bool = True) -> Tensor:
        """Displacement at any moments, by the inverse transform evaluated only there.

        Args:
            times: (N,) in frames, fractions allowed (slow motion); the motion repeats after ``num_frames``.
            pin_first: subtract the displacement at time 0, so that frame 0 is the photo itself. Truncation to K terms
                leaves a remainder there.

        Returns:
            (N, 2, H, W) float32, fractions of image width (x) and height (y).
        """
        device = self.coefficients.device
        times = times.to(device=device, dtype=torch.float64)
        bands = torch.arange(self.num_bands, device=device, dtype=torch.float64)
        angle = (2 * math.pi / self.num_frames) * (times[:, None] * bands[None, :])
        # Every bin but 0 (and the Nyquist bin) stands for itself and its conjugate, hence twice.
        weight = torch.full_like(bands, 2.0)
        weight[0] = 1.0
        if 2 * (self.num_bands - 1) == self.num_frames:
            weight[-1] = 1.0
        real, imag = torch.cos(angle) * weight, -torch.sin(angle) * weight
        if pin_first:
            real = real - weight
        basis = torch.cat([real, imag], dim=1).float()
        parts = torch.cat([self.coefficients.real, self.coefficients.imag], dim=0)
        return (basis @ parts.flatten(1)).unflatten(1, self.coefficients.shape[1:])

    def trajectories(self, num_frames: int | None = None, pin_first: bool = True) -> Tensor:
        """Trajectories of one period in ``num_frames`` frames (N, 2, H, W); more than T gives slow motion."""
        count = self.num_frames if num_frames is None else num_frames
        if count < 1:
            raise ValueError(f"{count} frames asked for; at least 1 is needed")
        times = torch.arange(count, dtype=torch.float64) * (self.num_frames / count)
        return self.displacement(times, pin_first)

    def motion_energy(self) -> Tensor:
        """(H, W) root mean square over time of the displacement about its mean, in fractions of width and height.

        By Parseval, sqrt(sum over k >= 1 of 2 (|S_x|^2 + |S_y|^2)); it does not depend on which frame is the first.
        """
        power = self.coefficients[1:].abs().square().sum(dim=(0, 1))
        return (2 * power).sqrt()

    def band_amplitudes(self) -> Tensor:
        """(K,) mean over the picture of the coefficients' magnitude, sqrt(|S_x|^2 + |S_y|^2), in every band."""
        return self.coefficients.abs().square().sum(dim=1).sqrt().mean(dim=(1, 2))

    # -- changing -------------------------------------------------------------------------------------------------

    def with_coefficients(self, coefficients: Tensor, image_size: tuple[int, int] | None = None) -> SpectralVolume:
        """The same motion file fields around other coefficients."""
        return replace(self, coefficients=coefficients, image_size=image_size or self.image_size)

    def to(self, device: torch.device | str) -> SpectralVolume:
        """The volume on another device."""
        return self.with_coefficients(self.coefficients.to(device))

    def magnify(self, factor: float) -> SpectralVolume:
        """Scale the motion by ``factor`` (paper, section 6)."""
        if not math.isfinite(factor):
            raise ValueError(f"magnification is {factor}; it must be a finite number")
        return self.with_coefficients(self.coefficients * factor)

    def shift(self, frames: float) -> SpectralVolume:
        """Start the periodic motion ``frames`` later: S_k -> S_k exp(i 2 pi k frames / T)."""
        bands = torch.arange(self.num_bands, device=self.coefficients.device, dtype=torch.float64)
        angle = bands * (2 * math.pi * frames / self.num_frames)
        phase = torch.polar(torch.ones_like(angle), angle).to(self.coefficients.dtype)
        return self.with_coefficients(self.coefficients * phase[:, None, None, None])

    def resize(self, height: int, width: int) -> SpectralVolume:
        """Resample the maps to (height, width); values are fractions of the image, so they stay as they are."""
        if height < 1 or width < 1:
            raise ValueError(f"size {width}x{height} asked for; both sides must be at least 1")
        return SpectralVolume.from_real(_resample(self.real, height, width), **self._fields())

    def flip_horizontal(self) -> SpectralVolume:
        """Mirror left and right; x displacements change sign."""
        sign = torch.tensor([-1.0, 1.0], device=self.coefficients.device)[None, :, None, None]
        return self.with_coefficients(self.coefficients.flip(-1) * sign)

    def crop(self, top: int, left: int, height: int, width: int) -> SpectralVolume:
        """Cut a window of the maps, in cells; displacements become fractions of the window.

        Raises:
            ValueError: if the window leaves the maps.
        """
        rows, columns = self.coefficients.shape[-2:]
        if min(top, left) < 0 or min(height, width) < 1 or top + height > rows or left + width > columns:
            raise ValueError(f"window {width}x{height} at ({left}, {top}) leaves the maps of {columns}x{rows}")
        window = self.coefficients[..., top : top + height, left : left + width]
        ratio = torch.tensor([columns / width, rows / height], device=window.device)[None, :, None, None]
        size = None
        if self.image_size is not None:
            size = (round(self.image_size[0] * width / columns), round(self.image_size[1] * height / rows))
        return self.with_coefficients(window * ratio, size)

    def _fields(self) -> dict[str, Any]:
        return {
            "fps": self.fps,
            "num_frames": self.num_frames,
            "image_size": self.image_size,
            "model": self.model,
            "seed": self.seed,
        }

    # -- motion file ----------------------------------------------------------------------------------------------

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a motion file (``gid-motion/1``); written beside and renamed, so no half file is ever left or read.

        Raises:
            ValueError: if the suffix is not ``.safetensors``, ``dtype`` is neither float32 nor float16, or the file
                cannot be written.
        """
        path = Path(path)
        if not is_safetensors(path):
            raise ValueError(f"motion file {path.name} must end in .safetensors")
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(f"dtype {dtype} is not stored; use float32 or float16")
        width, height = self.image_size or (0, 0)
        metadata = {
            "format": MOTION_FORMAT,
            "fps": repr(float(self.fps)),
            "num_frames": str(self.num_frames),
            "image_width": str(width),
            "image_height": str(height),
            "model": self.model,
            "seed": "" if self.seed is None else str(self.seed),
        }
        write_bytes(path, save({"coefficients": self.real.to("cpu", dtype).contiguous()}, metadata))

    @classmethod
    def load(cls, path: str | Path) -> SpectralVolume:
        """Read a motion file.

        Raises:
            ValueError: if there is no such file, it is not a motion file, is cut short or holds impossible numbers; at
                once, whatever size it claims.
        """
        coefficients, fields = read_motion_file(path)
        try:
            return cls.from_real(coefficients, **fields)
        except ValueError as error:
            raise ValueError(f"{Path(path).name} is not usable: {error}") from error

    def check_photo(self, width: int, height: int, tolerance: float = 0.02) -> None:
        """Raise ValueError unless a photo of this size has the aspect ratio the motion was made for."""
        if self.image_size is None:
            return
        made_for = self.image_size[0] / self.image_size[1]
        given = width / height
        if abs(math.log(given / made_for)) > tolerance:
            raise ValueError(
                f"the motion was made for a photo of {self.image_size[0]}x{self.image_size[1]}, this one is "
                f"{width}x{height}; use the same photo, or one cropped to the same shape"
            )


def _resample(maps: Tensor, height: int, width: int) -> Tensor:
    """Resample (N, C, H, W): area averages when shrinking, bilinear when growing."""
    shrinks = height < maps.shape[-2] and width < maps.shape[-1]
    if shrinks:
        return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
