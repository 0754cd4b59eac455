"""Take it home: a photo and its motion as one HTML page that answers pokes anywhere, without a server or a network.

The motion is stored as integers. `encode_motion` is also what the live canvas of the app reads, at 16 bits.
Layout, little-endian: the 8 bytes `GIDPOKE1`, the length of the header as uint32, the header as JSON (format, width,
height, bits, frequencies in Hz, scales, aspect, tempo, fps, frames, error), padded with spaces to a multiple of four
bytes, then integers [mode][row][column][x_re, x_im, y_re, y_im]; a value is integer * scale / (2^(bits-1) - 1).
Where objects move over a plate (`gid.rendering.layers`), the header's `layers` counts what follows (`encode_canvas`).
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gid.motion.coherence import smooth_for_dragging
from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import Complex, ModalModel
from gid.poking.parts import find_parts
from gid.rendering.layers import Layers, object_mesh, take_apart
from gid.rendering.segments import Segments, nearest_cells

MAGIC = b"GIDPOKE1"
CANVAS_SIDE = 160
LAYERS_SIDE = 512
CANVAS_CELLS = 112
MODULES = ("oscillator", "modes", "gusts", "dynamics", "layers", "motion", "renderer", "gestures", "controls", "canvas")
"""The canvas's modules, each after what it imports."""
SHADERS = ("accumulate.vert", "accumulate.frag", "warp.vert", "warp.frag")


def encode_motion(
    volume: SpectralVolume, bits: int = 8, max_side: int = CANVAS_SIDE, more: dict[str, Any] | None = None
) -> bytes:
    """The motion as the canvas reads it: at most `max_side` pixels a side, 8 or 16 bits a number.

    A number is off by at most scale / (2^bits - 2), so that with 8 bits no mode's shape is off by more than 0.4 % of
    its largest value; the header's `error` states the largest root sum of squares over modes at any pixel, relative to
    the strongest pixel. ``more`` joins the header.
    Raises ValueError for other `bits`, or a motion without modes or with values not finite.
    """
    if bits not in (8, 16):
        raise ValueError(f"motion is stored with 8 or 16 bits, got {bits}")
    model = ModalModel.from_volume(volume, max_side)
    values = _as_channels(model.shapes)
    top = 2 ** (bits - 1) - 1
    scales = np.abs(values).max(axis=(1, 2, 3))
    steps = np.where(scales > 0, scales, 1.0) / top
    integers = np.round(values / steps[:, None, None, None]).astype("<i1" if bits == 8 else "<i2")
    off = integers * steps[:, None, None, None] - values
    strongest = math.sqrt((values**2).sum(axis=(0, 3)).max())
    error = math.sqrt((off**2).sum(axis=(0, 3)).max()) / strongest if strongest > 0 else 0.0
    header = {
        "format": "gid-poke/1",
        "width": values.shape[2],
        "height": values.shape[1],
        "bits": bits,
        "frequencies": model.frequencies.tolist(),
        "scales": scales.tolist(),
        "aspect": list(model.aspect),
        "tempo": model.tempo,
        "fps": volume.fps,
        "frames": volume.num_frames,
        "error": error,
        **(more or {}),
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 4)
    return MAGIC + struct.pack("<I", len(text)) + text + integers.tobytes()


