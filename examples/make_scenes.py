"""Draws the procedural example pictures: `python examples/make_scenes.py`. Their seeds are used by no training set."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from gid.data.scenes import SceneConfig, generate_scene

SCENES = {"flowers": 900_000_021, "reeds": 900_000_021, "lanterns": 900_000_023, "candles": 900_000_002}


def main() -> None:
    """Write one JPEG a scene beside this file."""
    for kind, seed in SCENES.items():
        scene = generate_scene(seed, SceneConfig(width=768, height=432, kinds=(kind,)))
        Image.fromarray(scene.photo).save(Path(__file__).parent / f"scene-{kind}.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
