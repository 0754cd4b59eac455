"""What a U-Net is told beside its latents: the prompt, the empty prompt, and what SDXL and inpainting want besides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Of one prompt, for any number of pictures.

    Attributes:
        text, empty: (1,L,D) states of the prompt, and of the empty or negative one.
        added, added_empty: what SDXL is told besides, by name, each (1,n); empty for others.
        extra: (1,k,h,w) mask and masked latents of a U-Net that inpaints; None for others.
    """

    text: Tensor
    empty: Tensor
    added: dict[str, Tensor]
    added_empty: dict[str, Tensor]
    extra: Tensor | None = None

    def with_extra(self, extra: Tensor | None) -> Conditioning:
        """The same about another mask."""
        return replace(self, extra=extra)

    def states(self, count: int, guided: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """For `count` pictures: states (N,L,D) and what SDXL is told; `guided` puts the empty prompt's in front."""

        def rows(empty: Tensor, text: Tensor) -> Tensor:
            parts = [empty, text] if guided else [text]
            return torch.cat([part.expand(count, *part.shape[1:]) for part in parts])

        added = {name: rows(self.added_empty[name], value) for name, value in self.added.items()}
        return rows(self.empty, self.text), added


def embed_prompt(pipeline: Any, prompt: str, negative: str, side: int) -> Conditioning:
    """A prompt as a pipeline of Stable Diffusion or SDXL understands it, for a picture of `side` pixels."""
    states = pipeline.encode_prompt(
        prompt=prompt,
        device=pipeline.unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative or None,
    )
    if len(states) == 2:
        return Conditioning(states[0], states[1], {}, {})
    text, empty, pooled, pooled_empty = states
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=text.dtype, device=text.device)
    return Conditioning(
        text,
        empty,
        {"text_embeds": pooled, "time_ids": sizes},
        {"text_embeds": pooled_empty, "time_ids": sizes},
    )
