"""What can be measured in a picture without being asked in words: light, colour, sharpness, order, subject, people.

Every measure is a plain number that grows with what its name says. Pixels are read at a longer side of 512, so that
the same picture in two sizes gives nearly the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.features import Features, load_encoder
from rahf.improve.saliency.maps import load_head, salient_box
from rahf.pictures.judge import JUDGED_SCORES, Judgement
from rahf.pictures.vocabulary import Term
from rahf.pictures.words import PictureWords
from rahf.predictor import Predictor

SIDE = 512
BLOCK = 16  # pixels a side of the places that emptiness and noise are read in
STRUCTURED = 0.02  # deviation of brightness from which on a place holds something
EDGE = 0.06  # step of brightness between neighbours that counts as a detail
CLIPPED = (0.02, 0.98)  # brightness that is as good as black, and as good as white
_LUMA = (0.299, 0.587, 0.114)
_LAPLACIAN = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture with what the networks see in it.

    Attributes:
        picture: (3,H,W) in [0, 1], its longer side at most `SIDE`.
        saliency: (h,w) in [0, 1], coarser than the picture.
        judgement: of the judge of real pictures; None where the weights have none, or where it takes the
            picture for a composed scene, of which it knows nothing.
        words: the judge's, with it.
    """

    picture: Tensor
    saliency: Tensor
    judgement: Judgement | None
    words: PictureWords | None = None


@torch.no_grad()
def look(picture: Tensor, predictor: Predictor) -> Seen:
    """See a picture (3,H,W) in [0, 1] once, for all measures."""
    small = at_side(picture.float().cpu())
    judge = predictor.pictures
    if judge is None:
        encoder = load_encoder()
        features: Features = encoder(small[None].to(encoder.mean))
        return Seen(small, saliency_of(features), None)
    config = judge.judge.config
    features = judge.encoder(small[None].to(judge.encoder.mean), config.layers, config.tokens)
    judgement = judge.judge(features)
    return Seen(small, saliency_of(features), None if judge.is_composed(judgement) else judgement, judge.words)


def saliency_of(features: Features) -> Tensor:
    """(8h,8w) saliency in [0, 1] of one encoded picture, on the CPU."""
    device = features.summary.device
    saliency: Tensor = load_head(device)(features)[0].sigmoid().cpu()
    return saliency


def at_side(picture: Tensor, side: int = SIDE) -> Tensor:
    """A picture (3,H,W) with a longer side of at most `side` pixels."""
    height, width = picture.shape[-2:]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    return F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def measure(seen: Seen) -> dict[str, float]:
    """All measures of a picture by name; those of people only where there are any."""
    grey = brightness(seen.picture)
    saliency = F.interpolate(seen.saliency[None, None], tuple(grey.shape), mode="bilinear")[0, 0]
    found = {**light(grey), **colour(seen.picture), **texture(grey), **order(grey), **subject(grey, saliency)}
    if seen.judgement is not None and seen.words is not None:
        found |= judged(seen.judgement, seen.words)
    return found


def brightness(picture: Tensor) -> Tensor:
    """(H,W) luma of a picture (3,H,W)."""
    return torch.einsum("chw,c->hw", picture, torch.tensor(_LUMA, dtype=picture.dtype))


def light(grey: Tensor) -> dict[str, float]:
    """How the brightness (H,W) is spread: nearness of its median to the middle, its range, and what is not clipped."""
    low, middle, high = torch.quantile(_thinned(grey), torch.tensor([0.05, 0.5, 0.95])).tolist()
    clipped = ((grey < CLIPPED[0]) | (grey > CLIPPED[1])).float().mean()
    return {"mid tones": 1 - 2 * abs(middle - 0.5), "contrast": high - low, "unclipped": 1 - float(clipped)}


def colour(picture: Tensor) -> dict[str, float]:
    """Colourfulness (Hasler and Suesstrunk 2003) of a picture (3,H,W), and how far its hues keep together."""
    red, green, blue = picture.flatten(1)
    first, second = red - green, 0.5 * (red + green) - blue
    spread = torch.hypot(first.std(correction=0), second.std(correction=0))
    strength = torch.hypot(first.mean(), second.mean())
    # Resultant length of twice the hue angle: complementary colours agree with each other too.
    chroma, angle = torch.hypot(first, second), 2 * torch.atan2(second, first)
    total = chroma.sum()
    together = torch.hypot((chroma * angle.cos()).sum(), (chroma * angle.sin()).sum()) / total if total > 0 else total
    return {"colourfulness": float(spread + 0.3 * strength), "harmony": float(together)}


def texture(grey: Tensor) -> dict[str, float]:
    """Sharpness, smoothness (the opposite of grain) and the share of fine detail of brightness (H,W)."""
    steps = torch.maximum((grey[:-1, 1:] - grey[:-1, :-1]).abs(), (grey[1:, :-1] - grey[:-1, :-1]).abs())
    return {
        "sharpness": sharpness(grey),
        "smoothness": -255 * grain(grey),
        "detail": float((steps > EDGE).float().mean()),
    }


