"""Draws docs/animation.webp, the moving picture of the README: `python examples/make_readme_picture.py`.

Photos on the left, what the embedded weights make of them in the middle, where they expect motion on the right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from foundation.pictures import load_photo, to_uint8
from gid.diffusion.pipeline import load_pipeline
from gid.jobs import MOTION_SIDE, predict_motion
from gid.limits import MotionOptions
from gid.rendering.animate import animate
from ui.animate.overlays import motion_energy_picture

HERE = Path(__file__).resolve().parent
CELL = (288, 162)
FPS, SECONDS = 15, 5


def fitted(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) uint8 scaled and cropped to one cell."""
    picture = Image.fromarray(frame)
    scale = max(CELL[0] / picture.width, CELL[1] / picture.height)
    size = (round(picture.width * scale), round(picture.height * scale))
    left, top = (size[0] - CELL[0]) // 2, (size[1] - CELL[1]) // 2
    picture = picture.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + CELL[0], top + CELL[1]))
    return np.asarray(picture)


def strip(name: str, seed: int, strength: float, weights: str) -> list[np.ndarray]:
    """The frames of one row: photo, animation, energy."""
    pipeline = load_pipeline(weights)
    photo = load_photo(HERE / name, max_side=MOTION_SIDE)
    volume = predict_motion(pipeline, HERE / name, MotionOptions(seed=seed))
    still = fitted(to_uint8(photo[None])[0])
    energy = fitted(motion_energy_picture(photo, volume))
    frames = animate(photo, volume, pipeline.renderer, num_frames=FPS * SECONDS, fps=FPS, strength=strength)
    return [np.hstack([still, fitted(frame), energy]) for chunk in frames for frame in to_uint8(chunk)]


def main() -> None:
    """Render the rows one after the other and write them stacked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", default=["dandelion.jpg", "flower.jpg"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "animation.webp")
    options = parser.parse_args()
    rows = [strip(name, options.seed, options.strength, options.weights) for name in options.photos]
    frames = [Image.fromarray(np.vstack(parts)) for parts in zip(*rows, strict=True)]
    options.output.parent.mkdir(exist_ok=True)
    frames[0].save(
        options.output,
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / FPS),
        loop=0,
        quality=70,
        method=4,
    )


if __name__ == "__main__":
    main()
