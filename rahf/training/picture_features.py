"""Features of real pictures, computed once and kept on disk: what the heads of the picture judge are trained on.

One `.npz` a picture: `tokens` (3,N,C) float16 of blocks 3, 7 and 11 after the final norm, `summary` (C,),
`description` (`rahf.pictures.judge.summarise`), `grid` (rows, columns); and of the teacher, CLIP ViT-B/16, `embedding`
(512,) and `dense` (14*14,512), unit vectors, the latter from attention of queries to queries in the last block, without
its residual and its perceptron, which keeps the place of things better than the block as it was trained. A picture that
is there already is skipped.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from foundation.features import LAYERS, ImageEncoder
from foundation.files import replacing
from foundation.pictures import load_photo
from rahf.data.pictures import Picture
from rahf.pictures.judge import summarise

logger = logging.getLogger(__name__)

TOKENS = 576  # 24 x 24 for a square picture: what the heads are trained and run with
TEACHER_SIDE = 224
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Teacher(nn.Module):
    """CLIP's image tower with its projection, from a folder that transformers loads; used for training only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: str | Path) -> "Teacher":
        """Raises ValueError if the folder holds no such model."""
        from transformers import CLIPVisionModelWithProjection

        try:
            return cls(CLIPVisionModelWithProjection.from_pretrained(folder).float())
        except OSError as error:
            raise ValueError(f"{folder} holds no CLIP image tower; give a folder that transformers loads") from error

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B,3,H,W) in [0, 1] -> unit embeddings (B,512) and, for each patch, (B,n,512)."""
        side = self.model.config.image_size
        pixels = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
        pixels = (pixels - pixels.new_tensor(_MEAN).view(1, 3, 1, 1)) / pixels.new_tensor(_DEVIATION).view(1, 3, 1, 1)
        vision = self.model.vision_model
        output = vision(pixels, output_hidden_states=True)
        last = vision.encoder.layers[-1]
        hidden = last.layer_norm1(output.hidden_states[-2])
        attention = last.self_attn
        heads, width = attention.num_heads, hidden.shape[-1] // attention.num_heads
        split = [
            part(hidden).unflatten(-1, (heads, width)).transpose(1, 2) for part in (attention.q_proj, attention.v_proj)
        ]
        looked = (split[0] @ split[0].transpose(-1, -2) * width**-0.5).softmax(-1) @ split[1]
        patches = attention.out_proj(looked.transpose(1, 2).flatten(2))[:, 1:]
        dense = self.model.visual_projection(vision.post_layernorm(patches))
        return (
            F.normalize(self.model.visual_projection(output.pooler_output), dim=-1),
            F.normalize(dense, dim=-1),
        )


def feature_file(folder: Path, picture: Picture) -> Path:
    """Where a picture's features are kept."""
    return folder / f"{picture.key}.npz"


@torch.inference_mode()
def keep_features(
    pictures: Sequence[Picture], out: Path, encoder: ImageEncoder, teacher: Teacher | None, tokens: int = TOKENS
) -> int:
    """Write the features of pictures that have none yet; returns how many were written.

    A picture that cannot be read is left out and logged. Without a teacher its two arrays are left out.
    """
    written = 0
    for picture in tqdm(pictures, desc="features"):
        target = feature_file(out, picture)
        if target.exists():
            continue
        try:
            image = load_photo(picture.path)
        except ValueError as error:
            logger.warning("%s is left out: %s", picture.file, error)
            continue
        arrays = encode_picture(image, encoder, tokens)
        if teacher is not None:
            embedding, dense = teacher(image[None])
            arrays |= {"embedding": embedding[0].numpy(), "dense": dense[0].half().numpy()}
        save_arrays(target, arrays)
        written += 1
    return written


@torch.inference_mode()
def keep_scenes(
    sprites: Path, out: Path, encoder: ImageEncoder, count: int, seed: int, side: int, tokens: int = TOKENS
) -> int:
    """Write the features of `count` composed scenes of training sprites, `side` pixels wide, that have none yet.

    Returns how many were written. Raises ValueError if the library holds no sprites.
    """
    from rahf.data.scenes import ComposedScenes, SceneConfig
    from rahf.data.sprites import SpriteLibrary

    scenes = ComposedScenes(SpriteLibrary.load(sprites), count, "train", seed, SceneConfig(size=side))
    written = 0
    for place in tqdm(range(count), desc="scenes"):
        target = out / f"{place}.npz"
        if target.exists():
            continue
        image = torch.from_numpy(scenes[place].image).permute(2, 0, 1).float() / 255
        save_arrays(target, encode_picture(image, encoder, tokens))
        written += 1
    return written


@torch.inference_mode()
def encode_picture(image: Tensor, encoder: ImageEncoder, tokens: int = TOKENS) -> dict[str, np.ndarray]:
    """Tokens (3,N,C) float16, the class token (C,) and the grid (rows, columns) of one picture (3,H,W)."""
    features = encoder(image[None], LAYERS, tokens)
    stack = torch.stack([features.tokens[layer][0].flatten(1).T for layer in LAYERS])
    columns, rows = features.grid
    description = summarise(features.summary, [features.tokens[layer].flatten(2).transpose(1, 2) for layer in LAYERS])
    return {
        "tokens": stack.half().numpy(),
        "summary": features.summary[0].numpy(),
        "description": description[0].numpy(),
        "grid": np.array([rows, columns]),
    }


def save_arrays(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz beside its place and rename it, so that an interrupted run leaves no half of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
