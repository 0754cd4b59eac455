#!/usr/bin/env python3
"""Make the embedded image encoder: DINOv2 from a folder that transformers loads, at eight bits, in shards under 10 MB.

usage: python tools/pack_encoder.py SOURCE [--out foundation/encoder] [--pictures examples]

The first block and everything outside the blocks stay in half precision: their error is carried through all others.
Prints how far tokens of a folder's pictures are from those of the source in float32.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from foundation.features import EMBEDDED, LAYERS, ImageEncoder, build_encoder
from foundation.quantization import pack

SHARD = "9500KB"


def at_eight_bits(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of Dinov2Model is stored at eight bits: matrices of all blocks but the first."""
    block = re.match(r"encoder\.layer\.(\d+)\.", name)
    return tensor.ndim == 2 and block is not None and block[1] != "0"


def pack_encoder(source: Path, out: Path) -> None:
    """Write the shards and config.json of the encoder in `source` into `out`."""
    model = Dinov2Model.from_pretrained(source)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "embeddings.mask_token"}
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.safetensors"):
        old.unlink()
    save_torch_state_dict(
        pack(state, at_eight_bits), out, filename_pattern="encoder{suffix}.safetensors", max_shard_size=SHARD
    )
    # Tensors are found by reading all shards; an index would only repeat their headers.
    (out / "encoder.safetensors.index.json").unlink(missing_ok=True)
    for shard in out.glob("*.safetensors"):
        shard.chmod(0o644)
    kept = (
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "patch_size",
        "image_size",
        "mlp_ratio",
    )
    config = {key: getattr(model.config, key) for key in kept} | {"use_mask_token": False}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


@torch.no_grad()
def differences(source: Path, out: Path, pictures: list[Path]) -> dict[int, tuple[float, float]]:
    """By block: relative L2 error of the tokens, and mean cosine, over pictures."""
    exact, packed = ImageEncoder(Dinov2Model.from_pretrained(source)), build_encoder(out)
    rows: dict[int, list[tuple[float, float]]] = {layer: [] for layer in LAYERS}
    for path in pictures:
        picture = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255
        a, b = exact(picture), packed(picture)
        for layer in LAYERS:
            x, y = a.tokens[layer], b.tokens[layer]
            error = float((x - y).norm() / x.norm())
            rows[layer].append((error, float(torch.cosine_similarity(x, y, dim=1).mean())))
    return {layer: (float(np.mean(v, 0)[0]), float(np.mean(v, 0)[1])) for layer, v in rows.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--pictures", type=Path, default=Path("examples"))
    options = parser.parse_args()
    pack_encoder(options.source, options.out)
    for shard in sorted(options.out.glob("*.safetensors")):
        print(f"{shard.name}  {shard.stat().st_size / 1e6:.1f} MB")
    pictures = [p for p in sorted(options.pictures.iterdir()) if p.suffix in (".jpg", ".png")]
    for layer, (error, cosine) in differences(options.source, options.out, pictures).items():
        print(f"block {layer:2d}: relative error {100 * error:.2f} %, cosine {cosine:.6f}   ({len(pictures)} pictures)")


if __name__ == "__main__":
    main()