def decode_motion(data: bytes) -> tuple[ModalModel, dict[str, Any]]:
    """The inverse of `encode_motion`, with the header. Raises ValueError for another or a damaged file."""
    if data[:8] != MAGIC or len(data) < 12:
        raise ValueError("not a motion file for the canvas: it does not start with GIDPOKE1")
    (length,) = struct.unpack("<I", data[8:12])
    header = json.loads(data[12 : 12 + length])
    top = 2 ** (header["bits"] - 1) - 1
    shape = (len(header["frequencies"]), header["height"], header["width"], 4)
    payload = data[12 + length :]
    if "layers" in header:
        payload = payload[: math.prod(shape) * header["bits"] // 8]
    if len(payload) * 8 != math.prod(shape) * header["bits"]:
        raise ValueError("the motion file is cut short: encode it again")
    integers = np.frombuffer(payload, dtype="<i1" if header["bits"] == 8 else "<i2").reshape(shape)
    values = integers * (np.array(header["scales"]) / top)[:, None, None, None]
    shapes = (values[..., 0::2] + 1j * values[..., 1::2]).transpose(0, 3, 1, 2)
    model = ModalModel(shapes, np.array(header["frequencies"]), tuple(header["aspect"]), header["tempo"])
    return model, header


def _as_channels(shapes: Complex) -> np.ndarray:
    """(J, 2, H, W) complex -> (J, H, W, 4) real: x_re, x_im, y_re, y_im."""
    stacked = np.stack([shapes[:, 0].real, shapes[:, 0].imag, shapes[:, 1].real, shapes[:, 1].imag], axis=-1)
    channels: np.ndarray = stacked
    return channels


def canvas_assets() -> Path:
    """The folder of the canvas's modules and shaders."""
    return Path(__file__).resolve().parent / "canvas"


def inline_modules(folder: Path) -> str:
    """All modules of the canvas as one script.

    The modules import only each other, by name, and no two declare the same name at the top, so that dropping the
    import lines and the word `export` is all that is needed. Raises ValueError if a module breaks that rule.
    """
    parts = []
    for name in MODULES:
        text = (folder / f"{name}.js").read_text(encoding="utf-8")
        imported = re.findall(r"^import\s+\{[^}]*\}\s+from\s+\"\./(\w+)\.js\";\n", text, flags=re.MULTILINE)
        text = re.sub(r"^import\s+\{[^}]*\}\s+from\s+\"\./\w+\.js\";\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^export (?=(async )?(function|class|const|let))", "", text, flags=re.MULTILINE)
        if re.search(r"^(import|export)\b", text, flags=re.MULTILINE) or "</script" in text:
            raise ValueError(f"{name}.js has an import or export that cannot be inlined")
        late = [other for other in imported if MODULES.index(other) >= MODULES.index(name)]
        if late:
            raise ValueError(f"{name}.js imports {late}, which must come before it")
        parts.append(f"// {name}.js\n{text}")
    return "\n".join(parts)


def encode_canvas(photo: Tensor, volume: SpectralVolume, bits: int = 8, max_side: int = CANVAS_SIDE) -> bytes:
    """All that moves a photo (3, H, W) on the canvas: `encode_motion`, and behind it the photo's layers if it has any.

    The layers are of the photo at `LAYERS_SIDE`: per vertex of the objects' mesh int16 x, y over 8192 and uint16 x, y
    over 65535 (fractions of the sides: its place, and where its motion is) and its segment as uint16; for each cell of
    the motion uint16 x, y where the plate's motion is; triangles as three uint16, far to near; for each cell of the
    modes' grid its part and its share in it as uint8 (`gid.poking.parts`, whose limits the header holds); the plate as
    JPEG; and a PNG with how much of a pixel is an object's in red, its segment in green.
    """
    layers = take_apart(_at_most(photo, LAYERS_SIDE), volume)
    height, width = layers.labels.shape
    step = max(3, round(max(height, width) / CANVAS_CELLS))
    mesh = object_mesh(layers.segments, layers.labels, layers.alpha, step)
    if not len(mesh.triangles) or len(mesh.vertices.places) >= 2**16:
        return encode_motion(volume, bits, max_side)
    longer = max(photo.shape[1:])
    members = find_parts(layers.segments, (photo.shape[2] / longer, photo.shape[1] / longer))
    model = ModalModel.from_volume(volume, max_side, members)
    if model.parts is None:
        raise ValueError("the photo's objects and its parts do not belong together")
    ground = _ground_sources(layers.segments)
    behind, mask = _jpeg(layers.plate, 88), _mask(layers)
    counts: dict[str, Any] = {
        "vertices": len(mesh.vertices.places),
        "triangles": len(mesh.triangles),
        "columns": ground.shape[1],
        "rows": ground.shape[0],
        "behind": len(behind),
        "mask": len(mask),
        "limits": model.parts.limits.tolist(),
    }
    # Pixel centres at integers here, edges at 0 and 1 there.
    places = (mesh.vertices.places + 0.5) / np.array([width, height], np.float32)
    parts = [
        np.round(places * 8192).astype("<i2").tobytes(),
        np.round(mesh.vertices.sources * 65535).astype("<u2").tobytes(),
        mesh.vertices.owners.astype("<u2").tobytes(),
        np.round(ground * 65535).astype("<u2").tobytes(),
        mesh.triangles.astype("<u2").tobytes(),
        np.stack([model.parts.owners, np.round(model.parts.shares * 255)], -1).astype(np.uint8).tobytes(),
        behind,
        mask,
    ]
    return b"".join([encode_motion(volume, bits, max_side, {"layers": counts}), *parts])


def _ground_sources(segments: Segments) -> np.ndarray:
    """(h, w, 2) x and y, in fractions, where the plate's motion in each cell is."""
    height, width = segments.labels.shape
    own = (segments.labels == 0) & segments.sure
    rows, columns = nearest_cells(own if own.any() else np.ones_like(own))
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height], -1)


