"""Where in the picture is each word? A comparison of words with visual tokens, ahead of the fusing encoder.

Self-attention finds such matches by itself in large models; it needs far more examples than there are here. So words'
spelling embeddings are compared directly with keys of the visual tokens, once as nouns and once as colours, and both
sides are told what matched: a word what lies where it fits best and how well it fits, a patch which word it fits best
and how well. Training teaches the keys what composed scenes show where (`rahf.training.auxiliary`).
"""

import math

import torch
from torch import Tensor, nn

from rahf.model.layout import Layout

SENSES = ("noun", "colour")
_SCALE = 5.0  # log odds are of this order


class WordMatching(nn.Module):
    """Keys of the visual tokens in each sense of a word, and what a match adds to both sides."""

    def __init__(self, width: int, layout: bool = False) -> None:
        super().__init__()
        self.layout = Layout(width, len(SENSES)) if layout else None
        self.norm = nn.LayerNorm(width)
        self.keys = nn.ModuleDict({sense: nn.Linear(width, width) for sense in SENSES})
        self.ground = nn.Parameter(torch.zeros(1, width))  # stands for no word at all
        self.to_text = nn.Linear(width + 2 * len(SENSES), width)
        self.to_visual = nn.Linear(width + len(SENSES), width)

    def logits(self, patches: Tensor, words: Tensor, sense: str) -> Tensor:
        """Fit (B,N,W) of patches (B,N,C) with words (W,C) or (B,W,C), in one sense."""
        return self.keys[sense](self.norm(patches)) @ words.transpose(-1, -2)

    def forward(self, visual: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Visual tokens (B,1+N,C), words' embeddings (B,L,C), their mask (B,L) -> what is added to each of the two."""
        patches = visual[:, 1:]
        odds = {sense: self.logits(patches, words - self.ground, sense).transpose(1, 2) for sense in SENSES}  # (B,L,N)
        values = self.norm(patches)
        seen = torch.softmax(odds["noun"].float(), dim=-1).to(values.dtype) @ values
        fits = [part for sense in SENSES for part in _pooled(odds[sense])]
        text = self.to_text(torch.cat([seen, torch.stack(fits, dim=-1).to(values.dtype)], dim=-1))
        if self.layout is not None:
            text = text + self.layout(values, [odds[sense] for sense in SENSES])
        hidden = {sense: value.float().masked_fill(~mask[:, :, None], -1e4) for sense, value in odds.items()}
        named = torch.softmax(hidden["noun"], dim=1).to(values.dtype).transpose(1, 2) @ words
        best = torch.stack([torch.tanh(hidden[sense].amax(dim=1) / _SCALE) for sense in SENSES], dim=-1)
        patch = self.to_visual(torch.cat([named, best.to(values.dtype)], dim=-1))
        return torch.cat([torch.zeros_like(visual[:, :1]), patch], dim=1), text


def _pooled(odds: Tensor) -> tuple[Tensor, Tensor]:
    """The best fit of each word anywhere and its soft mean over all places, from log odds (B,L,N)."""
    odds = odds.float()
    mean = torch.logsumexp(odds, dim=-1) - math.log(odds.shape[-1])
    return torch.tanh(odds.amax(dim=-1) / _SCALE), torch.tanh(mean / _SCALE)
