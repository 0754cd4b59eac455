"""What a file says about its colours, and their conversion to sRGB as browsers do it."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

Values = NDArray[np.floating[Any]]

_SRGB_CORNERS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ROWS = 256  # lines that are floating point at once
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # by the colour space that a profile is for

# ITU-T H.273: white, red, green, blue as x, y.
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: _SRGB_CORNERS,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# Exponents of screens; the curves of television are shown as one of 2.4.
_EXPONENTS = {1: 2.4, 4: 2.2, 5: 2.8, 6: 2.4, 8: 1.0, 14: 2.4, 15: 2.4}
# Chromium's way from a high dynamic range to a common screen, as measured there: light over 203 nits, share of white.
_BRIGHT = (0.0, 1.0747, 1.2947, 1.5576, 1.8715, 2.2465, 2.6943, 3.229, 3.8678, 4.98)
_SHOWN = (0.0, 0.5333, 0.6038, 0.6654, 0.7231, 0.7835, 0.8308, 0.8879, 0.9387, 1.0)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Colours:
    """What a file says; nothing means sRGB.

    Attributes:
        icc: an ICC profile.
        codes: primaries and transfer by the numbers of ITU-T H.273 (PNG cICP, nclx of AVIF and HEIC).
        codes_first: the codes win over a profile (PNG); else the profile wins.
        srgb: it is said to be sRGB, which wins over gamma and chromaticities.
        gamma: exponent by which light became numbers (PNG gAMA; 0.45455 for common screens).
        chromaticities: white, red, green, blue as x, y (PNG cHRM); heeded beside a gamma only, as browsers do.
    """

    icc: bytes | None = None
    codes: tuple[int, int] | None = None
    codes_first: bool = False
    srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None


SRGB = Colours()


@dataclass(frozen=True)
class _Space:
    """Numbers in [0, 1] -> light -> light of the corners of sRGB."""

    to_light: Callable[[Values], Values]
    corners: tuple[float, ...]
    bright: bool = False  # light goes beyond the white of a common screen


def with_info(colours: Colours, info: dict[Any, Any]) -> Colours:
    """Add what Pillow found in a file (``image.info``), where the colours do not know better."""
    corners = info.get("chromaticity")
    profile = info.get("icc_profile")
    return replace(
        colours,
        icc=colours.icc or (profile if isinstance(profile, bytes) else None),
        srgb=colours.srgb or "srgb" in info,
        gamma=colours.gamma or info.get("gamma"),
        chromaticities=colours.chromaticities or (tuple(corners) if corners and len(corners) == 8 else None),
    )


def to_srgb(image: Image.Image, colours: Colours, name: str) -> Image.Image:
    """Convert a picture to sRGB.

    Args:
        image: of mode L, RGB, RGBA, CMYK or LAB.
        colours: what its file says; what cannot be used is left out with a line in the log.
        name: what the log calls it.

    Returns:
        mode RGB, or RGBA if it was.
    """
    if image.mode == "RGBA":
        converted = to_srgb(image.convert("RGB"), colours, name)
        converted.putalpha(image.getchannel("A"))
        return converted
    if needs_profile(colours):
        by_profile = _by_profile(image, colours.icc or b"", name)
        if by_profile is not None:
            return by_profile
    if image.mode == "LAB":
        return _lab_to_srgb(image)
    space = _space(colours)
    plain = image.convert("RGB")
    return plain if space is None else _by_space(plain, space, name)


def grey_to_srgb(grey: NDArray[np.float32], colours: Colours) -> NDArray[np.float32]:
    """Convert grey of more than 8 bits, any shape, in [0, 1], if no profile is needed for it."""
    space = _space(colours)
    if space is None:
        return grey
    light = _dimmed(space.to_light(grey.astype(np.float64))) if space.bright else space.to_light(grey)
    return _encoded(np.clip(light, 0, 1)).astype(np.float32)


def needs_profile(colours: Colours) -> bool:
    """Whether it is an embedded profile that decides."""
    return colours.icc is not None and not (colours.codes_first and _known(colours.codes))


def _known(codes: tuple[int, int] | None) -> bool:
    return codes is not None and codes[0] in _PRIMARIES and codes[1] in {*_EXPONENTS, *_CURVES}


def _space(colours: Colours) -> _Space | None:
    """What decides where no profile does; None for sRGB."""
    if colours.codes is not None and _known(colours.codes) and not needs_profile(colours):
        primaries, transfer = colours.codes
        if (primaries, transfer) == (1, 13):
            return None
        exponent = _EXPONENTS.get(transfer)
        curve = _CURVES[transfer] if exponent is None else functools.partial(_power, exponent)
        return _Space(curve, _PRIMARIES[primaries], transfer in (16, 18))
    if needs_profile(colours) or colours.srgb or not colours.gamma:
        return None
    if colours.chromaticities is None and abs(colours.gamma * 2.2 - 1) <= 0.05:
        return None  # near enough to what everybody means by it
    return _Space(functools.partial(_power, 1 / colours.gamma), colours.chromaticities or _SRGB_CORNERS)


def _by_profile(image: Image.Image, profile: bytes, name: str) -> Image.Image | None:
    """Converted by its profile; None, with a line in the log, if the profile cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip())
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode != image.mode:
            raise ValueError(f"it is for {source.profile.xcolor_space.strip()}, not for {image.mode}")
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError) as error:
        # A broken profile only costs exact colours.
        logger.warning("the colour profile of %s is unusable (%s); it is left out", name, error)
        return None


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("its Lab colours cannot be converted")
    return converted


