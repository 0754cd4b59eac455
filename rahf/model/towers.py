"""Start training from pretrained towers: a ViT and a T5 from the Hub or from folders, a pyramid from a package."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration, ViTModel

from foundation.efficientnet import pretrained_trunk
from rahf.model.checkpoints import CheckpointError
from rahf.model.config import PYRAMID
from rahf.model.rahf import RAHF

logger = logging.getLogger(__name__)

# What turns pixels into matches with words, by the beginnings of its names.
RECOGNITION = (
    "pyramid.",
    "visual_token_projection.",
    "word_matching.norm.",
    "word_matching.keys.",
    "word_matching.ground",
    "word_embedding.spelling.",
)
POSITIONS = "embeddings.position_embeddings"


def load_towers(model: RAHF, vit: str | None = None, t5: str | None = None, pyramid: bool = False) -> RAHF:
    """Copy pretrained weights into `model` in place: `vit` for the image tower, `t5` for the text tower; `pyramid`: the
    ImageNet weights of the feature pyramid, if the model has one.

    The first two are each a Hub repository or a folder of transformers, such as `google-t5/t5-base`.
    Position embeddings of another image size are interpolated. Raises CheckpointError that names what does not fit, and
    ValueError if a tower cannot be had.
    """
    if vit is not None:
        source = _fetch(ViTModel, vit)
        weights = dict(source.state_dict())
        wanted = model.vit.state_dict()[POSITIONS].shape[1]
        if weights[POSITIONS].shape[1] != wanted:
            weights[POSITIONS] = resize_positions(weights[POSITIONS], wanted)
        _copy(model.vit, weights, vit)
    if pyramid and model.config.image_tower == PYRAMID:
        model.pyramid.trunk.load_state_dict(pretrained_trunk().state_dict())
    if t5 is not None:
        _copy(model.t5, dict(_fetch(T5ForConditionalGeneration, t5).state_dict()), t5)
    return model


def load_recognition(model: RAHF, source: str) -> RAHF:
    """Copy what recognises things from another model of this architecture: the tower, its projection, the matching keys
    and the words' spelling. In place; all else stays. Raises CheckpointError if it does not fit."""
    other = dict(RAHF.from_pretrained(source).state_dict())
    own = model.state_dict()
    wanted = [name for name in own if name.startswith(RECOGNITION)]
    problems = [name for name in wanted if name not in other or other[name].shape != own[name].shape]
    if model.config.image_tower != PYRAMID:
        problems.append(f"its image tower is {model.config.image_tower!r}, not {PYRAMID}")
    if problems:
        raise CheckpointError(f"{source} does not fit this model: {', '.join(problems)}")
    model.load_state_dict({name: other[name] for name in wanted}, strict=False)
    return model


def load_fitting(model: RAHF, source: str) -> RAHF:
    """Copy all that has the same name and shape from other weights, in place; what they lack stays as it begins.

    For going on from weights of an earlier architecture. Raises CheckpointError if less than half of the model fits.
    """
    other, own = dict(RAHF.from_pretrained(source).state_dict()), model.state_dict()
    fitting = {name: tensor for name, tensor in other.items() if name in own and own[name].shape == tensor.shape}
    if 2 * len(fitting) < len(own):
        raise CheckpointError(f"{source} is of another kind: {len(fitting)} of this model's {len(own)} tensors fit")
    model.load_state_dict(fitting, strict=False)
    left = sorted(set(own) - set(fitting))
    logger.info("took %d tensors from %s; new: %s", len(fitting), source, ", ".join(left) or "none")
    return model


def resize_positions(positions: Tensor, count: int) -> Tensor:
    """Position embeddings (1,1+g·g,C), the class token's first, for a square grid of `count` - 1 tokens."""
    old, new = round((positions.shape[1] - 1) ** 0.5), round((count - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grown = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grown.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)


def _fetch(kind: type, source: str) -> nn.Module:
    try:
        return kind.from_pretrained(source)  # type: ignore[attr-defined]
    except OSError as error:
        raise ValueError(
            f"{source} cannot be loaded; connect once, or give a folder that holds it ({error})"
        ) from error


def _copy(tower: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    own = tower.state_dict()
    problems = [f"missing {key}" for key in own if key not in weights and not key.startswith("pooler.")]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"{name} does not fit this model:\n  " + "\n  ".join(problems))
    tower.load_state_dict({key: weights[key] for key in own if key in weights}, strict=False)
    logger.info("took %d tensors from %s", len(own), name)
