"""Writes docs/pulls.webp: six examples as they are, pulled and drawn as one, and pulled and drawn in layers.

    python examples/make_pulls.py

Each photo is pulled by about 8 % of its width, the dahlia by 60 pixels; what is drawn is the moment of its largest
displacement. "As one" is the answer of the whole photo at once, as it was before photos had parts and layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foundation.pictures import load_photo, to_uint8
from gid.diffusion.pipeline import load_pipeline
from gid.jobs import predict_motion
from gid.limits import MotionOptions
from gid.motion.coherence import smooth_for_dragging
from gid.motion.spectrum import SpectralVolume
from gid.poking.parts import find_parts
from gid.poking.responses import Response, gesture_at
from gid.rendering.animate import layers_of, render_displacements
from gid.rendering.renderer import Renderer
from gid.rendering.segments import find_segments

EXAMPLES = Path(__file__).resolve().parent
SIDE = 512
COLUMN = 384
PULLS = {
    "flower": ((300, 250), (-60, 10)),
    "dandelion": ((145, 100), (-41, 0)),
    "scene-candles": ((200, 180), (41, 0)),
    "scene-flowers": ((325, 110), (-41, 0)),
    "scene-lanterns": ((126, 137), (-41, 0)),
    "scene-reeds": ((180, 100), (-41, 0)),
}
"""Photo: the point and the pull, pixels of the photo at `SIDE`."""


@torch.no_grad()
def answers(
    photo: Tensor, pulled: SpectralVolume, renderer: Renderer, at: tuple[float, float], force: tuple[float, float]
) -> list[Tensor]:
    """The photo (3, H, W), its answer drawn as one and its answer in parts and layers."""
    height, width = photo.shape[1:]
    longer = max(height, width)
    response = Response((gesture_at(at, force, (width, height)),))
    segments = find_segments(pulled.coefficients, width, height)
    pictures = [photo]
    for layered in (False, True):
        parts = find_parts(segments, (width / longer, height / longer)) if layered else None
        moved = response.displacements(pulled, parts)
        lengths = torch.hypot(moved[:, 0] * width, moved[:, 1] * height)
        layers = layers_of(photo, pulled, segments=segments) if parts is not None else None
        far = moved[[int(lengths.amax((1, 2)).argmax())]]
        frames = render_displacements(photo, [far], renderer, lengths.mean(0), lengths.amax(0), layers)
        pictures.append(next(iter(frames))[0])
    return pictures


def row(pictures: list[Tensor]) -> np.ndarray:
    """Pictures (3, H, W) side by side, each `COLUMN` pixels wide."""
    images = [Image.fromarray(to_uint8(picture[None])[0]) for picture in pictures]
    size = (COLUMN, round(COLUMN * images[0].height / images[0].width))
    return np.concatenate([np.asarray(image.resize(size, Image.Resampling.LANCZOS)) for image in images], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=EXAMPLES.parent / "docs" / "pulls.webp")
    arguments = parser.parse_args()
    pipeline = load_pipeline()
    rows = []
    for name, (at, force) in PULLS.items():
        path = EXAMPLES / f"{name}.jpg"
        photo = load_photo(path, SIDE)
        pulled = smooth_for_dragging(predict_motion(pipeline, str(path), MotionOptions(), None), photo)
        rows.append(row(answers(photo, pulled, pipeline.renderer, at, force)))
    Image.fromarray(np.concatenate(rows)).save(arguments.output, quality=82, method=6)


if __name__ == "__main__":
    main()