def _by_space(image: Image.Image, space: _Space, name: str) -> Image.Image:
    try:
        matrix = _matrix(space.corners)
    except (np.linalg.LinAlgError, ZeroDivisionError, FloatingPointError):
        logger.warning("the chromaticities of %s make no sense; they are left out", name)
        matrix = np.eye(3)
    light_of = space.to_light(np.arange(256) / 255).astype(np.float32)
    byte_of = _bytes_of_light()
    pixels = np.array(image)
    for top in range(0, len(pixels), _ROWS):
        rows = slice(top, top + _ROWS)
        light = light_of[pixels[rows]] @ matrix.T.astype(np.float32)
        if space.bright:
            light = _dimmed(light)
        pixels[rows] = byte_of[(np.clip(light, 0, 1) * 65535 + 0.5).astype(np.uint16)]
    return Image.fromarray(pixels)


def _dimmed(light: Values) -> Values:
    """Bright light fitted into a common screen, hues kept. The last axis of pictures in colour is theirs."""
    top = light.max(-1, keepdims=True) if light.ndim == 3 else light
    top = np.maximum(top, 1e-6)
    return light * (np.interp(top, _BRIGHT, _SHOWN).astype(light.dtype) / top)


def _matrix(corners: tuple[float, ...]) -> NDArray[np.float64]:
    """(3, 3): light of these corners -> light of sRGB's, white to white."""
    ours, white = _to_xyz(_SRGB_CORNERS)
    theirs, their_white = _to_xyz(corners)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ white) / (_BRADFORD @ their_white)) @ _BRADFORD
    matrix = np.linalg.inv(ours) @ adapt @ theirs
    if not np.isfinite(matrix).all():
        raise FloatingPointError
    return matrix


def _to_xyz(corners: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light of red, green, blue -> XYZ as (3, 3), and the XYZ of white."""
    white, *primaries = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(corners[::2], corners[1::2], strict=True)
    )
    columns = np.stack(primaries, 1)
    return columns * np.linalg.solve(columns, white), white


def _power(exponent: float, values: Values) -> Values:
    return values**exponent


def _srgb_light(values: Values) -> Values:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _smpte240_light(values: Values) -> Values:
    return np.where(values < 0.0912, values / 4, ((values + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq_light(values: Values) -> Values:
    """SMPTE ST 2084, 1 at 203 nits."""
    root = values ** (1 / 78.84375)
    return 10000 / 203 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _hlg_light(values: Values) -> Values:
    """ITU-R BT.2100 hybrid log-gamma on a screen of 1000 nits, 1 at 203 nits."""
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return 1000 / 203 * scene**1.2


_CURVES: dict[int, Callable[[Values], Values]] = {
    7: _smpte240_light,
    13: _srgb_light,
    16: _pq_light,
    18: _hlg_light,
}


def _encoded(light: Values) -> Values:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


@functools.cache
def _bytes_of_light() -> NDArray[np.uint8]:
    """(65536,): the byte that shows a light of 0 to 1; finer than a twentieth of a level."""
    table: NDArray[np.uint8] = np.rint(_encoded(np.arange(65536) / 65535) * 255).astype(np.uint8)
    return table
