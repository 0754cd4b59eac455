"""What a person sees move, on scenes that the motion map has not seen: rendered loops beside real clips.

    python studies/visible_folds.py MAPS CLIPS... [--out studies/visible_folds.md]

MAPS is a folder with a run of `gid train motion-map` for each fold (MAPS/motion-map-fold0 to 4); CLIPS are folders of
the real clips of `gid.data.folds`. Each clip's first frame is animated with the embedded weights, in which the motion
map is that of the fold the clip was left out of (its scalars, amount, contrast and floor, are the embedded one's), at
automatic strength, seed 0. The denoiser, which says how things move, has seen most of the clips.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from foundation.files import write_text
from gid import GIDPipeline, animate, load_pipeline
from gid.data.folds import FOLDS, clips_of_fold
from gid.data.videos import clip_name, clips_in
from gid.diffusion.motion_map import MotionMap
from gid.evaluation.visible import Frames, VisibleScores, visible_table, written
from gid.motion.strength import automatic_strength

logger = logging.getLogger("visible_folds")
SCALARS = ("amount", "contrast", "floor", "smoothness")


def map_of_fold(folder: Path, embedded: MotionMap) -> MotionMap:
    """The heads of a fold with the scalars of the embedded map."""
    found = MotionMap.from_pretrained(folder).eval()
    found.register_to_config(**{name: getattr(embedded.config, name) for name in SCALARS})
    found.moves.load_state_dict(embedded.moves.state_dict())
    return found


def loop_of(pipeline: GIDPipeline, first: Frames, seed: int) -> Frames:
    """A loop of a frame (H, W, 3) uint8, at most 512 pixels wide, as `gid animate` would make it."""
    photo = torch.from_numpy(first).permute(2, 0, 1).float() / 255
    side = min(1.0, 512 / max(photo.shape[1:]))
    photo = torch.nn.functional.interpolate(photo[None], scale_factor=side, mode="area")[0]
    volume = pipeline(photo, seed=seed).volumes[0]
    chunks = animate(photo, volume, pipeline.renderer, strength=automatic_strength(volume))
    frames: Frames = torch.cat([(255 * chunk).round().byte() for chunk in chunks]).permute(0, 2, 3, 1).numpy()
    return frames


def main() -> None:
    """Animate every clip and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("maps", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline = load_pipeline()
    embedded = pipeline.motion_map
    paths = [path for folder in options.clips for path in clips_in(folder)]
    table: dict[str, VisibleScores] = {}
    for fold in range(FOLDS):
        pipeline.register_modules(
            motion_map=map_of_fold(options.maps / f"motion-map-fold{fold}" / "motion_map", embedded)
        )
        names = clips_of_fold(fold)
        for path in paths:
            if clip_name(path) in names:
                table |= visible_table([path], lambda first, seed: loop_of(pipeline, first, seed))
                logger.info("%s %s", path.stem, table[path.stem])
    text = f"{(__doc__ or '').strip()}\n\n{written(table)}\n"
    if options.out is not None:
        write_text(options.out, text)
    print(written(table))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