def sharpness(grey: Tensor, weight: Tensor | None = None) -> float:
    """In [0, 1]: how much of the steps between neighbours a blur would take away (Crete et al. 2007).

    weight: (H,W) where it matters, everywhere by default.
    """
    shares = []
    for values, weights in ((grey, weight), (grey.T, None if weight is None else weight.T)):
        blurred = F.avg_pool1d(F.pad(values[:, None], (4, 4), mode="replicate"), 9, 1)[:, 0]
        before, after = values.diff(dim=1).abs(), blurred.diff(dim=1).abs()
        lost = (before - after).clamp(min=0)
        if weights is not None:
            lost, before = lost * weights[:, 1:], before * weights[:, 1:]
        shares.append(float(lost.sum() / before.sum()) if float(before.sum()) > 1e-6 else 0.0)
    return min(shares)


def grain(grey: Tensor) -> float:
    """Standard deviation of noise (Immerkaer 1996), read in the smoothest tenth of all places."""
    kernel = torch.tensor(_LAPLACIAN)[None, None]
    response = F.conv2d(grey[None, None], kernel).abs()
    if min(response.shape[-2:]) < BLOCK:
        return float(response.mean()) * (torch.pi / 2) ** 0.5 / 6
    places = F.avg_pool2d(response, BLOCK).flatten()
    return float(torch.quantile(places, 0.1)) * (torch.pi / 2) ** 0.5 / 6


def order(grey: Tensor) -> dict[str, float]:
    """How much of the picture holds something, and how far its left half mirrors its right one (correlation)."""
    small = F.adaptive_avg_pool2d(grey[None, None], 32)[0, 0]
    mirrored = torch.stack([small.flatten(), small.flip(1).flatten()])
    alike = torch.corrcoef(mirrored)[0, 1] if float(small.std()) > 1e-4 else torch.tensor(1.0)
    size = min(BLOCK, *grey.shape)
    mean = F.avg_pool2d(grey[None, None], size)
    deviation = (F.avg_pool2d(grey[None, None] ** 2, size) - mean**2).clamp(min=0).sqrt()
    return {"fullness": float((deviation > STRUCTURED).float().mean()), "symmetry": float(alike)}


def subject(grey: Tensor, saliency: Tensor) -> dict[str, float]:
    """What saliency (H,W) says of the main subject: how far it stands out, its size, whether it is whole, its focus."""
    height, width = saliency.shape
    low, high = float(saliency.min()), float(saliency.max())
    salient = (saliency >= (low + high) / 2).float()
    inside = float((saliency * salient).sum() / salient.sum())
    outside = float((saliency * (1 - salient)).sum() / (1 - salient).sum().clamp(min=1))
    rim = torch.cat([salient[0], salient[-1], salient[:, 0], salient[:, -1]])
    centre = float((salient.sum(0) * torch.linspace(-1, 1, width)).sum() / salient.sum())
    return {
        "prominence": inside - outside,
        "subject size": salient_box(saliency).share(width, height),
        "subject whole": 1 - float(rim.mean()),
        "balance": 1 - abs(centre),
        "subject sharpness": sharpness(grey, salient),
    }


def judged(judgement: Judgement, words: PictureWords) -> dict[str, float]:
    """Chances of the judge that nothing is broken, that people like it, that there are people in it, and that these
    are built as they should be. (Its maps of faces and hands do not tell whether there are any: not used.)"""
    worst = judgement.faults[0].mean(0).flatten().topk(max(judgement.faults[0, 0].numel() // 20, 1)).values.mean()
    chances = dict(zip(JUDGED_SCORES, torch.sigmoid(judgement.scores[0].mean(0)).tolist(), strict=True))
    return {
        "unbroken": float(torch.sigmoid(-worst)),
        "appeal": chances["aesthetics"],
        "people": noun_chance(judgement, words, "person"),
        "people right": chances["plausibility"],
    }


def noun_chance(judgement: Judgement, words: PictureWords, noun: str) -> float:
    """Chance in [0, 1] that a noun of the vocabulary is shown."""
    whole, best, _ = words.similarities(judgement)
    pair = torch.stack([whole[0, words.index[noun]], best[0, words.index[noun]]])
    features = torch.cat([pair, -(pair.clamp(max=0) ** 2)])
    return float(torch.sigmoid(words.logit(Term("noun", noun, (0,)), features)))


def _thinned(values: Tensor, most: int = 100_000) -> Tensor:
    """At most so many of the values, evenly taken: quantiles of more are refused by torch."""
    flat = values.flatten()
    return flat[:: max(len(flat) // most, 1)]
