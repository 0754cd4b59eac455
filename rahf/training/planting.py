"""Pictures with planted faults, as features on disk: what finds faults in real pictures is trained on them.

Where the parts of people are known, most faults strike them. One `.npz` a picture and seed: tokens, summary and grid as
`rahf.training.picture_features` keeps them, `mask` (h,w) how much of each token's place is spoiled, and `kinds`.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from foundation.features import ImageEncoder
from foundation.pictures import load_photo
from rahf.data.body_faults import BODY_FAULTS
from rahf.data.faults import OBJECT_FAULTS, Box, Fault, is_visible
from rahf.data.pictures import Picture
from rahf.training.judge_data import part_boxes
from rahf.training.picture_features import TOKENS, encode_picture, save_arrays

LONGEST = 640  # pixels of the longer side that faults are planted at
ON_PARTS = 0.65  # part of the faults that strike a part of a person, where one is known
TRIES = 12
FACE_FAULTS = ("moved features", "moved features", "regenerated", "melt", "warp", "missing part", "double")
LIMB_FAULTS = ("extra part", "missing part", "merged fingers", "regenerated", "warp", "melt")
ANYWHERE = (*OBJECT_FAULTS, "extra part", "missing part", "merged fingers", "regenerated")
FAULTS: dict[str, Fault] = OBJECT_FAULTS | BODY_FAULTS
Parts = Mapping[str, dict[str, list[list[float]]]]


def spoil(
    image: np.ndarray, generator: np.random.Generator, boxes: Sequence[tuple[str, Box]] = ()
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One or two visible faults in a picture (H,W,3) uint8; gives it with their mask (H,W) bool and kinds.

    boxes: parts of people with their boxes, as `part_boxes` gives them; small ones are left out.
    """
    height, width = image.shape[:2]
    boxes = [(part, box) for part, box in boxes if min(box[2:]) > 18]
    mask, kinds = np.zeros((height, width), bool), []
    for _ in range(int(generator.integers(1, 3))):
        for _ in range(TRIES):
            severity = float(generator.uniform(0.4, 1))
            if boxes and generator.random() < ON_PARTS:
                part, box = boxes[int(generator.integers(len(boxes)))]
                kind = str(generator.choice(FACE_FAULTS if part == "face" else LIMB_FAULTS))
            else:
                part, kind = "anywhere", str(generator.choice(ANYWHERE))
                side = min(height, width)
                w, h = (int(side * generator.uniform(0.12, 0.4)) for _ in range(2))
                box = (int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1)), w, h)
            spoiled, where = FAULTS[kind](image, box, severity, generator)
            if 60 < where.sum() < 0.5 * where.size and is_visible(image, spoiled, where):
                image, mask = spoiled, mask | where
                kinds.append(f"{kind} on {part}")
                break
    return image, mask, kinds


def planted_file(folder: Path, picture: Picture, seed: int) -> Path:
    """Where the features of a spoiled picture are kept."""
    return folder / f"{picture.key}__{seed}.npz"


@torch.inference_mode()
def keep_planted(
    pictures: Sequence[Picture], out: Path, encoder: ImageEncoder, parts: Parts, seeds: int = 1, tokens: int = TOKENS
) -> int:
    """Spoil pictures, `seeds` times each, and write their features; what is there already is skipped."""
    written = 0
    for picture in tqdm(pictures, desc="planting"):
        for seed in range(seeds):
            target = planted_file(out, picture, seed)
            if target.exists():
                continue
            image = _shrunk((load_photo(picture.path) * 255).round().byte().permute(1, 2, 0).numpy())
            row = parts.get(picture.file)
            boxes = part_boxes(row, image.shape[1], image.shape[0]) if row else []
            generator = np.random.default_rng([seed, zlib.crc32(picture.file.encode())])
            spoiled, mask, kinds = spoil(image, generator, boxes)
            if not kinds:
                continue
            pixels = torch.from_numpy(spoiled).permute(2, 0, 1).float() / 255
            arrays = encode_picture(pixels, encoder, tokens)
            rows, columns = (int(side) for side in arrays["grid"])
            small = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
            save_arrays(target, arrays | {"mask": small, "kinds": np.array(kinds)})
            written += 1
    return written


def _shrunk(image: np.ndarray) -> np.ndarray:
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