def _mask(layers: Layers) -> bytes:
    """The objects' alpha and segments as a PNG."""
    pixels = np.zeros((*layers.labels.shape, 3), np.uint8)
    pixels[..., 0] = np.round(layers.alpha * 255)
    pixels[..., 1] = np.minimum(layers.labels, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _at_most(photo: Tensor, side: int) -> Tensor:
    """A photo (3, H, W) reduced to at most ``side`` pixels a side."""
    longer = max(photo.shape[1:])
    if longer <= side:
        return photo
    size = [max(1, round(length * side / longer)) for length in photo.shape[1:]]
    return F.interpolate(photo[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def encode_photo(photo: Tensor, max_side: int = 1024, quality: int = 88) -> bytes:
    """A photo (3, H, W) in [0, 1] as JPEG bytes, reduced to `max_side`."""
    pixels = (photo.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def export_page(photo: Tensor, volume: SpectralVolume, title: str = "A photo to poke", smoothed: bool = False) -> str:
    """One self-contained HTML page: the photo (3, H, W) in [0, 1], its motion at 8 bits, the canvas's own modules.

    ``smoothed`` says that the motion is smoothed for the hand already (`gid.motion.coherence.smooth_for_dragging`).
    Nothing in it refers to another file or a network; under 3 MB for a photo of 512 pixels a side.
    Raises ValueError if the motion is of another photo or does not move, or the canvas's files are missing.
    """
    volume.check_photo(photo.shape[-1], photo.shape[-2])
    if float(volume.motion_energy().max()) <= 0:
        raise ValueError("this motion does not move anything: estimate the motion of the photo first")
    folder = canvas_assets()
    shaders = {name: (folder / name).read_text(encoding="utf-8") for name in SHADERS}
    page = (folder / "page.html").read_text(encoding="utf-8")
    fields = {
        "TITLE": html.escape(title),
        "STYLE": (folder / "poke.css").read_text(encoding="utf-8"),
        "TEMPLATE": (folder / "canvas.html").read_text(encoding="utf-8"),
        "SCRIPT": inline_modules(folder),
        "SHADERS": json.dumps(shaders).replace("<", "\\u003c"),
        "PHOTO": "data:image/jpeg;base64," + base64.b64encode(encode_photo(photo)).decode(),
        "MOTION": base64.b64encode(
            encode_canvas(photo, volume if smoothed else smooth_for_dragging(volume, photo))
        ).decode(),
    }
    return re.sub(r"%%(\w+)%%", lambda match: fields[match.group(1)], page)
