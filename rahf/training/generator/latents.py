"""What the denoiser is trained on: latents of scenes, of the same scenes with a part masked, and the masks."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm.auto import tqdm

from foundation.files import new_folder
from rahf.training.generator.autoencoder import LATENT_CHANNELS, batches_of, to_tensor
from rahf.training.generator.scenes import PROMPTS, STRIDE, Scenes

MASKED_EVERY = 3  # every third scene is learned with a part to draw anew, the others are drawn from nothing
LATENTS, MASKED, MASKS = "latents.npy", "masked.npy", "masks.npy"


@dataclass(frozen=True, eq=False)
class Latents:
    """latents (N,C,h,w) float16; masked, the same of the pictures with their masks blanked out; masks (N,h,w) bool,
    true where the picture is to be drawn anew, which for most is everywhere; prompts."""

    latents: np.ndarray
    masked: np.ndarray
    masks: np.ndarray
    prompts: list[str]

    @classmethod
    def load(cls, folder: Path) -> "Latents":
        """Latents that `prepare_latents` wrote. Raises ValueError if the folder holds none."""
        try:
            prompts = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))
            arrays = [np.load(folder / name) for name in (LATENTS, MASKED, MASKS)]
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no latents ({error}); make them with `rahf generator-latents`") from error
        return cls(arrays[0], arrays[1], arrays[2], prompts)


@torch.no_grad()
def prepare_latents(scenes: Path, autoencoder: Path, out: Path, seed: int = 0, batch_size: int = 32) -> Path:
    """Encode scenes, whole and with a random part masked, into a new folder.

    Args:
        scenes: folder that `rahf generator-scenes` wrote.
        autoencoder: folder of the trained autoencoder.
        out: new folder.
        seed: of the masks.
        batch_size: pictures at once.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: if a folder does not hold what it should.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a folder that does not")
    source = Scenes.load(scenes)
    model = AutoencoderKL.from_pretrained(autoencoder).eval().to(memory_format=torch.channels_last)
    count, side = source.pictures.shape[:2]
    grid = side // STRIDE
    latents = np.zeros((count, LATENT_CHANNELS, grid, grid), np.float16)

    def encode(pictures: torch.Tensor) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            encoded: np.ndarray = model.encode(pictures).latent_dist.mode().float().numpy()
        return encoded

    masked = np.repeat(encode(torch.zeros(1, 3, side, side)).astype(np.float16), count, axis=0)
    masks = np.ones((count, grid, grid), bool)
    with new_folder(out) as partial:
        for rows in tqdm(list(batches_of(count, batch_size)), desc="encoding"):
            pictures = to_tensor(source.pictures[rows])
            latents[rows] = encode(pictures)
            parts = [row for row in range(count)[rows] if row % MASKED_EVERY == 0]
            if not parts:
                continue
            mask = np.stack([random_mask(source.boxes[row], side, np.random.default_rng([seed, row])) for row in parts])
            shown = pictures[[row - rows.start for row in parts]] * torch.from_numpy(~mask)[:, None]
            masked[parts] = encode(shown.contiguous(memory_format=torch.channels_last))
            masks[parts] = mask[:, ::STRIDE, ::STRIDE]  # as diffusers makes a mask smaller: the nearest pixel
        for name, array in ((LATENTS, latents), (MASKED, masked), (MASKS, masks)):
            np.save(partial / name, array)
        (partial / PROMPTS).write_text(json.dumps(source.prompts), encoding="utf-8")
    return out


def random_mask(boxes: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    """A mask (side,side) bool: round some of the objects, a stroke, or a box anywhere."""
    mask = np.zeros((side, side), np.uint8)
    kind = generator.choice(["objects", "stroke", "box"], p=[0.6, 0.25, 0.15])
    if kind == "objects":
        there = boxes[boxes[:, 2] > 0]
        for x, y, width, height in there[
            generator.permutation(len(there))[: int(generator.integers(1, len(there) + 1))]
        ]:
            left, top, right, bottom = generator.integers(2, 12, size=4)
            if generator.random() < 0.5:
                mask[max(y - top, 0) : y + height + bottom, max(x - left, 0) : x + width + right] = 1
            else:
                centre = (int(x + width // 2), int(y + height // 2))
                cv2.ellipse(mask, centre, (int(width * 0.6 + left), int(height * 0.6 + top)), 0, 0, 360, 1, -1)
    elif kind == "stroke":
        points = generator.integers(0, side, size=(int(generator.integers(2, 5)), 1, 2)).astype(np.int32)
        cv2.polylines(mask, [points], False, 1, int(generator.integers(side // 8, side // 3)))
    else:
        width, height = generator.integers(side // 4, side * 3 // 4, size=2)
        x, y = generator.integers(side - width + 1), generator.integers(side - height + 1)
        mask[y : y + height, x : x + width] = 1
    return mask.astype(bool)
